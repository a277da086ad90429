"""The page in a browser. A module with another `api` than this one defines its own."""

import contextlib

import pytest

from tests.support.api import Api
from tests.support.browser import started


@pytest.fixture
def api(tmp_path, broker):
    with Api(tmp_path, broker) as api:
        yield api


@pytest.fixture
def start_browser():
    """Return a function that starts a browser for an address; all end with the test."""
    with contextlib.ExitStack() as browsers:
        yield lambda url, *more: browsers.enter_context(started(url, *more))


@pytest.fixture
def browser(api, start_browser):
    """A browser that requested nothing from elsewhere than the API, and had no complaint."""
    browser = start_browser(api.url)
    yield browser
    check_quiet(browser)


@pytest.fixture
def russian(api, start_browser):
    """The same browser of a user who reads Russian."""
    browser = start_browser(api.url, "ru-RU,ru,en")
    yield browser
    check_quiet(browser)


def check_quiet(browser):
    assert browser.complaints() == []
    assert all(url.startswith(browser.url) for url in browser.asked() - {"about:blank"})
