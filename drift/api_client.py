"""The calls of retrain_api that `drift` makes, and the CSV that it sends there.

`drift` has no more rights than any other client.

    POST API_URL/jobs                     a CSV of rows, with an Idempotency-Key
    GET  API_URL/jobs/ID                  until the job has ended
    GET  API_URL/models/current           when rows come from an unseen version
    POST API_URL/models/VERSION/deploy    back to a predecessor

Errors are RejectedError, or OSErrors, which pass: an API that is down, restarting, or overloaded.
"""

import csv
import io
from statistics import mode
from typing import Any, TypeVar

import msgspec

from common.http import api_session
from common.lifecycle import check_stop
from common.messages import INVALID, HistoryRow, Name
from common.worker_api import ReplicaStatus

HTTP_SECONDS = (2, 5)  # to connect; between two bytes: a stop waits for the call in flight
REJECTED = (400, 404, 409, 413, 415)  # the same request would be rejected again

Answer = TypeVar("Answer")


class HoldOutErrors(msgspec.Struct):
    challenger: float | None = None


class VersionReport(msgspec.Struct):
    """What the API reports of a version, as far as it is used here."""

    job: str | None = None
    mae: HoldOutErrors | None = None
    deployed: bool | None = None


class CurrentVersion(msgspec.Struct):
    version: int
    report: VersionReport
    replicas: dict[str, ReplicaStatus] = {}

    def refusal(self) -> str | None:
        """Return why a replica of `model` refuses to serve this version; None if none does."""
        refusals = [replica.refused for replica in self.replicas.values() if replica.refused]
        return next((each.reason for each in refusals if each.version == self.version), None)


class Job(msgspec.Struct):
    id: Name
    state: str
    reason: str | None = None
    version: int | None = None
    report: VersionReport | None = None

    @property
    def has_ended(self) -> bool:
        return self.state not in ("queued", "running")

    @property
    def is_deployed(self) -> bool:
        return bool(self.report and self.report.deployed)


class RejectedError(Exception):
    """The API rejects a request and says why; to repeat it would not help."""


def equally_wide(rows: list[HistoryRow]) -> list[HistoryRow]:
    """Return the rows that have the most frequent number of columns."""
    width = mode(len(row.body) for row in rows) if rows else 0
    return [row for row in rows if len(row.body) == width]


def to_csv(rows: list[HistoryRow]) -> bytes:
    """Return equally wide rows, at least one, with a header; the last column is the target."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*(f"x{number}" for number in range(1, len(rows[0].body) + 1)), "y_true"])
    writer.writerows([*row.body, row.y_true] for row in rows)
    return text.getvalue().encode()


class ApiClient:
    """The API over HTTP; each call raises RejectedError or OSError.

    A stop request ends the process before a call, not in it.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url, self._session = url, api_session(token)

    def submit(self, key: str, table: bytes) -> Job:
        """Submit a job that trains on a CSV; the same key returns the first job."""
        files, headers = {"data": ("since_the_change.csv", table)}, {"Idempotency-Key": key}
        return self._call(Job, "POST", "/jobs", files=files, headers=headers)

    def job(self, job_id: str) -> Job:
        return self._call(Job, "GET", f"/jobs/{job_id}")

    def current(self) -> CurrentVersion:
        return self._call(CurrentVersion, "GET", "/models/current")

    def deploy(self, version: int) -> None:
        self._call(dict, "POST", f"/models/{version}/deploy")

    def _call(self, kind: type[Answer], method: str, path: str, **options: Any) -> Answer:
        check_stop()
        answer = self._session.request(method, self._url + path, timeout=HTTP_SECONDS, **options)
        if answer.status_code in REJECTED:
            raise RejectedError(answer.text.strip())
        answer.raise_for_status()
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except INVALID as error:
            raise OSError(f"the API's answer has another form: {error}") from None
