"""Hostile programs in real containers: the job fails with a sentence, nobody else notices."""

import re
from types import SimpleNamespace

import pytest

from tests.support.docker import docker
from tests.support.fake_worker_api import fake_api
from tests.support.hostile import EXCHANGE, LATE, SCORING, TRAINING
from tests.support.waiting import wait_for
from tests.support.worker_stage import job_image, left_of, send, wait_for_end, workers

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PEAK = 200  # MB of memory that the worker may take
LIMITS = {
    "TRAIN_TIMEOUT_SECONDS": "6",
    "TRAIN_MEMORY": "96m",
    "TRAIN_CPUS": "1",
    "TRAIN_OUTPUT_BYTES": str(8 << 20),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory, installed_broker):
    """One worker for all of them."""
    folder = tmp_path_factory.mktemp("sandbox")
    with (
        job_image(tmp_path_factory.mktemp("image")) as image,
        fake_api() as api,
        workers(folder, api, installed_broker) as start,
    ):
        worker = start(MODEL_IMAGE=image, WORKER_NAME="guard", **LIMITS)
        wait_for(worker.has_started, 30, "the worker")
        yield SimpleNamespace(api=api, broker=installed_broker, worker=worker)


def run_hostile(stage, figure, kind: str, program: str, role: str):
    """Run a job; return it once it ended and nothing of it is left."""
    job = stage.api.add(program)
    send(stage.broker, job)
    wait_for_end(job, 60)
    wait_for(lambda: not left_of(job), 20, "the clean-up")
    stage.worker.remember_peak()
    assert stage.worker.process.poll() is None and stage.worker.peak < PEAK
    figure(f"{role}, {kind}: {job.state} in container {job.containers[role]:.12}: {job.reason}")
    return job


@pytest.mark.parametrize("kind", TRAINING)
def test_a_hostile_training_fails_with_a_sentence_and_leaves_nothing(stage, figure, kind):
    program, reason = TRAINING[kind]
    job = run_hostile(stage, figure, kind, program, "training")
    assert job.state == "failed" and re.search(reason, job.reason), job.reason
    assert 10 < len(job.reason) < 1100 and job.reason.isprintable()
    assert len(job.log) <= 1 << 16 and "\x1b" not in job.log


@pytest.mark.parametrize("kind", SCORING)
def test_a_hostile_model_fails_where_it_is_scored(stage, figure, kind):
    program, reason = SCORING[kind]
    job = run_hostile(stage, figure, kind, f"good({program.encode()!r})", "scoring")
    assert job.state == "failed" and re.search(reason, job.reason), job.reason


def test_progress_that_changes_all_the_time_disturbs_nobody(stage, figure):
    program = "end = time.time() + 4\nwhile time.time() < end: progress(1)\ngood()"
    job = run_hostile(stage, figure, "fast progress", program, "training")
    assert job.state == "succeeded" and [epoch.epoch for epoch in job.epochs] == [1]


def test_after_a_training_that_never_stops_exchanging_files_with_pipes_the_next_job_runs(
    stage, figure
):
    hostile, following = stage.api.add(EXCHANGE), stage.api.add("good()")
    send(stage.broker, hostile, following)
    wait_for_end(hostile, 40)
    wait_for_end(following, 40)
    assert hostile.state == "failed" and re.search(LATE, hostile.reason), hostile.reason
    assert following.state == "succeeded", following.reason
    wait_for(lambda: not left_of(hostile) and not left_of(following), 20, "the clean-up")
    assert stage.worker.process.poll() is None


def test_outputs_as_large_as_allowed_are_delivered_in_little_memory(stage, figure):
    program = "good()\n(OUT / 'model.keras').write_bytes(b'PK' + bytes(7 << 20))"
    job = run_hostile(stage, figure, "large outputs", program, "training")
    assert job.state == "succeeded" and len(job.files["model.keras"]) == 2 + (7 << 20)
    figure(f"peak memory of the worker after all of them: {stage.worker.peak:.0f} MB")


def test_the_engine_is_left_without_a_trace(stage):
    ours = ["--filter", "label=monitoring.worker=guard"]
    assert not docker("ps", "-aq", *ours) + docker("volume", "ls", "-q", *ours)
