"""HTTP to retrain_api: one session with a token, a few retries, and no proxy."""

import logging

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

logging.getLogger("urllib3").setLevel(logging.ERROR)  # the caller logs what failed, once


def api_session(token: str = "") -> requests.Session:
    """Return a session that sends `token`, if there is one, with each request.

    A connection that cannot be made is tried once more; nothing that was sent is repeated. All
    errors are OSErrors.
    """
    session = requests.Session()
    session.trust_env = False  # a proxy in Docker's settings does not know the API
    retry = Retry(connect=1, read=0, redirect=0, status=0, other=0, backoff_factor=0.2)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    return session
