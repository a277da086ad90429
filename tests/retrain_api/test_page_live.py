"""The live view of the page, in a real browser, on the real API, broker and metric."""

import time

import requests

from tests.support.api import Api
from tests.support.page_data import HOSTILE, send_event, send_rows
from tests.support.waiting import wait_for


def test_numbers_and_charts_move_by_themselves(api, broker, run, browser):
    run("metric", broker)
    browser.open("live")
    browser.wait_for_text("#error-chart", "No rows yet")
    wait_for(lambda: browser.text("#pending") == "0", 20, "the counts of metric")
    send_rows(broker, 0, 150, 0, 40)
    wait_for(lambda: browser.text("#error") == "40", 20, "the error of version 0")
    send_rows(broker, 1000, 150, 1, 30)
    wait_for(lambda: browser.text("#per-minute") == "300", 20, "the rows of version 1")
    assert browser.text("#version") == "1" and browser.text("#error") == "30"
    browser.wait_for_text("#versions", "version 1: mean error 30, rows: 150")
    names = [mark.text for mark in browser.all("#error-chart .mark text")]
    assert "v1" in names and len(browser.all("#error-chart .mark")) == 2
    wait_for(lambda: len(browser.all("#histogram .bar")) == 40, 20, "the histogram")
    broker.send("y_true", [b'{"id": "alone", "body": 1}', b"no JSON"])
    wait_for(lambda: browser.text("#pending") == "1", 20, "the pending row")
    wait_for(lambda: browser.text("#dead") == "1", 20, "the dead letter")


def test_drift_events_are_listed_and_marked_and_hidden_while_there_are_none(
    api, broker, run, browser
):
    run("metric", broker)
    browser.open("live")
    wait_for(lambda: browser.text("#pending") == "0", 20, "the counts of metric")
    send_rows(broker, 0, 20, 0, 40)
    wait_for(lambda: browser.text("#error") == "40", 20, "rows")
    assert not browser.find("#events-card").is_displayed()
    text = f"The error rose to 80. {HOSTILE}"
    send_event(broker, "drift_detected", text)
    send_event(broker, "drift_detected", text, at="not a time")
    browser.wait_for_text("#events", HOSTILE)
    assert not browser.all("#events img")

    def marked() -> bool:  # once there are rows before and after it
        send_rows(broker, int(time.monotonic() * 1000), 1, 0, 40)
        return len(browser.all("#error-chart .mark.drift")) == 1

    wait_for(marked, 20, "a mark in the chart")


def test_a_drift_event_of_an_older_release_has_its_present_name(api, broker, run, browser):
    run("metric", broker)
    browser.open("live")
    wait_for(lambda: browser.text("#pending") == "0", 20, "the live reader")
    send_event(broker, "given up", "after 3 jobs")
    wait_for(lambda: browser.texts("#events .state") == ["abandoned"], 20, "the event")


def test_the_page_reconnects_after_the_service_was_away(tmp_path, broker, run, start_browser):
    with Api(tmp_path, broker) as api:
        browser = start_browser(api.url)
        run("metric", broker)
        browser.open("live")
        wait_for(lambda: browser.text("#pending") == "0", 20, "the numbers")
        api.process.stop()
        browser.wait_for_text("#problem", "does not answer")
        api.start_again()
        send_rows(broker, 0, 20, 0, 40)
        wait_for(lambda: browser.text("#error") == "40", 60, "rows")
        assert not browser.find("#problem").is_displayed()


def test_a_page_that_is_hidden_or_closed_costs_nothing(api, broker, run, browser):
    run("metric", broker)
    looks = [lambda: browser.open("live"), browser.show, lambda: browser.open("live")]
    leaves = [
        browser.hide,
        lambda: browser.open("models"),
        lambda: browser.driver.get("about:blank"),
    ]
    for look, leave in zip(looks, leaves, strict=True):
        look()
        wait_for(lambda: reads(broker), 30, "the connection of the live reader")
        leave()
        wait_for(lambda: not reads(broker), 30, "its end")


def reads(broker) -> bool:
    return "retrain_api, page" in connections(broker)


def connections(broker) -> set[str]:
    """Return the names of the connections that RabbitMQ has, as of some seconds ago."""
    url = f"http://127.0.0.1:{broker.management}/api/connections"
    with requests.Session() as session:
        session.trust_env = False
        found = session.get(url, auth=("guest", "guest"), timeout=30).json()
    return {one.get("client_properties", {}).get("connection_name") for one in found}
