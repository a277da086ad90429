"""The worker, with a real broker, real containers and a small API that says what ours says."""

import faulthandler
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.docker import docker, python_image
from tests.support.environment import ROOT, lacking, load
from tests.support.waiting import wait_for
from tests.support.worker_stage import (
    SECRET,
    OwnEngine,
    labelled,
    left_of,
    scorer_image,
    send,
    small_api,
    wait_for_end,
    workers,
)

retrain_worker = load("retrain_worker/retrain_worker.py")
import client  # noqa: E402, the worker's own modules, which `load` made known
import engine  # noqa: E402

SLOW = "progress(1); good(); time.sleep(3)"
FOR_EVER = "progress(1); time.sleep(600)"


@pytest.fixture
def worker_api():
    with small_api() as api:
        yield api


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with scorer_image(tmp_path_factory.mktemp("scorer")) as name:
        yield name


@pytest.fixture
def start_worker(tmp_path, worker_api, broker):
    with workers(tmp_path, worker_api, broker) as start:
        yield start


@pytest.fixture(params=["container", "warm container", "process"])
def place(request) -> dict:
    """Each test with this runs its jobs in containers, cold and warm, and without an engine."""
    if request.param == "process":
        return {"TRAIN_IN": "process"}
    scorer = request.getfixturevalue("scorer")
    return {"MODEL_IMAGE": scorer} if request.param == "container" else warm(scorer)


def name_of(place: dict) -> str:
    return place.get("TRAIN_IN", "warm container" if "TRAIN_WARM" in place else "container")


def warm(image: str) -> dict:
    """Return the settings with which a container of `image` waits for the next job."""
    return {"TRAIN_WARM": "1", "TRAINER_IMAGE": image, "MODEL_IMAGE": image}


@pytest.fixture
def begin(worker_api, broker, start_worker):
    """Return a function that starts a worker, sends it a job and waits until it trains."""

    def begin(program: str, place: dict, **more):
        job = worker_api.add(program, **more)
        worker = start_worker(**place)
        wait_for(worker.has_started, 30, "the worker")
        send(broker, job)
        wait_for(lambda: "training on" in job.log, 60, "the training")
        return job, worker

    return begin


def pids_of(job) -> list[str]:
    found = subprocess.run(["pgrep", "-f", job.id], capture_output=True, text=True)
    return found.stdout.split()


def containers_of(job, role: str) -> list[str]:
    name = f"name={job.id}-[0-9]-" + {"holder": ".*-holder"}.get(role, f"{role}-[0-9]$")
    return docker("ps", "-aq", "--no-trunc", "--filter", name).split()


def test_a_job_is_trained_scored_and_delivered(worker_api, broker, start_worker, place, figure):
    job = worker_api.add("progress(2); good()")
    worker = start_worker(**place)
    wait_for(worker.has_started, 30, "the worker")
    began = time.monotonic()
    send(broker, job)
    wait_for_end(job)
    figure(f"empty job in a {name_of(place)}: {time.monotonic() - began:.1f} s")
    assert job.state == "succeeded", job.reason
    assert job.report["scores"]["mae"] == {"challenger": 40, "champion": 43, "mean": 60}
    assert sorted(job.files) == ["golden.json", "model.keras", "model.tflite"]
    assert job.files["model.keras"] == b"PK" + b"k" * 300_000
    assert job.progress == {"epoch": 2, "epochs": 3, "loss": 1.5, "val_loss": 2}
    program = ["libraries.py", "rows.py", "train.npy", "train.py", "uploaded.py"]
    assert f"training on {['job.json', *program]}" in job.log
    assert set(job.containers) == set(job.report["containers"]) == {"training", "scoring"}
    wait_for(lambda: not left_of(job), 30, "the clean-up")
    assert broker.count("retrain_jobs") == 0


def test_a_model_that_cannot_be_converted_is_delivered_without_scores(begin, place):
    job, _ = begin("good(tflite=None)", place)
    wait_for_end(job)
    assert job.report["scores"] is None and sorted(job.files) == ["golden.json", "model.keras"]


def test_while_a_job_runs_no_connection_to_the_broker_is_open(begin, broker, place):
    job, worker = begin(FOR_EVER, place)
    control = [ROOT / "deploy/broker", "ctl", broker.folder, "-q", "list_connections", "pid"]
    assert "<" not in subprocess.run(control, capture_output=True, text=True, check=True).stdout
    assert worker.stop() == 0


def test_an_api_that_is_away_stops_neither_training_nor_result(begin, worker_api, place):
    job, _ = begin(SLOW, place)
    worker_api.away = True
    time.sleep(5)
    assert job.state == "running"
    worker_api.away = False
    wait_for_end(job)
    assert (job.state, job.attempt) == ("succeeded", 1)


