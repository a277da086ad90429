"""What tests of the worker play on: a small API that says to a worker what ours says, and stand-ins
for train.py and score.py.

The training executes the program that stands in its job, the scoring a challenger that is a
program: so a test says in a line what happens inside, and no TensorFlow is needed.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.docker import docker, has_docker, python_image
from tests.support.environment import ROOT, load
from tests.support.service import Service
from tests.support.waiting import wait_for

features = load("features/features.py")

SECRET = secrets.token_hex(16)  # another one in each process: they share an engine
COLUMNS = 10

TRAIN = """
import json, os, pathlib, socket, subprocess, sys, time
IN, OUT = map(pathlib.Path, sys.argv[1:])
job = json.loads((IN / "job.json").read_text())
def progress(epoch):
    (OUT / "new").write_text(json.dumps({"epoch": epoch, "epochs": 3, "loss": 1.5, "val_loss": 2}))
    os.replace(OUT / "new", OUT / "progress.json")
def good(tflite=b"TFL3"):
    (OUT / "model.keras").write_bytes(b"PK" + b"k" * 300_000)
    if tflite:
        (OUT / "model.tflite").write_bytes(tflite)
    golden = {"rows": [[0] * 10], "predictions": [1.5]}
    (OUT / "golden.json").write_text(json.dumps(golden))
    training = {"started_from": "scratch", "epochs_run": 3, "seconds": 1.0, "parameters": 7}
    training |= {"keras": "3", "tensorflow": "2", "why_no_tflite": None}
    (OUT / "training.json").write_text(json.dumps(training))
print("training on", sorted(os.listdir(IN)))
exec(job["program"])
"""

SCORE = """
import json, os, pathlib, sys
IN, OUT = map(pathlib.Path, sys.argv[1:])
challenger = (IN / "challenger.tflite").read_bytes()
champion = IN / "champion.tflite"
mae = {"challenger": 40.0, "champion": float(champion.stat().st_size) if champion.exists() else 43}
scores = {"inputs": 10, "outputs": 1, "mae": mae | {"mean": 60.0}, "regions": []}
assert sorted(os.listdir(IN))[-2:] == ["hold_out.npy", "job.json"]
if not challenger.startswith(b"TFL3"):
    exec(challenger)
