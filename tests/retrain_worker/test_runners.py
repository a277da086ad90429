"""How the runners wait for a step and remove it without losing time, and what is lost meanwhile."""

import faulthandler
import secrets
import subprocess
import sys
import time

import pytest

from retrain_worker.multipart import output_part
from retrain_worker.runners import process_runner
from retrain_worker.runners.docker_runner import DockerRunner
from retrain_worker.runners.outputs import InvalidOutputError
from retrain_worker.runners.process_runner import ProcessRunner
from retrain_worker.runners.protocol import Step, StepFailedError, StepState
from retrain_worker.steps import wait_for_end
from tests.support.docker import docker, python_image

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
    for name, seconds in ((f"{step.name}-pause", LONG), (step.name, 1)):
        command = [python_image(), "sleep", str(seconds)]
        docker("run", "-d", "--init", f"--name={name}", *labels, *mounts, *command)
    yield step
    subprocess.run(["docker", "rm", "-f", f"{step.name}-pause", step.name], capture_output=True)
    subprocess.run(["docker", "volume", "rm", *volumes], capture_output=True)


@pytest.fixture
def runner():
    runner = DockerRunner("hand", api="hand")
    yield runner
    runner.engine.client.close()
    faulthandler.cancel_dump_traceback_later()  # the watchdog, which calls to the engine start


def took(call, *arguments) -> float:
    start = time.monotonic()
    call(*arguments)
    return time.monotonic() - start


@pytest.mark.docker
def test_the_end_of_a_step_is_seen_when_it_ends(runner, step):
    assert took(runner.wait, step, LONG) < LONG / 4
    state = runner.state(step)
    assert not state.running and not state.code and not state.lost
    assert took(runner.wait, step, LONG) < LONG / 4  # it ended long ago


@pytest.mark.docker
def test_a_step_that_runs_is_waited_for_no_longer_than_asked(runner, step):
    pause = step._replace(round="0-pause")
    assert 0.2 <= took(runner.wait, pause, 0.2) < LONG / 4
    docker("kill", pause.name)
    docker("rm", pause.name)
    assert took(runner.wait, pause, LONG) < LONG / 4  # there is none


@pytest.mark.docker
def test_a_clean_up_waits_for_no_volume_that_is_mounted(runner, step, monkeypatch):
    runner.wait(step, LONG)
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    runner.remove(step.job, step.attempt)
    assert not any(pauses)
    assert (step.job, step.attempt) not in runner.attempts()


def test_without_an_engine_it_is_the_same(tmp_path):
    runner, step = ProcessRunner(), Step("job", 1, "training")
    command = [sys.executable, "-c", "import time; time.sleep(1)"]
    runner.processes[step] = subprocess.Popen(command), 0
    assert took(runner.wait, step, 0.1) >= 0.1
    assert took(runner.wait, step, LONG) < LONG / 4


class SleepingRunner:
    """A runner on a machine that sleeps for two hours while a step runs, as its wall clock says."""

    seconds = iter([1, 7201, 7202])
    killed = False

    def state(self, step: Step) -> StepState:
        seconds = next(self.seconds)
        return StepState(seconds < 7202, seconds=seconds)

    def wait(self, step: Step, seconds: float) -> None:
        pass

    def kill(self, step: Step) -> None:
        self.killed = True


def test_the_time_in_which_the_machine_sleeps_does_not_count():
    runner = SleepingRunner()
    state = wait_for_end(runner, Step("job", 1, "training"), lambda: None)
    assert not runner.killed and 1 <= state.seconds < LONG


def test_a_folder_in_place_of_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(process_runner, "TEMPORARY", tmp_path)
    runner, step = ProcessRunner(), Step(f"job-{secrets.token_hex(6)}", 1, "training")
    (process_runner.folder_of_step(step) / "out/model.keras").mkdir(parents=True)
    with pytest.raises(InvalidOutputError, match="is not a regular file"):
        runner.read(step, "model.keras", 1000)


def test_a_file_that_is_gone_before_it_is_delivered_means_that_the_training_was_lost(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(process_runner, "TEMPORARY", tmp_path)  # where no other worker tidies up
    runner, step = ProcessRunner(), Step(f"job-{secrets.token_hex(6)}", 1, "training")
    out = process_runner.folder_of_step(step) / "out"
    out.mkdir(parents=True)
    (out / "model.keras").write_bytes(b"k" * 100_000)
    try:
        large = output_part(runner, step, "model.keras")
        assert sum(len(chunk) for chunk in large.open().chunks) == large.size == 100_000
        chunks = large.open().chunks
        next(chunks)
        (out / "model.keras").unlink()
        with pytest.raises(StepFailedError, match="was lost"):
            large.open()
    finally:
        runner.remove(step.job, step.attempt)
