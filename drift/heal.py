"""Heal: have a new model trained on what came since the change, and take back one that is worse.

    POST API_URL/jobs                     a CSV of rows from `history`, Idempotency-Key: the alarm's
    GET  API_URL/jobs/<id>                until it has ended
    GET  API_URL/models/current           when rows come from another version than before
    POST API_URL/models/<version>/deploy  back to the predecessor

One step after the other, each of them harmless when it is done twice. Whatever passes, such as an
API that is away, is an OSError and is tried again for ever; the alarm is kept meanwhile.
"""

import csv
import io
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Annotated

import msgspec
import requests
from watch import DRIFT_MAX_ROWS, DRIFT_MIN_ROWS, TRIES, Alarm, Id, Watch

API_URL = os.environ.get("API_URL", "http://localhost:8000").rstrip("/")
API_TOKEN = os.environ.get("API_TOKEN", "")
DRIFT_COOLDOWN_SECONDS = float(os.environ.get("DRIFT_COOLDOWN_SECONDS", "60"))  # between two jobs
AWAY_SECONDS = 5  # after something went wrong
HTTP_SECONDS = (3, 20)  # to connect; between two bytes
REPLAY_PAUSE_SECONDS = 60  # after a replay that found too little
JOBS = 20  # of ours that are remembered

log = logging.getLogger("drift")


Number = Annotated[float, msgspec.Meta(ge=-3e38, le=3e38)]  # what the API takes: a float32


class Labelled(msgspec.Struct):
    """A row on `history`, whose messages are lists of them."""

    id: Id
    body: list[Number]
    y_true: Number


class Report(msgspec.Struct):
    """What the API says of a version, as far as it is used here."""

    job: str | None = None
    mae: dict[str, float | None] | None = None


class Refusal(msgspec.Struct):
    version: int
    reason: str


class Replica(msgspec.Struct):
    """What a replica of `model` said last."""

    refused: Refusal | None = None


class Current(msgspec.Struct):
    version: int
    report: Report
    replicas: dict[str, Replica] = {}

    def refusal(self) -> str | None:
        """Return why a replica does not serve this version; None if none has said so."""
        said = [replica.refused for replica in self.replicas.values() if replica.refused]
        return next((one.reason for one in said if one.version == self.version), None)


class Job(msgspec.Struct):
    id: str
    state: str
    reason: str | None = None
    version: int | None = None
    report: dict | None = None


class Refused(Exception):
    """The API says what is wrong with what was asked; asking again would not help."""


class Api:
    """What the API is asked. Its errors are OSErrors, as all errors of requests are, or Refused."""

    def __init__(self):
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy in Docker's settings does not know the API
        if API_TOKEN:
            self.http.headers["Authorization"] = f"Bearer {API_TOKEN}"

    def call(self, kind, method: str, path: str, **what):
        """Return the answer as a `kind`."""
        answer = self.http.request(method, API_URL + path, timeout=HTTP_SECONDS, **what)
        if answer.status_code in (400, 404, 409, 413, 415):
            raise Refused(answer.text.strip())
        answer.raise_for_status()
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (ValueError, RecursionError) as error:
            raise OSError(f"the API's answer makes no sense: {error}") from None

    def post(self, key: str, table: bytes) -> Job:
        files, headers = {"data": ("since_the_change.csv", table)}, {"Idempotency-Key": key}
        return self.call(Job, "POST", "/jobs", files=files, headers=headers)


def usable(rows: list[Labelled]) -> list[Labelled]:
    """Return those that are as wide as most are."""
    widths = Counter(len(row.body) for row in rows)
    width = max(widths, key=widths.get, default=0)
    return [row for row in rows if len(row.body) == width]


