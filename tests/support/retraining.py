"""The retraining half of the system, and `model`, as processes; jobs run in containers."""

import csv
import os
from contextlib import contextmanager

import numpy as np
import requests
from sklearn.datasets import load_diabetes

from tests.support.broker import installed
from tests.support.docker import docker, python_image
from tests.support.environment import ROOT
from tests.support.ports import free_port
from tests.support.service import Service
from tests.support.waiting import wait_for
from tests.support.worker_stage import api_name

data, target = load_diabetes(return_X_y=True)
COLUMNS = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
MODEL_IMAGE, TRAINER_IMAGE = (  # another run on the same engine has its own
    f"monitoring-test-{os.getpid()}-{name}" for name in ("model", "trainer")
)


@contextmanager
def job_images():
    """Build the two images that jobs run in from what is on disk now; remove them at the end."""
    base = ["--build-arg", f"PYTHON_IMAGE={python_image()}"]
    files = {MODEL_IMAGE: "model/Dockerfile", TRAINER_IMAGE: "retrain_worker/trainer.Dockerfile"}
    try:
        for image, file in files.items():
            docker("build", "-q", *base, "-t", image, "-f", str(ROOT / file), str(ROOT))
        yield
    finally:
        docker("rmi", "-f", *files)


class Retraining:
    """The retraining half and `model` as processes, each supervised; jobs in containers."""

    def __init__(self, folder, broker):
        self.folder, self.broker, self.processes = folder, broker, []
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.environment = {
            "AMQP_URL": broker.url,
            "API_PORT": str(port),
            "API_URL": self.url,
            "DATA_DIR": str(folder / "data"),
            "WORKER_SECRET_FILE": str(folder / "data/worker_secret"),
            "LEASE_SECONDS": "60",
            "MODEL_CACHE": str(folder / "cache"),
            "MODEL_IMAGE": MODEL_IMAGE,
            "TRAINER_IMAGE": TRAINER_IMAGE,
            "TRAIN_CPUS": "1",
        }
        self.api = self.start("retrain_api")

    def start(self, name: str, supervised: bool = True, **settings):
        log = self.folder / f"{name}-{len(self.processes)}.log"
        self.processes.append(Service(name, log, self.environment | settings, supervised))
        return self.processes[-1]

    @contextmanager
    def second_worker(self):
        second = self.start("retrain_worker", WORKER_NAME="second")
        try:
            yield second
        finally:
            second.stop()

    def is_up(self) -> bool:
        try:
            return requests.get(f"{self.url}/jobs", timeout=5).ok
        except requests.ConnectionError:
            return False

    def kill_api(self) -> None:
        assert self.api.kill()
        wait_for(self.is_up, 60, "the next life of the API")

    def get(self, path: str) -> dict:
        return requests.get(self.url + path, timeout=30).json()

    def upload(self, table, model=None, **fields) -> str:
        files = {"data": (table.name, table.read_bytes())}
        if model:
            files["model"] = (model.name, model.read_bytes())
        answer = requests.post(f"{self.url}/jobs", files=files, data=fields, timeout=60)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def job(self, job_id: str) -> dict:
        return self.get(f"/jobs/{job_id}")

    def end_of(self, job_id: str, seconds: float = 300) -> dict:
        """Wait until a job has ended, and see that it left nothing on the engine."""
        final = ("succeeded", "failed", "cancelled")
        wait_for(lambda: self.job(job_id)["state"] in final, seconds, f"the end of {job_id}")
        wait_for(lambda: not left_of(job_id), 20, f"the clean-up of {job_id}")
        return self.job(job_id)

    def training(self, job_id: str) -> str:
        """Wait until the training container of a job runs, and return its id."""
        name = f"name={job_id}-[0-9]-training"
        containers = (
            ["--filter", f"{name}-0$"],
            ["--filter", f"{name}-0-pause"],
        )  # it may have been warm
        wait_for(lambda: all(docker("ps", "-q", *each) for each in containers), 60, "its container")
        return docker("ps", "-q", "--no-trunc", *containers[0])

    def stop(self) -> None:
        """End all, and remove what a job that is not at its end has on the engine."""
        for process in reversed(self.processes):
            process.end()
        secret = self.folder / "data/worker_secret"
        if secret.exists():
            remove_from_engine(f"monitoring.api={api_name(secret.read_text().strip())}")


def left_of(job_id: str) -> str:
    label, name = ["--filter", f"label=monitoring.job={job_id}"], ["--filter", f"name={job_id}"]
    return docker("ps", "-aq", *name) + docker("volume", "ls", "-q", *label)


def remove_from_engine(label: str) -> None:
    """Remove all containers and volumes with a label."""
    label = ["--filter", f"label={label}"]
    if containers := docker("ps", "-aq", *label).split():
        docker("rm", "-f", "-v", *containers)
    if volumes := docker("volume", "ls", "-q", *label).split():
        docker("volume", "rm", "-f", *volumes)


@contextmanager
def retraining(folder):
    """Yield the retraining half with a broker of its own; at the end nothing of it is left."""
    (folder / "broker").mkdir()
    broker = installed(folder / "broker")
    try:
        system = Retraining(folder, broker)
        try:
            wait_for(system.is_up, 60, "the API")
            yield system
        finally:
            system.stop()
    finally:
        broker.stop()


def write(path, y):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*COLUMNS, "progression"], *np.column_stack([data, y])])
    return path
