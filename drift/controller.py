"""Act on the monitor's decisions: have a new model trained, and roll back a version that is worse.

    Controller.process   a row ──▶ monitor ──▶ decisions ──▶ cases of drift, a rollback, events
    Controller.act       roll back ──▶ switch version ──▶ follow the job ──▶ submit a job

The controller alone writes the State, the cases through cases.py, but for the monitor's part of it.
The state is saved before `act`, and each step is harmless when it is done twice, so a kill at any
point costs nothing. An OSError, such as of an API that is down, ends `act`; the steps are tried
again without end.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from common.messages import (
    INVALID,
    MAX_TEXT_CHARACTERS,
    DriftEvent,
    HistoryRow,
    Id,
    JoinedRow,
    decode_joined_row,
)
from drift import monitor
from drift.api_client import ApiClient, Job, RejectedError, VersionReport, equally_wide, to_csv
from drift.cases import Cases
from drift.settings import DRIFT_MIN_ROWS
from drift.state import Collecting, DriftCase, Rollback, State, Training

MAX_IDS = 2000  # that are remembered; `metric` repeats its last batch after a crash
MAX_JOBS = 20  # of ours that are remembered
RETRY_SECONDS = 5  # after an OSError
REPLAY_PAUSE_SECONDS = 60  # after a replay that found too few rows

log = logging.getLogger("drift")


class Controller:
    """The state, what a row changes in it, and the steps that follow.

    `replay` returns the rows of a case, as far as `history` has them.
    """

    def __init__(
        self, state: State, api: ApiClient, replay: Callable[[DriftCase], list[HistoryRow]]
    ) -> None:
        self.state, self.api, self.replay = state, api, replay
        self.monitor = monitor.Monitor(state.monitor)
        self.cases = Cases(state, self._add_event)
        self.unseen_version: int | None = None
        self.next_replay = 0.0  # on the monotonic clock, as is _retry_at
        self._retry_at, self._problem = 0.0, ""
        self._known_ids = set(state.recent_ids)
        self._apply(self.monitor.restart(state.monitor.errors))

    def process(self, offset: int, body: bytes) -> None:
        """Process the next message of `errors`; log one that is not a row."""
        try:
            row = decode_joined_row(body)
        except INVALID as error:
            log.warning("offset %d of `errors` is not a row: %s", offset, error)
        else:
            self.process_row(row)
        self.state.offset = offset + 1

    def process_row(self, row: JoinedRow) -> None:
        """Process the next row; ignore one that came before."""
        row_id = str(row.id)
        if row_id in self._known_ids:
            return
        self._known_ids.add(row_id)
        self.state.recent_ids.append(row_id)
        if len(self.state.recent_ids) > MAX_IDS:
            self._known_ids.remove(self.state.recent_ids.pop(0))
        self.cases.collect(row_id)
        self._apply(self.monitor.observe(row))

    def reset_stream(self) -> None:
        """Continue with the first row of a new stream `errors`; drop the data of the old one."""
        self.state.offset = 0
        self.state.cases.clear()
        self.monitor.restart([])

    def events_published(self) -> None:
        self.state.events.clear()

    def act(self) -> None:
        """Take the steps that can be taken now."""
        if time.monotonic() < self._retry_at:
            return
        try:
            self._roll_back()
            self._check_unseen_version()
            self._follow_job()
            self._submit_job()
            self._problem = ""
        except OSError as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if str(error) != self._problem:
                log.warning("%s; trying again", error)
            self._problem = str(error)

    def _apply(self, decisions: list[monitor.Decision]) -> None:
        for decision in decisions:
            match decision:
                case monitor.ErrorChanged():
                    self.cases.error_changed(decision)
                case monitor.HoldOutErrorExceeded():
                    self.cases.hold_out_error_exceeded(decision)
                case Rollback():
                    self.state.rollback = decision
                case monitor.Confirmed(reason):
                    self._add_event("confirmed", f"version {self._version} stays: {reason}")
                case monitor.Inconclusive(reason):
                    self._add_event("inconclusive", f"version {self._version} stays: {reason}")
                case monitor.UnseenVersion(version):
                    self.unseen_version = version

    def _roll_back(self) -> None:
        """Deploy the predecessor if the version that is worse is still current."""
        rollback = self.state.rollback
        if rollback is None or rollback.state != "pending":
            return
        version, predecessor = rollback.version, rollback.to_version
        try:
            current = self.api.current().version
            if current == version:
                self.api.deploy(predecessor)
        except RejectedError as error:
            log.warning("version %d stays: %s", version, error)
            self.state.rollback = None
            return
        if current in (version, predecessor):  # the second one: done before a kill
            rollback.state = "awaiting_rows"
            text = f"version {version} is rolled back, {predecessor} serves again"
            self._add_event("rolled_back", f"{text}: {rollback.reason}")
        else:
            self.state.rollback = None

    def _check_unseen_version(self) -> None:
        """Monitor the version that predicted a row, if it is the current one."""
        if self.unseen_version is None:
            return
        current = self.api.current()
        if current.version == self.unseen_version:
            self._switch_version(current.version, self._hold_out_error(current.report))
        self.unseen_version = None

    def _hold_out_error(self, report: VersionReport) -> float | None:
        """Return the error of a version on its hold-out, if one of our jobs trained it."""
        return report.mae.challenger if report.mae and report.job in self.state.jobs else None

    def _switch_version(self, version: int, hold_out_error: float | None) -> None:
        """Monitor another version; one that is deployed again continues where it was."""
        rollback, old = self.state.rollback, self._version
        back = rollback and rollback.state == "awaiting_rows" and rollback.to_version == version
        errors = rollback.errors if rollback and back else None
        decisions = self.monitor.switch_version(version, hold_out_error, errors)
        self.state.rollback = None
        self._add_event("deployed", f"version {version} has replaced version {old}")
        self._apply(decisions)

    def _follow_job(self) -> None:
        """Look whether the job of the first case has ended, and how."""
        case = self.cases.first
        if case is None or not isinstance(case.phase, Training):
            return
        job_id = case.phase.job
        try:
            job = self.api.job(job_id)
        except RejectedError as error:  # the API has lost its data
            job = Job(job_id, "failed", str(error))
        if job.has_ended and job.is_deployed:
            self._await_version(case, job)
        elif job.has_ended:
            event = "not_promoted" if job.state == "succeeded" else job.state
            self._add_event(event, f"job {job.id}: {job.reason}", job=job.id)
            self.cases.end_attempt(case, done=job.state == "cancelled")

    def _await_version(self, case: DriftCase, job: Job) -> None:
        """End the attempt once rows come from the job's version, or will not come."""
        if job.version != self._version:
            current = self.api.current()
            if current.version == job.version:  # else another version was deployed since
                self.monitor.end_trial()  # of a version that is being replaced
                if reason := current.refusal():
                    text = f"job {job.id}: `model` refuses version {job.version}: {reason}"
                    self._add_event("failed", text, job=job.id)
                    self.cases.end_attempt(case, done=False)
                return
        self.cases.end_attempt(case, done=True)

    def _submit_job(self) -> None:
        """Submit a job for the first case if it has enough rows and there is no pause."""
        case = self.cases.first
        if case is None or not isinstance(case.phase, Collecting):
            return
        paused = self.cases.is_cooling_down() or time.monotonic() < self.next_replay
        if paused or not self.cases.has_enough_rows(case, case.phase):
            return
        rows = equally_wide(self.replay(case))
        if len(rows) < DRIFT_MIN_ROWS:
            wanted = len(case.row_ids)
            log.warning("`history` has %d of %d rows; waiting for more", len(rows), wanted)
            self.cases.collect_twice_the_rows(case)
            self.next_replay = time.monotonic() + REPLAY_PAUSE_SECONDS
            return
        self._submit(case, rows)

    def _submit(self, case: DriftCase, rows: list[HistoryRow]) -> None:
        try:
            job = self.api.submit(f"{case.key}-{case.attempt}", to_csv(rows))
        except RejectedError as error:
            self._add_event("refused", f"the API rejects {len(rows)} rows: {error}")
            self.cases.end_attempt(case, done=False)
            return
        case.phase = Training(job.id)
        self.state.jobs = [*self.state.jobs, job.id][-MAX_JOBS:]
        text = f"job {job.id} trains on {len(rows)} rows that came since the change"
        self._add_event("job_submitted", text, job=job.id)

    @property
    def _version(self) -> int | None:
        return self.monitor.state.version

    def _add_event(
        self, event: str, text: str, row_id: Id | None = None, job: str | None = None
    ) -> None:
        at, text = datetime.now(UTC).isoformat(timespec="milliseconds"), text[:MAX_TEXT_CHARACTERS]
        self.state.events.append(DriftEvent(at, event, row_id, self._version, job, text))
        log.info("%s: %s", event, text)
