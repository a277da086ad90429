"""HTTP calls of the worker to retrain_api; `common.worker_api` has their bodies.

    claim, adopt ──▶ an assignment: one attempt at one job
    renew_lease, progress ──▶ keep the attempt; StaleAttemptError if it is over
    result, failed, release ──▶ how it ended

The API may be away for minutes while a container trains. Each call may be repeated, so a call
whose answer is needed is repeated until it is there. A report of progress is left out instead.
Every wait ends on a stop request with StopRequested.
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import requests
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_delay, wait_fixed

from common import lifecycle
from common.http import api_session
from common.worker_api import Assignment, ClaimRequest, FailureReport, ProgressReport
from retrain_worker.api_errors import (
    ApiUnavailableError,
    ForeignAttemptError,
    RejectedError,
    StaleAttemptError,
    accept,
    error_of,
    field_of,
)
from retrain_worker.multipart import Multipart
from retrain_worker.runners.protocol import FileStream
from retrain_worker.settings import API_URL, WORKER_NAME, WORKER_SECRET_FILE

PATIENCE_SECONDS = 600  # then the attempt fails, and the job is queued again
SECRET_SECONDS = 30  # the API, which writes the secret, may start later than the worker
# To connect and to send, and to wait for an answer. An orderly stop waits for both, removes a
# container, releases the job, and all of it within the 20 s that Compose grants.
TIMEOUT_SECONDS = (3.0, 10.0)
# The API stores a result before it answers. A stop may be too late then, but the job is done.
RESULT_TIMEOUT_SECONDS = (5.0, 45.0)  # below WATCHDOG_SECONDS
REPORT_TIMEOUT_SECONDS = (3.0, 3.0)  # a cancelled container has to end within 5 s
RENEWAL_SECONDS = 1  # between two renewals of a lease
CHUNK_BYTES = 1 << 18
CLAIM = msgspec.json.encode(ClaimRequest(WORKER_NAME))

log = logging.getLogger("retrain_worker")


def read_secret() -> str:
    """Return the secret that the API writes for its workers when it starts."""
    path, end = Path(WORKER_SECRET_FILE), time.monotonic() + SECRET_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise SystemExit(f"{WORKER_SECRET_FILE} is not there: the API makes it")
        lifecycle.wait(1)
        lifecycle.check_stop()
    return path.read_text().strip()


def _log_attempt(state: RetryCallState) -> None:
    log.info("waiting for the API: %s", state.outcome.exception() if state.outcome else "")


def _give_up(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    raise RejectedError(f"no answer for {PATIENCE_SECONDS} s: {error}", retry=True) from error


class ApiClient:
    def __init__(self) -> None:
        secret = read_secret()
        self.session = api_session(secret)
        # A name of this API: others may have jobs on the same engine.
        self.fingerprint = hashlib.sha256(f"Bearer {secret}".encode()).hexdigest()[:12]
        self.reported_at = 0.0

    def wait_until_up(self) -> None:
        self._patiently("GET", "/models/current")

    def is_up(self) -> bool:
        try:
            return self._once("GET", "/models/current", timeout=REPORT_TIMEOUT_SECONDS).ok
        except ApiUnavailableError:
            return False

    def claim(self, job: str) -> Assignment | None:
        """Claim a job; return None if that is not possible, at least now.

        The API sends a job again that is not claimed. Raise ApiUnavailableError.
        """
        answer = self._once("POST", f"/worker/jobs/{job}/claim", data=CLAIM)
        if answer.status_code >= 500:
            log.info("job %s cannot be claimed now: %s", job, error_of(answer))
            return None
        if answer.status_code in (404, 409):
            return None
        return msgspec.json.decode(accept(answer).content, type=Assignment)

    def adopt(self, job: str, attempt: int) -> Assignment:
        """Return an attempt of an earlier life of this worker, to go on with it.

        Raise StaleAttemptError or ForeignAttemptError if that is not possible.
        """
        answer = self._patiently("POST", f"/worker/jobs/{job}/{attempt}/adopt", data=CLAIM)
        if answer.status_code == 423:
            raise ForeignAttemptError(error_of(answer))
        return msgspec.json.decode(accept(answer).content, type=Assignment)

    def progress(self, assignment: Assignment, report: ProgressReport) -> bool:
        """Report progress, which renews the lease; return whether the report arrived.

        The job goes on without the API. Raise StaleAttemptError if the attempt is over.
        """
        self.reported_at = time.monotonic()
        path, body = f"{path_of(assignment)}/progress", msgspec.json.encode(report)
        try:
            answer = self._once("PUT", path, data=body, timeout=REPORT_TIMEOUT_SECONDS)
        except ApiUnavailableError as error:
            log.info("the API is away, the job goes on: %s", error)
            return False
        if answer.status_code in (404, 409):
            raise StaleAttemptError(error_of(answer))
        return answer.ok

    def renew_lease(self, assignment: Assignment) -> None:
        """Renew the lease if that is due; raise StopRequested on a stop request."""
        lifecycle.check_stop()
        lifecycle.report_liveness()
        if time.monotonic() - self.reported_at > RENEWAL_SECONDS:
            self.progress(assignment, ProgressReport())

    def input_file(self, assignment: Assignment, name: str) -> FileStream:
        """Open an input; reading it renews the lease."""
        return self._open(assignment, f"{path_of(assignment)}/inputs/{name}")

    def current_version(self) -> int:
        """Return the version that serves."""
        return int(accept(self._patiently("GET", "/models/current")).json()["version"])

    def version_file(self, assignment: Assignment, version: int) -> FileStream:
        """Open the model.tflite of a version."""
        try:
            return self._open(assignment, f"/models/{version}/model.tflite")
        except StaleAttemptError as error:  # the version was deleted, the attempt is not over
            raise RejectedError(str(error), retry=True) from error

    def result(self, assignment: Assignment, form: Multipart) -> int | None:
        """Deliver a result.

        Return None, or the version to compare with first, if another one serves by now.
        """
        content = {"data": form, "headers": {"Content-Type": form.content_type}}
        path, timeout = f"{path_of(assignment)}/result", RESULT_TIMEOUT_SECONDS
        answer = self._patiently("POST", path, timeout=timeout, **content)
        version = field_of(answer, "compare_with")
        if answer.status_code == 409 and version is not None:
            return int(version)
        log.info("job %s: %s", assignment.id, accept(answer).json())
        return None

    def failed(self, assignment: Assignment, reason: str, retry: bool) -> None:
        body = msgspec.json.encode(FailureReport(reason, retry))
        self._patiently("POST", f"{path_of(assignment)}/failed", data=body)

    def release(self, assignment: Assignment) -> None:
        """Put the job back into the queue. One try: the worker is about to end."""
        path = f"{path_of(assignment)}/release"
        try:
            self._once("POST", path, data=b"{}", timeout=REPORT_TIMEOUT_SECONDS)
        except ApiUnavailableError as error:
            log.info("the lease has to run out: %s", error)

    def _open(self, assignment: Assignment, path: str) -> FileStream:
        answer = accept(self._patiently("GET", path, stream=True))
        return FileStream(int(answer.headers["Content-Length"]), self._chunks(assignment, answer))

    def _chunks(self, assignment: Assignment, answer: requests.Response) -> Iterator[bytes]:
        try:
            with answer:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    self.renew_lease(assignment)
                    yield chunk
        except requests.RequestException as error:
            raise RejectedError(f"a file broke off: {error}", retry=True) from error

    def _once(self, method: str, path: str, **content: Any) -> requests.Response:
        """Make a call. Raise ApiUnavailableError if there is no answer."""
        lifecycle.report_liveness()
        content = {"timeout": TIMEOUT_SECONDS} | content
        try:
            answer = self.session.request(method, API_URL + path, **content)
        except requests.RequestException as error:
            raise ApiUnavailableError(str(error)[:200]) from error
        finally:
            if isinstance(content.get("data"), Multipart):
                content["data"].close()
        if answer.status_code == 401:
            raise SystemExit(f"the API does not know the secret in {WORKER_SECRET_FILE}")
        return answer

    @retry(
        retry=retry_if_exception_type(ApiUnavailableError),
        stop=stop_after_delay(PATIENCE_SECONDS),
        wait=wait_fixed(1),
        sleep=lifecycle.wait,
        before_sleep=_log_attempt,
        retry_error_callback=_give_up,
    )
    def _patiently(self, method: str, path: str, **content: Any) -> requests.Response:
        """Repeat a call until the API answers; raise RejectedError after PATIENCE_SECONDS."""
        lifecycle.check_stop()
        answer = self._once(method, path, **content)
        if answer.status_code >= 500:
            raise ApiUnavailableError(error_of(answer))
        return answer


def path_of(assignment: Assignment) -> str:
    return f"/worker/jobs/{assignment.id}/{assignment.attempt}"
