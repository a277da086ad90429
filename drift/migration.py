"""Read drift.json of format 1, which has no number of its format, as the present State."""

import msgspec

from common.messages import MAX_TEXT_CHARACTERS, RENAMED_EVENTS, DriftEvent, Id
from drift.state import Collecting, DriftCase, MonitorState, Rollback, State, Training, Trial


class OldEvent(msgspec.Struct):
    at: str
    event: str
    id: Id | None
    version: int | None
    job: str | None
    text: str


class OldAlarm(msgspec.Struct):
    key: str
    noticed: float
    need: int
    rows: list[str] = []
    since: str | None = None
    usual: float | None = None
    tries: int = 1
    job: str | None = None


class OldTrial(msgspec.Struct):
    predecessor: int
    before: list[float]
    promised: float | None
    after: list[float] = []


class OldRollback(msgspec.Struct):
    version: int
    to: int
    errors: list[float]
    why: str


class OldState(msgspec.Struct):
    offset: int | None = None
    ids: list[str] = []
    version: int | None = None
    errors: list[float] = []
    trial: OldTrial | None = None
    back: OldRollback | None = None
    restored: OldRollback | None = None
    alarms: list[OldAlarm] = []
    jobs: list[str] = []
    rested: float = 0.0
    events: list[OldEvent] = []


def migrate(body: bytes) -> State:
    """Return a state of format 1 as the present one; raise one of INVALID if it is none."""
    old = msgspec.json.decode(body, type=OldState)
    return State(
        offset=old.offset,
        recent_ids=old.ids,
        monitor=MonitorState(old.version, old.errors, migrate_trial(old.trial)),
        cases=[migrate_alarm(alarm) for alarm in old.alarms],
        rollback=migrate_rollback(old),
        jobs=old.jobs,
        cooldown_until=old.rested,
        events=[migrate_event(event) for event in old.events],
    )


def migrate_trial(old: OldTrial | None) -> Trial | None:
    return Trial(old.predecessor, old.before, old.promised, old.after) if old else None


def migrate_alarm(old: OldAlarm) -> DriftCase:
    phase = Training(old.job) if old.job else Collecting(old.need)
    return DriftCase(old.key, old.noticed, phase, old.rows, old.since, old.usual, old.tries)


def migrate_rollback(old: OldState) -> Rollback | None:
    """Return the rollback; at most one of the two was set."""
    if old.back:
        return Rollback(old.back.version, old.back.to, old.back.errors, old.back.why)
    if done := old.restored:
        return Rollback(done.version, done.to, done.errors, done.why, "awaiting_rows")
    return None


def migrate_event(old: OldEvent) -> DriftEvent:
    event, text = RENAMED_EVENTS.get(old.event, old.event), old.text[:MAX_TEXT_CHARACTERS]
    return DriftEvent(old.at, event, old.id, old.version, old.job, text)
