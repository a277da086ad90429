"""The worker, with a real broker, real containers and the fake API."""

import faulthandler
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common import connection, lifecycle
from retrain_worker.runners.docker_runner import DockerRunner
from tests.support.docker import docker, python_image
from tests.support.environment import ROOT, lacking
from tests.support.fake_worker_api import fake_api
from tests.support.own_engine import OwnEngine
from tests.support.waiting import wait_for
from tests.support.worker_stage import (
    containers_of,
    job_image,
    labelled,
    left_of,
    send,
    wait_for_end,
    workers,
)

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SLOW = "progress(1); good(); time.sleep(3)"
FOR_EVER = "progress(1); time.sleep(600)"


@pytest.fixture
def worker_api():
    with fake_api() as api:
        yield api


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    with job_image(tmp_path_factory.mktemp("image")) as name:
        yield name


@pytest.fixture
def start_worker(tmp_path, worker_api, broker):
    with workers(tmp_path, worker_api, broker) as start:
        yield start


@pytest.fixture(params=["container", "warm container", "process"])
def backend(request) -> dict:
    """Each test with this runs its jobs in containers, cold and warm, and without an engine."""
    if request.param == "process":
        return {"TRAIN_BACKEND": "process"}
    image = request.getfixturevalue("image")
    return {"MODEL_IMAGE": image} if request.param == "container" else warm(image)


def name_of(backend: dict) -> str:
    warm = "warm container" if "TRAIN_PREWARM" in backend else "container"
    return backend.get("TRAIN_BACKEND", warm)


def warm(image: str) -> dict:
    """Return the settings with which a container of `image` waits for the next job."""
    return {"TRAIN_PREWARM": "1", "TRAINER_IMAGE": image, "MODEL_IMAGE": image}


@pytest.fixture
def start_job(worker_api, broker, start_worker):
    """Return a function that starts a worker, sends it a job and waits until it trains."""

    def start_job(program: str, backend: dict, **more):
        job = worker_api.add(program, **more)
        worker = start_worker(**backend)
        wait_for(worker.has_started, 30, "the worker")
        send(broker, job)
        wait_for(lambda: "training on" in job.log, 60, "the training")
        return job, worker

    return start_job


def pids_of(job) -> list[str]:
    found = subprocess.run(["pgrep", "-f", job.id], capture_output=True, text=True)
    return found.stdout.split()


def test_a_job_is_trained_scored_and_delivered(worker_api, broker, start_worker, backend, figure):
    job = worker_api.add("progress(2); good()")
    worker = start_worker(**backend)
    wait_for(worker.has_started, 30, "the worker")
    began = time.monotonic()
    send(broker, job)
    wait_for_end(job)
    figure(f"empty job in a {name_of(backend)}: {time.monotonic() - began:.1f} s")
    assert job.state == "succeeded", job.reason
    assert job.report["scores"]["mae"] == {"challenger": 40, "champion": 43, "mean": 60}
    assert sorted(job.files) == ["golden.json", "model.keras", "model.tflite"]
    assert job.files["model.keras"] == b"PK" + b"k" * 300_000
    [epoch] = job.epochs
    assert (epoch.epoch, epoch.epochs, epoch.loss, epoch.val_loss) == (2, 3, 1.5, 2)
    assert "epoch 2/3  loss 1.5  val_loss 2\n" in job.log and "{" not in job.log
    program = ["dataset.py", "export.py", "job.json", "libraries.py", "train.npy", "train.py"]
    assert f"training on {[*program, 'uploaded_model.py']}" in job.log
    assert set(job.containers) == set(job.report["containers"]) == {"training", "scoring"}
    wait_for(lambda: not left_of(job), 30, "the clean-up")
    assert broker.count("retrain_jobs") == 0


def test_a_model_that_cannot_be_converted_is_delivered_without_scores(start_job, backend):
    job, _ = start_job("good(tflite=None)", backend)
    wait_for_end(job)
    assert job.report["scores"] is None and sorted(job.files) == ["golden.json", "model.keras"]


