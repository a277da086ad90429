"""The whole chain: the world changes, the model rots, it is noticed, learned, exchanged, healed.

Real broker, services, API and worker; the first job is trained in a real container, the others as
processes. What dies in between does not matter: in the end the new world is learned, with as many
jobs as there were changes. The tests go on from each other, from world to world.
"""

import csv
import json
import random
import signal
import time

import numpy as np
import pytest
import requests
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from tests.support.broker import installed
from tests.support.docker import docker, python_image
from tests.support.environment import load
from tests.support.ports import free_port
from tests.support.service import Service
from tests.support.waiting import wait_for

features = load("features/features.py")
serving = load("model/serving.py")
data, target = load_diabetes(return_X_y=True)
IMAGES = {"monitoring-drift-model": "model/Dockerfile"}
IMAGES["monitoring-drift-trainer"] = "retrain_worker/trainer.Dockerfile"
HEALED = 1.15  # times the error of a model that knew of the change
TOKEN = "the word"
CALM_ROWS = 20_000


# what a model that knew of the change would still be wrong by: the worlds are each other's mirrors
KNOWING = float(np.abs(LinearRegression().fit(data, target).predict(data) - target).mean())


class Stage:
    """All services but `plot` as processes, each supervised, on a broker of their own."""

    def __init__(self, folder, broker):
        self.folder, self.broker, self.processes, self.world = folder, broker, [], 0
        self.features = None
        self.logs = folder / "logs"
        self.logs.mkdir()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "AMQP_URL": broker.url,
            "API_PORT": str(port),
            "API_URL": self.url,
            "API_TOKEN": TOKEN,
            "LOGS_DIR": str(self.logs),
            "DATA_DIR": str(folder / "data"),
            "WORKER_SECRET_FILE": str(folder / "data/worker_secret"),
            "MODEL_CACHE": str(folder / "cache"),
            "MODEL_IMAGE": "monitoring-drift-model",
            "TRAINER_IMAGE": "monitoring-drift-trainer",
            "LEASE_SECONDS": "10",
            "FEATURES_DELAY_SECONDS": "0.01",
            "DRIFT_COOLDOWN_SECONDS": "1",
        }
        self.api = self.start("retrain_api")
        wait_for(self.is_up, 60, "the API")
        for name in ("model", "metric", "drift"):
            setattr(self, name, self.start(name))

    def start(self, name: str, supervised: bool = True, **settings):
        log = self.folder / f"{name}-{len(self.processes)}.log"
        self.processes.append(Service(name, log, self.environment | settings, supervised))
        return self.processes[-1]

    def is_up(self) -> bool:
        try:
            return requests.get(f"{self.url}/jobs", timeout=5).ok
        except requests.ConnectionError:
            return False

    def get(self, path: str) -> dict:
        return requests.get(self.url + path, timeout=30).json()

    def offset(self) -> int:
        """Return how far `drift` has read."""
        file = self.logs / "drift.json"
        return (json.loads(file.read_text())["offset"] or 0) if file.exists() else 0

    def events(self, *kinds: str) -> list[dict]:
        file = self.logs / "drift_log.csv"
        if not file.exists():
            return []
        with file.open(newline="") as lines:
            return [row for row in csv.DictReader(lines) if not kinds or row["event"] in kinds]

    def jobs(self) -> list[dict]:
        return self.get("/jobs?limit=9999")["jobs"]

    def change(self) -> None:
        """Let the rows come from another world from now on."""
        self.world += 1
        self.rows(FEATURES_DRIFT_AFTER=",".join(["0"] * self.world))

    def rows(self, **settings) -> None:
        """Let rows come, without end; those that did end."""
        if self.features:
            self.features.end()
        self.features = self.start("features", **settings)

    def error(self) -> float:
        """Return the error of what serves, over all rows that there are in this world."""
        truth = np.array([features.mirrored(float(y), self.world) for y in target])
        version = self.get("/models/current")["version"]
        file = self.folder / "served.tflite"
        answer = requests.get(f"{self.url}/models/{version}/model.tflite", timeout=30)
        file.write_bytes(answer.content)
        return float(np.abs(serving.load(file).predict(data) - truth).mean())

    def new(self, *kinds: str) -> list[str]:
        """Return what has happened since `mark`."""
        return [event["event"] for event in self.events()[self.seen :] if event["event"] in kinds]

    def mark(self) -> None:
        self.seen, self.had = len(self.events()), len(self.jobs())

    def healed(self, changes: int = 1, seconds: float = 240) -> None:
        """Wait until the newest world is learned; it took as many jobs as there were changes."""
        wait_for(lambda: self.is_healed(changes), seconds, "a model that has learned the world")
        assert len(self.jobs()) == self.had + changes
        assert len(self.new("drift")) == len(self.new("job")) == changes
        assert self.error() < HEALED * KNOWING

    def is_healed(self, changes: int) -> bool:
        kinds = self.new("deployed", "confirmed")
        return kinds.count("deployed") >= changes and kinds[-1] == "confirmed"

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    (folder / "broker").mkdir()
    broker = installed(folder / "broker")
    stage = Stage(folder, broker)
    yield stage
    stage.stop()
    broker.stop()


@pytest.fixture
def stage(running):
    running.mark()
    yield running
    for process in running.processes:  # shown when a test has failed
        lines = process.said().splitlines()[-15:]
        print(f"--- {process.name}", *(line[:200] for line in lines), sep="\n")


