"""The calls on jobs: send data to train on, see what became of it, cancel it."""

import re
from threading import BoundedSemaphore
from typing import Any

from flask import Blueprint, Response, abort, request, url_for
from flask.typing import ResponseReturnValue

from retrain_api import settings
from retrain_api.routes import views
from retrain_api.routes.job_form import parse_job_form
from retrain_api.services import services

uploads = BoundedSemaphore(settings.MAX_UPLOADS)
jobs = Blueprint("jobs", __name__)


@jobs.post("/jobs")
def create() -> ResponseReturnValue:
    key = idempotency_key()
    job_id = services().jobs.id_of_key(key) or receive(key)
    return one(job_id), 202, {"Location": url_for("jobs.one", job_id=job_id)}


@jobs.get("/jobs")
def newest() -> ResponseReturnValue:
    limit = request.args.get("limit", "20")
    if not re.fullmatch(r"[1-9]\d{0,3}", limit, re.ASCII):
        abort(400, "limit must be 1 to 9999: GET /jobs?limit=100")
    found = services().jobs.newest(int(limit))
    return views.as_json(views.JobList([views.summarize(job) for job in found]))


@jobs.get("/jobs/<job_id>")
def one(job_id: str) -> dict[str, Any]:
    return views.as_json(views.describe(services().jobs.get(job_id), services().versions))


@jobs.get("/jobs/<job_id>/log")
def log(job_id: str) -> ResponseReturnValue:
    return Response(services().jobs.log(job_id), content_type="text/plain; charset=utf-8")


@jobs.delete("/jobs/<job_id>")
def cancel(job_id: str) -> ResponseReturnValue:
    services().jobs.cancel(job_id)
    return one(job_id)


def receive(key: str | None) -> str:
    """Read the form, create the job, and return its id."""
    if not uploads.acquire(blocking=False):
        abort(429, "too many uploads at once; send this again in some seconds")
    try:
        return services().jobs.create(parse_job_form(services().jobs.incoming), key)
    finally:
        uploads.release()
        services().scheduler.wake.set()


def idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(r"[!-~]{1,200}", key):
        abort(400, "an Idempotency-Key has 1 to 200 letters, digits or signs, and no spaces")
    return key
