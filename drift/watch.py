"""Watch the errors: has the world changed, and does a new version keep what it promised?

    rows of `errors`, in their order ──▶ Watch.see ──▶ alarms, a version to go back from, events

ADWIN, from river, compares older and newer errors of the version that answers; a rise is an alarm,
and so is a version of our own that does far worse on the stream than on its hold-out: the world
has moved on while it was trained. For its first rows a version is on trial: Yuen's t-test, from
scipy, compares it with its predecessor's last rows, none of them older than the newest change. It
is Welch's without the largest and the least errors, so that an absurd one decides nothing.

Nothing here knows RabbitMQ, HTTP or files. All that is remembered is a State, plain data that can
be written down between any two rows and be gone on from.
"""

import hashlib
import logging
import os
from datetime import UTC, datetime
from statistics import fmean
from typing import Annotated

import msgspec
from river.drift import ADWIN
from scipy.stats import trim_mean, ttest_ind

DRIFT_DELTA = float(os.environ.get("DRIFT_DELTA", "0.0001"))  # river's 0.002 cries wolf
DRIFT_MIN_ROWS = int(os.environ.get("DRIFT_MIN_ROWS", "300"))  # since an alarm, to train on
DRIFT_MAX_ROWS = int(os.environ.get("DRIFT_MAX_ROWS", "5000"))  # the newest of them
DRIFT_JUDGE_ROWS = int(os.environ.get("DRIFT_JUDGE_ROWS", "300"))  # that a trial takes
LOOK_ROWS = 30  # between two looks at a trial
FEWEST_ROWS = 5  # of a predecessor, that a version is compared with
WORSE = 0.001  # chance to take a version for worse that is not, in one of those looks
BROKEN = 1.5  # times the error on its hold-out; the hold-out has some 60 rows, and may be lucky
PASSED = 1.25  # times the error before a rise; below it the rise is over
TRIES = 3  # of one alarm, each with twice the rows of the one before
WINDOW = 1000  # errors that are written down for the detector's next life
LARGEST = 1e30  # a larger error counts as this one: squares and sums of it are finite
ABSURD = 0.04  # share of the largest, and of the least, errors that a comparison leaves out
REMEMBERED = 2000  # ids; `metric` repeats its last batch after a crash

log = logging.getLogger("drift")

Id = int | float | Annotated[str, msgspec.Meta(min_length=1)]


class Row(msgspec.Struct):
    """A message on `errors`, as far as it is used here."""

    id: Id
    absolute_error: Annotated[float, msgspec.Meta(ge=0)]
    model_version: int | str | None = None

    def __post_init__(self):
        if len(str(self.id)) > 255:
            raise ValueError("an id has at most 255 characters")


class Event(msgspec.Struct):
    """A message on `drift`, and a record of drift_log.csv."""

    at: str
    event: str
    id: Id | None
    version: int | None
    job: str | None
    text: str


class Alarm(msgspec.Struct):
    """A change of the world that is to be learned: first rows are waited for, then a job."""

    key: str  # made of the drift, so that the API takes it once
    noticed: float  # Unix time
    need: int  # rows
    rows: list[str] = []  # ids, in the order in which their errors came
    since: str | None = None  # id of the row that raised it: what was sent behind it is newer
    usual: float | None = None  # error before the rise, or on the hold-out
    tries: int = 1
    job: str | None = None


class Trial(msgspec.Struct):
    """A version that has just taken over, and what it is measured by."""

    predecessor: int
    before: list[float]  # its predecessor's last errors
    promised: float | None  # error on the hold-out, of a version that one of our jobs trained
    after: list[float] = []


class Back(msgspec.Struct):
    """A version that is to be taken back."""

    version: int
    to: int
    errors: list[float]  # of the one that is gone back to, before it was replaced
    why: str


class State(msgspec.Struct):
    offset: int | None = None  # on `errors`, of the next message
    ids: list[str] = []  # the newest ones
    version: int | None = None  # the one that is watched
    errors: list[float] = []  # its newest, since it took over or the world changed
    trial: Trial | None = None
    back: Back | None = None
    restored: Back | None = None  # the same, done; the predecessor's rows have not come yet
    alarms: list[Alarm] = []  # the first one is being learned
    jobs: list[str] = []  # the newest ones of ours
    rested: float = 0.0  # Unix time when the next job may begin
    events: list[Event] = []  # not told yet


