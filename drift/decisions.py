"""What the monitor decides from rows of `errors`; the controller acts on it."""

import msgspec

from common.messages import Id


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


class RollbackNeeded(msgspec.Struct):
    """A version is worse than its predecessor."""

    version: int
    predecessor: int
    predecessor_errors: list[float]
    reason: str


class UnseenVersion(msgspec.Struct):
    """A row was predicted by another version than the monitored one."""

    version: int


Decision = (
    ErrorRose
    | ErrorFell
    | HoldOutErrorExceeded
    | Confirmed
    | Inconclusive
    | RollbackNeeded
    | UnseenVersion
)
