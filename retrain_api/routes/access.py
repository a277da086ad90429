"""Who may call: the token, the workers' secret, and no page of another site.

A page of any site can make a browser send requests to services on this machine. So changing calls
of another site's page are refused, and so is any call that a browser makes under a host name which
another site may own (DNS rebinding).
"""

import hmac
import ipaddress
from urllib.parse import urlsplit

from flask import abort, current_app, request

from retrain_api import settings

UPLOADS = ("jobs.create", "worker.result")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
BROWSER_HEADERS = ("Accept-Language", "Origin", "Referer", "Sec-Fetch-Site")

CROSS_SITE = (
    "a page of another site sent this, so nothing was done; open this service's own page,"
    " or call it with curl"
)
FOREIGN_HOST = (
    "no page of this service has the name {host}, so nothing was sent; open it by its address,"
    " or put the name into ALLOWED_HOSTS"
)


def admit() -> None:
    """Refuse a request that is not allowed. Workers' calls have a check of their own."""
    if request.endpoint in UPLOADS:
        request.max_content_length = 1 << 63  # the disk is the limit
    if request.blueprint == "worker":
        return
    changes = request.method not in SAFE_METHODS
    if changes or request.blueprint == "events":  # event streams hold a thread
        refuse_cross_site()
    refuse_foreign_hosts()
    token = current_app.config["API_TOKEN"]
    if token and changes and request.endpoint and not is_bearer(token):
        abort(401, 'this call needs the token: curl -H "Authorization: Bearer $API_TOKEN"')


def admit_worker() -> None:
    """Refuse a request without the workers' secret."""
    if not is_bearer(current_app.config["WORKER_SECRET"]):
        abort(401, "these calls are for workers: Authorization: Bearer, and the workers' secret")


def is_bearer(token: str) -> bool:
    sent = request.headers.get("Authorization", "").encode()
    return hmac.compare_digest(sent, b"Bearer " + token.encode())


def refuse_cross_site() -> None:
    """Refuse a call that a browser makes for a page that is not ours.

    A program that is not a browser sends neither header, and may call.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        abort(403, CROSS_SITE)
    origin = request.headers.get("Origin")
    if origin and (not is_own_host(origin) or urlsplit(origin).netloc != request.host):
        abort(403, CROSS_SITE)


def refuse_foreign_hosts() -> None:
    """Refuse any call of a browser under a host name that another site may own.

    Our services may use any name. In some browsers a script may replace User-Agent, but none can
    leave out Accept-Language.
    """
    is_browser = request.headers.get("User-Agent", "").startswith("Mozilla/")
    is_browser = is_browser or any(header in request.headers for header in BROWSER_HEADERS)
    if is_browser and not is_own_host(f"//{request.host}"):
        abort(403, FOREIGN_HOST.format(host=request.host))


def is_own_host(url: str) -> bool:
    """Return whether a page from this host can be ours.

    The owner of a name with a dot may point it at this machine, which makes the owner's page and
    ours one origin: such a name has to be allowed.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # brackets around something that is no address
        return False
    if "." not in host or host in settings.ALLOWED_HOSTS.split(","):
        return True
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False