@pytest.fixture(scope="module")
def trainer(running):
    """Let jobs be trained as processes."""
    worker = running.start("retrain_worker", TRAIN_IN="process")
    wait_for(lambda: "waiting for a job" in worker.said(), 60, "the worker")
    return worker


@pytest.fixture
def container_worker(running):
    """Let jobs be trained in containers."""
    base = ["--build-arg", f"PYTHON_IMAGE={python_image()}"]
    for image, file in IMAGES.items():
        docker("build", "-q", *base, "-t", image, "-f", file, ".")
    worker = running.start("retrain_worker", TRAIN_CPUS="2")
    yield worker
    worker.stop()
    docker("rmi", *IMAGES)


def test_a_world_that_stays_raises_no_alarm_in_20_000_rows(stage):
    stage.rows(FEATURES_DELAY_SECONDS="0", FEATURES_COUNT=str(CALM_ROWS), FEATURES_SEED="1")
    assert stage.features.process.wait(120) in (0, None)
    wait_for(lambda: stage.offset() >= CALM_ROWS, 60, "all rows seen")
    assert not stage.events() and not stage.jobs()


def test_a_changed_world_is_noticed_learned_in_a_container_and_healed(
    stage, container_worker, figure
):
    begin = time.monotonic()
    stage.change()
    stage.healed()
    [job] = stage.jobs()
    told = stage.get(f"/jobs/{job['id']}")
    assert told["report"]["containers"]["training"] and told["report"]["deployed"]
    assert stage.new("drift", "job", "deployed", "confirmed") == [
        "drift",
        "job",
        "deployed",
        "confirmed",
    ]
    events = [json.loads(body) for body in stage.broker.stream(4, "drift")]
    assert [event["event"] for event in events] == [e["event"] for e in stage.events()]
    figure(
        f"healed in {time.monotonic() - begin:.0f} s: {stage.error():.1f}, and {KNOWING:.1f} with"
        " knowledge of the change"
    )


def test_what_it_trains_on_came_after_the_change(stage, figure):
    """In the new world each row has one truth; a row of the old one would have another."""
    id = stage.jobs()[0]["id"]
    parts = [np.load(stage.folder / f"data/jobs/{id}/{n}.npy") for n in ("train", "hold_out")]
    rows = np.concatenate(parts)
    worlds = {
        (*x, np.float32(371 - y)) for x, y in zip(np.float32(data).tolist(), target, strict=True)
    }
    assert len(rows) >= 300
    assert {(*row[:-1].tolist(), row[-1]) for row in rows} <= worlds
    figure(f"the job had {len(rows)} rows, none of them older than the change")


def test_a_bad_version_that_is_deployed_by_hand_is_taken_back(stage, trainer, figure):
    version, begin = stage.get("/models/current")["version"], time.monotonic()
    may = {"Authorization": f"Bearer {TOKEN}"}
    url = f"{stage.url}/models/0/deploy"
    requests.post(url, headers=may, timeout=30).raise_for_status()
    wait_for(lambda: stage.new("rolled back"), 60, "the roll-back")
    figure(f"version 0 was taken back after {time.monotonic() - begin:.0f} s")
    wait_for(lambda: stage.new("deployed") == ["deployed"] * 2, 30, "its predecessor's rows")
    assert stage.get("/models/current")["version"] == version
    assert not stage.new("drift", "job")


def test_a_second_change_is_learned_too(stage, trainer):
    stage.change()
    stage.healed()


def test_a_change_while_a_job_runs_is_learned_as_well(stage, trainer):
    stage.change()
    wait_for(lambda: stage.new("job"), 60, "the first job")
    stage.change()
    wait_for(lambda: len(stage.new("drift")) == 2, 60, "the second alarm")
    kinds = stage.new("drift", "job", "deployed")
    assert kinds == ["drift", "job", "drift"]  # the job was still running
    stage.healed(changes=2)


def test_an_api_that_is_away_at_the_alarm_is_waited_for(stage, trainer):
    stage.api.pause()
    stage.change()
    wait_for(lambda: stage.new("drift"), 60, "the alarm")
    time.sleep(5)  # rows enough for a job come meanwhile
    stage.api.resume()
    stage.healed()


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(stage, trainer):
    stage.change()
    wait_for(lambda: stage.new("job"), 60, "the job")
    wait_for(lambda: stage.jobs()[0]["state"] == "running", 60, "the training")
    time.sleep(3)
    assert stage.jobs()[0]["state"] == "running" and trainer.kill()
    stage.healed()
    assert stage.jobs()[0]["attempt"] == 2


def test_drift_may_be_killed_at_any_point(stage, trainer, figure):
    chance, kills = random.Random(1), 0
    stage.change()
    while not stage.is_healed(1) and kills < 25:
        wait_for(stage.drift.has_started, 30, "its next life")
        time.sleep(chance.uniform(0, 4))
        kills += stage.drift.kill()
    figure(f"drift was killed {kills} times on the way")
    stage.healed()
    assert kills >= 2


def test_it_stops_when_it_is_told_to(stage):
    wait_for(stage.drift.has_started, 30, "its last life")
    assert stage.drift.stop() == 0
    assert set(stage.drift.codes) <= {-signal.SIGKILL}  # it never ended by itself
