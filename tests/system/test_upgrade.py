"""The services start on what the version before wrote, and nothing of it is lost.

tests/data/v1 has queues, streams, files and databases of a small system, and what must hold after
a start on them.
"""

import csv
import hashlib
import json
import sqlite3
from contextlib import closing

import pytest

from common.lifecycle import RENAMED_SETTINGS
from tests.support import archive
from tests.support.api import Api
from tests.support.csv_files import rows_of
from tests.support.service import Service
from tests.support.waiting import wait_for

EXPECTED = archive.expected()
AFTER = EXPECTED["after_start"]


def settings(folder) -> dict[str, str]:
    """Return the archived settings under their present names."""
    lines = (folder / ".env").read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    return {RENAMED_SETTINGS.get(name, name): value for name, value in pairs}


class Upgraded:
    """The archive on a broker and in a folder, and the present services on both."""

    def __init__(self, folder, broker):
        self.folder, self.broker = folder / "system", broker
        archive.unpack(self.folder)
        broker.delete_queues()
        with broker.connect() as connection:
            archive.publish(connection)
        self.settings = settings(self.folder) | {"LEASE_SECONDS": "5"}
        self.api = Api(self.folder, broker, **self.settings)
        self.services = {name: self.start(name) for name in ("metric", "model", "drift")}

    def start(self, name: str, **more) -> Service:
        environment = self.settings | {
            "AMQP_URL": self.broker.url,
            "API_URL": self.api.url,
            "LOGS_DIR": str(self.folder / "logs"),
            "MODEL_CACHE": str(self.folder / "cache"),
        }
        log = self.folder / f"{name}.log"
        service = Service(name, log, environment | more, supervised=True)
        wait_for(service.has_started, 60, name)
        return service

    def end(self) -> None:
        for service in self.services.values():
            service.end()
        self.api.process.stop()


@pytest.fixture
def upgraded(tmp_path, any_broker):
    system = Upgraded(tmp_path, any_broker)
    yield system
    system.end()


def test_a_system_of_the_version_before_goes_on_and_loses_nothing(upgraded):
    folder, broker, api = upgraded.folder, upgraded.broker, upgraded.api
    csv_file = folder / "logs/metric_log.csv"
    waiting = ("features", "y_true", "y_pred")
    wait_for(lambda: not any(map(broker.count, waiting)), 60, "the messages that waited")
    wait_for(lambda: len(rows_of(csv_file)) >= AFTER["csv"]["rows"], 60, "all rows")
    check_rows(csv_file)
    check_dead_letters(broker)
    check_versions(api)
    check_jobs(api)
    check_drift(folder, broker)
    assert upgraded.services["metric"].stop() == 0
    check_counts(folder / "logs/metric.sqlite3")


def test_a_job_that_waited_and_one_that_ran_are_trained(tmp_path, broker):
    system = Upgraded(tmp_path, broker)
    secret = str(system.folder / "data/worker_secret")
    backend = {"TRAIN_BACKEND": "process", "WORKER_SECRET_FILE": secret}
    system.services["retrain_worker"] = system.start("retrain_worker", **backend)
    for job_id, expected in AFTER["with_a_worker"].items():
        if isinstance(expected, dict):
            job = wait_for(lambda i=job_id: ended(system.api, i), 180, f"job {job_id}")
            assert (job["state"], job["attempt"]) == (expected["state"], expected["attempt"])
            assert job["version"] >= AFTER["api"]["next_version"]
    wait_for(lambda: broker.count("retrain_jobs") == 0, 60, "the message of a cancelled job")
    check_jobs(system.api)
    system.end()


def ended(api, job_id: str) -> dict | None:
    job = api.get(f"/jobs/{job_id}").json()
    return None if job["state"] in ("queued", "running") else job


def check_rows(csv_file) -> None:
    before = csv_file.read_bytes()[: EXPECTED["csv"]["bytes"]]
    assert hashlib.sha256(before).hexdigest() == EXPECTED["csv"]["sha256"]
    ids = [row[0] for row in rows_of(csv_file)]
    assert len(ids) == AFTER["csv"]["rows"] == len(set(ids))
    assert set(AFTER["csv"]["new_ids"]) <= set(ids)


def check_counts(file) -> None:
    """The counts went on, and each value without a partner still waits for it."""
    counts = AFTER["metric"]
    with closing(sqlite3.connect(file)) as database:
        query = "SELECT joined, pending, repeated, expired FROM state"
        expected = tuple(counts[key] for key in ("joined", "waiting", "repeated", "orphans"))
        assert database.execute(query).fetchone() == expected
        query = "SELECT id FROM ids WHERE y_true IS NULL OR y_pred IS NULL"
        assert {row[0] for row in database.execute(query)} == set(counts["halves"])


def check_dead_letters(broker) -> None:
    wait_for(lambda: broker.count("dead") == AFTER["queues"]["dead"], 30, "the dead letters")
    letters = broker.take("dead")
    added = [(headers["queue"], headers["reason"]) for headers, _ in letters[-2:]]
    expected = [(letter["queue"], letter["reason"]) for letter in AFTER["dead_added"]]
    assert sorted(added) == sorted(expected)


def check_versions(api) -> None:
    listed = api.get("/models").json()
    assert listed["current"] == AFTER["api"]["current"]
    assert [model["version"] for model in listed["models"]] == AFTER["api"]["versions"]
    for version in EXPECTED["versions"]:
        for name, digest in version["files"].items():
            content = api.get(f"/models/{version['version']}/{name}").content
            assert hashlib.sha256(content).hexdigest() == digest
    wait_for(lambda: served(api) == {AFTER["model"]["version"]}, 30, "the version that served")


def served(api) -> set[int]:
    replicas = api.get("/models/current").json()["replicas"]
    return {replica["serves"] for replica in replicas.values()}


def check_jobs(api) -> None:
    for job in EXPECTED["jobs"]:
        found = api.get(f"/jobs/{job['id']}").json()
        if job["state"] not in ("queued", "running"):
            kept = ("state", "attempt", "version", "worker")
            assert {key: found[key] for key in kept} == {key: job[key] for key in kept}
        else:
            assert found["state"] not in ("failed", "cancelled")


def check_drift(folder, broker) -> None:
    """`drift` reads on where it was, and goes on with its alarm under the same key."""
    file = folder / "logs/drift.json"
    end = AFTER["drift"]["offset"]
    wait_for(lambda: state_of(file).get("offset", 0) >= end, 60, "the rows on `errors`")
    with (folder / "logs/drift_log.csv").open(newline="") as lines:
        events = [row["event"] for row in csv.DictReader(lines)]
    assert events[: len(EXPECTED["events"])] == [event["event"] for event in EXPECTED["events"]]
    wait_for(lambda: "job_submitted" in new_events(folder), 60, "the job of the alarm")
    assert not {"drift_detected", "rolled_back"} & set(new_events(folder))
    assert len(broker.stream(name="errors")) == AFTER["queues"]["errors"]


def state_of(file) -> dict:
    """Return drift.json with the fields of its parts on one level."""
    state = json.loads(file.read_text())
    parts = [part for part in state.values() if isinstance(part, dict)]
    return {key: value for part in [state, *parts] for key, value in part.items()}


def new_events(folder) -> list[str]:
    with (folder / "logs/drift_log.csv").open(newline="") as lines:
        return [row["event"] for row in csv.DictReader(lines)][len(EXPECTED["events"]) :]
