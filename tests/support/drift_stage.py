"""The whole system but `plot`, as processes on a broker of their own, whose data can change."""

import csv
import json
from pathlib import Path

import numpy as np
import requests
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from features.features import mirrored
from serving import network
from tests.support.broker import Broker
from tests.support.ports import free_port
from tests.support.service import Service
from tests.support.waiting import wait_for

MODEL_IMAGE, TRAINER_IMAGE = "monitoring-drift-model", "monitoring-drift-trainer"
TOKEN = "the word"
LEARNED_RATIO = 1.15  # of a version that has learned a change, to LEAST_ERROR
SETTLED_ROWS = 200

data, target = load_diabetes(return_X_y=True)
# Mean absolute error of a model that knows the change. Mirroring the target does not change it.
LEAST_ERROR = float(np.abs(LinearRegression().fit(data, target).predict(data) - target).mean())


class Stage:
    """Services, each of them supervised, and the kind of the data they have now."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder, self.broker, self.changes = folder, broker, 0
        self.processes: list[Service] = []
        self.features: Service | None = None
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
            "MODEL_IMAGE": MODEL_IMAGE,
            "TRAINER_IMAGE": TRAINER_IMAGE,
            "LEASE_SECONDS": "10",
            "FEATURES_DELAY_SECONDS": "0.01",
            "DRIFT_COOLDOWN_SECONDS": "1",
            "DRIFT_MAX_ROWS": "1000",  # a short training on a busy machine
        }
        self.api = self.start("retrain_api")
        wait_for(self.is_up, 60, "the API")
        self.model, self.metric = self.start("model"), self.start("metric")
        self.drift = self.start("drift")
        self.mark()

    def start(self, name: str, supervised: bool = True, **settings: str) -> Service:
        log = self.folder / f"{name}-{len(self.processes)}.log"
        self.processes.append(Service(name, log, self.environment | settings, supervised))
        return self.processes[-1]

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.end()

    def is_up(self) -> bool:
        try:
            return requests.get(f"{self.url}/jobs", timeout=5).ok
        except requests.ConnectionError:
            return False

    def get(self, path: str) -> dict:
        return requests.get(self.url + path, timeout=30).json()

    def jobs(self) -> list[dict]:
        """Return all jobs, the newest first."""
        return self.get("/jobs?limit=9999")["jobs"]

    def current(self) -> int:
        return self.get("/models/current")["version"]

    def deploy(self, version: int) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"{self.url}/models/{version}/deploy"
        requests.post(url, headers=headers, timeout=30).raise_for_status()

    def error(self) -> float:
        """Return the error of the current version over all rows as they are now."""
        truth = np.array([mirrored(float(value), self.changes) for value in target])
        file = self.folder / "served.tflite"
        url = f"{self.url}/models/{self.current()}/model.tflite"
        file.write_bytes(requests.get(url, timeout=30).content)
        return float(np.abs(network.load(file).predict(data) - truth).mean())

    def state(self) -> dict:
        """Return drift.json, or {} before the first one."""
        file = self.logs / "drift.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def offset(self) -> int:
        """Return how far `drift` has read."""
        return self.state().get("offset") or 0

    def events(self) -> list[dict]:
        file = self.logs / "drift_log.csv"
        if not file.exists():
            return []
        with file.open(newline="") as lines:
            return list(csv.DictReader(lines))

    def mark(self) -> None:
        """Let `new` and `wait_until_learned` count from here on."""
        self.marked_events, self.marked_jobs = len(self.events()), len(self.jobs())

    def new(self, *kinds: str) -> list[str]:
        """Return the events of these kinds since `mark`."""
        new = self.events()[self.marked_events :]
        return [event["event"] for event in new if event["event"] in kinds]

    def change(self) -> None:
        """Change the data: rows have another true value from now on."""
        self.changes += 1
        self.send_rows()

    def send_rows(self, **settings: str) -> None:
        """Send rows as they are now, without end or as `settings` say, in place of others."""
        if self.features:
            self.features.end()
        changes = ",".join(["0"] * self.changes)
        self.features = self.start("features", FEATURES_DRIFT_AFTER=changes, **settings)

    def settle(self) -> None:
        """Let rows flow, and wait until `drift` knows the current version and has nothing to do."""
        if not self.features or self.features.process.poll() is not None:
            self.send_rows()
        wait_for(self.is_settled, 120, "a version that is known")

    def is_settled(self) -> bool:
        if not (state := self.state()):
            return False
        monitor = state["monitor"]
        busy = state["cases"] or state["rollback"] or monitor["trial"]
        return not busy and len(monitor["errors"]) >= SETTLED_ROWS

    def wait_until_learned(self, changes: int = 1) -> None:
        """Wait until the newest data are learned, with as many jobs as there were changes."""
        wait_for(lambda: self.is_learned(changes), 600, "a version that has learned the change")
        assert len(self.jobs()) == self.marked_jobs + changes
        assert len(self.new("drift_detected")) == len(self.new("job_submitted")) == changes
        assert self.error() < LEARNED_RATIO * LEAST_ERROR

    def is_learned(self, changes: int) -> bool:
        kinds = self.new("deployed", "confirmed")
        return kinds.count("deployed") >= changes and kinds[-1] == "confirmed"
