"""What the page stands on: the events, what is counted for it, and who may change something."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import ExitStack, suppress

import msgspec
import pytest

from tests.support.api import Api
from tests.support.environment import ROOT, SOAK, lacking
from tests.support.memory import peak_memory
from tests.support.waiting import wait_for

sys.path.insert(0, str(ROOT))
from retrain_api import create_app, following
from retrain_api import rows as counted
from retrain_api.events import LISTENERS, event, new_lines, stream
from retrain_api.following import ROWS_BACK
from retrain_api.live import Live
from retrain_api.rows import Row, Rows


@pytest.fixture
def api(tmp_path, broker):
    with Api(tmp_path, broker) as api:
        yield api


class Listener(threading.Thread):
    """What the README says to follow a job with: curl -N. Leaving `with` ends it."""

    def __init__(self, api, path: str):
        super().__init__(daemon=True)
        if not shutil.which("curl"):
            lacking("curl")
        command = ["curl", "-sN", "--noproxy", "*", api.url + path]
        self.curl = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.events = []
        self.start()

    def run(self) -> None:
        event, lines = "", []
        for line in self.curl.stdout:
            kind, _, text = line.rstrip("\n").partition(": ")
            if kind == "event":
                event, lines = text, []
            elif kind == "data":
                lines.append(text)
            elif not kind and lines:
                self.events.append((event, lines))
                lines = []

    def ended_well(self) -> bool:
        """Did the server end the stream as it should, within half a minute?"""
        return self.curl.wait(30) == 0  # 18 if it was cut off

    def told(self, name: str) -> list[str]:
        return ["\n".join(lines) for event, lines in list(self.events) if event == name]

    def last(self, name: str) -> dict:
        told = self.told(name)
        return json.loads(told[-1]) if told else {}

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.curl.kill()
        self.curl.wait()
        self.join()
        self.curl.stdout.close()


def test_a_job_is_told_as_it_happens_each_line_once_and_its_final_state_at_last(api):
    id = api.new_job()
    with Listener(api, f"/jobs/{id}/events") as listener:
        wait_for(lambda: listener.last("state").get("state") == "queued", 20, "queued")
        api.claim(id)
        log = ""
        for epoch in range(1, 4):
            log += f"epoch {epoch}\n"
            api.progress(id, 1, epoch=epoch, epochs=3, loss=5.0 - epoch, log=log + "torn")
            wait_for(lambda: listener.last("progress").get("epoch") == epoch, 20, "an epoch")  # noqa: B023
        api.result(id, 1)
        assert listener.ended_well()
        listener.join()
    lines = "\n".join(listener.told("log")).split("\n")
    assert lines == ["epoch 1", "epoch 2", "epoch 3", "torn"]
    states = [json.loads(state)["state"] for state in listener.told("state")]
    assert states == ["queued", "running", "succeeded"] and listener.events[-1][0] == "state"
    assert listener.last("state")["version"] == 1


def test_a_job_that_has_ended_is_told_at_once_and_one_that_is_not_there_is_404(api):
    id = api.new_job()
    api.call("DELETE", f"/jobs/{id}")
    told = api.get(f"/jobs/{id}/events")
    assert "text/event-stream" in told.headers["Content-Type"] and "cancelled" in told.text
    assert api.get("/jobs/none/events").status_code == 404


@pytest.mark.parametrize(
    "before, log, over, lines",
    [
        ("", "a\nb\nc", False, "a\nb"),
        ("a\nb\n", "a\nb\nc", False, ""),
        ("a\nb\n", "a\nb\nc", True, "c"),
        ("x" * 300 + "\nlast\n", "x" * 195 + "\nlast\nnew\n", False, "new"),
        ("of the first attempt\n", "second\n", False, "second"),
        ("a\n", "", True, ""),
        ("first\n" + "same\n" * 100, "irst\n" + "same\n" * 103, False, "same\nsame\nsame"),
        ("same\n" * 100 + "last\n", "same\n" * 90 + "last\nnew\n", False, "new"),
    ],
)
def test_the_new_lines_of_a_log_are_found_even_when_its_beginning_was_cut(before, log, over, lines):
    told, known = new_lines(log, before, over)
    assert told == lines
    assert new_lines(log, known, over)[0] == ""


def test_so_many_may_listen_and_no_more_and_the_others_are_still_served(api):
    id = api.new_job()
    with ExitStack() as stack:
        listeners = [Listener(api, f"/jobs/{id}/events") for _ in range(LISTENERS)]
        for listener in listeners:
            stack.enter_context(listener)
            wait_for(lambda: listener.told("state"), 20, "a seat")  # noqa: B023
        refused = api.get(f"/jobs/{id}/events")
        assert refused.status_code == 429 and "listen already" in refused.json()["error"]
        assert api.new_job() and api.get("/models").ok
        listeners[0].curl.kill()
        free = wait_for(lambda: free_seat(api, id), 60, "the seat of the one that has gone")
        stack.enter_context(free)


def test_whoever_reads_no_more_loses_the_seat_and_a_slow_reader_does_not(tmp_path, monkeypatch):
    monkeypatch.setitem(stream.__globals__, "UNREAD_SECONDS", 0.5)
    config = {"DATA_DIR": str(tmp_path), "WORKER_SECRET_FILE": str(tmp_path / "secret")}
    app, (ours, theirs) = create_app(config), socket.socketpair()
    long = event("log", "x" * 2**20)
    closed = threading.Event()
    with app.test_request_context("/", environ_overrides={"gunicorn.socket": ours}):
        response = stream(endless(long, closed))
    reader = threading.Thread(target=read_slowly, args=(theirs, len(long)))
    reader.start()
    with ours, theirs, pytest.raises(TimeoutError):
        for piece in response.iter_encoded():  # as gunicorn does
            ours.sendall(piece)
    assert not reader.is_alive()  # it had read what it wanted, which took longer than a timeout
    response.close()
    assert closed.is_set()


def endless(text: str, closed: threading.Event):
    try:
        while True:
            yield text
    finally:
        closed.set()


def read_slowly(reader: socket.socket, count: int) -> None:
    while count > 0:
        count -= len(reader.recv(2**16))
        time.sleep(0.1)


def free_seat(api, id: str) -> Listener | None:
    listener = Listener(api, f"/jobs/{id}/events")
    with suppress(subprocess.TimeoutExpired):
        listener.curl.wait(2)  # refused, and so at its end
        return listener.__exit__()
    return listener


def test_streams_end_with_the_server_and_do_not_hold_it_up(api):
    id = api.new_job()
    with Listener(api, f"/jobs/{id}/events") as job, Listener(api, "/live/events") as live:
        wait_for(lambda: live.told("numbers") and job.told("state"), 20, "events")
        assert api.process.stop() == 0
        assert job.ended_well() and live.ended_well()


def test_without_a_broker_the_page_says_so_and_goes_on_trying(tmp_path):
    with Api(tmp_path) as api, Listener(api, "/live/events") as live:
        wait_for(lambda: len(live.told("numbers")) > 1, 30, "two attempts")
        assert "broker does not answer" in live.last("numbers")["problem"]


NEGATIVE = b'{"id": "a", "y_true": 1, "y_pred": 2, "absolute_error": -1}'


def errors(first: int, count: int, version: int = 0) -> list[bytes]:
    rows = (Row(id, 100.0, 140.0, 40.0, version) for id in range(first, first + count))
    return [msgspec.json.encode(row) for row in rows]


def test_whoever_looks_sees_the_last_rows_at_once_and_then_every_new_one(tmp_path, any_broker, run):
    run("metric", any_broker)  # it declares `errors`
    with Api(tmp_path, any_broker) as api, Listener(api, "/live/events") as live:
        wait_for(lambda: live.last("numbers").get("halves"), 60, "what metric counts")
    any_broker.send("errors", errors(0, ROWS_BACK * 2))
    with Api(tmp_path, any_broker) as api, Listener(api, "/live/events") as live:
        wait_for(lambda: live.last("numbers").get("rows", 0) >= ROWS_BACK, 60, "what was")
        seen = live.last("numbers")["rows"]
        assert seen < ROWS_BACK * 1.5  # a chunk of the stream more, not all of it
        any_broker.send("errors", [b"no JSON", NEGATIVE, *errors(10**6, ROWS_BACK, version=1)])
        wait_for(lambda: live.last("numbers")["rows"] >= seen + ROWS_BACK, 60, "all that came")
        wait_for(lambda: versions(live.last("charts")) == [0, 1], 20, "the charts with it")
        histogram = live.last("charts")["histogram"]
        assert sum(histogram["counts"]) + histogram["beyond"] == counted.IN_HISTOGRAM
        assert "cannot follow" not in api.process.said()


def versions(charts: dict) -> list[int]:
    return [mark["version"] for mark in charts["marks"]]


def test_rows_that_come_fast_are_followed_without_a_break(api, broker, run):
    run("metric", broker)
    wait_for(lambda: "started" in run_log(api), 20, "metric")
    sender = threading.Thread(target=broker.send, args=("errors", errors(0, 60_000)))
    with Listener(api, "/live/events") as live:
        wait_for(lambda: live.told("numbers"), 20, "numbers")
        sender.start()
        wait_for(lambda: live.last("numbers").get("rows") == 60_000, 60, "all rows")
    sender.join()
    told = [json.loads(numbers) for numbers in live.told("numbers")]
    rows = [numbers["rows"] for numbers in told]
    assert rows == sorted(rows) and not any(numbers["problem"] for numbers in told)
    assert "cannot follow" not in api.process.said()


def test_nonsense_of_many_mb_that_waits_is_not_kept_in_memory(api, broker):
    with broker.connect() as connection:
        connection.channel().queue_declare("errors", durable=True, arguments=following.ERRORS)
    broker.send("errors", [b"x" * 10_000_000] * 40 + errors(0, 1))
    before = peak_memory(api.pid())
    with Listener(api, "/live/events") as live:
        wait_for(lambda: live.last("numbers").get("rows") == 1, 60, "the row behind it")
    assert peak_memory(api.pid()) < before + 100  # MB


@pytest.mark.parametrize("why", ["too far behind", "its stream was deleted"])
def test_a_connection_ends_for_another_when_it_is(why, broker, monkeypatch):
    monkeypatch.setattr(following.broker, "AMQP_URL", broker.url)
    viewed = Live()
    viewed.viewers = 1  # so that it would go on for ever
    with following.reading("a test") as connection, broker.connect() as asking:
        reading = following.Following(connection, asking)
        if why == "too far behind":
            monkeypatch.setattr(following, "BEHIND", -1)
        else:
            broker.delete_queues()
        reader = threading.Thread(target=reading.run, args=(viewed,), daemon=True)
        reader.start()
        reader.join(30)
        assert not reader.is_alive()


def test_rows_that_do_not_come_are_not_taken_for_an_empty_stream(broker, monkeypatch):
    with broker.connect() as connection, broker.connect() as asking:
        connection.channel().queue_declare("errors", durable=True, arguments=following.ERRORS)
        broker.send("errors", errors(0, 10))
        wait_for(lambda: broker.count("errors"), 120, "the broker to count them")
        monkeypatch.setattr(following, "newest", lambda: -1)  # as after seconds without an answer
        with pytest.raises(following.broker.AWAY, match="delivers none"):
            following.Following(connection, asking)


def test_what_went_wrong_is_told_even_if_the_connection_cannot_be_closed(broker, monkeypatch):
    monkeypatch.setattr(following.broker, "AMQP_URL", broker.url)
    with (
        pytest.raises(ZeroDivisionError),
        following.reading("a test") as connection,
        broker.connect() as asking,
    ):
        following.Following(connection, asking)
        broker.send("errors", errors(0, 5000))
        connection.process_data_events(2)
        _ = 1 / 0


def test_a_thread_that_cannot_be_started_costs_no_viewer(monkeypatch):
    viewed = Live()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError), viewed.watched():
        pass
    assert viewed.viewers == 0 and not viewed.thread


def refuse(thread):
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    "wrong",
    [
        {"absolute_error": -1},
        {"absolute_error": 1e301},
        {"y_true": -1e301},
        {"y_pred": 1e301},
        {"id": "x" * 201},
        {"model_version": "x" * 201},
    ],
)
def test_a_row_beyond_all_bounds_is_none(wrong):
    row = msgspec.to_builtins(Row(1, 100.0, 140.0, 40.0, 0))
    assert following.read_row(msgspec.json.encode(row)) == Row(1, 100.0, 140.0, 40.0, 0)
    with pytest.raises(msgspec.ValidationError):
        following.read_row(msgspec.json.encode(row | wrong))


def run_log(api) -> str:
    [log] = api.data.parent.glob("metric-*.log")
    return log.read_text()


def test_memory_is_the_same_after_many_rows_as_after_some():
    rows, sizes = Rows(), []
    tracemalloc.start()
    for number in range(150_000 * SOAK):
        rows.take(Row(number, 1.0, 2.0, 1.0, number // 1000), 1e9 + number / 100, False)
        if number % 100 == 0:
            rows.numbers(1e9 + number / 100)  # each second
        if number in (30_000, 150_000 * SOAK - 1):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] < sizes[0] * 1.1
    assert len(rows.charts()["error"]) <= counted.POINTS and rows.count == 150_000 * SOAK


def test_a_version_gets_a_mark_when_it_begins_to_answer_and_two_in_turn_get_one_each():
    rows = Rows()
    for second, version in enumerate([0] * 20 + [0, 1] * 20 + [1] * 20 + [0] * 5):
        rows.take(Row(second, 1.0, 2.0, 10.0 + version, version), 1e9 + second, False)
    told = [(mark.version, mark.rows, mark.error) for mark in rows.marks]
    assert told == [(0, 40, 10.0), (1, 40, 11.0), (0, 5, 10.0)]


def test_a_row_that_comes_again_counts_once_and_an_id_may_tell_the_time():
    rows, now = Rows(), time.time()
    for id in (now - 3600, now - 3600, now - 1800, "no time", 10.5):
        rows.take(Row(id, 1.0, 4.0, 3.0), now, True)
    assert rows.count == 4 and rows.error() == 3
    times = [at for at, _ in rows.charts()["error"]]
    assert times[0] < now - 3500 and now - 60 < times[-1] <= now


def test_numbers_beyond_all_measure_are_drawn_too():
    rows = Rows()
    for id in range(500):
        rows.take(Row(id, -1e300, 1e300, 2e300), 1e9 + id, False)
    told = msgspec.json.encode(rows.charts() | rows.numbers(1e9))
    assert b"null" not in told.replace(b'"version":null', b"")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[evil.example]"},
        {"Origin": "http://rebound.example:8000", "Host": "rebound.example:8000"},
    ],
)
def test_a_browser_on_another_site_changes_nothing(api, headers):
    id = api.new_job()
    for method, path in (
        ("POST", "/jobs"),
        ("DELETE", f"/jobs/{id}"),
        ("POST", "/models/0/deploy"),
    ):
        refused = api.call(method, path, headers=headers)
        assert refused.status_code == 403 and "another site" in refused.json()["error"]
    assert api.job(id)["state"] == "queued"


def test_a_token_that_no_header_can_have_is_refused_at_the_start(tmp_path):
    environment = os.environ | {"API_TOKEN": "sécret", "DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "retrain_api"]
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, **options, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("API_TOKEN: no header can have it")


@pytest.mark.parametrize("host", ["rebound.example:8000", "127.0.0.1.rebound.example"])
@pytest.mark.parametrize(
    "sign", [{"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}, {"Accept-Language": ""}]
)
def test_a_browser_that_knows_us_by_a_name_of_others_is_told_nothing(api, host, sign):
    headers = {"Host": host} | sign
    for path in ("/", "/jobs", "/models/current", "/live/events", "/healthz", "/nothing"):
        refused = api.get(path, headers=headers)
        assert refused.status_code == 403 and "ALLOWED_HOSTS" in refused.json()["error"]


def test_a_browser_may_use_addresses_and_a_program_any_name(api):
    browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    for host in ("127.0.0.1:8000", "localhost:8000", "retrain_api:8000", "[::1]:8000"):
        assert api.get("/models", headers=browser | {"Host": host}).ok
    assert api.get("/models", headers={"Host": "retrain.example:8000"}).ok


def test_curl_the_page_itself_and_an_allowed_name_may_change_something(api):
    own = {"Sec-Fetch-Site": "same-origin", "Origin": api.url}
    host = {"Host": "models.example", "Origin": "https://models.example"}
    assert api.call("POST", "/models/0/deploy").ok
    assert api.call("POST", "/models/0/deploy", headers=own).ok
    api.process.stop()
    api.start_again(ALLOWED_HOSTS="other.example,models.example")
    assert api.call("POST", "/models/0/deploy", headers=host).ok
    assert api.get("/", headers=host | {"User-Agent": "Mozilla/5.0"}).ok


def test_every_answer_tells_a_browser_to_load_nothing_from_elsewhere(api):
    for path in ("/", "/d3.js", "/static/page.js", "/jobs", "/nothing"):
        policy = api.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
    page = api.get("/").text
    assert "http://" not in page and "https://" not in page and "style=" not in page
