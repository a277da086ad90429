"""From an upload to the answers of the new model: real API, worker, containers, model and broker.

What dies in between does not matter: each job ends once, and nothing of it stays on the engine.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import requests

from tests.support.docker import docker
from tests.support.retraining import data, job_images, left_of, retraining, target, write
from tests.support.samples import write_models
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.broker,
    pytest.mark.docker,
    pytest.mark.tensorflow,
    pytest.mark.slow,
]

ROWS = data[:20].tolist()
ARRAYS = "hold_out", "train"


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with job_images(), retraining(tmp_path_factory.mktemp("retraining")) as system:
        yield system


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return the path of the diabetes data as a CSV."""
    return write(tmp_path_factory.mktemp("table") / "diabetes.csv", target)


@pytest.fixture(scope="module")
def other_table(tmp_path_factory):
    """The same with another truth, of which no model that serves can know."""
    return write(tmp_path_factory.mktemp("table") / "other.csv", 5000 - 10 * target)


@pytest.fixture(scope="module")
def served(system):
    """Let the model and a worker run."""
    model = system.start("model")
    # One that is stopped for a minute is to wake up as the same process: a watchdog would end it.
    system.worker = system.start("retrain_worker", WORKER_NAME="first", WATCHDOG_SECONDS="600")
    wait_for(lambda: "waiting for a job" in system.worker.said(), 60, "the worker")
    wait_for(lambda: "started" in model.said(), 60, "the model")
    return system


def answers_of(system, version: int) -> list[float]:
    """Send the same rows until all are answered by this version; return the predictions."""
    rows = [json.dumps({"id": n, "body": row}).encode() for n, row in enumerate(ROWS)]
    answers = {}

    def answered() -> bool:
        system.broker.send("features", rows)
        wait_for(lambda: system.broker.count("y_pred") >= len(rows), 30, "answers")
        taken = system.broker.take("y_pred")
        answers.update((json.loads(body)["id"], json.loads(body)["body"]) for _, body in taken)
        return {headers["model_version"] for headers, _ in taken} == {version}

    wait_for(answered, 60, f"answers of version {version} alone")
    return [answers[n] for n in range(len(rows))]


def keras_says(path, rows: list) -> list[float]:
    """Return what a .keras file predicts, from a process of its own: TensorFlow is large."""
    code = (
        "import json, sys, numpy as np, keras; m = keras.models.load_model(sys.argv[1]);"
        "x = np.array(json.load(sys.stdin), 'float32');"
        "print('=', json.dumps(m.predict(x, verbose=0).ravel().tolist()))"
    )
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, path],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout.split("= ")[1])


def download(system, version: int, folder):
    path = folder / f"{version}.keras"
    path.write_bytes(requests.get(f"{system.url}/models/{version}/model.keras", timeout=60).content)
    return path


@pytest.mark.parametrize(
    "start_from", [None, "sequential.keras", "two_branches.keras", "sequential.h5"]
)
def test_an_upload_becomes_the_model_that_answers_the_next_rows(
    served, table, model_files, start_from, tmp_path, figure
):
    start = time.monotonic()
    model = model_files / start_from if start_from else None
    job = served.end_of(served.upload(table, model, deploy="always", epochs=20))
    assert job["state"] == "succeeded", job["reason"]
    answers = answers_of(served, job["version"])
    seconds = time.monotonic() - start
    figure(f"{start_from or 'from scratch'}: {seconds:.0f} s from the upload to its answers")
    said = keras_says(download(served, job["version"], tmp_path), ROWS)
    assert np.allclose(answers, said, rtol=1e-5, atol=0)
    assert set(job["report"]["containers"]) == {"training", "scoring"}
    replicas = served.get("/models/current")["replicas"].values()
    assert {replica["serves"] for replica in replicas} == {job["version"]}


def may_hold_a_message(broker, seconds: float) -> bool:
    """Take a message and do not acknowledge it; return whether the broker bears that so long."""
    with broker.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("held", exclusive=True)
        channel.basic_publish("", "held", b"")
        channel.basic_consume("held", lambda *message: None)
        connection.sleep(seconds)
        return channel.is_open