class Watch:
    """A state, the detector that belongs to it, and what is done with each row."""

    def __init__(self, state: State):
        self.state, self.known = state, set(state.ids)
        self.stranger = None  # a version that answered and is not the watched one
        self.start_detector(state.errors)

    def start_detector(self, errors: list[float]) -> None:
        """Begin with what is known of the watched version: `errors`, as if they came now."""
        self.detector, self.state.errors = ADWIN(DRIFT_DELTA), []
        for error in errors:
            self.feed(None, error)

    def see(self, row: Row) -> None:
        """Take the next row; one that came before is nothing."""
        state, id = self.state, str(row.id)
        if id in self.known:
            return
        self.remember(id)
        if state.alarms:
            state.alarms[-1].rows.append(id)
            del state.alarms[-1].rows[:-DRIFT_MAX_ROWS]
        if not isinstance(row.model_version, int):
            return  # somebody else's prediction
        if state.version is None:
            state.version = row.model_version
        if row.model_version != state.version:
            self.stranger = row.model_version
            return
        error = min(row.absolute_error, LARGEST)
        self.feed(row.id, error)
        if state.trial:
            self.judge(row.id, error)

    def remember(self, id: str) -> None:
        self.known.add(id)
        self.state.ids.append(id)
        if len(self.state.ids) > REMEMBERED:
            self.known.remove(self.state.ids.pop(0))

    def feed(self, id: Id | None, error: float) -> None:
        """Give the detector one more error of the watched version."""
        state, before = self.state, self.detector.estimation
        state.errors.append(error)
        del state.errors[:-WINDOW]
        self.detector.update(error)
        if not self.detector.drift_detected:
            return
        log.info("the error has changed; at %s it is %.4g", id, fmean(state.errors[-LOOK_ROWS:]))
        newest, state.errors = state.errors[-LOOK_ROWS:], []
        rose = self.detector.estimation > before
        if rose:
            state.trial = None  # what came before the change is no measure any more
        if state.alarms and not state.alarms[-1].job:
            self.change_again(id, fmean(newest))
        elif rose:
            rise = f"from {before:.4g} to {fmean(newest):.4g} over the last {len(newest)} rows"
            self.alarm(id, f"the error of version {state.version} rose {rise}", usual=before)

    def change_again(self, id: Id | None, error: float) -> None:
        """Begin the collection anew, or end it if what had changed has passed."""
        alarm = self.state.alarms[-1]
        if alarm.usual is not None and error < PASSED * alarm.usual:
            self.state.alarms.pop()
            text = f"the error is {error:.4g} again, after {alarm.usual:.4g} before the rise"
            self.tell("over", text, id=id)
        else:
            alarm.rows.clear()
            alarm.since = None if id is None else str(id)

    def alarm(self, id: Id | None, why: str, usual: float) -> None:
        """Begin to collect rows. The change lies before this one; so may rows that come late."""
        key = hashlib.sha256(f"{self.state.ids[-1]}".encode()).hexdigest()[:24]
        noticed = datetime.now(UTC).timestamp()
        since = None if id is None else str(id)
        alarm = Alarm(f"drift-{key}", noticed, DRIFT_MIN_ROWS, since=since, usual=usual)
        self.state.alarms.append(alarm)
        self.tell("drift", f"{why}: {DRIFT_MIN_ROWS} rows from now on are to be learned", id=id)

    def take_over(self, version: int, promised: float | None) -> None:
        """Begin anew with a version that answers from now on."""
        state, old, trial = self.state, self.state.version, self.state.trial
        predecessor, before = old, state.errors[-DRIFT_JUDGE_ROWS:]
        if trial and len(before) < LOOK_ROWS:  # too short for a measure: the one before it counts
            predecessor, before = trial.predecessor, trial.before
        back = state.restored
        state.version, state.trial = version, Trial(predecessor, before, promised)
        state.back = state.restored = None
        self.tell("deployed", f"version {version} has taken over from version {old}")
        if back and back.to == version:  # no trial: it goes on where it was
            state.trial = None
            self.start_detector(back.errors)
        else:
            self.start_detector([])

    def judge(self, id: Id, error: float) -> None:
        """Measure the version on trial, now and then, and once more when its trial is over."""
        trial = self.state.trial
        trial.after.append(error)
        rows, over = len(trial.after), len(trial.after) >= DRIFT_JUDGE_ROWS
        if not over and rows % LOOK_ROWS:
            return
        bad = worse(trial.after, trial.before)
        if not (bad or over):
            return
        self.state.trial, live = None, trim_mean(trial.after, ABSURD)
        broken = trial.promised is not None and live > BROKEN * trial.promised
        if bad:
            pair = self.state.version, trial.predecessor
            self.state.back = Back(*pair, trial.before, measured(trial))
        elif not broken:
            verdict = "confirmed" if len(trial.before) >= FEWEST_ROWS else "unjudged"
            self.tell(verdict, f"version {self.state.version} stays: {measured(trial)}")
        if broken and not self.state.alarms:
            why = f"{live:.4g} over {rows} rows, and {trial.promised:.4g} on its hold-out"
            text = f"the error of version {self.state.version} is {why}"
            self.alarm(id, text, usual=trial.promised)

    def tell(self, event: str, text: str, id: Id | None = None, job: str | None = None) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.state.events.append(Event(at, event, id, self.state.version, job, text))
        log.info("%s: %s", event, text)


def worse(after: list[float], before: list[float]) -> bool:
    """Tell whether the mean of `after` is above that of `before` by more than chance."""
    if len(before) < FEWEST_ROWS:
        return False
    test = ttest_ind(after, before, equal_var=False, alternative="greater", trim=ABSURD)
    return bool(test.pvalue < WORSE)


def measured(trial: Trial) -> str:
    text = f"its error is {fmean(trial.after):.4g} over {len(trial.after)} rows"
    if not trial.before:
        return f"{text}; there is none of version {trial.predecessor} to compare it with"
    before = f"{fmean(trial.before):.4g} over {len(trial.before)} rows"
    return f"{text}; that of version {trial.predecessor} was {before} before it"
