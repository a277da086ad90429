"""The Flask application."""

import secrets
from pathlib import Path
from typing import Any

from flask import Flask

from common.files import replace_file
from retrain_api import settings
from retrain_api.ingest.upload import UploadRequest, drain_after
from retrain_api.routes.access import admit
from retrain_api.routes.answers import JsonProvider, register_errors
from retrain_api.routes.events import events
from retrain_api.routes.jobs import jobs
from retrain_api.routes.models import models
from retrain_api.routes.openapi import openapi
from retrain_api.routes.page import add_security_headers, page
from retrain_api.routes.worker import worker
from retrain_api.services import build_services


def create_app(config: dict[str, Any] | None = None) -> Flask:
    """Return the application. `config` may replace DATA_DIR, API_TOKEN, WORKER_SECRET_FILE."""
    app = Flask(__name__, static_folder=None)
    app.request_class, app.json = UploadRequest, JsonProvider(app)
    app.url_map.strict_slashes = False
    app.config.from_object(settings)
    app.config.update(config or {}, MAX_CONTENT_LENGTH=settings.MAX_BODY_BYTES)
    app.config["WORKER_SECRET"] = worker_secret(Path(app.config["WORKER_SECRET_FILE"]))
    app.extensions["services"] = build_services(Path(app.config["DATA_DIR"]))
    app.before_request(admit)
    app.after_request(drain_after)
    app.after_request(add_security_headers)
    for blueprint in (page, jobs, events, models, worker, openapi):
        app.register_blueprint(blueprint)
    register_errors(app)
    return app


def worker_secret(path: Path) -> str:
    """Return the secret that only API and workers share; make it if there is none."""
    if not path.exists() or not path.read_text().strip():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = f"{secrets.token_hex(32)}\n".encode()
        replace_file(path, content, mode=0o444)  # the worker has another uid, and no capabilities
    return path.read_text().strip()
