"""The calls of the workers, who alone know the secret: claim, inputs, progress, result."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
from flask import Blueprint, Response, abort, request
from flask.typing import ResponseReturnValue

from common.worker_api import Assignment, ClaimRequest, FailureReport, ProgressReport, ResultReport
from retrain_api import settings
from retrain_api.ingest.upload import UploadRequest
from retrain_api.jobs.records import JobRecord
from retrain_api.registry.results import Files
from retrain_api.routes.access import admit_worker
from retrain_api.routes.decoding import T, check_golden, check_model_file, decode
from retrain_api.routes.views import as_json
from retrain_api.services import services
from retrain_api.storage.disk import BLOCK_BYTES

ATTEMPT = "<int(max=999999999):attempt>"
RESULT_FILES = ("model.keras", "model.tflite", "golden.json")
REQUIRED_FILES = {"model.keras", "golden.json"}

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
    blocks = read_blocks(path, partial(services().leases.renew, job_id, attempt))
    length = {"Content-Length": str(path.stat().st_size)}
    return Response(blocks, headers=length, content_type="application/octet-stream")


@worker.put(f"/{ATTEMPT}/progress")
def progress(job_id: str, attempt: int) -> ResponseReturnValue:
    report = body(ProgressReport)
    services().leases.record_progress(job_id, attempt, report)
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
    results, upload = services().results, cast(UploadRequest, request)
    if stored := results.find(job_id, attempt):
        return as_json(stored)
    record = services().leases.check(job_id, attempt)
    upload.on_progress = partial(services().leases.renew, job_id, attempt)
    upload.reserve = settings.MIN_FREE_BYTES // 10  # the reserve is there for this
    report, files = parse_result(len(record.job.columns))
    try:
        return as_json(results.add(record, report, files))
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


def read_blocks(path: Path, renew_lease: Callable[[], None]) -> Iterator[bytes]:
    """Yield the blocks of a file; reading them renews the lease."""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            renew_lease()
            yield block


def parse_result(columns: int) -> tuple[ResultReport, Files]:
    """Return the report and the files of a model of `columns` columns; abort with 400."""
    files = {name: file.stream for name, file in request.files.items()}
    unknown = set(files) - set(RESULT_FILES) or set(request.form) - {"report"}
    if unknown or "report" not in request.form or not set(files) >= REQUIRED_FILES:
        abort(400, f"send the field report and the files {', '.join(RESULT_FILES)}")
    try:
        report = decode(request.form["report"], ResultReport)
        for name in set(files) - {"golden.json"}:
            check_model_file(name, files[name])
        check_golden(files["golden.json"], columns)
    except ValueError as error:
        abort(400, f"the result is refused: {error}")
    return report, files
