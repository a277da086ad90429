"""Server-sent events: news as they come, for the page and for `curl -N`.

    GET /live/events        numbers, each second; charts, when there is something new to draw
    GET /jobs/<id>/events   state, progress, epochs, lines of the log; at last the final state

A listener that comes late gets every epoch of the running or last attempt. A new attempt starts
again with a low epoch, after its state.

Each listener holds a thread of the server, so their number is limited. A listener that has left is
noticed at the next write, one that stopped reading when little of what it was sent is in transit.
When the server stops, its streams end, and the listeners connect again.
"""

import json
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from threading import BoundedSemaphore

import msgspec
from flask import Blueprint, Response, abort, request
from flask.typing import ResponseReturnValue

from retrain_api.jobs.records import JobRecord
from retrain_api.jobs.store import JobStore
from retrain_api.live.viewers import LiveFeed
from retrain_api.services import services
from retrain_api.settings import MAX_LISTENERS

POLL_SECONDS = 1  # between two looks at a job
QUIET_POLLS = 10  # then a comment is sent, which shows whether anybody listens
UNREAD_SECONDS = 30  # without any progress; then a listener loses its place
UNREAD_BYTES = 1 << 16  # that the kernel holds for it; by default that would be megabytes
PIECE_CHARACTERS = 1 << 14  # sent at once, within UNREAD_SECONDS: a slow reader makes progress
OVERLAP_CHARACTERS = 200  # that identify the known part of a log whose beginning was cut off

COMMENT = ":\n\n"
Events = Generator[str, None, None]

places = BoundedSemaphore(MAX_LISTENERS)
events = Blueprint("events", __name__)


class Shutdown:
    """Whether the server is stopping."""

    started = False


@events.get("/live/events")
def live() -> ResponseReturnValue:
    return stream(live_events(services().live))


@events.get("/jobs/<job_id>/events")
def job(job_id: str) -> ResponseReturnValue:
    services().jobs.get(job_id)  # 404 if there is none
    return stream(job_events(services().jobs, job_id))


def live_events(feed: LiveFeed) -> Events:
    sent: dict[str, bytes] = {}
    with feed.watched():
        while not Shutdown.started:
            newest = feed.wait(POLL_SECONDS)
            new = {name: body for name, body in newest.items() if body is not sent.get(name)}
            yield "".join(event(name, body.decode()) for name, body in new.items()) or COMMENT
            sent = newest


def job_events(jobs: JobStore, job_id: str) -> Events:
    news, quiet = JobNews(jobs, job_id), 0
    while not (news.ended or Shutdown.started):
        text = news.collect()
        quiet = 0 if text else quiet + 1
        if text or quiet % QUIET_POLLS == 0:
            yield text or COMMENT
        if not news.ended:
            time.sleep(POLL_SECONDS)


def event(name: str, data: str) -> str:
    """Return one event; `data` may have several lines."""
    lines = "".join(f"data: {line}\n" for line in data.replace("\r", "\n").split("\n"))
    return f"event: {name}\n{lines}\n"


def stream(texts: Events) -> Response:
    """Answer with events as they come; 429 if there are too many listeners."""
    if not places.acquire(blocking=False):
        many = f"{MAX_LISTENERS} pages and programs listen already"
        abort(429, f"{many}; close one, or try again later")
    response = Response(pieces(texts), content_type="text/event-stream; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.call_on_close(places.release)
    if listener := request.environ.get("gunicorn.socket"):
        listener.settimeout(UNREAD_SECONDS)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
    return response


def pieces(texts: Events) -> Iterator[str]:
    """Cut texts, which a log makes long, into pieces; close their generator with the answer."""
    with closing(texts):
        for text in texts:
            for start in range(0, len(text), PIECE_CHARACTERS):
                yield text[start : start + PIECE_CHARACTERS]


class JobNews:
    """What one listener of a job has not received yet."""

    def __init__(self, jobs: JobStore, job_id: str) -> None:
        self.jobs, self.job_id, self.ended = jobs, job_id, False
        self.sent: dict[str, str] = {}  # the newest progress and state
        self.log, self.attempt, self.epoch = "", 0, -1

    def collect(self) -> str:
        """Return the events since the last call; the state comes first, but the final one last."""
        job = self.jobs.get(self.job_id)
        self.ended = not job.active
        fields = ("state", "attempt", "version", "reason")
        described = {name: getattr(job, name) for name in fields}
        state = self.changed("state", json.dumps(described, ensure_ascii=False))
        progress = self.changed("progress", json.dumps(job.progress) if job.progress else "")
        news = self.epochs(job) + progress + self.lines(job)
        return news + state if self.ended else state + news

    def changed(self, name: str, data: str) -> str:
        before, self.sent[name] = self.sent.get(name), data
        return event(name, data) if data and data != before else ""

    def epochs(self, job: JobRecord) -> str:
        if job.attempt != self.attempt:
            self.attempt, self.epoch = job.attempt, -1
        epochs = self.jobs.epochs_after(self.job_id, self.epoch)
        self.epoch = epochs[-1].epoch if epochs else self.epoch
        return "".join(event("epoch", msgspec.json.encode(epoch).decode()) for epoch in epochs)

    def lines(self, job: JobRecord) -> str:
        log = "" if job.purged else self.jobs.log(self.job_id)
        lines, self.log = new_lines(log, self.log, self.ended)
        return event("log", lines) if lines else ""


def new_lines(log: str, known: str, complete: bool) -> tuple[str, str]:
    """Return the lines of a log that come after `known`, and what is `known` next time.

    A line counts when it has its line end, or when the log is complete.
    """
    start = len(known) if log.startswith(known) else overlap(log, known)
    end = len(log) if complete else log.rfind("\n") + 1
    return log[start:end].removesuffix("\n"), log[: max(start, end)]


def overlap(log: str, known: str) -> int:
    """Return how much of a log is known although its beginning was cut off; 0 of another log.

    Its lines may repeat at one end, so it is searched by the other end, too.
    """
    place = known.find(log[:OVERLAP_CHARACTERS])
    if place >= 0 and log.startswith(known[place:]):
        return len(known) - place
    last = known[-OVERLAP_CHARACTERS:]
    return log.find(last) + len(last) if last in log else 0
