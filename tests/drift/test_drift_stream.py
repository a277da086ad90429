"""`drift` as a process on real brokers, old and new, with no API beside it."""

import csv
import faulthandler
import json
import random
import time

import pytest

from tests.support.environment import load
from tests.support.waiting import wait_for

drift = load("drift/drift.py")
streams = drift.batches.__globals__  # of its module, which load() does not return
API = "http://127.0.0.1:9"  # nobody is there
NONSENSE = [b"", b"\xff", b"{}", b"[" * 5000, b'{"id": [], "absolute_error": 1}', b'{"id": 1e999}']


def errors(mean: float, count: int, begin: int = 0) -> list[bytes]:
    draw = random.Random(begin)
    found = [{"id": n, "absolute_error": draw.uniform(0, 2 * mean)} for n in range(count)]
    return [
        json.dumps(row | {"id": begin + row["id"], "model_version": 0}).encode() for row in found
    ]


def offset(logs) -> int:
    file = logs / "drift.json"
    return (json.loads(file.read_text())["offset"] or 0) if file.exists() else 0


def started(run, broker):
    service = run("drift", broker, supervised=True, API_URL=API)
    wait_for(service.has_started, 60, "drift")
    return service


def told(logs) -> list[str]:
    file = logs / "drift_log.csv"
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return [row["event"] for row in csv.DictReader(lines)]


def test_nonsense_stops_nothing_and_an_alarm_is_told_twice(any_broker, run, logs):
    service = started(run, any_broker)
    any_broker.send("errors", NONSENSE + errors(40, 500) + NONSENSE + errors(90, 200, 500))
    wait_for(lambda: told(logs) == ["drift"], 30, "the alarm")
    [event] = [json.loads(body) for body in any_broker.stream(1, "drift")]
    assert set(event) == {"at", "event", "id", "version", "job", "text"}
    assert (event["event"], event["version"], event["job"]) == ("drift", 0, None)
    assert 500 <= event["id"] < 700
    assert service.stop() == 0 and not service.codes


def test_a_life_that_is_killed_goes_on_where_it_was(any_broker, run, logs, times=2):
    service = started(run, any_broker)
    for number in range(times):
        any_broker.send("errors", errors(40, 100, 100 * number))
        assert service.kill()
        wait_for(service.has_started, 30, "its next life")
    any_broker.send("errors", errors(90, 300, 100 * times))
    wait_for(lambda: offset(logs) == 100 * times + 300, 30, "all rows")
    state = json.loads((logs / "drift.json").read_text())
    assert len(state["ids"]) == 100 * times + 300
    wait_for(lambda: told(logs), 30, "the alarm")  # it is written down before it is told
    assert told(logs) == ["drift"]


def test_a_stream_that_somebody_deleted_is_begun_anew(any_broker, run, logs):
    service = started(run, any_broker)
    any_broker.send("errors", errors(40, 300))
    wait_for(lambda: offset(logs) == 300, 30, "the first rows")
    with any_broker.connect() as connection:
        connection.channel().queue_delete("errors")
    wait_for(lambda: service.codes and service.has_started(), 30, "its next life")
    any_broker.send("errors", errors(40, 100, 300))
    wait_for(lambda: offset(logs) == 100, 60, "the new rows")
    state = json.loads((logs / "drift.json").read_text())
    assert len(state["ids"]) == 400 and len(state["errors"]) == 100


def test_rows_that_were_sent_before_the_alarm_s_are_not_learned(broker, logs, monkeypatch):
    """Their errors came after it, since their true values were late."""
    with broker.connect() as connection:
        drift.declare(connection.channel())
    rows = [{"id": number, "body": [0.5] * 10, "y_true": 1.0} for number in range(300)]
    parts = [rows[begin : begin + 7] for begin in range(0, 300, 7)]
    broker.send("history", [json.dumps(part).encode() for part in parts])
    monkeypatch.setitem(streams, "AMQP_URL", broker.url)
    alarm = streams["Alarm"]("key", time.time(), 100, [str(n) for n in range(50, 250)], since="100")
    try:
        assert [row.id for row in drift.replay(alarm)] == list(range(101, 250))
        alarm.since = "9999"  # not there any more: all that is there was sent after it
        assert len(drift.replay(alarm)) == 200
    finally:
        faulthandler.cancel_dump_traceback_later()


def test_a_stream_that_only_keeps_quiet_is_not_taken_for_a_new_one(broker, logs, monkeypatch):
    with broker.connect() as connection:
        drift.declare(connection.channel())
    broker.send("errors", errors(40, 300))
    monkeypatch.setitem(streams, "AMQP_URL", broker.url)
    monkeypatch.setitem(streams, "WATCHDOG_SECONDS", 600)
    state = drift.State(offset=300, errors=[1.0])
    try:
        wait_for(lambda: drift.newest() == 299, 30, "the newest row")
        assert not drift.is_new_stream(state)
        assert state == drift.State(offset=300, errors=[1.0])
        assert drift.is_new_stream(drift.State(offset=400))
        with broker.connect() as connection:
            connection.channel().queue_delete("errors")
            drift.declare(connection.channel())
        assert drift.newest() is None and not drift.is_new_stream(state)  # nobody knows yet
    finally:
        faulthandler.cancel_dump_traceback_later()


def test_after_a_stop_no_goodbye_is_said_that_might_hang(broker, monkeypatch):
    monkeypatch.setitem(streams, "AMQP_URL", broker.url)
    with pytest.raises(KeyboardInterrupt), drift.connect("a test") as connection:
        raise KeyboardInterrupt
    assert connection.is_open
    connection.close()