def test_while_a_job_runs_no_connection_to_the_broker_is_open(start_job, broker, backend):
    _, worker = start_job(FOR_EVER, backend)
    control = [ROOT / "deploy/broker", "ctl", broker.folder, "-q", "list_connections", "pid"]
    assert "<" not in subprocess.run(control, capture_output=True, text=True, check=True).stdout
    assert worker.stop() == 0


def test_an_api_that_is_away_stops_neither_training_nor_result(start_job, worker_api, backend):
    job, _ = start_job(SLOW, backend)
    worker_api.away = True
    time.sleep(5)
    assert job.state == "running"
    worker_api.away = False
    wait_for_end(job)
    assert (job.state, job.attempt) == ("succeeded", 1)


def test_a_cancelled_job_is_ended_within_5_s(start_job, backend, figure):
    job, _ = start_job(FOR_EVER, backend)
    job.state, began = "cancelled", time.monotonic()
    wait_for(lambda: not left_of(job) and not pids_of(job), 5, "the end of the training")
    figure(f"cancelled in a {name_of(backend)}: {time.monotonic() - began:.1f} s to nothing left")


def test_the_deadline_ends_a_job_within_5_s_and_says_so(start_job, backend):
    job, _ = start_job(FOR_EVER, backend | {"TRAIN_TIMEOUT_SECONDS": "2"})
    wait_for_end(job, 2 + 5)
    assert job.reason.startswith("The training was stopped, as it took longer than 2 s")
    wait_for(lambda: not left_of(job) and not pids_of(job), 5, "the end of the training")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_orderly_stop_ends_the_training_and_puts_the_job_back(
    start_job, backend, number, figure
):
    job, worker = start_job(FOR_EVER, backend)
    began = time.monotonic()
    worker.process.send_signal(number)
    assert worker.process.wait(8) == 0
    figure(f"stopped in the middle of a {name_of(backend)}: {time.monotonic() - began:.1f} s")
    assert (job.state, job.calls[-1][1]) == ("queued", "release")
    assert not left_of(job) and not pids_of(job)


def test_the_next_life_adopts_a_container_that_trains(start_job, image, start_worker):
    job, worker = start_job("progress(1); time.sleep(6); good()", {"MODEL_IMAGE": image})
    [container] = containers_of(job, "training")
    assert worker.kill()
    start_worker(MODEL_IMAGE=image)
    wait_for_end(job)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert job.report["containers"]["training"] == container
    wait_for(lambda: not left_of(job), 30, "the clean-up")


def test_the_next_life_collects_what_has_ended_and_trains_it_not_again(
    start_job, image, start_worker
):
    job, worker = start_job("time.sleep(1); good()", {"MODEL_IMAGE": image})
    [container] = containers_of(job, "training")
    assert worker.kill()
    docker("wait", container)
    start_worker(MODEL_IMAGE=image)
    wait_for_end(job)
    assert job.state == "succeeded" and job.report["containers"]["training"] == container


def test_the_next_life_goes_on_with_a_scoring(start_job, image, start_worker):
    slow_score = "good(b'import time; time.sleep(5)'); progress(1)"
    job, worker = start_job(slow_score, {"MODEL_IMAGE": image})
    [container] = wait_for(lambda: containers_of(job, "scoring"), 30, "the scoring")
    assert worker.kill()
    start_worker(MODEL_IMAGE=image)
    wait_for_end(job)
    assert job.state == "succeeded" and job.report["containers"]["scoring"] == container


@pytest.mark.parametrize("settings", [{"TRAIN_PREWARM": "0"}, {}], ids=["cold", "warm"])
@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.8, 1.2, 1.6, 2.0])
def test_a_worker_may_be_killed_at_any_moment(
    worker_api, broker, start_worker, image, seconds, settings
):
    job = worker_api.add(f"good(); time.sleep({seconds} % 0.5)")
    settings = warm(image) | settings
    worker = start_worker(**settings)
    wait_for(worker.has_started, 30, "the worker")
    send(broker, job)
    wait_for(lambda: job.attempt, 30, "the claim")
    time.sleep(seconds)
    worker.kill()
    if not left_of(job):  # too early for a trace: the lease has to run out
        job.state = "queued"
        send(broker, job)
    start_worker(**settings)
    wait_for_end(job)
    assert job.state == "succeeded"
    wait_for(lambda: not left_of(job), 30, "the clean-up")


