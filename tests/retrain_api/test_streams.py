"""Server-sent events: how many may listen, who loses the place, and the end of the server."""

import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress

import pytest

from retrain_api.application import create_app
from retrain_api.routes import events
from retrain_api.settings import MAX_LISTENERS
from tests.support.api import Api
from tests.support.listener import Listener
from tests.support.waiting import wait_for


@pytest.fixture
def api(tmp_path):
    with Api(tmp_path) as api:
        yield api


@pytest.mark.slow
def test_listeners_are_limited_and_other_calls_are_still_served(api):
    job_id = api.new_job()
    with ExitStack() as stack:
        listeners = [Listener(api, f"/jobs/{job_id}/events") for _ in range(MAX_LISTENERS)]
        for listener in listeners:
            stack.enter_context(listener)
            wait_for(lambda one=listener: one.received("state"), 20, "a place")
        refused = api.get(f"/jobs/{job_id}/events")
        assert refused.status_code == 429 and "listen already" in refused.json()["error"]
        assert api.new_job() and api.get("/models").ok
        listeners[0].curl.kill()
        free = wait_for(lambda: free_place(api, job_id), 60, "the place of the one that has left")
        stack.enter_context(free)


def free_place(api, job_id: str) -> Listener | None:
    listener = Listener(api, f"/jobs/{job_id}/events")
    with suppress(subprocess.TimeoutExpired):
        listener.curl.wait(2)  # refused, and so at its end
        return listener.__exit__()
    return listener


def test_a_listener_that_stops_reading_loses_its_place_and_a_slow_one_does_not(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(events, "UNREAD_SECONDS", 0.5)
    config = {"DATA_DIR": str(tmp_path), "WORKER_SECRET_FILE": str(tmp_path / "secret")}
    app, (ours, theirs) = create_app(config), socket.socketpair()
    long = events.event("log", "x" * 2**20)
    closed = threading.Event()
    with app.test_request_context("/", environ_overrides={"gunicorn.socket": ours}):
        response = events.stream(endless(long, closed))
    reader = threading.Thread(target=read_slowly, args=(theirs, len(long)))
    reader.start()
    with ours, theirs, pytest.raises(TimeoutError):
        send_pieces(ours, response)
    assert not reader.is_alive()  # it has read all that it wanted, in more time than the limit
    response.close()
    assert closed.is_set()


def send_pieces(client: socket.socket, response) -> None:
    for piece in response.iter_encoded():  # as gunicorn does
        client.sendall(piece)


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


def test_streams_end_with_the_server_and_do_not_hold_it_up(api):
    job_id = api.new_job()
    with Listener(api, f"/jobs/{job_id}/events") as job, Listener(api, "/live/events") as live:
        wait_for(lambda: live.received("numbers") and job.received("state"), 20, "events")
        assert api.process.stop() == 0
        assert job.ended_well() and live.ended_well()
