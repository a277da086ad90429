"""How a body of any size comes in: part by part to the data volume, never into memory.

A part that is a file goes to a file without a name, which ends with the request or with the
process. A client that breaks off or stands still for a minute gets, and is, an error. What an
answer did not wait for is read and thrown away after it, since a client that is still sending would
not see the answer; after an error, at which most clients stop, only for some seconds.
"""

import io
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import flask
from flask import current_app
from werkzeug.exceptions import BadRequest, RequestTimeout
from werkzeug.wsgi import get_content_length

from retrain_api.disk import KEEP_FREE_BYTES, Spool

STALLED_SECONDS = 60
DRAIN_SECONDS = 10
READ_BYTES = 2**20  # asked of gunicorn at once: it takes as much, and copies what is left over


class Incoming(io.RawIOBase):
    """The body of a request, whose reader's errors are answers; to be read through a buffer."""

    def __init__(self, environ: dict):
        self.body = environ["wsgi.input"]
        self.left = get_content_length(environ)  # None: in chunks, which know their end
        if socket := environ.get("gunicorn.socket"):
            socket.settimeout(STALLED_SECONDS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            data = self.body.read(len(buffer))
        except TimeoutError:
            raise RequestTimeout(f"nothing came for {STALLED_SECONDS} s; send it again") from None
        except Exception as error:  # the server's: a chunk that is no chunk, a client that left
            raise BadRequest(f"the body broke off or is malformed ({error}); send again") from None
        if self.left is not None:
            self.left -= len(data)
            if self.left > 0 and not data:
                raise BadRequest("the upload ended before its Content-Length; send it again")
        buffer[: len(data)] = data
        return len(data)

    def drain(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        with suppress(BadRequest, RequestTimeout):  # nobody is there to be told
            while time.monotonic() < end and self.read(2**16):
                pass


class Upload(flask.Request):
    """A request whose files are on the data volume."""

    reserve = KEEP_FREE_BYTES  # free space that this request may not use
    moving: Callable[[], None] | None = None  # called as its bytes come in

    def __init__(self, environ: dict, *args, **kwargs):
        environ["wsgi.input"] = io.BufferedReader(Incoming(environ), READ_BYTES)
        self.spools = []
        super().__init__(environ, *args, **kwargs)

    def _get_file_stream(self, *about, **more) -> Spool:
        folder = Path(current_app.config["DATA_DIR"]) / "incoming"
        self.spools.append(Spool(folder, self.reserve, self.moving))
        return self.spools[-1]

    def make_form_data_parser(self):
        parser = super().make_form_data_parser()
        parser.silent = False  # a torn form is an error, not an empty form
        return parser

    def _load_form_data(self) -> None:
        try:
            super()._load_form_data()
        except ValueError as error:
            raise BadRequest(f"the form is torn ({error}); send it with curl -F") from None

    def close(self) -> None:
        for spool in self.spools:
            spool.close()
        super().close()


def drain_after(response: flask.Response) -> flask.Response:
    """Once the answer is sent, read what it did not wait for: all of an upload that is known."""
    known = response.status_code < 400 and flask.request.endpoint == "jobs.create"
    seconds = math.inf if known else DRAIN_SECONDS
    response.call_on_close(partial(flask.request.environ["wsgi.input"].raw.drain, seconds))
    return response