def as_csv(rows: list[Labelled]) -> bytes:
    """Return `rows`, all of them equally wide, as a CSV; the last column is the target."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*(f"x{number}" for number in range(1, len(rows[0].body) + 1)), "y_true"])
    writer.writerows([*row.body, row.y_true] for row in rows)
    return text.getvalue().encode()


class Healer:
    def __init__(self, watch: Watch, replay: Callable[[Alarm], list[Labelled]]):
        self.watch, self.state, self.replay, self.api = watch, watch.state, replay, Api()
        self.not_before, self.next_replay, self.trouble = 0.0, 0.0, None

    def turn(self) -> None:
        """Take what steps can be taken now."""
        if time.monotonic() < self.not_before:
            return
        trouble = None
        try:
            self.go_back()
            self.meet()
            self.follow()
            self.begin()
        except OSError as error:
            trouble = str(error)
            self.not_before = time.monotonic() + AWAY_SECONDS
            if trouble != self.trouble:
                log.warning("%s; trying again", trouble)
        self.trouble = trouble

    def go_back(self) -> None:
        """Have the predecessor served again, if the version that was worse still is."""
        if not (back := self.state.back):
            return
        try:
            current = self.api.call(Current, "GET", "/models/current").version
            if current == back.version:
                self.api.call(dict, "POST", f"/models/{back.to}/deploy")
            if current in (back.version, back.to):  # the second one: done by an earlier life
                self.state.restored = back
                text = f"version {back.version} is taken back, {back.to} serves again: {back.why}"
                self.watch.tell("rolled back", text)
        except Refused as error:
            log.warning("version %d stays: %s", back.version, error)
        self.state.back = None

    def meet(self) -> None:
        """Ask about a version that answered, and watch it if it is the one that should."""
        if self.watch.stranger is None:
            return
        current = self.api.call(Current, "GET", "/models/current")
        if current.version == self.watch.stranger:
            report, promised = current.report, None
            if report.job in self.state.jobs:
                promised = (report.mae or {}).get("challenger")
            self.watch.take_over(current.version, promised)
        self.watch.stranger = None

    def follow(self) -> None:
        """Look what became of the job that is under way."""
        alarm = self.state.alarms[0] if self.state.alarms else None
        if not (alarm and alarm.job):
            return
        try:
            job = self.api.call(Job, "GET", f"/jobs/{alarm.job}")
        except Refused as error:  # the API has lost its data
            job = Job(alarm.job, "failed", str(error))
        if job.state in ("queued", "running"):
            return
        if job.report and job.report.get("deployed"):
            self.arrive(alarm, job)
            return
        event = "kept" if job.state == "succeeded" else job.state
        self.watch.tell(event, f"job {job.id}: {job.reason}", job=job.id)
        self.end(alarm, done=job.state == "cancelled")

    def arrive(self, alarm: Alarm, job: Job) -> None:
        """End the alarm once rows come from the job's version, or will not come."""
        if job.version != self.state.version:
            current = self.api.call(Current, "GET", "/models/current")
            if current.version == job.version:  # else somebody has exchanged it already
                self.state.trial = None  # of a version that is being replaced
                if reason := current.refusal():
                    text = f"job {job.id}: `model` refuses version {job.version}: {reason}"
                    self.watch.tell("failed", text, job=job.id)
                    self.end(alarm, done=False)
                return
        self.end(alarm, done=True)

    def end(self, alarm: Alarm, done: bool) -> None:
        """Forget the first alarm, or try once more with twice the rows; pause in any case."""
        self.state.rested = time.time() + DRIFT_COOLDOWN_SECONDS
        if done or alarm.tries >= TRIES or len(self.state.alarms) > 1:
            self.state.alarms.pop(0)
            if not done and not self.state.alarms:
                text = f"after {alarm.tries} jobs; only a further rise is an alarm again"
                self.watch.tell("given up", text)
        else:
            need = min(2 * len(alarm.rows), DRIFT_MAX_ROWS)
            alarm.tries, alarm.need, alarm.job = alarm.tries + 1, need, None

    def is_time(self, alarm: Alarm) -> bool:
        """Tell whether there are rows enough, and no pause."""
        latest = time.time() + DRIFT_COOLDOWN_SECONDS  # unless the clock was set back meanwhile
        self.state.rested = min(self.state.rested, latest)
        paused = time.time() < self.state.rested or time.monotonic() < self.next_replay
        return not paused and len(alarm.rows) >= min(alarm.need, DRIFT_MAX_ROWS)

    def begin(self) -> None:
        """Hand in the first alarm's job, if it is time."""
        alarm = self.state.alarms[0] if self.state.alarms else None
        if not alarm or alarm.job or not self.is_time(alarm):
            return
        rows = usable(self.replay(alarm))
        if len(rows) < DRIFT_MIN_ROWS:
            log.warning("`history` has %d of %d rows; waiting for more", len(rows), len(alarm.rows))
            alarm.need = min(2 * len(alarm.rows), DRIFT_MAX_ROWS)
            self.next_replay = time.monotonic() + REPLAY_PAUSE_SECONDS
            return
        try:
            job = self.api.post(f"{alarm.key}-{alarm.tries}", as_csv(rows))
        except Refused as error:
            self.watch.tell("refused", f"the API does not take {len(rows)} rows: {error}")
            self.end(alarm, done=False)
            return
        alarm.job = job.id
        self.state.jobs = [*self.state.jobs, job.id][-JOBS:]
        text = f"job {job.id} trains on {len(rows)} rows that came since the change"
        self.watch.tell("job", text, job=job.id)