def test_a_job_whose_outputs_went_with_the_engine_is_tried_again(start_job, image):
    job, _ = start_job("good(); time.sleep(600)", {"MODEL_IMAGE": image})
    docker("kill", *containers_of(job, "pause"), *containers_of(job, "training"))
    wait_for_end(job)
    assert job.retry and job.reason == "The training was lost: its engine or worker was restarted."


@pytest.fixture
def own_engine(monkeypatch):
    """An engine that all in this test talk to."""
    if os.geteuid() or not shutil.which("dockerd"):
        lacking("root and dockerd, to start a Docker engine beside the machine's")
    image = python_image()
    with tempfile.TemporaryDirectory() as folder:  # a short name: the path of a socket has a limit
        engine = OwnEngine(Path(folder))
        try:
            engine.start()
            engine.copy_image(image)
            monkeypatch.setenv("DOCKER_HOST", engine.host)
            yield engine
        finally:
            engine.end()


def test_a_job_whose_engine_is_restarted_has_a_final_state_and_the_next_one_runs(
    own_engine, worker_api, broker, start_job, figure
):
    job, worker = start_job(FOR_EVER, {})
    worker.keep_alive()
    own_engine.end()
    wait_for(lambda: worker.codes, 60, "the worker to notice")
    own_engine.start()
    wait_for_end(job)
    assert job.state == "failed" and job.retry, job.reason
    figure(f"engine restarted in the middle of a job: {job.reason}")
    wait_for(lambda: not left_of(job), 30, "the clean-up")
    following = worker_api.add("good(tflite=None)")
    send(broker, following)
    wait_for_end(following)
    assert following.state == "succeeded"


def test_the_full_clean_up_removes_what_a_killed_worker_left(own_engine):
    labels = labelled("orphan")
    docker("volume", "create", *labels, "orphan")
    docker("run", "-d", *labels, "-v", "orphan:/in", python_image(), "sleep", "600")
    docker("volume", "create", "somebody-elses")
    subprocess.run([ROOT / "deploy/docker", "remove_jobs"], check=True, timeout=60)
    assert not docker("ps", "-aq")
    assert docker("volume", "ls", "-q") == "somebody-elses"


def test_without_containers_a_killed_workers_job_is_lost_and_tried_again(start_job, start_worker):
    job, worker = start_job(FOR_EVER, {"TRAIN_BACKEND": "process"})
    worker.kill()
    wait_for(lambda: not pids_of(job), 30, "the end of the process")
    start_worker(TRAIN_BACKEND="process")
    wait_for_end(job)
    assert job.retry and "restarted" in job.reason
    wait_for(lambda: not list((worker.folder / "tmp").iterdir()), 30, "the clean-up")


def test_a_container_of_another_worker_is_left_alone(start_job, start_worker, image):
    job, _ = start_job("progress(1); good(); time.sleep(8)", {"MODEL_IMAGE": image})
    before = left_of(job)
    second = start_worker(MODEL_IMAGE=image, WORKER_NAME="two")
    wait_for(second.has_started, 30, "the second worker")
    assert left_of(job) == before
    wait_for_end(job)
    assert job.state == "succeeded"


def test_a_container_of_another_system_on_the_same_engine_is_left_alone(start_job, image, tmp_path):
    job, worker = start_job(FOR_EVER, {"MODEL_IMAGE": image})
    before = left_of(job)
    other = DockerRunner("one", api="another")
    assert job.id not in {found for found, _ in other.attempts()}
    other.engine.client.close()
    faulthandler.cancel_dump_traceback_later()  # the watchdog, which calls to the engine start
    assert left_of(job) == before
    worker.stop()


