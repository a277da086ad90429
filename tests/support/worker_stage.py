"""Workers on a stage: the fake API, stand-ins for train.py and score.py, and an engine.

The training executes the program in its job, the scoring a challenger that is a program: so a test
says in a line what happens inside, and no TensorFlow is needed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.queues import declare
from tests.support.docker import docker, has_docker, python_image
from tests.support.environment import ROOT
from tests.support.fake_worker_api import SECRET, FakeApi, FakeJob
from tests.support.service import Service
from tests.support.waiting import wait_for

TRAIN = """
import json, os, pathlib, socket, subprocess, sys, time
IN, OUT = map(pathlib.Path, sys.argv[1:])
job = json.loads((IN / "job.json").read_text())
def progress(epoch):
    epoch = {"epoch": epoch, "epochs": 3, "loss": 1.5, "val_loss": 2}
    print(json.dumps(epoch), flush=True)
def good(tflite=b"TFL3"):
    (OUT / "model.keras").write_bytes(b"PK" + b"k" * 300_000)
    if tflite:
        (OUT / "model.tflite").write_bytes(tflite)
    golden = {"rows": [[0] * 10], "predictions": [1.5]}
    (OUT / "golden.json").write_text(json.dumps(golden))
    training = {"started_from": "scratch", "epochs_run": 3, "seconds": 1.0, "parameters": 7}
    training |= {"keras": "3", "tensorflow": "2", "why_no_tflite": None}
    (OUT / "training.json").write_text(json.dumps(training))
print("training on", sorted(name for name in os.listdir(IN) if not name.startswith(".")))
exec(job["program"])
"""

SCORE = """
import json, os, pathlib, sys
IN, OUT = map(pathlib.Path, sys.argv[1:])
challenger = (IN / "challenger.tflite").read_bytes()
champion = IN / "champion.tflite"
mae = {"challenger": 40.0, "champion": float(champion.stat().st_size) if champion.exists() else 43}
scores = {"inputs": 10, "outputs": 1, "mae": mae | {"mean": 60.0}, "regions": []}
assert sorted(os.listdir(IN))[-3:] == ["hold_out.npy", "job.json", "score.py"]
assert os.environ["PYTHONPATH"]
if not challenger.startswith(b"TFL3"):
    exec(challenger)
(OUT / "scores.json").write_text(json.dumps(scores))
"""


class Worker(Service):
    """A copy of the worker with stand-ins for the programs in its sandbox."""

    def __init__(self, folder: Path, environment: dict, **settings):
        self.folder = folder
        if not (folder / "retrain_worker").exists():
            unused = shutil.ignore_patterns("__pycache__")  # may change under our hands
            for package in ("common", "retrain_worker"):
                shutil.copytree(ROOT / package, folder / package, ignore=unused)
            (folder / "retrain_worker/sandbox/train.py").write_text(TRAIN)
            (folder / "retrain_worker/sandbox/score.py").write_text(SCORE)
        log = folder / f"worker-{time.time_ns()}.log"
        environment |= {key: str(value) for key, value in settings.items()}
        super().__init__("retrain_worker", log, environment, supervised=False)

    def start(self) -> None:
        self.begun = 0
        command = [sys.executable, self.folder / "retrain_worker/retrain_worker.py"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | self.environment, stdout=log, stderr=log
            )

    def has_started(self) -> bool:
        return "waiting for a job" in self.said()


@contextmanager
def job_image(folder: Path, libraries: str = "imported = True") -> Iterator[str]:
    """Yield the name of an image that stands for the trainer's, with prewarm.py, and `model`'s."""
    (folder / "Dockerfile").write_text(f"FROM {python_image()}\nCOPY *.py /app/\n")
    shutil.copy(ROOT / "retrain_worker/sandbox/prewarm.py", folder)
    (folder / "libraries.py").write_text(libraries)
    name = f"monitoring-test-job-{time.time_ns()}"
    docker("build", "-q", "-t", name, str(folder))
    try:
        yield name
    finally:
        docker("rmi", name)


@contextmanager
def workers(folder: Path, api: FakeApi, broker) -> Iterator[Callable[..., Worker]]:
    """Yield a function that starts a worker; at the end nothing of its jobs may be left."""
    (folder / "secret").write_text(SECRET)
    (folder / "tmp").mkdir()
    started = []

    def start(**settings) -> Worker:
        environment = {"AMQP_URL": broker.url, "API_URL": api.url, "WORKER_NAME": "one"}
        environment |= {"WORKER_SECRET_FILE": str(folder / "secret")}
        environment |= {"TMPDIR": str(folder / "tmp"), "TRAIN_PREWARM": "0"}
        environment |= {"TRAINER_IMAGE": python_image()} if has_docker() else {}
        started.append(Worker(folder, environment, **settings))
        return started[-1]

    try:
        yield start
    finally:
        for service in started:
            if service.process.poll() is None:
                service.stop()
        with broker.connect() as connection:
            connection.channel().queue_delete("retrain_jobs")
        left = [name for job in api.jobs.values() for name in left_of(job)]
        left += left_of_system()
        for name in left:
            remove(name)
    assert not left, left


def left_of_system() -> list[str]:
    """Return what is there of any of our workers, so no container waits any more, either."""
    if not has_docker():
        return []
    label = ("--filter", f"label=monitoring.api={api_name(SECRET)}", "--format")
    containers = docker("ps", "-a", *label, "{{.Names}}").split()
    return containers + docker("volume", "ls", *label, "{{.Name}}").split()


def api_name(secret: str) -> str:
    """Return the name of an API with this secret in the labels of its containers."""
    return hashlib.sha256(f"Bearer {secret}".encode()).hexdigest()[:12]


def labelled(job: str) -> list[str]:
    """Return options of docker that label a thing as ours: workers of other APIs leave it alone."""
    labels = {"job": job, "attempt": 1, "worker": "gone", "api": api_name(SECRET)}
    return [f"--label=monitoring.{name}={value}" for name, value in labels.items()]


def left_of(job: FakeJob) -> list[str]:
    """Return the names of the containers and volumes that are on the engine for a job."""
    if not has_docker():
        return []
    containers = docker("ps", "-a", "--format", "{{.Names}} {{.Labels}}").splitlines()
    volumes = docker("volume", "ls", "--format", "{{.Name}} {{.Labels}}").splitlines()
    return [found.split()[0] for found in containers + volumes if job.id in found]


def containers_of(job: FakeJob, role: str) -> list[str]:
    """Return the ids of a job's containers: pause, training or scoring."""
    name = f"name={job.id}-[0-9]-" + {"pause": ".*-pause"}.get(role, f"{role}-[0-9]$")
    return docker("ps", "-aq", "--no-trunc", "--filter", name).split()


def remove(name: str) -> None:
    for command in ("rm -f", "volume rm -f"):
        subprocess.run(["docker", *command.split(), name], capture_output=True)


def send(broker, *jobs: FakeJob) -> None:
    """Send jobs as the API does, which declares the queue before."""
    with broker.connect() as connection:
        declare(connection.channel(), "dead", "retrain_jobs")
    broker.send("retrain_jobs", [json.dumps({"id": job.id}).encode() for job in jobs])


def wait_for_end(job: FakeJob, seconds: float = 60) -> None:
    wait_for(lambda: job.state not in ("queued", "running"), seconds, "the job's end")
