"""GET /healthz: the broker, the disk, and the jobs that wait."""

from flask import Blueprint
from flask.typing import ResponseReturnValue

from common.files import free_bytes
from retrain_api import settings
from retrain_api.jobs import publishing
from retrain_api.routes.views import Health, as_json
from retrain_api.services import services

health = Blueprint("health", __name__)


@health.get("/healthz")
def healthz() -> ResponseReturnValue:
    jobs = services().jobs
    free, broker = free_bytes(jobs.folder), publishing.is_reachable()
    ok = broker and free > settings.MIN_FREE_BYTES
    status = Health(ok, broker, free, jobs.count("queued"), jobs.count("running"))
    return as_json(status), 200 if ok else 503
