"""`drift` as a process on real brokers, old and new, without an API or with one that hangs."""

import csv
import faulthandler
import json
import os
import random
import socket
import subprocess
import sys
import time

import pytest

from common.connection import connect
from common.queues import declare
from drift.drift import is_new_stream
from drift.state import FORMAT, Collecting, DriftCase
from drift.streams import newest_offset, replay
from tests.support.environment import ROOT
from tests.support.waiting import wait_for

API = "http://127.0.0.1:9"  # where nothing listens
GRACE_SECONDS = 10  # of Docker Compose, between a stop and SIGKILL
NONSENSE = [b"", b"\xff", b"{}", b"[" * 5000, b'{"id": [], "absolute_error": 1}', b'{"id": 1e999}']


def errors(mean: float, count: int, start: int = 0, version: int = 0) -> list[bytes]:
    draw = random.Random(start)
    row = {"y_true": 1.0, "y_pred": 1.0, "model_version": version}
    found = [
        row | {"id": start + n, "absolute_error": draw.uniform(0, 2 * mean)} for n in range(count)
    ]
    return [json.dumps(each).encode() for each in found]


def state(logs) -> dict:
    file = logs / "drift.json"
    return json.loads(file.read_text()) if file.exists() else {}


def offset(logs) -> int:
    return state(logs).get("offset") or 0


def started(run, broker, url: str = API):
    service = run("drift", broker, supervised=True, API_URL=url)
    wait_for(service.has_started, 60, "drift")
    return service


def events(logs) -> list[str]:
    file = logs / "drift_log.csv"
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return [row["event"] for row in csv.DictReader(lines)]


@pytest.fixture
def here(broker, monkeypatch):
    """Let this process connect to the broker, on which the streams are declared."""
    with broker.connect() as connection:
        declare(connection.channel(), "errors", "history", "drift")
    monkeypatch.setattr("common.connection.AMQP_URL", broker.url)
    yield broker
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def hanging_api():
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def test_nonsense_stops_nothing_and_an_event_is_published_and_recorded(any_broker, run, logs):
    service = started(run, any_broker)
    any_broker.send("errors", NONSENSE + errors(40, 500) + NONSENSE + errors(90, 200, 500))
    wait_for(lambda: events(logs) == ["drift_detected"], 30, "the event")
    [event] = [json.loads(body) for body in any_broker.stream(1, "drift")]
    assert set(event) == {"at", "event", "id", "version", "job", "text"}
    assert (event["event"], event["version"], event["job"]) == ("drift_detected", 0, None)
    assert 500 <= event["id"] < 700
    assert service.stop() == 0 and not service.codes


def test_after_a_kill_it_continues_where_it_was(any_broker, run, logs):
    service = started(run, any_broker)
    for number in range(2):
        any_broker.send("errors", errors(40, 100, 100 * number))
        assert service.kill()
        wait_for(service.has_started, 30, "the next process")
    any_broker.send("errors", errors(90, 300, 200))
    wait_for(lambda: offset(logs) == 500, 30, "all rows")
    assert state(logs)["format"] == FORMAT and len(state(logs)["recent_ids"]) == 500
    wait_for(lambda: events(logs), 30, "the event")  # the state is saved before it is published
    assert events(logs) == ["drift_detected"]


def test_a_stream_that_was_deleted_is_read_from_its_first_row(any_broker, run, logs):
    service = started(run, any_broker)
    any_broker.send("errors", errors(40, 300))
    wait_for(lambda: offset(logs) == 300, 30, "the first rows")
    with any_broker.connect() as connection:
        connection.channel().queue_delete("errors")
    wait_for(lambda: service.codes and service.has_started(), 30, "the next process")
    any_broker.send("errors", errors(40, 100, 300))
    wait_for(lambda: offset(logs) == 100, 60, "the new rows")
    assert len(state(logs)["recent_ids"]) == 400
    assert len(state(logs)["monitor"]["errors"]) == 100


def test_a_stop_while_the_api_hangs_fits_into_the_grace_of_compose(broker, run, logs, hanging_api):
    port = hanging_api.getsockname()[1]
    service = started(run, broker, f"http://127.0.0.1:{port}")
    broker.send("errors", errors(40, 100) + errors(40, 1, 100, version=1))
    connection, _ = hanging_api.accept()  # it asks about the unseen version
    with connection:
        start = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - start < GRACE_SECONDS
    assert "stopped" in service.said()


def test_rows_that_were_sent_before_the_row_of_the_detection_are_not_replayed(here):
    """Their errors came after it, since their true values were late."""
    rows = [{"id": number, "body": [0.5] * 10, "y_true": 1.0} for number in range(300)]
    parts = [rows[start : start + 7] for start in range(0, 300, 7)]
    here.send("history", [json.dumps(part).encode() for part in parts])
    ids = [str(number) for number in range(50, 250)]
    case = DriftCase("key", time.time(), Collecting(100), ids, after_id="100")
    assert [row.id for row in replay(case)] == list(range(101, 250))
    case.after_id = "9999"  # not there any more: all that is there was sent after it
    assert len(replay(case)) == 200


def test_a_silent_stream_is_not_taken_for_a_new_one(here):
    here.send("errors", errors(40, 300))
    wait_for(lambda: newest_offset() == 299, 30, "the newest row")
    assert not is_new_stream(300) and is_new_stream(400)
    with here.connect() as connection:
        connection.channel().queue_delete("errors")
        declare(connection.channel(), "errors")
    assert newest_offset() is None and not is_new_stream(300)  # it may be unavailable


def test_after_a_stop_no_connection_is_closed_that_might_hang(here):
    with pytest.raises(KeyboardInterrupt), connect("a test") as connection:
        raise KeyboardInterrupt
    assert connection.is_open
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(("least", "most"), [(6, 5), (0, 5)])
def test_settings_with_which_a_case_never_has_enough_rows_are_refused(tmp_path, least, most):
    settings = {"DRIFT_MIN_ROWS": str(least), "DRIFT_MAX_ROWS": str(most)}
    done = subprocess.run(
        [sys.executable, ROOT / "drift/drift.py"],
        env=os.environ | settings | {"LOGS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "DRIFT_MIN_ROWS has to be" in done.stderr