def test_what_is_left_of_an_attempt_that_is_over_is_removed_while_waiting(
    worker_api, start_worker, image
):
    job = worker_api.add("")
    labels = labelled(job.id)
    docker("volume", "create", *labels, f"{job.id}-orphan")
    worker = start_worker(MODEL_IMAGE=image)
    wait_for(lambda: not left_of(job), 30, "the clean-up")
    wait_for(worker.has_started, 30, "the worker")
    docker("create", *labels, python_image(), "true")
    wait_for(lambda: not left_of(job), 30, "the clean-up")


def test_the_loser_of_a_race_is_compared_with_the_winner(start_job, worker_api, image):
    job, _ = start_job("good(b'import time; time.sleep(3)')", {"MODEL_IMAGE": image})
    [first] = wait_for(lambda: containers_of(job, "scoring"), 30, "the scoring")
    worker_api.version, worker_api.champion = 7, b"TFL3" + b"x" * 73
    wait_for_end(job)
    assert job.state == "succeeded" and job.report["compared_with"] == 7
    assert job.report["scores"]["mae"]["champion"] == 77
    assert job.report["containers"]["scoring"] not in (first, None)


def test_a_training_that_is_lost_while_it_is_scored_is_tried_again(start_job, image):
    job, worker = start_job("good(b'import time; time.sleep(3)')", {"MODEL_IMAGE": image})
    wait_for(lambda: containers_of(job, "scoring"), 30, "the scoring")
    pauses = docker("ps", "-q", "--filter", f"name={job.id}-[0-9]-training-0-pause").split()
    docker("rm", "-f", *pauses)
    wait_for_end(job)
    assert job.retry and job.reason == "The training was lost: its engine or worker was restarted."
    assert worker.process.poll() is None


@pytest.mark.parametrize(
    "body",
    [b"", b"job", b"7", b'{"id": 7}', b'{"id": "../etc"}', b'{"id": "a/b"}', b"\xff", b"[" * 99999],
    ids=lambda body: repr(body[:20]),
)
def test_a_message_that_names_no_job_goes_to_dead(broker, start_worker, body):
    worker = start_worker(TRAIN_BACKEND="process")
    wait_for(worker.has_started, 30, "the worker")
    broker.send("retrain_jobs", [body])
    wait_for(lambda: broker.count("dead"), 30, "the dead letter")
    [(headers, same)] = broker.take("dead")
    assert same == body and headers["queue"] == "retrain_jobs" and headers["reason"]
    assert broker.count("retrain_jobs") == 0 and worker.process.poll() is None


def test_a_job_that_is_unknown_or_done_is_forgotten_and_the_next_one_runs(
    worker_api, broker, start_worker
):
    done, job = worker_api.add("good()"), worker_api.add("good()")
    done.state = "cancelled"
    broker.send("retrain_jobs", [b'{"id": "unknown"}'])
    send(broker, done, job)
    start_worker(TRAIN_BACKEND="process")
    wait_for_end(job)
    assert job.state == "succeeded" and not done.attempt and not broker.count("dead")


def test_a_claim_that_fails_for_now_costs_neither_the_worker_nor_the_message(
    worker_api, broker, start_worker
):
    job = worker_api.add("good()")
    job.state = "no room"
    worker = start_worker(TRAIN_BACKEND="process")
    send(broker, job)
    wait_for(lambda: "cannot be claimed now: the disk" in worker.said(), 30, "the claim")
    job.state = "queued"
    send(broker, job)  # as the API does, when the broker has nothing any more
    wait_for_end(job)
    assert job.state == "succeeded" and worker.process.poll() is None


def test_a_stop_between_the_claim_and_the_job_puts_it_back(worker_api, broker, start_worker):
    job = worker_api.add("good()")
    worker = start_worker(TRAIN_BACKEND="process")
    worker_api.on_claim = lambda job: worker.process.send_signal(signal.SIGINT)
    send(broker, job)
    assert worker.process.wait(20) == 0
    assert [name for _, name in job.calls] == ["claim", "release"] and job.state == "queued"
    assert not broker.count("retrain_jobs")