def test_a_cancelled_job_is_ended_within_5_s(begin, place, figure):
    job, _ = begin(FOR_EVER, place)
    job.state, began = "cancelled", time.monotonic()
    wait_for(lambda: not left_of(job) and not pids_of(job), 5, "the end of the training")
    figure(f"cancelled in a {name_of(place)}: {time.monotonic() - began:.1f} s to nothing left")


def test_the_deadline_ends_a_job_within_5_s_and_says_so(begin, place):
    job, _ = begin(FOR_EVER, place | {"TRAIN_TIMEOUT_SECONDS": "2"})
    wait_for_end(job, 2 + 5)
    assert job.reason.startswith("The training was stopped, as it took longer than 2 s")
    wait_for(lambda: not left_of(job) and not pids_of(job), 5, "the end of the training")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_orderly_stop_ends_the_training_and_puts_the_job_back(begin, place, number, figure):
    job, worker = begin(FOR_EVER, place)
    began = time.monotonic()
    worker.process.send_signal(number)
    assert worker.process.wait(8) == 0
    figure(f"stopped in the middle of a {name_of(place)}: {time.monotonic() - began:.1f} s")
    assert (job.state, job.calls[-1][1]) == ("queued", "release")
    assert not left_of(job) and not pids_of(job)


def test_the_next_life_adopts_a_container_that_trains(begin, scorer, start_worker):
    job, worker = begin("progress(1); time.sleep(6); good()", {"MODEL_IMAGE": scorer})
    [container] = containers_of(job, "training")
    assert worker.kill()
    start_worker(MODEL_IMAGE=scorer)
    wait_for_end(job)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert job.report["containers"]["training"] == container
    wait_for(lambda: not left_of(job), 30, "the clean-up")


def test_the_next_life_collects_what_has_ended_and_trains_it_not_again(begin, scorer, start_worker):
    job, worker = begin("time.sleep(1); good()", {"MODEL_IMAGE": scorer})
    [container] = containers_of(job, "training")
    assert worker.kill()
    docker("wait", container)
    start_worker(MODEL_IMAGE=scorer)
    wait_for_end(job)
    assert job.state == "succeeded" and job.report["containers"]["training"] == container


def test_the_next_life_goes_on_with_a_scoring(begin, scorer, start_worker):
    slow_score = "good(b'import time; time.sleep(5)'); progress(1)"
    job, worker = begin(slow_score, {"MODEL_IMAGE": scorer})
    [container] = wait_for(lambda: containers_of(job, "scoring"), 30, "the scoring")
    assert worker.kill()
    start_worker(MODEL_IMAGE=scorer)
    wait_for_end(job)
    assert job.state == "succeeded" and job.report["containers"]["scoring"] == container


@pytest.mark.parametrize("settings", [{"TRAIN_WARM": "0"}, {}], ids=["cold", "warm"])
@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.8, 1.2, 1.6, 2.0])
def test_a_worker_may_be_killed_at_any_moment(
    worker_api, broker, start_worker, scorer, seconds, settings
):
    job = worker_api.add(f"good(); time.sleep({seconds} % 0.5)")
    settings = warm(scorer) | settings
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


def test_a_job_whose_outputs_went_with_the_engine_is_tried_again(begin, scorer):
    job, _ = begin("good(); time.sleep(600)", {"MODEL_IMAGE": scorer})
    docker("kill", *containers_of(job, "holder"), *containers_of(job, "training"))
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
            engine.take(image)
            monkeypatch.setenv("DOCKER_HOST", engine.host)
            yield engine
        finally:
            engine.end()


def test_a_job_whose_engine_is_restarted_has_a_final_state_and_the_next_one_runs(
    own_engine, worker_api, broker, begin, figure
):
    job, worker = begin(FOR_EVER, {})
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


def test_without_containers_a_killed_workers_job_is_lost_and_tried_again(begin, start_worker):
    job, worker = begin(FOR_EVER, {"TRAIN_IN": "process"})
    worker.kill()
    wait_for(lambda: not pids_of(job), 30, "the end of the process")
    start_worker(TRAIN_IN="process")
    wait_for_end(job)
    assert job.retry and "restarted" in job.reason
    wait_for(lambda: not list((worker.folder / "tmp").iterdir()), 30, "the clean-up")


def test_a_container_of_another_worker_is_left_alone(begin, start_worker, scorer):
    job, first = begin("progress(1); good(); time.sleep(8)", {"MODEL_IMAGE": scorer})
    before = left_of(job)
    second = start_worker(MODEL_IMAGE=scorer, WORKER_NAME="two")
    wait_for(second.has_started, 30, "the second worker")
    assert left_of(job) == before
    wait_for_end(job)
    assert job.state == "succeeded"


