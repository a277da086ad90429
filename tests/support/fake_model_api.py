"""An HTTP server that answers the calls of `model` as retrain_api does, or fails as a test asks.

tests/model/test_api_contract.py holds it to the answers of the real API.
"""

import hashlib
import http.server
import json
import re
import threading
import time
from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from common.worker_api import ReplicaStatus
from tests.support.networks import networks

NETWORKS = {1: "first", 2: "second", 3: "convolution"}
Failure = Callable[["Handler"], bool]  # answers in its own way, and returns whether it did


class FakeModelApi(http.server.ThreadingHTTPServer):
    """The current version, the files of all of them, and the reports of the replicas."""

    daemon_threads = True

    def __init__(self, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url, self.token = f"http://127.0.0.1:{self.server_port}", token
        self.current, self.files, self.sha256 = 0, {}, {0: None}
        self.requests: list[tuple[str, float]] = []  # path, and when
        self.reports: list[tuple[str, dict]] = []  # replica, and its status
        self.failure: Failure = no_failure
        self.released = threading.Event()  # ends the failures that take long
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def add_networks(self) -> None:
        """Add the versions 1, 2 and 3."""
        for version, name in NETWORKS.items():
            tflite = (networks() / f"{name}.tflite").read_bytes()
            self.add(version, tflite, (networks() / f"{name}.json").read_bytes())

    def add(self, version: int, tflite: bytes, golden: bytes, sha256: str | None = None) -> None:
        self.files |= {f"{version}/model.tflite": tflite, f"{version}/golden.json": golden}
        self.sha256[version] = sha256 or hashlib.sha256(tflite).hexdigest()

    def last_report(self, replica: str = "one") -> dict:
        """Return the last status of `replica`, or {}."""
        return next((status for name, status in reversed(self.reports) if name == replica), {})

    def serves(self, version: int, *replicas: str) -> bool:
        """Whether all of the replicas, or `one`, have reported that they serve `version`."""
        return all(self.last_report(name).get("serves") == version for name in replicas or ["one"])

    def refused(self, version: int) -> str | None:
        """Return why the replica `one` refuses `version`, if it does."""
        refused = self.last_report().get("refused") or {}
        return refused.get("reason") if refused.get("version") == version else None

    def downloads(self, version: int) -> int:
        """Return how often the network of `version` was asked for."""
        return [path for path, _ in self.requests].count(f"/models/{version}/model.tflite")

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: FakeModelApi

    def log_message(self, *arguments) -> None:
        pass

    def answer(self, body: bytes, code: int = 200, kind: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def answer_error(self, code: int, sentence: str) -> None:
        self.answer(json.dumps({"error": sentence}).encode(), code)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, time.monotonic()))
        if self.server.failure(self):
            return
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self.answer_error(401, "this call needs the token")
        name = unquote(self.path).removeprefix("/models/current/replicas/")
        if "/" in name:
            return self.answer_error(404, "there is no such page")
        if not re.fullmatch(r"[\w.:-]{1,100}", name, re.ASCII):
            return self.answer_error(400, "the name of a replica has other characters")
        self.answer_report(name, body)

    def answer_report(self, name: str, body: bytes) -> None:
        try:
            status = msgspec.to_builtins(msgspec.json.decode(body, type=ReplicaStatus))
        except (ValueError, RecursionError) as error:
            return self.answer_error(400, str(error))
        self.server.reports.append((name, status))
        current = self.server.current
        served = {"version": current, "sha256": self.server.sha256[current]}
        self.answer(json.dumps(served).encode())

    def do_GET(self) -> None:
        self.server.requests.append((self.path, time.monotonic()))
        if self.server.failure(self):
            return
        content = self.server.files.get(self.path.removeprefix("/models/"))
        if content is None:
            return self.answer_error(404, "there is no such file")
        json_file = self.path.endswith(".json")
        self.answer(content, 200, "application/json" if json_file else "application/octet-stream")


# failures


def no_failure(handler: Handler) -> bool:
    return False


def hang(handler: Handler) -> bool:
    return handler.server.released.wait(60)


def hang_downloads(handler: Handler) -> bool:
    return handler.command == "GET" and hang(handler)


def drip(handler: Handler) -> bool:
    """Send a byte now and then, and never come to an end."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.released.wait(0.2):
        try:
            handler.wfile.write(b" ")
        except OSError:
            break
    return True


def answer_with(content: bytes, code: int = 200) -> Failure:
    def answer(handler: Handler) -> bool:
        handler.answer(content, code)
        return True

    return answer


def break_off(handler: Handler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"version": ')
    handler.close_connection = True
    return True


def speak_no_http(handler: Handler) -> bool:
    handler.wfile.write(b"\x00\xff" * 1000)
    handler.close_connection = True
    return True


FAILURES = {
    "hangs": hang,
    "drips": drip,
    "answers 500": answer_with(b"oh", 500),
    "wants a token": answer_with(b"{}", 401),
    "redirects": answer_with(b"", 302),
    "sends HTML": answer_with(b"<html>"),
    "sends nothing": answer_with(b""),
    "sends a list": answer_with(b"[4]"),
    "names a version below zero": answer_with(b'{"version": -1}'),
    "names a huge version": answer_with(b'{"version": 99999999999999999999, "sha256": null}'),
    "names a path as hash": answer_with(b'{"version": 4, "sha256": "../../../etc/passwd"}'),
    "sends deep JSON": answer_with(b'{"x":' + b"[" * 500_000),
    "sends 5 MB": answer_with(b" " * 5_000_000),
    "breaks off": break_off,
    "does not speak HTTP": speak_no_http,
}