def test_a_stop_while_a_large_model_is_delivered_puts_the_job_back(worker_api, start_job, backend):
    worker_api.reads_results.clear()
    large = "good()\n(OUT / 'model.keras').write_bytes(bytes(40 << 20))"
    job, worker = start_job(large, backend)
    try:
        assert worker_api.result_arrives.wait(60)
        time.sleep(0.5)  # all that sockets hold is on its way
        assert worker.stop() == 0
    finally:
        worker_api.reads_results.set()
    assert job.state == "queued" and not left_of(job)


def test_after_a_stop_no_goodbye_is_said_that_might_hang(broker, monkeypatch):
    monkeypatch.setattr(connection, "AMQP_URL", broker.url)
    with pytest.raises(lifecycle.StopRequested), connection.connect("a test") as opened:
        raise lifecycle.StopRequested
    assert opened.is_open
    opened.close()


LOST = """
import signal
from common import lifecycle

class Cleaned:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # an exception that is raised here is discarded

lifecycle.start()
Cleaned()
lifecycle.check_stop()
raise SystemExit("the stop got lost")
"""


def test_a_stop_that_arrives_where_exceptions_get_lost_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LOST], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stderr


@contextmanager
def locked(container: str) -> Iterator[None]:
    """Let the engine answer nothing about a container, as after a read that blocks.

    It holds the container's lock while it sends an archive, which nobody reads here.
    """
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not address.startswith("unix://"):
        lacking("a Docker engine on a socket of this machine")
    with socket.socket(socket.AF_UNIX) as engine:
        engine.connect(address.removeprefix("unix://"))
        request = f"GET /containers/{container}/archive?path=/usr HTTP/1.1"
        engine.sendall(f"{request}\r\nHost: docker\r\n\r\n".encode())
        assert b"200" in engine.recv(12)
        yield


@pytest.mark.parametrize("role", ["training", "pause"])
def test_a_container_that_the_engine_does_not_answer_about_costs_no_more_than_its_attempt(
    start_job, worker_api, broker, start_worker, image, role, figure
):
    settings = {"MODEL_IMAGE": image, "ENGINE_TIMEOUT_SECONDS": "2"}
    job, worker = start_job(FOR_EVER, settings)
    [container] = containers_of(job, role)
    with locked(container):
        began = time.monotonic()
        wait_for_end(job, 30)
        figure(
            f"a stuck {role} container: the attempt ended after {time.monotonic() - began:.1f} s"
        )
        assert job.retry and "did not answer about the container" in job.reason
        following = worker_api.add("good()")
        send(broker, following)
        wait_for_end(following, 60)
        assert following.state == "succeeded" and worker.process.poll() is None
        assert container in docker("ps", "-q", "--no-trunc")
    worker.stop()
    start_worker(**settings)
    wait_for(lambda: not left_of(job), 30, "the clean-up by the next life")


def test_the_next_life_of_a_worker_does_not_hang_on_a_stuck_container(
    start_job, start_worker, image
):
    settings = {"MODEL_IMAGE": image, "ENGINE_TIMEOUT_SECONDS": "2"}
    job, worker = start_job(FOR_EVER, settings)
    [container] = containers_of(job, "training")
    worker.kill()
    with locked(container):
        second = start_worker(**settings)
        wait_for_end(job, 30)
        assert job.retry and "did not answer about the container" in job.reason
        wait_for(second.has_started, 30, "the worker to wait for the next job")
    second.stop()
    start_worker(**settings)
    wait_for(lambda: not left_of(job), 30, "the clean-up by the next life")


def test_a_worker_waits_for_the_api_before_it_receives_a_message(worker_api, broker, start_worker):
    worker_api.away = True
    job = worker_api.add("good()")
    worker = start_worker(TRAIN_BACKEND="process")
    wait_for(lambda: "waiting for the API" in worker.said(), 30, "the worker")
    worker_api.away = False
    wait_for(worker.has_started, 30, "the worker")
    send(broker, job)
    wait_for_end(job)