(OUT / "scores.json").write_text(json.dumps(scores))
"""


class Job:
    def __init__(self, program: str, hold_out: bytes, inputs: dict | None = None, **more):
        self.id = f"job-{time.time_ns()}"
        self.inputs = {"train.npy": b"t" * 1000, "hold_out.npy": hold_out} | (inputs or {})
        self.json = {"id": self.id, "program": program, "columns": ["c"] * COLUMNS, "model": None}
        self.json |= more
        self.state, self.attempt, self.worker, self.log = "queued", 0, None, ""
        self.progress, self.containers, self.reason, self.report, self.files = {}, {}, "", None, {}
        self.claims, self.calls = 0, []


class WorkerApi(ThreadingHTTPServer):
    """Says to a worker what retrain_api says."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs, self.version, self.champion, self.away = {}, 0, b"", False
        self.delivered_to, self.reads = threading.Event(), threading.Event()
        self.reads.set()  # what is delivered
        self.serve = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.serve.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, program: str, hold_out: bytes = b"h" * 500, **more) -> Job:
        job = Job(program, hold_out, **more)
        self.jobs[job.id] = job
        return job

    def stop(self) -> None:
        self.shutdown()
        self.serve.join()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        pass  # a worker that was killed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def answer(self, code: int, content, length: int | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path.endswith("/result"):
            self.server.delivered_to.set()
            self.server.reads.wait()
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # it broke off
            return None
        if self.server.away:
            return self.answer(503, {"error": "away"})
        if self.path == "/models/current":
            return self.answer(200, {"version": self.server.version})
        if self.path.endswith("/model.tflite"):
            return self.answer(200, self.server.champion)
        if self.headers["Authorization"] != f"Bearer {SECRET}":
            return self.answer(401, {"error": "who are you?"})
        _, _, _, id, *rest = self.path.split("/")
        job = self.server.jobs.get(id)
        if job is None:
            return self.answer(404, {"error": "there is no such job"})
        job.calls.append((time.monotonic(), rest[-1]))
        if rest == ["claim"]:
            return self.claim(job, json.loads(body))
        if job.state != "running" or int(rest[0]) != job.attempt:
            return self.answer(409, {"error": f"the job is {job.state}"})
        return getattr(self, rest[1])(job, body, *rest[2:])

    do_POST = do_PUT = do_GET

    def claim(self, job, sent) -> None:
        if job.state == "no room":
            return self.answer(507, {"error": "the disk of the service is full"})
        if job.state != "queued":
            return self.answer(409, {"error": f"the job is {job.state}"})
        job.state, job.worker, job.attempt = "running", sent["worker"], job.attempt + 1
        self.task(job)

    def task(self, job) -> None:
        sizes = {name: len(content) for name, content in job.inputs.items()}
        task = {"attempt": job.attempt, "job": job.json, "inputs": sizes}
        self.answer(200, task)

    def adopt(self, job, body) -> None:
        if json.loads(body)["worker"] != job.worker:
            return self.answer(423, {"error": "another worker has it"})
        self.task(job)

    def inputs(self, job, body, name) -> None:
        self.answer(200, job.inputs[name])

    def progress(self, job, body) -> None:
        sent = json.loads(body)
        job.log = sent.pop("log", job.log)
        job.containers |= sent.pop("containers", {})
        job.progress |= sent
        self.answer(200, {})

    def result(self, job, body) -> None:
        kind = self.headers["Content-Type"]
        parts = parts_of(body, kind.split("boundary=")[1].encode())
        job.report = json.loads(parts.pop("report"))
        if job.report["compared_with"] != self.server.version:
            return self.answer(409, {"error": "late", "compare_with": self.server.version})
        job.files, job.state = parts, "succeeded"
        self.answer(200, {"version": 1, "deployed": True})

    def failed(self, job, body) -> None:
        sent = json.loads(body)
        job.reason, job.retry = sent["reason"], sent["retry"]
        job.state = "failed"  # last: whoever waits for it looks at the others then
        self.answer(200, {})

    def release(self, job, body) -> None:
        job.state = "queued"
        self.answer(200, {})


def parts_of(body: bytes, boundary: bytes) -> dict[str, bytes]:
    parts = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, content = part.removeprefix(b"\r\n").split(b"\r\n\r\n", 1)
        parts[re.search(rb'; name="([^"]+)"', head)[1].decode()] = content[:-2]
    return parts


@contextmanager
def small_api() -> Iterator[WorkerApi]:
    server = WorkerApi()
    try:
        yield server
    finally:
        server.stop()


class Worker(Service):
    """A copy of the worker with a stand-in for train.py beside it."""

    def __init__(self, folder, environment: dict, **settings):
        self.folder = folder
        if not (folder / "retrain_worker").exists():
            unused = shutil.ignore_patterns("__pycache__")  # may change under our hands
            shutil.copytree(ROOT / "retrain_worker", folder / "retrain_worker", ignore=unused)
            (folder / "retrain_worker/train.py").write_text(TRAIN)
            (folder / "model").mkdir()
            (folder / "model/score.py").write_text(SCORE)
        log = folder / f"worker-{time.time_ns()}.log"
        environment |= {key: str(value) for key, value in settings.items()}
        super().__init__("retrain_worker", log, environment, supervised=False)

    def start(self) -> None:
        self.begun = 0
        command = [sys.executable, self.folder / "retrain_worker/retrain_worker.py"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | self.environment, stdout=log, stderr=log
            )

    def has_started(self) -> bool:
        return "waiting for a job" in self.said()


