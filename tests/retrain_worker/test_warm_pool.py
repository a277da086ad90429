"""A container that waits for its job with the imports done: what it saves, costs and leaves."""

import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.docker import docker, python_image
from tests.support.environment import ROOT
from tests.support.fake_worker_api import SECRET, fake_api
from tests.support.waiting import wait_for
from tests.support.worker_stage import (
    api_name,
    job_image,
    send,
    wait_for_end,
    workers,
)

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    with job_image(tmp_path_factory.mktemp("image")) as name:
        yield name


@pytest.fixture
def stage(tmp_path, broker, image):
    """A fake API and a function that starts a worker; at the end nothing may be left."""
    with fake_api() as api, workers(tmp_path, api, broker) as start:
        lives = []

        def worker(**settings):
            images = {"TRAINER_IMAGE": image, "MODEL_IMAGE": image, "TRAIN_PREWARM": "1"}
            started = start(**images | settings)
            wait_for(started.has_started, 30, "the worker")
            lives.append(started)
            return started

        def stop():
            lives[-1].stop()

        def run(program: str):
            job = api.add(program)
            send(broker, job)
            wait_for_end(job)
            assert job.state == "succeeded", job.reason
            return job

        yield SimpleNamespace(start=worker, run=run, stop=stop)


def waiting() -> list[str]:
    """Return the ids of the containers that wait for a job of our own workers."""
    ours = f"label=monitoring.api={api_name(SECRET)}"  # an image may be another test's, too
    names = ("-q", "--no-trunc", "--filter", "name=monitoring-warm-")
    return docker("ps", *names, "--filter", ours).split()


def busy_seconds(pids: list[str]) -> float:
    """Return the processor time that processes have used."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def busy_within(pids: list[str], seconds: float) -> float:
    before = busy_seconds(pids)
    time.sleep(seconds)
    return busy_seconds(pids) - before


def processes(container: str) -> list[str]:
    return docker("top", container, "-eo", "pid").split()[1:]


def test_a_container_waits_is_used_for_one_job_and_thrown_away(stage):
    stage.start()
    [first] = waiting()
    program = "good(); import libraries; print('imported', libraries.imported, libraries.__file__)"
    job = stage.run(f"{program}; open('/tmp/mine', 'w')")
    assert job.report["containers"]["training"] == first
    assert "imported True /app/libraries.py" in job.log
    wait_for(lambda: len(waiting()) == 1, 20, "the next one")
    [second] = waiting()
    assert second != first and not docker("ps", "-aq", "--filter", f"id={first}")
    assert stage.run(f"assert not os.path.exists('/tmp/mine'); {program}")


def test_while_it_waits_it_uses_no_processor(stage):
    stage.start()
    [container] = waiting()
    wait_for(lambda: len(processes(container)) == 2, 20, "the process that imports")
    pids = processes(container)
    wait_for(lambda: busy_within(pids, 0.5) < 0.003, 30, "the end of the imports")
    assert busy_within(pids, 3) <= 0.01


def test_switched_off_none_waits(stage):
    stage.start(TRAIN_PREWARM="0")
    assert not waiting()
    stage.run("good()")
    assert not waiting()


def test_the_next_life_of_a_killed_worker_has_one_that_waits(stage):
    worker = stage.start()
    [first] = waiting()
    assert worker.kill()
    stage.start()
    assert len(waiting()) == 1 and waiting() != [first]


def test_what_waited_for_a_worker_that_never_came_back_is_removed_when_it_has_ended(stage):
    stage.start(WORKER_NAME="gone").kill()
    [first] = waiting()
    stage.start()
    assert first in waiting()  # its worker may yet live
    docker("kill", first)
    stage.run("good()")
    wait_for(lambda: not docker("ps", "-aq", "--filter", f"id={first}"), 30, "its end")


def test_where_the_one_that_waited_has_died_a_job_starts_cold(stage):
    stage.start()
    [first] = waiting()
    docker("kill", first)
    assert stage.run("good()").report["containers"]["training"] != first


@pytest.mark.parametrize("trainer", ["", "no-such-image"])
def test_an_image_that_cannot_wait_is_started_cold(stage, trainer):
    worker = stage.start(TRAINER_IMAGE=trainer or python_image())
    wait_for(lambda: not waiting(), 20, "it to end")
    if trainer:
        assert "the next job starts cold" in worker.said()
    else:
        stage.run("good()")


@pytest.fixture
def by_hand(tmp_path, image):
    """Return a function that lets a container wait for a program, which arrives later."""
    names = []

    def start(seconds: float, program: str) -> str:
        command = ["python", "/app/prewarm.py", str(seconds)]
        names.append(docker("run", "-d", "-v", f"{tmp_path}:/in:ro", image, *command))
        time.sleep(0.5)
        (tmp_path / "train.py").write_text(program)
        (tmp_path / ".complete").touch()
        return names[-1]

    yield start
    for name in names:
        docker("rm", "-f", name)


@pytest.mark.parametrize(
    ("seconds", "program", "code"),
    [
        (60, "", 0),
        (60, "raise SystemExit(2)", 2),
        (60, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
        (1, "import time; time.sleep(600)", 128 + signal.SIGKILL),
    ],
)
def test_it_ends_as_the_training_does_and_in_time(by_hand, seconds, program, code):
    container = by_hand(seconds, program)
    assert docker("wait", container) == str(code)


def test_its_time_runs_from_the_inputs_on(by_hand):
    began = time.monotonic()
    container = by_hand(2, "import time; time.sleep(600)")
    assert docker("wait", container) == str(128 + signal.SIGKILL)
    assert time.monotonic() - began >= 2.5


def test_a_container_that_still_imports_is_given_a_job_and_trains_when_it_is_ready(
    stage, tmp_path_factory
):
    slow = "import time; time.sleep(6); imported = True"
    with job_image(tmp_path_factory.mktemp("slow"), libraries=slow) as image:
        stage.start(TRAINER_IMAGE=image)
        [container] = waiting()
        job = stage.run("good(); import libraries; print('imported', libraries.imported)")
        assert job.report["containers"]["training"] == container
        assert "imported True" in job.log
        stage.stop()


def test_it_ends_at_once_if_the_imports_fail(tmp_path):
    shutil.copy(ROOT / "retrain_worker/sandbox/prewarm.py", tmp_path)
    (tmp_path / "libraries.py").write_text("raise ImportError('no such library')")
    given = ["-v", f"{tmp_path}:/app:ro", python_image(), "python", "/app/prewarm.py", "60"]
    done = subprocess.run(["docker", "run", "--rm", *given], capture_output=True, timeout=30)
    assert done.returncode == 1 and b"no such library" in done.stderr