def test_an_image_that_is_not_there_is_a_reason(worker_api, broker, start_worker, image):
    job = worker_api.add("good()")
    start_worker(MODEL_IMAGE=image, TRAINER_IMAGE="monitoring-no-such-image")
    send(broker, job)
    wait_for_end(job)
    assert job.retry and "monitoring-no-such-image" in job.reason
    assert not containers_of(job, "training")


@pytest.mark.parametrize(("allowed", "state"), [("", "failed"), ("yes", "succeeded")])
def test_without_a_sandbox_an_uploaded_model_is_refused_unless_allowed(
    worker_api, broker, start_worker, allowed, state
):
    job = worker_api.add("good()", inputs={"model.h5": b"h5"})
    start_worker(TRAIN_BACKEND="process", ALLOW_UNSANDBOXED_MODELS=allowed)
    send(broker, job)
    wait_for_end(job)
    assert job.state == state and ("ALLOW_UNSANDBOXED_MODELS" in job.reason) == (not allowed)


@pytest.mark.parametrize(("secret", "said"), [("wrong", "does not know"), (None, "is not there")])
def test_a_secret_that_is_wrong_or_missing_ends_the_worker_with_a_sentence(
    worker_api, broker, start_worker, tmp_path, secret, said
):
    (tmp_path / "other").write_text(secret or "")
    file = tmp_path / ("other" if secret else "missing")
    worker = start_worker(TRAIN_BACKEND="process", WORKER_SECRET_FILE=file)
    send(broker, worker_api.add("good()"))
    assert worker.process.wait(60) == 1 and said in worker.said()
    assert "Traceback" not in worker.said()


def test_the_tar_that_goes_into_training_has_no_row_of_the_hold_out(start_job, worker_api, image):
    inputs = {"model.keras": b"PK" + b"m" * 100}
    job, worker = start_job(
        FOR_EVER, {"MODEL_IMAGE": image}, hold_out=b"secret" * 99, inputs=inputs
    )
    [pause], [training] = containers_of(job, "pause"), containers_of(job, "training")
    command = ["docker", "cp", f"{pause}:/in", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        names = tar.getnames()
    program = {"in/job.json", "in/libraries.py", "in/dataset.py", "in/train.py"}
    program |= {"in/uploaded_model.py", "in/export.py"}
    assert set(names) - program == {"in", "in/model.keras", "in/train.npy"}
    assert b"secret" not in raw
    assert "hold_out" not in json.dumps(json.loads(docker("inspect", training)))
    worker.stop()


@pytest.mark.parametrize("settings", [{"TRAIN_PREWARM": "0"}, {}], ids=["cold", "warm"])
def test_every_container_of_a_job_is_a_sandbox(start_job, image, settings):
    job, worker = start_job("good(b'import time; time.sleep(9)')", warm(image) | settings)
    wait_for(lambda: containers_of(job, "scoring"), 30, "the scoring")
    wait_for(lambda: len(containers_of(job, "pause")) == 2, 30, "the pause containers")
    roles = ("pause", "training", "scoring")
    containers = [found for role in roles for found in containers_of(job, role)]
    for found in json.loads(docker("inspect", *containers)):
        host = found["HostConfig"]
        assert host["NetworkMode"] == "none" and host["ReadonlyRootfs"] and not host["Privileged"]
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Devices"]
        assert host["SecurityOpt"] == ["no-new-privileges"] and host["PidsLimit"] == 128
        assert host["Memory"] == host["MemorySwap"] > 0 and host["NanoCpus"] == 2e9
        assert found["Config"]["User"] == "65534:65534" and not host["Binds"]
        assert host["IpcMode"] == "private" and not host["AutoRemove"]
        assert host["RestartPolicy"]["Name"] in ("", "no") and host["LogConfig"]["Config"]
        assert set(host["Tmpfs"]) == {"/tmp"} and "size=" in host["Tmpfs"]["/tmp"]
        mounts = {mount["Destination"]: mount for mount in found["Mounts"]}
        assert set(mounts) == {"/in", "/out"}
        assert mounts["/in"]["RW"] == found["Name"].endswith("-pause")
    worker.stop()
