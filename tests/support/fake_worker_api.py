"""A stand-in for retrain_api that answers the calls of a worker; test_api_contract compares both.

It knows what a test tells it: jobs whose `program` the stand-in for train.py executes, a version
that serves, and whether it is away.
"""

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from common.messages import INVALID
from common.worker_api import (
    Assignment,
    ClaimRequest,
    FailureReport,
    ProgressReport,
    ResultReport,
)

SECRET = secrets.token_hex(16)  # another one in each process: they share an engine
COLUMNS = 10


class FakeJob:
    def __init__(self, program: str, hold_out: bytes, inputs: dict | None = None, **more):
        self.id = f"job-{time.time_ns()}"
        self.inputs = {"train.npy": b"t" * 1000, "hold_out.npy": hold_out} | (inputs or {})
        self.json = {"id": self.id, "program": program, "columns": ["c"] * COLUMNS, "model": None}
        self.json |= more
        self.state, self.attempt, self.worker, self.log = "queued", 0, None, ""
        self.reason, self.retry, self.report, self.files, self.answer = "", False, None, {}, None
        self.epochs, self.containers = [], {}  # epochs as they were sent, repeated ones too
        self.calls = []  # (when, which)


class FakeApi(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs, self.version, self.champion, self.away = {}, 0, b"", False
        self.on_claim: Callable[[FakeJob], None] = lambda job: None  # before it is answered
        self.result_arrives, self.reads_results = threading.Event(), threading.Event()
        self.reads_results.set()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, program: str, hold_out: bytes = b"h" * 500, **more) -> FakeJob:
        job = FakeJob(program, hold_out, **more)
        self.jobs[job.id] = job
        return job

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """Ignore a worker that was killed."""


class BadRequestError(Exception):
    """The body of a call is not what its struct says."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeApi

    def log_message(self, *arguments) -> None:
        pass

    def send(self, code: int, content: Any) -> None:
        body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, code: int, error: str, **more: Any) -> None:
        self.send(code, {"error": error} | more)

    def do_GET(self) -> None:
        if self.path.endswith("/result"):
            self.server.result_arrives.set()
            self.server.reads_results.wait()
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # the worker ended the connection
            return
        try:
            self.dispatch(body)
        except BadRequestError as error:
            self.refuse(400, str(error))

    do_POST = do_PUT = do_GET  # noqa: N815  # names of http.server

    def dispatch(self, body: bytes) -> None:
        if self.server.away:
            return self.refuse(503, "away")
        if not self.path.startswith("/worker/"):
            return self.models()
        if self.headers["Authorization"] != f"Bearer {SECRET}":
            return self.refuse(401, "these calls are for workers")
        _, _, _, job_id, *rest = self.path.split("/")
        job = self.server.jobs.get(job_id)
        if job is None:
            return self.refuse(404, "there is no such job")
        job.calls.append((time.monotonic(), rest[-1]))
        if rest == ["claim"]:
            return self.claim(job, body)
        if rest[1] == "result" and job.answer and int(rest[0]) == job.attempt:
            return self.send(200, job.answer)  # it was delivered before
        if job.state != "running" or int(rest[0]) != job.attempt:
            return self.refuse(409, f"the job is {job.state}")
        return getattr(self, rest[1])(job, body, *rest[2:])

    def models(self) -> None:
        if self.path == "/models/current":
            return self.send(200, {"version": self.server.version})
        if self.server.version and self.path == f"/models/{self.server.version}/model.tflite":
            return self.send(200, self.server.champion)
        return self.refuse(404, "there is no such version")

    def claim(self, job: FakeJob, body: bytes) -> None:
        request = decode(ClaimRequest, body)
        if job.state == "no room":
            return self.refuse(507, "the disk of the service is full")
        if job.state != "queued":
            return self.refuse(409, f"the job is {job.state}")
        job.state, job.worker, job.attempt = "running", request.worker, job.attempt + 1
        self.server.on_claim(job)
        return self.assign(job)

    def assign(self, job: FakeJob) -> None:
        sizes = {name: len(content) for name, content in job.inputs.items()}
        self.send(200, Assignment(job.attempt, job.json, sizes))

    def adopt(self, job: FakeJob, body: bytes) -> None:
        if decode(ClaimRequest, body).worker != job.worker:
            return self.refuse(423, "another worker has it")
        return self.assign(job)

    def inputs(self, job: FakeJob, body: bytes, name: str) -> None:
        if name not in job.inputs:
            return self.refuse(404, "there is no such input")
        return self.send(200, job.inputs[name])

    def progress(self, job: FakeJob, body: bytes) -> None:
        report = decode(ProgressReport, body)
        job.log = job.log if report.log is None else report.log
        job.containers |= msgspec.to_builtins(report.containers or {})
        job.epochs += report.epochs
        self.send(200, {})

    def result(self, job: FakeJob, body: bytes) -> None:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        files = parts_of(body, boundary)
        if not {"report", "model.keras", "golden.json"} <= set(files):
            raise BadRequestError("send the field report and the files")
        report = files.pop("report")
        version = decode(ResultReport, report).compared_with
        job.report = json.loads(report)
        if version != self.server.version:
            current = self.server.version
            return self.refuse(409, "another version serves", compare_with=current)
        job.files, job.answer = files, {"version": self.server.version + 1, "deployed": True}
        job.state = "succeeded"
        return self.send(200, job.answer)

    def failed(self, job: FakeJob, body: bytes) -> None:
        report = decode(FailureReport, body)
        job.reason, job.retry = report.reason, report.retry
        job.state = "failed"  # last: a test that waits for it looks at the others then
        self.send(200, {})

    def release(self, job: FakeJob, body: bytes) -> None:
        if json.loads(body or b"{}"):
            raise BadRequestError("send an empty object")
        job.state = "queued"
        self.send(200, {})


def decode(kind: type, body: bytes) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except INVALID as error:
        raise BadRequestError(str(error)) from error


def parts_of(body: bytes, boundary: bytes) -> dict[str, bytes]:
    """Return the parts of a multipart form by name."""
    parts = {}
    for part in body.split(b"--" + boundary)[1:-1] if boundary else []:
        header, content = part.removeprefix(b"\r\n").split(b"\r\n\r\n", 1)
        parts[re.search(rb'; name="([^"]+)"', header)[1].decode()] = content[:-2]
    return parts


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    server = FakeApi()
    try:
        yield server
    finally:
        server.stop()
