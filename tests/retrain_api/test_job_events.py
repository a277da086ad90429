"""GET /jobs/ID/events: state, epochs, progress and log of a job as they come."""

import json

import pytest

from retrain_api.routes.events import new_lines
from tests.support.api import Api, epoch
from tests.support.listener import Listener
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with Api(tmp_path_factory.mktemp("api")) as api:
        yield api


def test_losses_that_are_no_numbers_become_null(api):
    job_id = api.new_job()
    api.claim(job_id)
    body = '{"epochs": [{"epoch": 1, "epochs": 3, "loss": NaN, "val_loss": 1e999}]}'
    assert api.work("PUT", f"{job_id}/1/progress", data=body).status_code == 200
    assert api.job(job_id)["progress"] == {"epoch": 1, "epochs": 3, "loss": None, "val_loss": None}


def test_a_late_listener_gets_every_epoch_and_the_job_has_the_newest_as_progress(api):
    job_id = api.new_job(epochs=4)
    api.claim(job_id)
    api.progress(job_id, 1, epochs=[epoch(1, 4, 9.0, 8.0), epoch(2, 4, 7.0, 6.0)])
    api.progress(job_id, 1, epochs=[epoch(2, 4, 0.5, 0.5), epoch(1, 4), epoch(3, 4, 5.0)])
    assert api.job(job_id)["progress"] == epoch(3, 4, 5.0)
    with Listener(api, f"/jobs/{job_id}/events") as listener:
        wait_for(lambda: len(listener.received("epoch")) == 3, 20, "the epochs")
        api.progress(job_id, 1, epochs=[epoch(4, 4, 3.0, 2.0)])
        wait_for(lambda: len(listener.received("epoch")) == 4, 20, "the last epoch")
    expected = [
        epoch(1, 4, 9.0, 8.0),
        epoch(2, 4, 7.0, 6.0),
        epoch(3, 4, 5.0),
        epoch(4, 4, 3.0, 2.0),
    ]
    assert list(map(json.loads, listener.received("epoch"))) == expected


@pytest.mark.slow
def test_epochs_survive_a_restart_and_stay_after_the_end(tmp_path):
    with Api(tmp_path) as api:
        job_id = api.new_job()
        api.claim(job_id)
        api.progress(job_id, 1, epochs=[epoch(1), epoch(2)])
        api.process.kill()
        api.start_again()
        api.progress(job_id, 1, epochs=[epoch(3)])
        api.result(job_id, 1)
        assert epochs_in(api.get(f"/jobs/{job_id}/events").text) == [1, 2, 3]


def epochs_in(text: str) -> list[int]:
    """Return the numbers of the epochs in a stream that has ended."""
    blocks = [block.split("\n") for block in text.split("\n\n")]
    epochs = [block[1] for block in blocks if block[0] == "event: epoch"]
    return [json.loads(data.removeprefix("data: "))["epoch"] for data in epochs]


def test_a_new_attempt_starts_its_epochs_anew_after_its_state(api):
    job_id = api.new_job()
    api.claim(job_id)
    api.progress(job_id, 1, epochs=[epoch(1), epoch(2)])
    with Listener(api, f"/jobs/{job_id}/events") as listener:
        wait_for(lambda: len(listener.received("epoch")) == 2, 20, "the epochs")
        api.work("POST", f"{job_id}/1/release")
        assert api.job(job_id)["progress"] is None
        api.claim(job_id)
        api.progress(job_id, 2, epochs=[epoch(1)])
        wait_for(lambda: len(listener.received("epoch")) == 3, 20, "the new epoch")
    numbers = [json.loads(data)["epoch"] for data in listener.received("epoch")]
    assert numbers == [1, 2, 1]
    before = [
        name for name, lines in listener.events if name == "epoch" or '"attempt": 2' in lines[0]
    ]
    assert before == ["epoch", "epoch", "state", "epoch"]


@pytest.mark.slow
def test_a_purged_job_has_no_epochs(tmp_path):
    with Api(tmp_path, UPLOAD_RETENTION_SECONDS=1) as api:
        job_id = api.new_job()
        api.claim(job_id)
        api.progress(job_id, 1, epochs=[epoch(1)])
        api.call("DELETE", f"/jobs/{job_id}")
        wait_for(lambda: not (api.data / "jobs" / job_id).exists(), 30, "the removal")
        assert epochs_in(api.get(f"/jobs/{job_id}/events").text) == []
        assert api.job(job_id)["progress"]["epoch"] == 1


def test_epochs_of_an_attempt_are_bounded(api):
    job_id = api.new_job(deploy="never")
    api.claim(job_id)
    for first in range(1, 11_001, 1000):
        epochs = [epoch(number, 11_000) for number in range(first, first + 1000)]
        assert api.progress(job_id, 1, epochs=epochs).ok
    assert api.job(job_id)["progress"]["epoch"] == 11_000
    api.result(job_id, 1)
    assert epochs_in(api.get(f"/jobs/{job_id}/events").text) == list(range(1, 10_001))


def test_a_listener_gets_each_line_once_and_the_final_state_at_last(api):
    job_id = api.new_job(deploy="never")
    with Listener(api, f"/jobs/{job_id}/events") as listener:
        wait_for(lambda: listener.last("state").get("state") == "queued", 20, "queued")
        api.claim(job_id)
        log = ""
        for number in range(1, 4):
            log += f"epoch {number}\n"
            api.progress(job_id, 1, epochs=[epoch(number)], log=log + "torn")
            wait_for(lambda n=number: listener.last("progress").get("epoch") == n, 20, "an epoch")
        version = api.result(job_id, 1).json()["version"]
        assert listener.ended_well()
        listener.join()
    lines = "\n".join(listener.received("log")).split("\n")
    assert lines == ["epoch 1", "epoch 2", "epoch 3", "torn"]
    states = [json.loads(state)["state"] for state in listener.received("state")]
    assert states == ["queued", "running", "succeeded"] and listener.events[-1][0] == "state"
    assert listener.last("state")["version"] == version


def test_a_job_that_has_ended_ends_the_stream_at_once_and_an_unknown_one_is_404(api):
    job_id = api.new_job()
    api.call("DELETE", f"/jobs/{job_id}")
    answer = api.get(f"/jobs/{job_id}/events")
    assert "text/event-stream" in answer.headers["Content-Type"]
    assert "cancelled" in answer.text
    assert api.get("/jobs/none/events").status_code == 404


@pytest.mark.parametrize(
    ("before", "log", "complete", "lines"),
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
def test_the_new_lines_of_a_log_are_found_even_when_its_beginning_was_cut(
    before, log, complete, lines
):
    found, known = new_lines(log, before, complete)
    assert found == lines
    assert new_lines(log, known, complete)[0] == ""
