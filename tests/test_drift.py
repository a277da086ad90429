"""The whole chain: the world changes, the model rots, it is noticed, learned, exchanged, healed.

Real broker, services, API and worker. What dies in between does not matter: in the end the new
world is learned, with as many jobs as there were changes.
"""

import csv
import json

import pytest
import requests
from conftest import Service, free_port, load, wait_for

features = load("features/features.py")


class Stage:
    """All services but `plot` as processes, each supervised, on a broker of their own."""

    def __init__(self, folder, broker, **settings):
        self.folder, self.broker, self.processes = folder, broker, []
        self.logs = folder / "logs"
        self.logs.mkdir()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "AMQP_URL": broker.url,
            "API_PORT": str(port),
            "API_URL": self.url,
            "LOGS_DIR": str(self.logs),
            "DATA_DIR": str(folder / "data"),
            "WORKER_SECRET_FILE": str(folder / "data/worker_secret"),
            "MODEL_CACHE": str(folder / "cache"),
            "TRAIN_IN": "process",
            "FEATURES_DELAY_SECONDS": "0.01",
            "DRIFT_COOLDOWN_SECONDS": "1",
        } | settings
        self.api = self.start("retrain_api")
        wait_for(self.is_up, 60, "the API")
        for name in ("model", "metric", "retrain_worker", "drift"):
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

    def events(self, *kinds: str) -> list[dict]:
        file = self.logs / "drift_log.csv"
        if not file.exists():
            return []
        with file.open(newline="") as lines:
            return [row for row in csv.DictReader(lines) if not kinds or row["event"] in kinds]

    def wait_for_events(self, kind: str, count: int, seconds: float = 120) -> list[dict]:
        wait_for(lambda: len(self.events(kind)) >= count, seconds, f"{count} times {kind}")
        return self.events(kind)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.end()


@pytest.fixture
def stage(broker, tmp_path):
    stages = []

    def make(**settings):
        stages.append(Stage(tmp_path, broker, **settings))
        return stages[-1]

    yield make
    for stage in stages:
        stage.stop()


def test_chain(stage):
    s = stage()
    s.start("features", FEATURES_DRIFT_AFTER="300")
    s.wait_for_events("confirmed", 1)
    for e in s.events():
        print(e)
    print(json.dumps(s.get("/jobs"), indent=1)[:600])
    print(s.get("/models/current")["report"])
    print(s.drift.said())
    assert s.drift.codes == []
    assert s.drift.stop() == 0
    print(s.drift.said()[-500:])
