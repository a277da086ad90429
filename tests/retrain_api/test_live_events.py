"""GET /live/events: what the page shows of the broker."""

import json
import threading

import msgspec
import pytest

from common.connection import BROKER_ERRORS, connect
from common.messages import JoinedRow
from common.queues import ARGUMENTS
from retrain_api.live import reader
from retrain_api.live.reader import ROWS_BACK, LiveReader
from retrain_api.live.statistics import HISTOGRAM_ROWS
from retrain_api.live.viewers import LiveFeed
from tests.support.api import Api
from tests.support.listener import Listener
from tests.support.memory import peak_memory
from tests.support.waiting import wait_for


@pytest.fixture
def api(tmp_path, broker):
    with Api(tmp_path, broker) as api:
        yield api


@pytest.fixture
def amqp_url(broker, monkeypatch):
    """Connect to the broker of the test in this process, too."""
    monkeypatch.setattr("common.connection.AMQP_URL", broker.url)


@pytest.mark.slow
def test_an_absent_broker_is_reported_and_tried_again(tmp_path):
    with Api(tmp_path) as api, Listener(api, "/live/events") as live:
        wait_for(lambda: len(live.received("numbers")) > 1, 30, "two attempts")
        assert "broker does not answer" in live.last("numbers")["problem"]


NEGATIVE = b'{"id": "a", "y_true": 1, "y_pred": 2, "absolute_error": -1}'


def errors(first: int, count: int, version: int = 0) -> list[bytes]:
    rows = (
        JoinedRow(row_id, 100.0, 140.0, 40.0, version) for row_id in range(first, first + count)
    )
    return [msgspec.json.encode(row) for row in rows]


def test_a_viewer_gets_the_last_rows_at_once_and_then_every_new_one(tmp_path, any_broker, run):
    run("metric", any_broker)  # it declares `errors`
    with Api(tmp_path, any_broker) as api, Listener(api, "/live/events") as live:
        wait_for(lambda: live.last("numbers").get("counts"), 60, "what metric counts")
    any_broker.send("errors", errors(0, ROWS_BACK * 2))
    with Api(tmp_path, any_broker) as api, Listener(api, "/live/events") as live:
        wait_for(lambda: live.last("numbers").get("rows", 0) >= ROWS_BACK, 60, "the past")
        seen = live.last("numbers")["rows"]
        assert seen < ROWS_BACK * 1.5  # a chunk of the stream more, not all of it
        any_broker.send("errors", [b"no JSON", NEGATIVE, *errors(10**6, ROWS_BACK, version=1)])
        wait_for(lambda: live.last("numbers")["rows"] >= seen + ROWS_BACK, 60, "all new rows")
        wait_for(lambda: versions(live.last("charts")) == [0, 1], 20, "the charts with it")
        histogram = live.last("charts")["histogram"]
        assert sum(histogram["counts"]) + histogram["beyond"] == HISTOGRAM_ROWS
        assert "cannot read" not in api.process.said()


def versions(charts: dict) -> list[int]:
    return [mark["version"] for mark in charts["marks"]]


def test_rows_that_come_fast_are_all_read(api, broker, run):
    run("metric", broker)
    wait_for(lambda: "started" in run_log(api), 20, "metric")
    sender = threading.Thread(target=broker.send, args=("errors", errors(0, 60_000)))
    with Listener(api, "/live/events") as live:
        wait_for(lambda: live.received("numbers"), 20, "numbers")
        sender.start()
        wait_for(lambda: live.last("numbers").get("rows") == 60_000, 60, "all rows")
    sender.join()
    received = [json.loads(numbers) for numbers in live.received("numbers")]
    rows = [numbers["rows"] for numbers in received]
    assert rows == sorted(rows) and not any(numbers["problem"] for numbers in received)
    assert "cannot read" not in api.process.said()


def run_log(api) -> str:
    [log] = api.data.parent.glob("metric-*.log")
    return log.read_text()


def test_large_invalid_messages_are_not_kept_in_memory(api, broker):
    with broker.connect() as connection:
        connection.channel().queue_declare("errors", durable=True, arguments=ARGUMENTS["errors"])
    broker.send("errors", [b"x" * 10_000_000] * 40 + errors(0, 1))
    before = peak_memory(api.pid())
    with Listener(api, "/live/events") as live:
        wait_for(lambda: live.last("numbers").get("rows") == 1, 60, "the row behind it")
    assert peak_memory(api.pid()) < before + 100  # MB


@pytest.mark.parametrize("why", ["too far behind", "its stream was deleted"])
def test_a_reader_ends_for_another_when_it_is(why, broker, amqp_url, monkeypatch):
    feed = LiveFeed()
    feed.viewers = 1  # so that it has no other end
    with connect("a test", 5) as connection, broker.connect() as asking:
        reading = LiveReader(connection, asking)
        if why == "too far behind":
            monkeypatch.setattr(reader, "MAX_BEHIND", -1)
        else:
            broker.delete_queues()
        watching = (feed.is_watched, feed.publish)
        thread = threading.Thread(target=reading.run, args=watching, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()


def test_a_stream_that_delivers_nothing_is_not_mistaken_for_an_empty_one(broker, monkeypatch):
    with broker.connect() as connection, broker.connect() as asking:
        connection.channel().queue_declare("errors", durable=True, arguments=ARGUMENTS["errors"])
        broker.send("errors", errors(0, 10))
        wait_for(lambda: broker.count("errors"), 120, "the broker to count them")
        monkeypatch.setattr(reader, "newest_offset", lambda: -1)  # after seconds without a row
        with pytest.raises(BROKER_ERRORS, match="delivers none"):
            LiveReader(connection, asking)


def test_an_error_is_raised_even_if_the_connection_cannot_be_closed(broker, amqp_url):
    with pytest.raises(ZeroDivisionError), broker.connect() as asking:
        fail_while_reading(broker, asking)


def fail_while_reading(broker, asking):
    with connect("a test", 5) as connection:
        LiveReader(connection, asking)
        broker.send("errors", errors(0, 5000))
        connection.process_data_events(2)
        _ = 1 / 0


def test_a_thread_that_cannot_be_started_leaves_no_viewer_behind(monkeypatch):
    feed = LiveFeed()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError), feed.watched():
        pass
    assert feed.viewers == 0 and not feed.thread


def refuse(thread):
    raise RuntimeError("can't start new thread")
