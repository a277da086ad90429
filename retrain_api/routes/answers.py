"""Answers: JSON that is readable in a terminal, and every error as one sentence."""

import logging
import re
import sqlite3
from typing import Any

from flask import Flask, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, InternalServerError

from common.files import is_full
from retrain_api import errors

CALLS = (
    "GET /, POST /jobs, GET /jobs, GET /jobs/ID, GET /jobs/ID/log, GET /jobs/ID/events,"
    " DELETE /jobs/ID, GET /models, GET /models/current, GET /models/VERSION,"
    " GET /models/VERSION/model.keras, POST /models/VERSION/deploy, DELETE /models/VERSION,"
    " GET /live/events, GET /healthz, GET /openapi.json"
)
SENTENCES = {
    404: "there is nothing at {path}; there are: {calls}",
    405: "{method} does nothing at {path}; allowed there: {allowed}",
    413: "too much was sent: at most 120 parts, 500 kB a field, and 4 MB where no file is expected",
    500: "something unexpected went wrong here; it is in the log of retrain_api",
}
CODES = {
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.ForeignAttemptError: 423,
    errors.InvalidDatasetError: 400,
    errors.TooManyReplicasError: 400,
    errors.DiskFullError: 507,
}
PLAIN_LIST, LINE_BREAK = re.compile(r"\[\n *([^][{}]*)\n *\]"), re.compile(r"\n *")
TERMINAL_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}

log = logging.getLogger("retrain_api")


class JsonProvider(DefaultJSONProvider):
    sort_keys, compact, ensure_ascii = False, False, False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Return JSON with plain lists on one line, and no character that steers a terminal."""
        text = super().dumps(obj, **kwargs)
        text = PLAIN_LIST.sub(lambda found: f"[{LINE_BREAK.sub(' ', found[1])}]", text)
        return text.translate(TERMINAL_CONTROLS)


def register_errors(app: Flask) -> None:
    """Make every error an answer in JSON."""
    app.register_error_handler(HTTPException, http_error)
    for kind in CODES:
        app.register_error_handler(kind, domain_error)
    for kind in (OSError, sqlite3.OperationalError):
        app.register_error_handler(kind, unexpected_error)


def http_error(error: HTTPException) -> ResponseReturnValue:
    sentence, code = error.description, error.code or 500
    allowed = ", ".join(getattr(error, "valid_methods", None) or ())
    if code in SENTENCES and error.description == type(error).description:
        sentence = SENTENCES[code].format(
            path=request.path, method=request.method, allowed=allowed, calls=CALLS
        )
    headers = {"WWW-Authenticate": "Bearer"} if code == 401 else {}
    headers |= {"Allow": allowed} if code == 405 else {}
    return {"error": sentence}, code, headers


def domain_error(error: Exception) -> ResponseReturnValue:
    code = next(code for kind, code in CODES.items() if isinstance(error, kind))
    answer: dict[str, Any] = {"error": str(error)}
    if isinstance(error, errors.StaleComparisonError):
        answer["compare_with"] = error.version
    return answer, code


def unexpected_error(error: Exception) -> ResponseReturnValue:
    """Answer an error of a file or of SQLite, which may say that the disk is full."""
    if is_full(error):
        return {"error": "the disk of the service is full; free some and send it again"}, 507
    log.error("unexpected error", exc_info=error)
    return http_error(InternalServerError())
