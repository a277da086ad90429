"""Rows for `drift` without a broker, and a stand-in for retrain_api with the calls it makes."""

import random
from collections.abc import Iterator

from common.messages import HistoryRow, JoinedRow
from common.worker_api import Refusal, ReplicaStatus
from drift.api_client import CurrentVersion, HoldOutErrors, Job, RejectedError, VersionReport
from drift.controller import Controller
from drift.monitor import Decision, Monitor
from drift.state import DriftCase, MonitorState, State


def errors(mean: float, count: int, seed: int = 0) -> list[float]:
    """Return absolute errors that are spread as those of the diabetes data are."""
    draw = random.Random(f"{mean} {count} {seed}")
    return [abs(draw.gauss(0, mean / 0.8)) for _ in range(count)]


def rows(values: list[float], version: int | None = 0, start: int = 0) -> Iterator[JoinedRow]:
    """Yield rows with these errors, whose ids count from `start`."""
    for row_id, error in enumerate(values, start):
        yield JoinedRow(row_id, 0.0, 0.0, error, version)


class MonitoredRows:
    """Rows with new ids for a Monitor, and what it decided so far."""

    def __init__(self) -> None:
        self.monitor, self.decisions, self.next_id = Monitor(MonitorState()), [], 0

    def send(self, values: list[float], version: int | None = 0) -> None:
        for row in rows(values, version, self.next_id):
            self.decisions += self.monitor.observe(row)
        self.next_id += len(values)

    def switch_version(self, version: int, hold_out_error: float | None = None) -> None:
        self.decisions += self.monitor.switch_version(version, hold_out_error)

    def found(self, *kinds: type) -> list[Decision]:
        """Return the decisions of these kinds, or all of them."""
        return [each for each in self.decisions if not kinds or isinstance(each, kinds)]


class ControlledRows:
    """Rows with new ids for a Controller, whose API is a FakeApi."""

    def __init__(self, state: State | None = None, next_id: int = 0) -> None:
        self.api, self.next_id, self.replays = FakeApi(), next_id, []
        self.history: list[HistoryRow] | None = None  # None: it has all rows
        self.controller = Controller(state or State(), self.api, self.replay)

    def replay(self, case: DriftCase) -> list[HistoryRow]:
        self.replays.append(case)
        if self.history is not None:
            return self.history
        return [HistoryRow(row_id, [0.5] * 10, 1.0) for row_id in case.row_ids]

    def send(self, values: list[float], version: int | None = 0) -> None:
        for row in rows(values, version, self.next_id):
            self.controller.process_row(row)
        self.next_id += len(values)

    def act(self, times: int = 1) -> None:
        for _ in range(times):
            self.controller.act()

    @property
    def state(self) -> State:
        return self.controller.state

    def events(self) -> list[str]:
        return [event.event for event in self.state.events]


class FakeApi:
    """The calls of drift.api_client.ApiClient; the other methods are what users and workers do.

    test_api_client.py holds it and the real one to the same contract.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.keys: dict[str, str] = {}
        self.reports = {0: VersionReport()}
        self.replicas: dict[str, ReplicaStatus] = {}
        self.version, self.is_down, self.rejects_jobs = 0, False, False

    def submit(self, key: str, table: bytes) -> Job:
        self._check_connection()
        if self.rejects_jobs or len(table.splitlines()) < 2:
            raise RejectedError("the table has no rows")
        if key not in self.keys:
            job_id = self.keys[key] = f"job-{len(self.jobs) + 1}"
            self.jobs[job_id] = Job(job_id, "queued")
        return self.jobs[self.keys[key]]

    def job(self, job_id: str) -> Job:
        self._check_connection()
        if job_id not in self.jobs:
            raise RejectedError(f"there is no job {job_id}")
        return self.jobs[job_id]

    def current(self) -> CurrentVersion:
        self._check_connection()
        return CurrentVersion(self.version, self.reports[self.version], self.replicas)

    def deploy(self, version: int) -> None:
        self._check_connection()
        if version not in self.reports:
            raise RejectedError(f"there is no version {version}")
        self.version = version

    def finish(self, job_id: str, deployed: bool = True, error: float = 40.0) -> int:
        """Let a job succeed with this error on its hold-out; return its version."""
        version = max(self.reports) + 1
        self.reports[version] = report = VersionReport(job_id, HoldOutErrors(error), deployed)
        self.jobs[job_id] = Job(job_id, "succeeded", "so it is", version, report)
        if deployed:
            self.version = version
        return version

    def fail(self, job_id: str) -> None:
        self.jobs[job_id] = Job(job_id, "failed", "so it is")

    def cancel(self, job_id: str) -> None:
        self.jobs[job_id] = Job(job_id, "cancelled", "cancelled on request")

    def refuse(self, version: int, reason: str) -> None:
        """Let one of two replicas of `model` refuse to serve a version."""
        self.replicas = {"a": ReplicaStatus(0), "b": ReplicaStatus(0, Refusal(version, reason))}

    def _check_connection(self) -> None:
        if self.is_down:
            raise OSError("connection refused")
