"""The calls of the workers, who alone know the secret: claim, inputs, progress, result."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from flask import Blueprint, Response, abort, request
from flask.typing import ResponseReturnValue

from common.worker_api import Assignment, ClaimRequest, FailureReport, ProgressReport
from retrain_api import settings
from retrain_api.ingest.upload import current_upload
from retrain_api.jobs.records import JobRecord
from retrain_api.routes.access import admit_worker
from retrain_api.routes.decoding import decode
from retrain_api.routes.result_form import parse_result_form
from retrain_api.routes.views import as_json
from retrain_api.services import services
from retrain_api.storage.disk import BLOCK_BYTES

ATTEMPT = "<int(max=999999999):attempt>"
T = TypeVar("T")

worker = Blueprint("worker", __name__, url_prefix="/worker/jobs/<job_id>")
worker.before_request(admit_worker)


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a call without any fields."""


@worker.post("/claim")
def claim(job_id: str) -> ResponseReturnValue:
    return assignment(services().leases.claim(job_id, body(ClaimRequest).worker))


@worker.post(f"/{ATTEMPT}/adopt")
def adopt(job_id: str, attempt: int) -> ResponseReturnValue:
    return assignment(services().leases.adopt(job_id, attempt, body(ClaimRequest).worker))


@worker.get(f"/{ATTEMPT}/inputs/<name>")
def inputs(job_id: str, attempt: int, name: str) -> ResponseReturnValue:
    services().leases.check(job_id, attempt)
    path = services().jobs.inputs(job_id).get(name)
    if path is None:
        abort(404, f"job {job_id} has no input {name!r}")
    blocks = read_blocks(path, job_id, attempt)
    length = {"Content-Length": str(path.stat().st_size)}
    return Response(blocks, headers=length, content_type="application/octet-stream")


@worker.put(f"/{ATTEMPT}/progress")
def progress(job_id: str, attempt: int) -> ResponseReturnValue:
    report = body(ProgressReport)
    services().leases.record_progress(job_id, attempt, report.epochs, report.containers)
    if report.log is not None:
        services().jobs.write_log(job_id, report.log)
    return {}


@worker.post(f"/{ATTEMPT}/failed")
def failed(job_id: str, attempt: int) -> ResponseReturnValue:
    report = body(FailureReport)
    if report.retry:
        services().leases.lose(job_id, attempt, report.reason)
        services().scheduler.wake.set()
    else:
        services().leases.fail(job_id, attempt, report.reason)
    return {}


@worker.post(f"/{ATTEMPT}/release")
def release(job_id: str, attempt: int) -> ResponseReturnValue:
    body(EmptyBody)
    services().leases.release(job_id, attempt)
    services().scheduler.wake.set()
    return {}


@worker.post(f"/{ATTEMPT}/result")
def result(job_id: str, attempt: int) -> ResponseReturnValue:
    results, upload = services().results, current_upload()
    if stored := results.find(job_id, attempt):
        return as_json(stored)
    job = services().leases.check(job_id, attempt).job
    upload.on_progress = partial(services().leases.renew, job_id, attempt)
    upload.reserve = settings.MIN_FREE_BYTES // 10  # the reserve is there for this
    report, files = parse_result_form(len(job.columns))
    try:
        return as_json(results.add(job, attempt, report, files))
    finally:
        services().scheduler.wake.set()


def body(kind: type[T]) -> T:
    """Return the body of the request as a struct; 400 if it is not one."""
    try:
        return decode(request.get_data() or b"{}", kind)
    except ValueError as error:
        abort(400, str(error))


def assignment(job: JobRecord) -> ResponseReturnValue:
    sizes = {name: path.stat().st_size for name, path in services().jobs.inputs(job.id).items()}
    return as_json(Assignment(job.attempt, as_json(job.job), sizes))


def read_blocks(path: Path, job_id: str, attempt: int) -> Iterator[bytes]:
    """Return the blocks of a file; reading them renews the lease."""
    leases = services().leases  # here: the blocks are read outside of the request

    def blocks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                leases.renew(job_id, attempt)
                yield block

    return blocks()
