"""Follow the version that the API says is current; ask with `newest()` which one answers now.

    PUT  API_URL/models/current/replicas/<name>    {"serves": 3, "refused": {…} or null}
      ◀─ {"version": 4, "sha256": "…"}             at start, on a nudge, after a swap, every 10 s
    GET  API_URL/models/4/model.tflite             checked in a child process with golden.json,
    GET  API_URL/models/4/golden.json              kept in MODEL_CACHE, and handed over

A daemon thread does all this: predictions never wait for the API. Whatever is wrong with a version
or with the API, the one that serves stays, and `refused` says why. What may pass (the network, the
disk) is tried again each turn; a version that is refused is not, before another one was current.
An unexpected error in the thread ends the process. Without API_URL there is no thread.
"""

import hashlib
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec
import requests
import serving
from cache import BUILTIN, Cache, Version

API_URL = os.environ.get("API_URL", "").rstrip("/")  # without one, version 0 answers for ever
API_TOKEN = os.environ.get("API_TOKEN", "")
MODEL_CACHE = Path(os.environ.get("MODEL_CACHE", ".run/model"))  # for the last good version
REPLICA_NAME = os.environ.get("REPLICA_NAME", "") or socket.gethostname()

TURN_SECONDS = 10
PAUSE_SECONDS = 1  # between two turns, however many nudges come
TRIAL_SECONDS = 5  # that a version answers before it counts as good
HTTP_SECONDS = (3, 10)  # to connect; between two bytes
DOWNLOAD_SECONDS = 120
LARGEST_MODEL = 64 * 2**20  # bytes; loaded it takes twice that, and for a moment beside another
LARGEST_JSON = 2**20

log = logging.getLogger("model")


class Api:
    """What the API is asked. Its errors are OSErrors, as all errors of requests are."""

    def __init__(self):
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy in Docker's settings does not know the API
        self.http.headers["Accept-Encoding"] = "identity"
        if API_TOKEN:
            self.http.headers["Authorization"] = f"Bearer {API_TOKEN}"

    def chunks(self, method: str, path: str, largest: int, **what):
        """Yield what the API answers, at most `largest` bytes of it, in DOWNLOAD_SECONDS."""
        end, size = time.monotonic() + DOWNLOAD_SECONDS, 0
        url = f"{API_URL}/models/{path}"
        with self.http.request(method, url, timeout=HTTP_SECONDS, stream=True, **what) as response:
            response.raise_for_status()
            for chunk in response.iter_content(2**18):
                size += len(chunk)
                if size > largest:
                    raise ValueError(f"{path} is larger than {largest} bytes")
                if time.monotonic() > end:
                    raise TimeoutError(f"{path} took longer than {DOWNLOAD_SECONDS} s")
                yield chunk

    def report(self, serves: int, refused: dict | None) -> Version:
        """Tell what answers here and what was refused; return which version should."""
        path = f"current/replicas/{quote(REPLICA_NAME, safe='')}"
        body = {"serves": serves, "refused": refused}
        try:
            answer = b"".join(self.chunks("PUT", path, LARGEST_JSON, json=body))
            return msgspec.json.decode(answer, type=Version)
        except (ValueError, RecursionError) as error:
            if isinstance(error, OSError):  # some errors of requests are both
                raise
            raise OSError(f"the API's answer makes no sense: {error}") from None

    def download(self, path: str, file: Path, largest: int) -> str:
        """Write a file of a version to `file`; return its hash."""
        digest = hashlib.sha256()
        with file.open("wb") as out:
            for chunk in self.chunks("GET", path, largest):
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        return digest.hexdigest()


class Refusal(NamedTuple):
    version: Version
    reason: str
    final: bool  # else it is tried again each turn


