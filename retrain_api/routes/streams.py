"""Server-sent events as an answer that does not end by itself.

Each listener holds a thread of the server, so their number is limited. A listener that has left is
noticed at the next write, one that stopped reading when little of what it was sent is in transit.
When the server stops, its streams end, and the listeners connect again.
"""

import socket
from collections.abc import Generator, Iterator
from contextlib import closing
from threading import BoundedSemaphore

from flask import Response, abort, request

from retrain_api.settings import MAX_LISTENERS

UNREAD_SECONDS = 30  # without any progress; then a listener loses its place
UNREAD_BYTES = 1 << 16  # that the kernel holds for it; by default that would be megabytes
PIECE_CHARACTERS = 1 << 14  # sent at once, within UNREAD_SECONDS: a slow reader makes progress

COMMENT = ":\n\n"  # shows whether anybody listens
Events = Generator[str, None, None]

places = BoundedSemaphore(MAX_LISTENERS)


class Shutdown:
    """Whether the server is stopping."""

    started = False


def event(name: str, data: str) -> str:
    """Return one event; `data` may have several lines."""
    lines = "".join(f"data: {line}\n" for line in data.replace("\r", "\n").split("\n"))
    return f"event: {name}\n{lines}\n"


def stream(texts: Events) -> Response:
    """Answer with events as they come; 429 if there are too many listeners."""
    if not places.acquire(blocking=False):
        abort(
            429,
            f"{MAX_LISTENERS} pages and programs listen already; close one, or try again later",
        )
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
