"""The state of `drift`: plain data, written to logs/drift.json as it is declared here.

    State ──┬── monitor    MonitorState, changed by monitor.py alone
            └── the rest   changed by controller.py alone

    a case of drift   collecting ──▶ training ──▶ gone; collecting again after a failed attempt
    a rollback        pending ──▶ awaiting_rows ──▶ gone

A change of a field needs a new FORMAT, and a migration of the old one (migration.py).
"""

from typing import Literal

import msgspec

from common.messages import DriftEvent

FORMAT = 2  # files without a number are of format 1


class Trial(msgspec.Struct):
    """The first rows of a version, which are compared with its predecessor's last ones."""

    predecessor: int
    predecessor_errors: list[float]
    hold_out_error: float | None  # None if none of our jobs trained the version
    errors: list[float] = []


class MonitorState(msgspec.Struct):
    version: int | None = None  # the monitored one
    errors: list[float] = []  # its newest, since it was deployed or its error changed
    trial: Trial | None = None


class Collecting(msgspec.Struct, tag_field="state", tag="collecting"):
    """Rows of the new kind are collected; with enough of them a job is submitted."""

    rows_needed: int


class Training(msgspec.Struct, tag_field="state", tag="training"):
    """A job has the rows. This ends with the first row that its version predicts, or without."""

    job: str


class DriftCase(msgspec.Struct):
    """A change of the data that a new model has to learn."""

    key: str  # made of the row before the detection: the same Idempotency-Key after a kill
    detected_at: float  # Unix time
    phase: Collecting | Training
    row_ids: list[str] = []  # in the order in which their errors came
    after_id: str | None = None  # the row of the detection: later ones on `history` are collected
    baseline_error: float | None = None  # before the rise, or on the hold-out
    attempt: int = 1


class Rollback(msgspec.Struct):
    """A version that is worse than its predecessor: decided by the monitor, then kept here.

    `awaiting_rows`: the predecessor is deployed again, and none of its rows has come yet.
    """

    version: int
    to_version: int
    errors: list[float]  # of `to_version`, before it was replaced
    reason: str
    state: Literal["pending", "awaiting_rows"] = "pending"


class State(msgspec.Struct):
    format: int = FORMAT
    offset: int | None = None  # of the next message on `errors`; None before the first one
    recent_ids: list[str] = []  # rows that were processed last
    monitor: MonitorState = msgspec.field(default_factory=MonitorState)
    cases: list[DriftCase] = []  # the first one is acted upon, the last one collects rows
    rollback: Rollback | None = None
    jobs: list[str] = []  # the newest ones of ours
    cooldown_until: float = 0.0  # Unix time, before which no job is submitted
    events: list[DriftEvent] = []  # not published yet