class Updates(threading.Thread):
    """The thread, and what it hands over: (model, version), replaced in one assignment."""

    def __init__(self):
        super().__init__(name="updates", daemon=True)
        self.builtin = serving.builtin()
        self.serving = (self.builtin, BUILTIN)
        self.since = time.monotonic()
        self.wanted, self.kept, self.refusal = None, None, None
        self.predicting, self.survivor = False, None  # the last version that got through a batch
        self.nudged, self.troubles = threading.Event(), {}

    # what the service's loop calls

    def newest(self) -> tuple:
        """Return (model, version number) for the next batch."""
        self.predicting = True
        model, version = self.serving
        return model, version.version

    def predicted(self, version: int, rows: int) -> None:
        """Note that `version` got through a batch."""
        self.predicting = False
        if rows:
            self.survivor = version

    def nudge(self) -> None:
        self.nudged.set()

    def __enter__(self):
        if API_URL:
            self.api, self.cache = Api(), Cache(MODEL_CACHE)
            if self.cache.state.good:
                self.follow(self.cache.state.good, self.find)
            self.start()
        return self

    def __exit__(self, *error) -> None:
        if API_URL and not self.predicting:  # whatever ends us, it was not this version
            with suppress(OSError):  # the disk is full: one try less
                self.cache.end(self.serving[1])

    # the thread

    def run(self) -> None:
        try:
            while True:
                self.nudged.clear()
                self.turn()
                time.sleep(PAUSE_SECONDS)
                on_trial = self.serving[1] != self.kept
                self.nudged.wait(TRIAL_SECONDS if on_trial else TURN_SECONDS - PAUSE_SECONDS)
        except BaseException:
            log.exception("the thread that follows the API failed")
            os._exit(1)  # an exception here would end this thread only

    def turn(self) -> None:
        for step in (self.update, self.settle):
            trouble = None
            try:
                step()
            except OSError as error:
                trouble = str(error)
                if trouble != self.troubles.get(step):
                    log.warning("%s; version %d goes on", trouble, self.serving[1].version)
            self.troubles[step] = trouble

    def update(self) -> None:
        """Ask which version is current, and see to it that it answers."""
        self.wanted = self.ask()
        given_up = self.refusal and self.refusal.final
        if self.wanted != self.serving[1] and not given_up:
            self.follow(self.wanted, self.fetch)
            self.ask()

    def ask(self) -> Version:
        """Report to the API, and return the version that is current there."""
        refused = None
        if self.refusal:
            refused = {"version": self.refusal.version.version, "reason": self.refusal.reason}
        wanted = self.api.report(self.serving[1].version, refused)
        if self.refusal and self.refusal.version != wanted:
            self.refusal = None
        return wanted

    def follow(self, wanted: Version, bring) -> None:
        """Let `wanted` answer once `bring` has put its file into the cache, or note why not."""
        try:
            if wanted.version:
                bring(wanted)
            self.hand_over(wanted)
            self.refusal = None
        except (OSError, ValueError) as error:
            refusal = Refusal(wanted, str(error), final=not isinstance(error, OSError))
            if refusal != self.refusal:
                log.warning("version %d is refused: %s", wanted.version, error)
            self.refusal = refusal

    def find(self, good: Version) -> None:
        if not self.cache.holds(good):
            raise OSError("its file in the cache is gone, or not what it was")

    def fetch(self, wanted: Version) -> None:
        """Download the file of `wanted`, and let a child process try it out."""
        new, golden = self.cache.folder / "new.tflite", self.cache.folder / "golden.json"
        sha256 = self.api.download(f"{wanted.version}/model.tflite", new, LARGEST_MODEL)
        if sha256 != wanted.sha256:
            raise ValueError(f"its model.tflite has the sha256 {sha256}, not {wanted.sha256}")
        self.api.download(f"{wanted.version}/golden.json", golden, LARGEST_JSON)
        serving.try_out(new, golden)
        new.replace(self.cache.path(wanted))

    def hand_over(self, version: Version) -> None:
        """Load `version`, and let it answer from the next batch on."""
        model = self.builtin
        self.cache.end(self.serving[1])  # or its trial would count what `version` does
        if version.version:
            self.begin(version)
            model = serving.load(self.cache.path(version))
        self.serving, self.since = (model, version), time.monotonic()
        log.info("version %d answers from now on", version.version)

    def begin(self, version: Version) -> None:
        """Count the trial; the good version is served again even where the disk is full."""
        try:
            self.cache.begin(version)
        except OSError as error:
            if version != self.cache.state.good:
                raise
            log.warning("version %d is served uncounted: %s", version.version, error)

    def settle(self) -> None:
        """Keep the version that answers for the next start, once it has done so for a while."""
        version = self.serving[1]
        a_while = time.monotonic() - self.since > TRIAL_SECONDS
        known = version.version or self.wanted == version  # not version 0 for want of another
        if version != self.kept and a_while and known and self.survivor == version.version:
            self.cache.settle(version)
            log.info("version %d answers well and is kept", version.version)
            self.kept = version
