"""Receive a body of any size: part by part onto the data volume, never into memory.

A part that is a file goes to a file without a name, which ends with the request or with the
process. A client that breaks off, or stalls for a minute, gets an error. After the answer the rest
of the body is read and discarded: a client that is still sending would not see the answer. After an
error, at which most clients stop, that takes some seconds at most.
"""

import io
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import flask
from flask import current_app
from werkzeug.exceptions import BadRequest, RequestTimeout
from werkzeug.formparser import FormDataParser
from werkzeug.wsgi import get_content_length

from retrain_api import settings
from retrain_api.storage.disk import Spool

STALL_SECONDS = 60
DRAIN_SECONDS = 10
READ_BYTES = 1 << 20  # requested of gunicorn at once: it reads as much, and copies the remainder


class IncomingBody(io.RawIOBase):
    """The body of a request, whose errors are HTTP answers; to be read through a buffer."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.body = environ["wsgi.input"]
        self.left = get_content_length(environ)  # None: in chunks, which know their end
        if socket := environ.get("gunicorn.socket"):
            socket.settimeout(STALL_SECONDS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.body.read(len(buffer))
        except TimeoutError:
            raise RequestTimeout(f"nothing came for {STALL_SECONDS} s; send it again") from None
        except Exception as error:  # the server's: a malformed chunk, a client that left
            raise BadRequest(f"the body broke off or is malformed ({error}); send again") from None
        if self.left is not None:
            self.left -= len(data)
            if self.left > 0 and not data:
                raise BadRequest("the upload ended before its Content-Length; send it again")
        buffer[: len(data)] = data
        return len(data)

    def drain(self, seconds: float) -> None:
        """Read and discard the rest for so many seconds at most."""
        end = time.monotonic() + seconds
        with suppress(BadRequest, RequestTimeout):  # the answer is sent already
            while time.monotonic() < end and self.read(1 << 16):
                pass


class UploadRequest(flask.Request):
    """A request whose files are on the data volume."""

    reserve = settings.MIN_FREE_BYTES  # free space that this request may not use
    on_progress: Callable[[], None] | None = None  # called while its bytes arrive

    def __init__(self, environ: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        environ["wsgi.input"] = io.BufferedReader(IncomingBody(environ), READ_BYTES)
        self.spools: list[Spool] = []
        super().__init__(environ, *args, **kwargs)

    def _get_file_stream(self, *args: Any, **kwargs: Any) -> IO[bytes]:
        folder = Path(current_app.config["DATA_DIR"]) / "incoming"
        self.spools.append(Spool(folder, self.reserve, self.on_progress))
        return self.spools[-1]

    def make_form_data_parser(self) -> FormDataParser:
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
    """Have the rest of the body read after the answer: all of it if that repeats a known job."""
    is_repeat = response.status_code < 400 and flask.request.endpoint == "jobs.create"
    seconds = math.inf if is_repeat else DRAIN_SECONDS
    response.call_on_close(partial(flask.request.environ["wsgi.input"].raw.drain, seconds))
    return response
