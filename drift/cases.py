"""Cases of drift from the first rise to the end, without RabbitMQ and HTTP.

    a rise ──▶ collecting ──▶ training ──▶ closed
                  │  ▲           │
       recovered ◀┘  └───────────┘ a failed attempt: again, with twice the rows

A rise while a job trains opens another case, which collects rows meanwhile. The first case is acted
upon, the last one collects.
"""

import hashlib
import time
from collections.abc import Callable

from common.messages import Id
from drift.monitor import ErrorChanged, ErrorRose, HoldOutErrorExceeded
from drift.settings import DRIFT_COOLDOWN_SECONDS, DRIFT_MAX_ROWS, DRIFT_MIN_ROWS
from drift.state import Collecting, DriftCase, State

MAX_ATTEMPTS = 3  # of one case, each with twice the rows of the one before
RECOVERED_RATIO = 1.25  # of the error to the one before its rise: below it the rise is over


class Cases:
    """The one writer of `cases` and `cooldown_until`. `add_event(event, text, row_id)` reports."""

    def __init__(self, state: State, add_event: Callable[..., None]) -> None:
        self._state, self._add_event = state, add_event

    @property
    def first(self) -> DriftCase | None:
        return self._state.cases[0] if self._state.cases else None

    def collect(self, row_id: str) -> None:
        """Add a row to the last case, which keeps the newest DRIFT_MAX_ROWS."""
        if self._state.cases:
            row_ids = self._state.cases[-1].row_ids
            row_ids.append(row_id)
            del row_ids[:-DRIFT_MAX_ROWS]

    def error_changed(self, change: ErrorChanged) -> None:
        """Open a case at a rise; while one collects rows, close it or collect from here on."""
        last = self._state.cases[-1] if self._state.cases else None
        if last and isinstance(last.phase, Collecting):
            self._changed_while_collecting(last, change)
        elif isinstance(change, ErrorRose):
            before = change.baseline_error
            rise = f"rose from {before:.4g} to {change.error:.4g} over the last {change.rows} rows"
            self._open(change.row_id, rise, before)

    def hold_out_error_exceeded(self, decision: HoldOutErrorExceeded) -> None:
        """Open a case, unless another change is being learned."""
        if self._state.cases:
            return
        error, expected = decision.error, decision.hold_out_error
        text = f"is {error:.4g} over {decision.rows} rows, and {expected:.4g} on its hold-out"
        self._open(decision.row_id, text, expected)

    def end_attempt(self, case: DriftCase, done: bool) -> None:
        """Close the first case, or collect twice the rows for another attempt."""
        self._state.cooldown_until = time.time() + DRIFT_COOLDOWN_SECONDS
        if done or case.attempt >= MAX_ATTEMPTS or len(self._state.cases) > 1:
            self._state.cases.pop(0)
            if not done and not self._state.cases:
                text = f"after {case.attempt} jobs; only a further rise opens a case again"
                self._add_event("abandoned", text)
        else:
            case.attempt += 1
            self.collect_twice_the_rows(case)

    def collect_twice_the_rows(self, case: DriftCase) -> None:
        case.phase = Collecting(min(2 * len(case.row_ids), DRIFT_MAX_ROWS))

    def has_enough_rows(self, case: DriftCase, phase: Collecting) -> bool:
        return len(case.row_ids) >= min(phase.rows_needed, DRIFT_MAX_ROWS)

    def is_cooling_down(self) -> bool:
        """Return whether it is too early for the next job."""
        latest = time.time() + DRIFT_COOLDOWN_SECONDS  # if the clock was set back meanwhile
        self._state.cooldown_until = min(self._state.cooldown_until, latest)
        return time.time() < self._state.cooldown_until

    def _changed_while_collecting(self, case: DriftCase, change: ErrorChanged) -> None:
        before = case.baseline_error
        if before is not None and change.error < RECOVERED_RATIO * before:
            self._state.cases.pop()
            text = f"the error is {change.error:.4g} again, after {before:.4g} before the rise"
            self._add_event("recovered", text, change.row_id)
        else:
            case.row_ids.clear()
            case.after_id = None if change.row_id is None else str(change.row_id)

    def _open(self, row_id: Id | None, change: str, baseline_error: float) -> None:
        """Collect rows from now on. The change lies before this row; so may rows that come late."""
        key = hashlib.sha256(self._state.recent_ids[-1].encode()).hexdigest()[:24]
        case = DriftCase(f"drift-{key}", time.time(), Collecting(DRIFT_MIN_ROWS))
        case.after_id = None if row_id is None else str(row_id)
        case.baseline_error = baseline_error
        self._state.cases.append(case)
        error = f"the error of version {self._state.monitor.version} {change}"
        text = f"{error}: collecting {DRIFT_MIN_ROWS} rows from now on to train on"
        self._add_event("drift_detected", text, row_id)
