"""How the worker waits for a step in a container, and removes it, without losing time."""

import secrets
import subprocess
import sys
import time

import pytest

from tests.support.docker import docker, python_image
from tests.support.environment import load

load("retrain_worker/retrain_worker.py")
import engine  # noqa: E402, the worker's own modules, which `load` made known
import process  # noqa: E402
import step as steps  # noqa: E402
from job import part  # noqa: E402
from step import Failed, State, Step  # noqa: E402

LONG = 60  # seconds; nothing here takes a quarter of that, however slow the machine


@pytest.fixture
def step():
    """A step whose two containers, on two volumes, are made by hand."""
    step = Step(secrets.token_hex(6), 1, "training")
    known = {"job": step.job, "attempt": 1, "worker": "hand", "api": "hand"}
    labels = [f"--label=monitoring.{name}={value}" for name, value in known.items()]
    volumes = [f"{step.name}-in", f"{step.name}-out"]
    for volume in volumes:
        docker("volume", "create", *labels, volume)
    mounts = [f"--volume={volume}:/{volume[-3:]}" for volume in volumes]
    for name, seconds in ((f"{step.name}-holder", LONG), (step.name, 1)):
        command = [python_image(), "sleep", str(seconds)]
        docker("run", "-d", "--init", f"--name={name}", *labels, *mounts, *command)
    yield step
    subprocess.run(["docker", "rm", "-f", f"{step.name}-holder", step.name], capture_output=True)
    subprocess.run(["docker", "volume", "rm", *volumes], capture_output=True)


@pytest.fixture
def place():
    place = engine.Engine("hand", api="hand")
    yield place
    place.client.close()


def took(call, *arguments) -> float:
    begin = time.monotonic()
    call(*arguments)
    return time.monotonic() - begin


def test_the_end_of_a_step_is_seen_when_it_ends(place, step):
    assert took(place.wait, step, LONG) < LONG / 4
    state = place.state(step)
    assert not state.running and not state.code and not state.lost
    assert took(place.wait, step, LONG) < LONG / 4  # it ended long ago


def test_a_step_that_runs_is_waited_for_no_longer_than_asked(place, step):
    holder = step._replace(role="training", turn="0-holder")
    assert 0.2 <= took(place.wait, holder, 0.2) < LONG / 4
    docker("kill", holder.name)
    docker("rm", holder.name)
    assert took(place.wait, holder, LONG) < LONG / 4  # there is none


def test_a_clean_up_waits_for_no_volume_that_is_mounted(place, step, monkeypatch):
    place.wait(step, LONG)
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    place.remove(step.job, step.attempt)
    assert not any(pauses)
    assert (step.job, step.attempt) not in place.attempts()


def test_without_an_engine_it_is_the_same(tmp_path):
    place, step = process.Process("hand", api="hand"), Step("job", 1, "training")
    command = [sys.executable, "-c", "import time; time.sleep(1)"]
    place.children[step] = subprocess.Popen(command), 0
    assert took(place.wait, step, 0.1) >= 0.1
    assert took(place.wait, step, LONG) < LONG / 4


class Slept:
    """A place on a machine that sleeps for two hours while a step runs, as its wall clock says."""

    seconds = iter([1, 7201, 7202])
    killed = False

    def state(self, step: Step) -> State:
        seconds = next(self.seconds)
        return State(seconds < 7202, seconds=seconds)

    def wait(self, step: Step, most: float) -> None:
        pass

    def kill(self, step: Step) -> None:
        self.killed = True


def test_the_time_in_which_the_machine_sleeps_does_not_count():
    place = Slept()
    state = steps.wait(place, Step("job", 1, "training"), lambda: None)
    assert not place.killed and 1 <= state.seconds < LONG


def test_a_file_that_is_gone_before_it_is_delivered_means_that_the_training_was_lost(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(process, "TEMPORARY", tmp_path)  # where no other worker tidies up
    place, step = process.Process("hand", api="hand"), Step(f"job-{secrets.token_hex(6)}", 1, "x")
    out = process.place_of(step) / "out"
    out.mkdir(parents=True)
    (out / "model.keras").write_bytes(b"k" * 100_000)
    try:
        large = part(place, step, "model.keras")
        assert sum(len(chunk) for chunk in large.open().chunks) == large.size == 100_000
        begun = large.open().chunks
        next(begun)
        (out / "model.keras").unlink()
        with pytest.raises(Failed, match="was lost"):
            large.open()
    finally:
        place.remove(step.job, step.attempt)
