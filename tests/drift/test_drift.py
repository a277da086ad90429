"""The whole loop: the data change, the error rises, `drift` detects it, a new version learns it.

Real broker, services, API and worker. The first job trains in a real container, the others as
processes. Whatever is killed in between, the new data are learned in the end, with as many jobs as
there were changes. All tests share one system, which each of them leaves settled.
"""

import json
import random
import signal
import time

import numpy as np
import pytest

from features.features import mirrored
from tests.support.broker import installed
from tests.support.docker import docker, python_image
from tests.support.drift_stage import (
    LEAST_ERROR,
    MODEL_IMAGE,
    TRAINER_IMAGE,
    Stage,
    data,
    target,
)
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.broker, pytest.mark.tensorflow, pytest.mark.slow]

UNCHANGED_ROWS = 20_000
LEARNED = ["drift_detected", "job_submitted", "deployed", "confirmed"]


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
    running.settle()
    running.mark()
    yield running
    for process in running.processes:  # shown when a test has failed
        lines = process.said().splitlines()[-15:]
        print(f"--- {process.name}", *(line[:200] for line in lines), sep="\n")


@pytest.fixture(scope="module")
def trainer(running):
    """Let jobs be trained as processes."""
    worker = running.start("retrain_worker", TRAIN_BACKEND="process")
    wait_for(lambda: "waiting for a job" in worker.said(), 60, "the worker")
    return worker


@pytest.fixture
def container_worker(running):
    """Let jobs be trained in containers."""
    base = ["--build-arg", f"PYTHON_IMAGE={python_image()}"]
    images = {MODEL_IMAGE: "model/Dockerfile", TRAINER_IMAGE: "retrain_worker/trainer.Dockerfile"}
    for image, file in images.items():
        docker("build", "-q", *base, "-t", image, "-f", file, ".")
    worker = running.start("retrain_worker", TRAIN_CPUS="2")
    yield worker
    worker.stop()
    docker("rmi", *images)


def test_unchanged_data_raise_no_false_alarm_in_20_000_rows(stage):
    start = stage.offset()
    stage.send_rows(
        FEATURES_DELAY_SECONDS="0", FEATURES_COUNT=str(UNCHANGED_ROWS), FEATURES_SEED="1"
    )
    assert stage.features.process.wait(120) in (0, None)
    wait_for(lambda: stage.offset() >= start + UNCHANGED_ROWS, 60, "all rows")
    assert len(stage.events()) == stage.marked_events and len(stage.jobs()) == stage.marked_jobs


@pytest.mark.docker
def test_a_change_is_detected_and_learned_in_a_container(stage, container_worker, figure):
    start = time.monotonic()
    stage.change()
    stage.wait_until_learned()
    job = stage.get(f"/jobs/{stage.jobs()[0]['id']}")
    assert job["report"]["containers"]["training"] and job["report"]["deployed"]
    assert stage.new(*LEARNED) == LEARNED
    recorded = [event["event"] for event in stage.events()]
    published = [json.loads(body) for body in stage.broker.stream(len(recorded), "drift")]
    assert [event["event"] for event in published] == recorded
    seconds = time.monotonic() - start
    figure(f"learned in {seconds:.0f} s: {stage.error():.1f}; the best is {LEAST_ERROR:.1f}")
    count = check_training_rows(stage, job["id"])
    figure(f"the job had {count} rows, none of them older than the change")


def check_training_rows(stage: Stage, job_id: str) -> int:
    """Check that all rows of a job have true values of now, and return how many there are."""
    parts = [np.load(stage.folder / f"data/jobs/{job_id}/{n}.npy") for n in ("train", "hold_out")]
    rows = np.concatenate(parts)
    truth = [np.float32(mirrored(float(value), stage.changes)) for value in target]
    now = {(*x, y) for x, y in zip(np.float32(data).tolist(), truth, strict=True)}
    assert len(rows) >= 300
    assert {(*row[:-1].tolist(), row[-1]) for row in rows} <= now
    return len(rows)


def test_a_bad_version_that_a_user_deploys_is_rolled_back(stage, trainer, figure):
    if not stage.changes:  # the built-in version is only bad after a change
        stage.change()
        stage.wait_until_learned()
        stage.mark()
    version, start = stage.current(), time.monotonic()
    stage.deploy(0)
    wait_for(lambda: stage.new("rolled_back"), 60, "the rollback")
    figure(f"version 0 was rolled back after {time.monotonic() - start:.0f} s")
    wait_for(lambda: stage.new("deployed") == ["deployed"] * 2, 30, "its predecessor's rows")
    assert stage.current() == version
    assert not stage.new("drift_detected", "job_submitted")


def test_a_further_change_is_learned_too(stage, trainer):
    stage.change()
    stage.wait_until_learned()


def test_a_change_while_a_job_trains_is_learned_as_well(stage, trainer):
    stage.change()
    wait_for(lambda: stage.new("job_submitted"), 60, "the first job")
    stage.change()
    wait_for(lambda: len(stage.new("drift_detected")) == 2, 60, "the second case")
    kinds = stage.new("drift_detected", "job_submitted", "deployed")
    assert kinds == ["drift_detected", "job_submitted", "drift_detected"]  # it was still training
    stage.wait_until_learned(changes=2)


def test_an_api_that_is_down_during_a_change_is_waited_for(stage, trainer):
    stage.api.pause()
    stage.change()
    wait_for(lambda: stage.new("drift_detected"), 60, "the case")
    time.sleep(5)  # rows enough for a job come meanwhile
    stage.api.resume()
    stage.wait_until_learned()


def test_a_worker_that_is_killed_in_a_training_changes_nothing(stage, trainer):
    stage.change()
    wait_for(lambda: stage.new("job_submitted"), 60, "the job")
    wait_for(lambda: stage.jobs()[0]["state"] == "running", 60, "the training")
    time.sleep(3)
    assert stage.jobs()[0]["state"] == "running" and trainer.kill()
    stage.wait_until_learned()
    assert stage.jobs()[0]["attempt"] == 2


def test_drift_may_be_killed_at_any_point(stage, trainer, figure):
    chance, kills = random.Random(1), 0
    stage.change()
    while not stage.is_learned(1) and kills < 25:
        wait_for(stage.drift.has_started, 30, "the next process")
        time.sleep(chance.uniform(0, 4))
        kills += stage.drift.kill()
    figure(f"drift was killed {kills} times on the way")
    stage.wait_until_learned()
    assert kills >= 2


def test_it_stops_on_request_and_never_ended_by_itself(stage):
    wait_for(stage.drift.has_started, 30, "the last process")
    assert stage.drift.stop() == 0
    assert set(stage.drift.codes) <= {-signal.SIGKILL}
    stage.drift.resume()
