"""The page, with headers that keep it safe, and the health check.

All of it comes from here and nothing from elsewhere: the charts are drawn by D3, whose file comes
with the package XStatic-D3. A browser may run and load only what this server sends.
"""

from pathlib import Path

from flask import Blueprint, Response, send_file
from flask.typing import ResponseReturnValue
from xstatic.pkg import d3

from common.connection import BROKER_ERRORS, connect
from common.files import free_bytes
from retrain_api import settings
from retrain_api.routes.views import Health, as_json
from retrain_api.services import services

STATIC = Path(__file__).resolve().parents[1] / "static"
D3_CACHE_SECONDS = 3600
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

page = Blueprint("page", __name__, static_folder=STATIC, static_url_path="/static")


@page.get("/")
def document() -> Response:
    return page.send_static_file("page.html")


@page.get("/d3.js")
def charts() -> Response:
    return send_file(Path(d3.BASE_DIR) / "d3.js", max_age=D3_CACHE_SECONDS)


@page.get("/healthz")
def health() -> ResponseReturnValue:
    try:
        with connect("retrain_api, healthz", settings.BROKER_SECONDS):
            broker = True
    except BROKER_ERRORS:
        broker = False
    jobs = services().jobs
    free = free_bytes(jobs.folder)
    ok = broker and free > settings.MIN_FREE_BYTES
    status = Health(ok, broker, free, jobs.count("queued"), jobs.count("running"))
    return as_json(status), 200 if ok else 503


def add_security_headers(response: Response) -> Response:
    """Say to a browser what it may do with an answer of ours."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
