"""Monitor the errors of the version that serves: detect changes, and evaluate trials.

    rows of `errors`, in their order ──▶ Monitor.observe ──▶ decisions

ADWIN, from river, compares older and newer errors of one version. A new version is on trial for
its first rows: Yuen's t-test, from scipy, compares them with its predecessor's last rows, none of
which is older than the newest change. It is Welch's test without the largest and the smallest
errors, so that outliers decide nothing. A version of our own that errs far more on the stream than
on its hold-out was trained on data that is out of date by now.

Decisions depend on the rows alone. Nothing here knows RabbitMQ, HTTP, files or jobs: the
controller acts on decisions. A Monitor continues from its MonitorState, which may be saved between
any two rows.
"""

import logging
from statistics import fmean
from typing import Any

import msgspec
from river.drift import ADWIN
from scipy.stats import trim_mean, ttest_ind

from common.messages import Id, JoinedRow
from drift.settings import DRIFT_DELTA, DRIFT_TRIAL_ROWS
from drift.state import MonitorState, Rollback, Trial

LOOK_ROWS = 30  # between two evaluations of a trial
MIN_PREDECESSOR_ROWS = 5  # with fewer of them nothing is compared
SIGNIFICANCE = 0.001  # chance of one evaluation to call a version worse that is not
MAX_HOLD_OUT_RATIO = 1.5  # a hold-out has some 60 rows, whose error may be low by luck
MAX_WINDOW = 1000  # errors that are saved for the detector after a restart
MAX_ERROR = 1e30  # a larger error counts as this one: its squares and sums are finite
TRIMMED_SHARE = 0.04  # of the largest, and of the smallest, errors in a comparison

log = logging.getLogger("drift")


class ErrorChanged(msgspec.Struct):
    """The detector found a change.

    `row_id` is None if it did so while it read its saved errors again.
    """

    row_id: Id | None
    baseline_error: float  # mean before the change
    error: float  # mean of the newest rows
    rows: int  # how many these are


class ErrorRose(ErrorChanged):
    pass


class ErrorFell(ErrorChanged):
    pass


class HoldOutErrorExceeded(msgspec.Struct):
    """After its trial a version of our own errs far more than on its hold-out."""

    row_id: Id
    hold_out_error: float
    error: float
    rows: int


class Confirmed(msgspec.Struct):
    """A version has passed its trial."""

    reason: str


class Inconclusive(msgspec.Struct):
    """A trial has ended, and its predecessor had too few rows for a comparison."""

    reason: str


class UnseenVersion(msgspec.Struct):
    """A row was predicted by another version than the monitored one."""

    version: int


Decision = ErrorChanged | HoldOutErrorExceeded | Confirmed | Inconclusive | Rollback | UnseenVersion


def new_detector() -> Any:
    return ADWIN(DRIFT_DELTA)  # type: ignore[no-untyped-call]


def is_worse(errors: list[float], before: list[float]) -> bool:
    """Return whether the mean of `errors` is significantly above that of the predecessor's."""
    if len(before) < MIN_PREDECESSOR_ROWS:
        return False
    test = ttest_ind(errors, before, equal_var=False, alternative="greater", trim=TRIMMED_SHARE)
    return bool(test.pvalue < SIGNIFICANCE)


def describe(trial: Trial) -> str:
    text = f"its error is {fmean(trial.errors):.4g} over {len(trial.errors)} rows"
    if not trial.predecessor_errors:
        return f"{text}; version {trial.predecessor} has no rows to compare it with"
    error, rows = fmean(trial.predecessor_errors), len(trial.predecessor_errors)
    return f"{text}; that of version {trial.predecessor} was {error:.4g} over {rows} rows before it"


class Monitor:
    """The detector and the trial of one version. Call `restart` before the first row."""

    def __init__(self, state: MonitorState) -> None:
        self.state = state
        self._detector = new_detector()

    def restart(self, errors: list[float]) -> list[Decision]:
        """Start a new detector with known errors of the monitored version."""
        self._detector, self.state.errors = new_detector(), []
        return [decision for error in errors for decision in self._detect(None, error)]

    def observe(self, row: JoinedRow) -> list[Decision]:
        """Return what follows from the next row."""
        version = row.model_version
        if not isinstance(version, int):
            return []  # a prediction from outside
        if self.state.version is None:
            self.state.version = version
        if version != self.state.version:
            return [UnseenVersion(version)]
        error = min(row.absolute_error, MAX_ERROR)
        return self._detect(row.id, error) + self._continue_trial(row.id, error)

    def switch_version(
        self, version: int, hold_out_error: float | None, known_errors: list[float] | None = None
    ) -> list[Decision]:
        """Monitor another version from now on, on trial unless errors of it are known."""
        state, trial = self.state, self.state.trial
        predecessor, errors = state.version, state.errors[-DRIFT_TRIAL_ROWS:]
        if trial and len(errors) < LOOK_ROWS:  # too few to compare with
            predecessor, errors = trial.predecessor, trial.predecessor_errors
        assert predecessor is not None  # rows of one version come before those of another
        state.version = version
        on_trial = known_errors is None
        state.trial = Trial(predecessor, errors, hold_out_error) if on_trial else None
        return self.restart(known_errors or [])

    def end_trial(self) -> None:
        """End a trial without a result."""
        self.state.trial = None

    def _detect(self, row_id: Id | None, error: float) -> list[Decision]:
        state, before = self.state, self._detector.estimation
        state.errors.append(error)
        del state.errors[:-MAX_WINDOW]
        self._detector.update(error)
        if not self._detector.drift_detected:
            return []
        newest, state.errors = state.errors[-LOOK_ROWS:], []
        change = row_id, before, fmean(newest), len(newest)
        log.info("the error has changed; at %s it is %.4g", row_id, fmean(newest))
        if self._detector.estimation <= before:
            return [ErrorFell(*change)]
        state.trial = None  # the predecessor's errors are of the time before the change
        return [ErrorRose(*change)]

    def _continue_trial(self, row_id: Id, error: float) -> list[Decision]:
        """Add an error to a trial; evaluate it every LOOK_ROWS rows and at its end."""
        if not (trial := self.state.trial):
            return []
        trial.errors.append(error)
        ended = len(trial.errors) >= DRIFT_TRIAL_ROWS
        if not ended and len(trial.errors) % LOOK_ROWS:
            return []
        worse = is_worse(trial.errors, trial.predecessor_errors)
        if not (worse or ended):
            return []
        self.state.trial = None
        return self._evaluate(trial, row_id, worse)

    def _evaluate(self, trial: Trial, row_id: Id, worse: bool) -> list[Decision]:
        version, expected = self.state.version, trial.hold_out_error
        assert version is not None  # it is on trial
        decisions: list[Decision] = []
        live = float(trim_mean(trial.errors, TRIMMED_SHARE))
        exceeded = expected is not None and live > MAX_HOLD_OUT_RATIO * expected
        if worse:
            old = trial.predecessor, trial.predecessor_errors
            decisions.append(Rollback(version, *old, describe(trial)))
        elif not exceeded:
            comparable = len(trial.predecessor_errors) >= MIN_PREDECESSOR_ROWS
            decisions.append((Confirmed if comparable else Inconclusive)(describe(trial)))
        if expected is not None and exceeded:
            decisions.append(HoldOutErrorExceeded(row_id, expected, live, len(trial.errors)))
        return decisions
