"""The retraining API: CSVs and models come in, better models come out, over HTTP.

    curl ──▶ POST /jobs ──▶ data volume, SQLite ──▶ [retrain_jobs] ──▶ retrain_worker
                                                                            │
    `model` ◀── (model_updates) ◀── versions ◀── /worker: claim, inputs, progress, result
     page   ◀── / and /live/events ◀── [errors]

Every answer but the page's is JSON that is readable in a terminal; every error is one sentence that
says what to send instead. A broker that is away delays jobs and refuses none.

    python -m retrain_api        # from the folder above; serves http://127.0.0.1:8000
"""

import hmac
import logging
import os
import re
import secrets
import sqlite3
from pathlib import Path

from flask import Flask, abort, current_app, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException, InternalServerError

from retrain_api import broker, disk
from retrain_api.attempts import Attempts, Missing, Over
from retrain_api.database import Database
from retrain_api.events import events
from retrain_api.jobs import jobs
from retrain_api.keeper import Keeper
from retrain_api.live import Live
from retrain_api.models import Replicas, models
from retrain_api.openapi import DESCRIPTION
from retrain_api.page import page, protect, refuse_strange_names, refuse_strangers
from retrain_api.store import Store
from retrain_api.table import Refused
from retrain_api.upload import Upload, drain_after
from retrain_api.versions import Outdated, Versions
from retrain_api.work import work

DATA_DIR = os.environ.get("DATA_DIR", "data")
API_TOKEN = os.environ.get("API_TOKEN", "")  # if set, every changing call has to send it
WORKER_SECRET_FILE = os.environ.get("WORKER_SECRET_FILE", "data/worker_secret")  # made if missing
BODY_BYTES = 4 * 2**20  # of a body that is no upload
UPLOADS = ("jobs.create", "work.result")
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

log = logging.getLogger("retrain_api")


def one_line(plain: re.Match) -> str:
    return "[" + re.sub(r"\n *", " ", plain[1]) + "]"


class Json(DefaultJSONProvider):
    sort_keys, compact, ensure_ascii = False, False, False

    def dumps(self, obj, **kwargs) -> str:
        """Return JSON with plain lists on one line, and no character that steers a terminal."""
        text = super().dumps(obj, **kwargs)
        text = re.sub(r"\[\n *([^][{}]*)\n *\]", one_line, text)
        return text.translate({code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)})


def create_app(config: dict | None = None) -> Flask:
    """Return the application, its data folder cleared of what a kill left half-way."""
    app = Flask(__name__, static_folder=None)
    app.request_class, app.json = Upload, Json(app)
    app.url_map.strict_slashes = False
    app.config.update(DATA_DIR=DATA_DIR, API_TOKEN=API_TOKEN, MAX_FORM_PARTS=120)
    app.config.update(WORKER_SECRET_FILE=WORKER_SECRET_FILE, MAX_CONTENT_LENGTH=BODY_BYTES)
    app.config.update(config or {})
    app.config["WORKER_SECRET"] = worker_secret(Path(app.config["WORKER_SECRET_FILE"]))
    app.extensions |= parts(Path(app.config["DATA_DIR"]))
    app.before_request(admit)
    app.after_request(drain_after)
    app.after_request(protect)
    for blueprint in (page, jobs, events, models, work):
        app.register_blueprint(blueprint)
    app.add_url_rule("/healthz", view_func=healthz)
    app.add_url_rule("/openapi.json", "openapi", lambda: DESCRIPTION)
    answer_errors(app)
    return app


def parts(folder: Path) -> dict:
    """Return what the views work with, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    database = Database(folder / "api.sqlite")
    store, attempts = Store(folder, database), Attempts(database)
    versions = Versions(folder, database, attempts)
    for part in (store, attempts, versions):
        part.begin()
    keeper = Keeper(store, attempts, versions)
    return {
        "store": store,
        "attempts": attempts,
        "versions": versions,
        "keeper": keeper,
        "replicas": Replicas(),
        "live": Live(),
    }


def worker_secret(path: Path) -> str:
    """Return the secret that only API and workers share; make it if there is none."""
    if not path.exists() or not path.read_text().strip():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{secrets.token_hex(4)}")
        new.write_text(secrets.token_hex(32) + "\n")
        new.chmod(0o444)  # the worker has another uid and no capabilities
        disk.sync(new)
        os.replace(new, path)
    return path.read_text().strip()


def admit() -> None:
    """Let in who may: a changing call comes from no other site's page, and has the token."""
    if request.endpoint in UPLOADS:
        request.max_content_length = 2**63  # the disk is the limit
    token = current_app.config["API_TOKEN"]
    changes = request.method not in ("GET", "HEAD", "OPTIONS") and request.blueprint != "work"
    if changes or request.blueprint == "events":  # which hold a thread
        refuse_strangers()
    if request.blueprint != "work":
        refuse_strange_names()
    if token and changes and request.endpoint:
        sent = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(sent, b"Bearer " + token.encode()):
            abort(401, 'this call needs the token: curl -H "Authorization: Bearer $API_TOKEN"')


def healthz():
    store = current_app.extensions["store"]
    free, answers = disk.free(store.folder), broker.answers()
    well = answers and free > disk.KEEP_FREE_BYTES
    told = {"ok": well, "broker": answers, "disk_free_bytes": free}
    told |= {state: store.count(state) for state in ("queued", "running")}
    return told, 200 if well else 503


def answer_errors(app: Flask) -> None:
    """Make every error an answer in JSON."""
    app.register_error_handler(HTTPException, http_error)
    for error, code in ((Missing, 404), (Over, 409), (Refused, 400), (disk.Full, 507)):
        app.register_error_handler(error, lambda error, code=code: ({"error": str(error)}, code))
    app.register_error_handler(Outdated, outdated)
    app.register_error_handler(OSError, perhaps_full)
    app.register_error_handler(sqlite3.OperationalError, perhaps_full)


def http_error(error: HTTPException):
    sentence = error.description
    if error.code in SENTENCES and error.description == type(error).description:
        allowed = ", ".join(getattr(error, "valid_methods", None) or ())
        sentence = SENTENCES[error.code].format(
            path=request.path, method=request.method, allowed=allowed, calls=CALLS
        )
    headers = {"WWW-Authenticate": "Bearer"} if error.code == 401 else {}
    headers |= {"Allow": allowed} if error.code == 405 else {}
    return {"error": sentence}, error.code, headers


def outdated(error: Outdated):
    return {"error": str(error), "compare_with": error.version}, 409


def perhaps_full(error: Exception):
    if disk.is_full(error):
        return {"error": "the disk of the service is full; free some and send it again"}, 507
    log.exception("unexpected")
    return http_error(InternalServerError())
