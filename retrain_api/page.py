"""The page: one document, its style, a few modules, and what keeps it safe.

All of it comes from here, nothing from elsewhere: the charts are drawn by D3, whose file comes with
the package XStatic-D3. A browser may run and load only what this server gives it, and may change
something only from a page that this server gave it.
"""

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from flask import Blueprint, Response, abort, request, send_file
from xstatic.pkg import d3

ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "")  # further names of this service, with commas

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
STRANGER = (
    "a page of another site sent this, so nothing was done; open this service's own page,"
    " or call it with curl"
)
NAME = (
    "no page of this service has the name {host}, so nothing was told; open it by its address,"
    " or put the name into ALLOWED_HOSTS"
)
SIGNS = ("Accept-Language", "Origin", "Referer", "Sec-Fetch-Site")  # of a browser

page = Blueprint("page", __name__, static_folder="static", static_url_path="/static")


@page.get("/")
def document():
    return page.send_static_file("page.html")


@page.get("/d3.js")
def charts():
    return send_file(Path(d3.BASE_DIR) / "d3.js", max_age=3600)


def protect(response: Response) -> Response:
    """Tell the browser what it may do with an answer of ours."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def refuse_strangers() -> None:
    """End a changing call that a browser makes for a page that is not ours.

    A program that is no browser sends neither header, and may call.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        abort(403, STRANGER)
    origin = request.headers.get("Origin")
    if origin and (not is_ours(origin) or urlsplit(origin).netloc != request.host):
        abort(403, STRANGER)


def refuse_strange_names() -> None:
    """End any call of a browser that knows this service by a name that may be a stranger's.

    Our services may call by any name.
    """
    if is_browser() and not is_ours(f"//{request.host}"):
        abort(403, NAME.format(host=request.host))


def is_browser() -> bool:
    """Tell a browser from a program.

    A script may choose its browser's User-Agent in some browsers, but not that a language is sent.
    """
    named = request.headers.get("User-Agent", "").startswith("Mozilla/")
    return named or any(sign in request.headers for sign in SIGNS)


def is_ours(url: str) -> bool:
    """Tell whether a page from there can be ours.

    Whoever owns a name with a dot may point it at this machine, and so be of the same origin as we
    are, and read what we answer: such a name has to be allowed.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # brackets around what is no address
        return False
    if "." not in host or host in ALLOWED_HOSTS.split(","):
        return True
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False