def test_a_container_of_another_system_on_the_same_engine_is_left_alone(begin, scorer, tmp_path):
    job, worker = begin(FOR_EVER, {"MODEL_IMAGE": scorer})
    before = left_of(job)
    stranger = engine.Engine("one", api="another")
    assert job.id not in {id for id, _ in stranger.attempts()}
    stranger.client.close()
    assert left_of(job) == before
    worker.stop()


def test_what_is_left_of_an_attempt_that_is_over_is_removed_while_waiting(
    worker_api, start_worker, scorer
):
    job = worker_api.add("")
    labels = labelled(job.id)
    docker("volume", "create", *labels, f"{job.id}-orphan")
    worker = start_worker(MODEL_IMAGE=scorer)
    wait_for(lambda: not left_of(job), 30, "the clean-up")
    wait_for(worker.has_started, 30, "the worker")
    docker("create", *labels, python_image(), "true")
    wait_for(lambda: not left_of(job), 30, "the clean-up")


def test_the_loser_of_a_race_is_compared_with_the_winner(begin, worker_api, scorer):
    job, _ = begin("good(b'import time; time.sleep(3)')", {"MODEL_IMAGE": scorer})
    [first] = wait_for(lambda: containers_of(job, "scoring"), 30, "the scoring")
    worker_api.version, worker_api.champion = 7, b"TFL3" + b"x" * 73
    wait_for_end(job)
    assert job.state == "succeeded" and job.report["compared_with"] == 7
    assert job.report["scores"]["mae"]["champion"] == 77
    assert job.report["containers"]["scoring"] not in (first, None)


def test_a_training_that_is_lost_while_it_is_scored_is_tried_again(begin, scorer):
    job, worker = begin("good(b'import time; time.sleep(3)')", {"MODEL_IMAGE": scorer})
    wait_for(lambda: containers_of(job, "scoring"), 30, "the scoring")
    holders = docker("ps", "-q", "--filter", f"name={job.id}-[0-9]-training-0-holder").split()
    docker("rm", "-f", *holders)
    wait_for_end(job)
    assert job.retry and job.reason == "The training was lost: its engine or worker was restarted."
    assert worker.process.poll() is None


@pytest.mark.parametrize(
    "body",
    [b"", b"job", b"7", b'{"id": 7}', b'{"id": "../etc"}', b'{"id": "a/b"}', b"\xff", b"[" * 99999],
    ids=lambda body: repr(body[:20]),
)
def test_a_message_that_names_no_job_goes_to_dead(broker, start_worker, body):
    worker = start_worker(TRAIN_IN="process")
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
    start_worker(TRAIN_IN="process")
    wait_for_end(job)
    assert job.state == "succeeded" and not done.attempt and not broker.count("dead")


def test_a_claim_that_fails_for_now_costs_neither_the_worker_nor_the_message(
    worker_api, broker, start_worker
):
    job = worker_api.add("good()")
    job.state = "no room"
    worker = start_worker(TRAIN_IN="process")
    send(broker, job)
    wait_for(lambda: "cannot be claimed now: the disk" in worker.said(), 30, "the claim")
    job.state = "queued"
    send(broker, job)  # as the API does, when the broker has nothing any more
    wait_for_end(job)
    assert job.state == "succeeded" and worker.process.poll() is None


@pytest.fixture
def own_signals():
    """Give back what happens at a signal, after the worker's own code ran in this process."""
    handlers = {number: signal.getsignal(number) for number in retrain_worker.STOPS}
    yield
    signal.alarm(0)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_stop_between_the_claim_and_the_job_puts_it_back(
    worker_api, tmp_path, monkeypatch, own_signals
):
    job = worker_api.add("good()")
    (tmp_path / "secret").write_text(SECRET)
    monkeypatch.setattr(client, "WORKER_SECRET_FILE", tmp_path / "secret")
    monkeypatch.setattr(client, "API_URL", worker_api.url)
    monkeypatch.setattr(retrain_worker, "TRAIN_IN", "process")
    monkeypatch.setattr(retrain_worker, "connect", lambda name: nullcontext(Interrupted(job.id)))
    api = client.Api(retrain_worker.alive)
    monkeypatch.setattr(retrain_worker, "Api", lambda alive: api)
    try:
        retrain_worker.main()
    finally:
        faulthandler.cancel_dump_traceback_later()
        api.session.close()
    assert [name for _, name in job.calls] == ["claim", "release"] and job.state == "queued"


def test_a_stop_while_a_large_model_is_delivered_puts_the_job_back(worker_api, begin, place):
    worker_api.reads.clear()
    large = "good()\n(OUT / 'model.keras').write_bytes(bytes(40 << 20))"
    job, worker = begin(large, place)
    try:
        assert worker_api.delivered_to.wait(60)
        time.sleep(0.5)  # all that sockets hold is on its way
        assert worker.stop() == 0
    finally:
        worker_api.reads.set()
    assert job.state == "queued" and not left_of(job)