class OwnEngine:
    """A Docker engine beside the machine's, for tests that restart it.

    It sees a network of its own: on the machine's it would remove the other engine's bridge. Where
    both share one containerd, they know nothing of each other's containers.
    """

    def __init__(self, folder: Path):
        self.folder, self.host, self.process = folder, f"unix://{folder}/socket", None
        (folder / "daemon.json").write_text("{}")  # not the machine's settings

    def start(self) -> None:
        places = {"config-file": "daemon.json", "data-root": "data", "exec-root": "run"}
        command = ["unshare", "--net", "dockerd", f"--host={self.host}", "--bridge=none"]
        command += [f"--{name}={self.folder / place}" for name, place in places.items()]
        command += [f"--pidfile={self.folder}/pid", "--iptables=false"]
        for kind in ("", "-plugins"):
            command.append(f"--containerd{kind}-namespace=monitoring-test-{os.getpid()}{kind}")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_for(self.answers, 60, "an engine of our own")

    def take(self, image: str) -> None:
        """Copy an image from the machine's engine."""
        copy = f"docker save {image} | docker --host {self.host} load"
        subprocess.run(copy, shell=True, check=True, capture_output=True, timeout=300)

    def answers(self) -> bool:
        info = ["docker", "--host", self.host, "info"]
        return not subprocess.run(info, capture_output=True, timeout=60).returncode

    def end(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(60)


@contextmanager
def scorer_image(folder: Path) -> Iterator[str]:
    """Yield the name of an image with score.py and waiting.py, as `model`'s and the trainer's."""
    (folder / "Dockerfile").write_text(f"FROM {python_image()}\nCOPY *.py /app/\n")
    (folder / "score.py").write_text(SCORE)
    shutil.copy(ROOT / "retrain_worker/waiting.py", folder)
    (folder / "libraries.py").write_text("imported = True")
    name = f"monitoring-test-scorer-{time.time_ns()}"
    docker("build", "-q", "-t", name, str(folder))
    try:
        yield name
    finally:
        docker("rmi", name)


@contextmanager
def workers(folder: Path, api: WorkerApi, broker) -> Iterator:
    """Yield a function that starts a worker; at the end nothing of its jobs may be left."""
    (folder / "secret").write_text(SECRET)
    (folder / "tmp").mkdir()
    started = []

    def start(**settings) -> Worker:
        environment = {"AMQP_URL": broker.url, "API_URL": api.url, "WORKER_NAME": "one"}
        environment |= {"WORKER_SECRET_FILE": str(folder / "secret")}
        environment |= {"TMPDIR": str(folder / "tmp"), "TRAIN_WARM": "0"}
        environment |= {"TRAINER_IMAGE": python_image()} if has_docker() else {}
        started.append(Worker(folder, environment, **settings))
        return started[-1]

    try:
        yield start
    finally:
        for service in started:
            if service.process.poll() is None:
                service.stop()
        with broker.connect() as connection:
            connection.channel().queue_delete("retrain_jobs")
        left = sum((left_of(job) for job in api.jobs.values()), [])
        left += left_of_system()
        for name in left:
            remove(name)
    assert not left, left


def left_of_system() -> list[str]:
    """Return what is there of any of our workers: so no container waits any more, either."""
    if not has_docker():
        return []
    label = ("--filter", f"label=monitoring.api={api_name(SECRET)}", "--format")
    containers = docker("ps", "-a", *label, "{{.Names}}").split()
    return containers + docker("volume", "ls", *label, "{{.Name}}").split()


def api_name(secret: str) -> str:
    """Return what tells an API with this secret from another whose jobs run on the same engine."""
    return hashlib.sha256(f"Bearer {secret}".encode()).hexdigest()[:12]


def labelled(job: str) -> list[str]:
    """Return options of docker that label a thing as ours: workers of other APIs leave it alone."""
    labels = {"job": job, "attempt": 1, "worker": "gone", "api": api_name(SECRET)}
    return [f"--label=monitoring.{name}={value}" for name, value in labels.items()]


def left_of(job: Job) -> list[str]:
    """Return the names of the containers and volumes that are on the engine for a job."""
    if not has_docker():
        return []
    containers = docker("ps", "-a", "--format", "{{.Names}} {{.Labels}}").splitlines()
    volumes = docker("volume", "ls", "--format", "{{.Name}} {{.Labels}}").splitlines()
    return [found.split()[0] for found in containers + volumes if job.id in found]


def remove(name: str) -> None:
    for command in ("rm -f", "volume rm -f"):
        subprocess.run(["docker", *command.split(), name], capture_output=True)


def send(broker, *jobs: Job) -> None:
    """Send jobs as the API does, which declares the queue before."""
    with broker.connect() as connection:
        connection.channel().queue_declare("retrain_jobs", durable=True, arguments=features.QUEUE)
    broker.send("retrain_jobs", [json.dumps({"id": job.id}).encode() for job in jobs])


def wait_for_end(job: Job, seconds: float = 60) -> None:
    wait_for(lambda: job.state not in ("queued", "running"), seconds, "the job's end")