class TestPromises:
    """What was accepted ends once, whatever dies."""

    def test_a_worker_that_is_killed_while_it_trains_goes_on_with_its_container(
        self, served, table
    ):
        job_id = served.upload(table, deploy="never", epochs=300)
        container = served.training(job_id)
        assert served.worker.kill()
        job = served.end_of(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job["reason"]
        assert job["report"]["containers"]["training"] == container

    def test_an_api_that_is_killed_after_its_202_and_in_the_training_ends_the_job_once(
        self, served, table
    ):
        job_id = served.upload(table, deploy="never", epochs=300)
        served.kill_api()
        container = served.training(job_id)
        served.kill_api()
        job = served.end_of(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job["reason"]
        assert job["report"]["containers"]["training"] == container

    def test_a_training_that_ends_while_its_worker_is_dead_is_collected(self, served, table):
        job_id = served.upload(table, deploy="never", epochs=100)
        container = served.training(job_id)
        # The lease is to outlast the rest, and importing TensorFlow takes most of it when busy.
        wait_for(lambda: served.job(job_id)["progress"], 300, "the first epoch")
        served.worker.pause()
        docker("wait", container)
        served.worker.resume()
        job = served.end_of(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job["reason"]
        assert job["report"]["containers"]["training"] == container

    def test_a_job_of_a_worker_that_is_gone_is_taken_over_and_the_late_twin_is_refused(
        self, served, table
    ):
        job_id = served.upload(table, deploy="never", epochs=300)
        served.training(job_id)
        os.kill(served.worker.process.pid, signal.SIGSTOP)
        try:
            with served.second_worker():
                job = served.end_of(job_id)
        finally:
            os.kill(served.worker.process.pid, signal.SIGCONT)
        assert (job["state"], job["attempt"]) == ("succeeded", 2), job["reason"]
        over = f"job {job_id}, attempt 1 is over"
        wait_for(lambda: over in served.worker.said(), 60, "the refusal of the first")
        assert served.job(job_id) == job

    def test_a_job_that_was_accepted_while_the_broker_was_down_runs_when_it_is_back(
        self, served, table
    ):
        served.broker.end(signal.SIGTERM)
        job_id = served.upload(table, deploy="never", epochs=5)
        assert served.job(job_id)["state"] == "queued"
        served.broker.start()
        assert served.end_of(job_id)["state"] == "succeeded"

    def test_a_job_whose_containers_an_engine_took_along_has_a_final_state(self, served, table):
        job_id = served.upload(table, deploy="never", epochs=300)
        container = served.training(job_id)
        docker("kill", *docker("ps", "-q", "--filter", f"name={job_id}").split())
        job = served.end_of(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", 2), job["reason"]
        assert job["report"]["containers"]["training"] != container

    def test_make_down_in_the_middle_puts_the_job_back(self, served, table):
        job_id = served.upload(table, deploy="never", epochs=300)
        served.training(job_id)
        served.worker.pause(signal.SIGINT)
        assert served.job(job_id)["state"] == "queued" and not left_of(job_id)
        served.worker.resume()
        assert served.end_of(job_id)["state"] == "succeeded"

    def test_a_job_longer_than_the_broker_lets_a_message_wait_is_done_once(self, served, table):
        """The broker's 30 minutes are two seconds here. A channel takes them when it opens."""
        usual = served.broker.set(consumer_timeout=2000, channel_tick_interval=1000)
        try:
            served.worker.pause()
            served.worker.resume()
            assert not may_hold_a_message(served.broker, seconds=10)
            job = served.end_of(served.upload(table, deploy="never", epochs=20))
        finally:
            served.broker.set(**usual)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job["reason"]
        start, end = (datetime.fromisoformat(job[time]) for time in ("started", "finished"))
        assert (end - start).total_seconds() > 4

    def test_of_two_jobs_that_end_together_the_loser_is_compared_again(self, served, other_table):
        """The data are such that whatever has seen them beats what serves now."""
        with served.second_worker():
            jobs = [served.upload(other_table, epochs=20 + n) for n in range(2)]
            ended = [served.end_of(job_id) for job_id in jobs]
        assert [job["state"] for job in ended] == ["succeeded"] * 2
        one, two = sorted(ended, key=lambda job: job["version"])
        assert one["report"]["deployed"]
        assert two["report"]["compared_with"] == one["version"]


def test_a_cancelled_job_leaves_no_container_after_five_seconds(served, table, figure):
    job_id = served.upload(table, deploy="never", epochs=300)
    served.training(job_id)
    start = time.monotonic()
    answer = requests.delete(f"{served.url}/jobs/{job_id}", timeout=10)
    assert answer.json()["state"] == "cancelled"
    wait_for(lambda: not left_of(job_id), 15, "the end of its containers")
    figure(f"cancelled: its containers were gone after {time.monotonic() - start:.1f} s")
    assert time.monotonic() - start < 5
    assert served.job(job_id)["state"] == "cancelled"


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "lambda.keras": "Lambda",
        "lambda.h5": "Lambda",
        "own_layer.keras": "Own",
        "huge_dense.keras": "memory",
        "zip_bomb.keras": "unpacks",
        "truncated.keras": "complete",
        "newer.keras": "99.1.0",
        "nine_columns.keras": "9",
        "two_outputs.keras": "one number",
        "not_a_number.keras": "",
    }.items(),
)
def test_a_model_that_harms_or_does_not_fit_ends_its_job_and_nothing_else(
    served, table, model_files, name, expected, figure
):
    before = served.get("/models/current")["version"], served.worker.process.pid
    job = served.end_of(served.upload(table, model_files / name, epochs=5))
    figure(f"{name} in container {job['containers']['training']:.12}: {job['reason'][:100]}")
    assert job["state"] == "failed" and expected in job["reason"]
    assert job["containers"]["training"]  # it came as far as that
    assert (served.get("/models/current")["version"], served.worker.process.pid) == before


def test_a_model_whose_file_climbs_out_when_it_is_unpacked_does_not(
    served, table, model_files, figure
):
    """Keras reads what it knows in there, and nothing else."""
    job = served.end_of(served.upload(table, model_files / "climbing.keras", epochs=5))
    figure(f"climbing.keras in container {job['containers']['training']:.12}: {job['state']}")
    assert job["state"] == "succeeded", job["reason"]
    places = [served.folder, Path(tempfile.gettempdir()), Path.cwd(), Path.cwd().parent]
    assert not [place for place in places if (place / "climbed").exists()]


def test_no_row_of_the_hold_out_goes_into_the_training(served, table):
    job_id = served.upload(table, deploy="never", epochs=300)
    served.training(job_id)
    command = ["docker", "cp", f"monitoring-{job_id}-1-training-0-pause:/in", "-"]
    went_in = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    hold_out, train = (np.load(served.folder / f"data/jobs/{job_id}/{n}.npy") for n in ARRAYS)
    assert (len(hold_out), len(hold_out) + len(train)) == (served.job(job_id)["hold_out_rows"], 442)
    assert train[0].tobytes() in went_in
    assert not [row for row in hold_out if row.tobytes() in went_in]
    requests.delete(f"{served.url}/jobs/{job_id}", timeout=10)
    served.end_of(job_id)


def test_a_network_that_cannot_be_served_is_kept_and_says_so(served, table, model_files):
    current = served.get("/models/current")["version"]
    job = served.end_of(served.upload(table, model_files / "lstm.keras", deploy="always", epochs=1))
    assert job["state"] == "succeeded" and not job["report"]["deployed"]
    assert "cannot be" in job["report"]["why"] or "LiteRT" in job["report"]["why"]
    assert served.get("/models/current")["version"] == current


def test_a_model_of_other_data_is_kept_and_never_deployed(served, tmp_path):
    path = tmp_path / "small.csv"
    path.write_text("a,b,y\n" + "".join(f"{n},{n % 7},{3 * n}\n" for n in range(100)))
    current = served.get("/models/current")["version"]
    job = served.end_of(served.upload(path, deploy="always", epochs=5))
    assert job["state"] == "succeeded" and not job["report"]["deployed"]
    answer = requests.post(f"{served.url}/models/{job['version']}/deploy", timeout=10)
    assert answer.status_code == 409 and "10" in answer.json()["error"]
    assert served.get("/models/current")["version"] == current


def test_versions_are_served_forward_and_back(served):
    fit = [
        report["version"] for report in served.get("/models")["models"] if report.get("fits_stream")
    ]
    for version in (0, *fit[:2], 0):
        answer = requests.post(f"{served.url}/models/{version}/deploy", timeout=10)
        assert answer.ok, answer.text
        answers_of(served, version)
