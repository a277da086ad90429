"""Server-sent events: what happens, told as it happens, to the page and to `curl -N`.

    GET /live/events        numbers, each second; charts, when there is something new to draw
    GET /jobs/<id>/events   state, progress, lines of the log as they come; at last the final state

Each listener holds a thread of the server, so there are only so many. One that has gone is noticed
at the next write, one that reads no more when little of what it was sent is under way. The streams
of a server that stops end, and whoever listens asks again.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from threading import BoundedSemaphore

from flask import Blueprint, Response, abort, current_app, request

LISTENERS = 16  # at once
LOOK_SECONDS = 1  # between two looks at a job
UNREAD_SECONDS = 30  # without any progress; then a listener has lost its seat
UNREAD_BYTES = 2**16  # that the kernel holds for it; by itself it would hold megabytes
PIECE = 2**14  # characters sent at once, within UNREAD_SECONDS: a slow reader makes progress
QUIET_LOOKS = 10  # then a comment is sent, which shows whether anybody still listens
OVERLAP = 200  # characters by which the new part of a log is found when its beginning was cut off

seats = BoundedSemaphore(LISTENERS)
events = Blueprint("events", __name__)


class Streams:
    """Whether they are to end, as the server does."""

    ending = False


def event(name: str, data: str) -> str:
    """Return one event; `data` may have several lines."""
    lines = "".join(f"data: {line}\n" for line in data.replace("\r", "\n").split("\n"))
    return f"event: {name}\n{lines}\n"


def stream(told: Iterator[str]) -> Response:
    """Answer with events as they come; 429 if too many listen already."""
    if not seats.acquire(blocking=False):
        abort(429, f"{LISTENERS} pages and programs listen already; close one, or try again later")
    response = Response(pieces(told), content_type="text/event-stream; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.call_on_close(seats.release)
    if listener := request.environ.get("gunicorn.socket"):
        listener.settimeout(UNREAD_SECONDS)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
    return response


def pieces(told: Iterator[str]) -> Iterator[str]:
    """Cut what is told, which a log makes long, and end it with the answer."""
    with closing(told):
        for text in told:
            yield from (text[start : start + PIECE] for start in range(0, len(text), PIECE))


@events.get("/live/events")
def live():
    return stream(live_events(current_app.extensions["live"]))


def live_events(live) -> Iterator[str]:
    told: dict[str, bytes] = {}
    with live.watched():
        while not Streams.ending:
            now = live.wait(LOOK_SECONDS)
            new = {name: body for name, body in now.items() if body is not told.get(name)}
            yield "".join(event(name, body.decode()) for name, body in new.items()) or ":\n\n"
            told = now


@events.get("/jobs/<id>/events")
def job(id):
    store = current_app.extensions["store"]
    store.job(id)  # if there is none, this is a 404
    return stream(job_events(store, id))


def job_events(store, id: str) -> Iterator[str]:
    told, log, quiet, over = {}, "", 0, False
    while not (over or Streams.ending):
        row = store.job(id)
        over = row["state"] not in ("queued", "running")
        lines, log = new_lines("" if row["purged"] else store.log(id), log, over)
        now = {"progress": row["progress"], "log": lines, "state": state(row)}
        new = {name: text for name, text in now.items() if text and text != told.get(name)}
        quiet = 0 if new else quiet + 1
        if new or quiet % QUIET_LOOKS == 0:
            yield "".join(event(name, text) for name, text in new.items()) or ":\n\n"
        told = now | {"log": None}
        if not over:
            time.sleep(LOOK_SECONDS)


def state(row) -> str:
    told = {key: row[key] for key in ("state", "attempt", "version", "reason")}
    return json.dumps(told, ensure_ascii=False)


def new_lines(log: str, before: str, over: bool) -> tuple[str, str]:
    """Return the lines of a log that came after `before`, and what is `before` next time.

    A line counts when it has ended, or the job has. Of a long log only the end is kept.
    """
    start = len(before)
    if not log.startswith(before):
        start = overlap(log, before)
    end = len(log) if over else log.rfind("\n") + 1
    return log[start:end].removesuffix("\n"), log[: max(start, end)]


def overlap(log: str, before: str) -> int:
    """Return how much of a log is known although its beginning was cut off; 0 of another log.

    Its lines may repeat at one end, so it is looked for by the other one, too.
    """
    place = before.find(log[:OVERLAP])
    if place >= 0 and log.startswith(before[place:]):
        return len(before) - place
    known = before[-OVERLAP:]
    return log.find(known) + len(known) if known in log else 0