def test_after_a_stop_no_goodbye_is_said_that_might_hang(broker, monkeypatch):
    monkeypatch.setattr(retrain_worker, "AMQP_URL", broker.url)
    with pytest.raises(KeyboardInterrupt), retrain_worker.connect("a test") as connection:
        raise KeyboardInterrupt
    assert connection.is_open
    connection.close()


def test_a_stop_that_got_lost_is_heard_a_second_later(monkeypatch, own_signals):
    class Cleaned:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)  # what is raised here goes nowhere

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    for number in retrain_worker.STOPS:
        signal.signal(number, retrain_worker.stop)
    with pytest.raises(KeyboardInterrupt):
        Cleaned()
        time.sleep(20)
    retrain_worker.leave_alone()


class Interrupted:
    """A connection and its channel, with a message on a job; a stop comes before the next one."""

    def __init__(self, id: str):
        self.body = json.dumps({"id": id}).encode()

    def channel(self):
        return self

    def consume(self, *arguments, **more):
        yield SimpleNamespace(delivery_tag=1), None, self.body

    def cancel(self):
        signal.raise_signal(signal.SIGINT)

    def __getattr__(self, name):
        return lambda *arguments, **more: None


def test_a_worker_waits_for_the_api_before_it_takes_a_message(worker_api, broker, start_worker):
    worker_api.away = True
    job = worker_api.add("good()")
    worker = start_worker(TRAIN_IN="process")
    wait_for(lambda: "waiting for the API" in worker.said(), 30, "the worker")
    send_later = lambda: send(broker, job)  # noqa: E731
    worker_api.away = False
    wait_for(worker.has_started, 30, "the worker")
    send_later()
    wait_for_end(job)


def test_an_image_that_is_not_there_is_a_reason(worker_api, broker, start_worker, scorer):
    job = worker_api.add("good()")
    start_worker(MODEL_IMAGE=scorer, TRAINER_IMAGE="monitoring-no-such-image")
    send(broker, job)
    wait_for_end(job)
    assert job.retry and "monitoring-no-such-image" in job.reason
    assert not containers_of(job, "training")


@pytest.mark.parametrize(("allowed", "state"), [("", "failed"), ("yes", "succeeded")])
def test_without_a_jail_an_uploaded_model_is_refused_unless_allowed(
    worker_api, broker, start_worker, allowed, state
):
    job = worker_api.add("good()", inputs={"model.h5": b"h5"})
    start_worker(TRAIN_IN="process", ALLOW_UNJAILED_MODELS=allowed)
    send(broker, job)
    wait_for_end(job)
    assert job.state == state and ("ALLOW_UNJAILED_MODELS" in job.reason) == (not allowed)


@pytest.mark.parametrize(("secret", "said"), [("wrong", "does not know"), (None, "is not there")])
def test_a_secret_that_is_wrong_or_missing_ends_the_worker_with_a_sentence(
    worker_api, broker, start_worker, tmp_path, secret, said
):
    (tmp_path / "other").write_text(secret or "")
    file = tmp_path / ("other" if secret else "missing")
    worker = start_worker(TRAIN_IN="process", WORKER_SECRET_FILE=file)
    send(broker, worker_api.add("good()"))
    assert worker.process.wait(60) == 1 and said in worker.said()
    assert "Traceback" not in worker.said()


def test_the_tar_that_goes_into_training_has_no_row_of_the_hold_out(begin, worker_api, scorer):
    inputs = {"model.keras": b"PK" + b"m" * 100}
    job, worker = begin(FOR_EVER, {"MODEL_IMAGE": scorer}, hold_out=b"secret" * 99, inputs=inputs)
    [holder], [training] = containers_of(job, "holder"), containers_of(job, "training")
    command = ["docker", "cp", f"{holder}:/in", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        names = tar.getnames()
    program = {"in/job.json", "in/libraries.py", "in/rows.py", "in/train.py", "in/uploaded.py"}
    assert set(names) - program == {"in", "in/model.keras", "in/train.npy"}
    assert b"secret" not in raw
    assert "hold_out" not in json.dumps(json.loads(docker("inspect", training)))
    worker.stop()


@pytest.mark.parametrize("settings", [{"TRAIN_WARM": "0"}, {}], ids=["cold", "warm"])
def test_every_container_of_a_job_is_a_prison(begin, scorer, settings):
    job, worker = begin("good(b'import time; time.sleep(9)')", warm(scorer) | settings)
    wait_for(lambda: containers_of(job, "scoring"), 30, "the scoring")
    wait_for(lambda: len(containers_of(job, "holder")) == 2, 30, "the holders")
    containers = sum((containers_of(job, role) for role in ("holder", "training", "scoring")), [])
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
        assert mounts["/in"]["RW"] == found["Name"].endswith("-holder")
    worker.stop()
