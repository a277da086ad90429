"""What the worker says to retrain_api, and asks it, over HTTP.

    claim, adopt ──▶ an attempt: its number, its job, the sizes of its inputs
    beat, progress ──▶ renew the lease; `Over` when the attempt is cancelled or superseded
    result, failed, release ──▶ how it ended

The API may be away for minutes while a container trains: calls whose answer is needed are
repeated, as every one of them may be; those that only tell are left out. Refused for good, a call
raises `Refused` with the API's sentence.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import requests
from form import Multipart
from outputs import File

API_URL = os.environ.get("API_URL", "http://localhost:8000")
WORKER_SECRET_FILE = os.environ.get("WORKER_SECRET_FILE", "data/worker_secret")
WORKER_NAME = os.environ.get("WORKER_NAME", os.uname().nodename)
PATIENCE_SECONDS = 600  # then the process ends, and its next life asks again
SECRET_SECONDS = 30  # that the API may start later than we do
TIMEOUT = (5, 45)  # seconds to connect and to answer; below WATCHDOG_SECONDS
TELL_TIMEOUT = 3  # seconds; a cancelled container has to end within 5
BEAT_SECONDS = 1  # between two renewals of the lease
CHUNK = 1 << 18  # bytes
AWAY = (requests.ConnectionError, requests.Timeout)

log = logging.getLogger("retrain_worker")


class Over(Exception):
    """This attempt is over: cancelled, superseded, or not to be had."""


class Elsewhere(Exception):
    """This attempt belongs to another worker, which lives."""


class Refused(Exception):
    """The API will not take this, or could not be asked; with `retry` another time may do."""

    def __init__(self, reason: str, retry: bool = False):
        super().__init__(reason)
        self.retry = retry


class Claim(msgspec.Struct):
    """One attempt at one job. `job` goes into the container as it came."""

    attempt: int
    job: dict[str, Any]
    inputs: dict[str, int]

    @property
    def id(self) -> str:
        return self.job["id"]


def secret() -> str:
    """Return what the API left for its workers, which it does when it starts."""
    for _ in range(SECRET_SECONDS):
        with suppress(FileNotFoundError):
            return Path(WORKER_SECRET_FILE).read_text().strip()
        time.sleep(1)
    raise SystemExit(f"{WORKER_SECRET_FILE} is not there: the API makes it")


def field(answer: requests.Response, name: str):
    """Return what the answer's JSON has under `name`; None if it has not."""
    try:
        return answer.json().get(name)
    except (ValueError, AttributeError):
        return None


def sentence(answer: requests.Response) -> str:
    """Return what the API says is wrong."""
    return str(field(answer, "error") or f"the API answers {answer.status_code}")[:500]


class Api:
    def __init__(self, alive: Callable[[], None]):
        self.alive = alive  # rearms the watchdog while we wait
        self.claimed: Claim | None = None  # from the answer on, wherever a stop comes
        self.told = 0.0
        self.session = requests.Session()
        self.session.trust_env = False  # the environment's proxy is for the world outside
        self.session.headers["Authorization"] = f"Bearer {secret()}"

    @property
    def name(self) -> str:
        """Return what tells this API from another whose jobs run on the same engine."""
        return hashlib.sha256(self.session.headers["Authorization"].encode()).hexdigest()[:12]

    def once(self, method: str, path: str, timeout=TIMEOUT, **content) -> requests.Response:
        self.alive()
        answer = self.session.request(method, API_URL + path, timeout=timeout, **content)
        if answer.status_code == 401:
            raise SystemExit(f"the API does not know the secret in {WORKER_SECRET_FILE}")
        return answer

    def patiently(self, method: str, path: str, body=None, **content) -> requests.Response:
        """Ask until the API answers; `body` makes the body, anew for each time.

        Raise Refused after PATIENCE_SECONDS.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self.once(method, path, data=body and body(), **content)
                if answer.status_code < 500:
                    return answer
                trouble = sentence(answer)
            except AWAY as error:
                trouble = str(error)[:200]
            if time.monotonic() > end:
                raise Refused(f"asked in vain for {PATIENCE_SECONDS} s: {trouble}", retry=True)
            log.info("waiting for the API: %s", trouble)
            time.sleep(1)

    def wait_until_up(self) -> None:
        self.patiently("GET", "/models/current")

    def is_up(self) -> bool:
        with suppress(*AWAY):
            return self.once("GET", "/models/current", TELL_TIMEOUT).ok
        return False

    def claim(self, job: str) -> Claim | None:
        """Claim a job; return None if it is not to be had, at least now: it will be sent again."""
        answer = self.once("POST", f"/worker/jobs/{job}/claim", json={"worker": WORKER_NAME})
        if answer.status_code >= 500:
            log.info("job %s cannot be claimed now: %s", job, sentence(answer))
        elif answer.status_code not in (404, 409):
            self.claimed = taken(answer)
            return self.claimed
        return None

    def adopt(self, job: str, attempt: int) -> Claim:
        """Return the attempt if it is ours to go on with; raise Over or Elsewhere if not."""
        path = f"/worker/jobs/{job}/{attempt}/adopt"
        answer = self.patiently("POST", path, json={"worker": WORKER_NAME})
        if answer.status_code in (404, 409):
            raise Over(sentence(answer))
        if answer.status_code == 423:
            raise Elsewhere(sentence(answer))
        self.claimed = taken(answer)
        return self.claimed

    def progress(self, claim: Claim, news: dict) -> bool:
        """Tell how it goes, which renews the lease; return whether it arrived.

        An API that is away is no reason to stop. Raise Over if the attempt is.
        """
        self.told = time.monotonic()
        try:
            answer = self.once("PUT", f"{root(claim)}/progress", TELL_TIMEOUT, json=news)
        except AWAY as error:
            log.info("the API is away, the job goes on: %s", str(error)[:200])
            return False
        if answer.status_code in (404, 409):
            raise Over(sentence(answer))
        return answer.ok

    def beat(self, claim: Claim) -> None:
        """Renew the lease, if that is due."""
        self.alive()
        if time.monotonic() - self.told > BEAT_SECONDS:
            self.progress(claim, {})

    def input(self, claim: Claim, name: str) -> File:
        """Open an input; reading it renews the lease."""
        return self.open(claim, f"{root(claim)}/inputs/{name}")

    def open(self, claim: Claim, path: str) -> File:
        answer = check(self.patiently("GET", path, stream=True))
        return File(int(answer.headers["Content-Length"]), self.chunks(claim, answer))

    def chunks(self, claim: Claim, answer: requests.Response) -> Iterator[bytes]:
        try:
            with answer:
                for chunk in answer.iter_content(CHUNK):
                    self.beat(claim)
                    yield chunk
        except requests.RequestException as error:
            raise Refused(f"a file broke off: {error}", retry=True) from error

    def champion(self) -> int:
        """Return the version that serves."""
        return int(check(self.patiently("GET", "/models/current")).json()["version"])

    def champion_file(self, claim: Claim, version: int) -> File:
        """Open what `version` serves with."""
        try:
            return self.open(claim, f"/models/{version}/model.tflite")
        except Over as over:  # somebody deleted it: this attempt is not over for that
            raise Refused(str(over), retry=True) from over

    def result(self, claim: Claim, body: Callable[[], Multipart]) -> int | None:
        """Deliver; return None, or the version to compare with first, as another serves by now."""
        kind = {"Content-Type": Multipart.content_type}
        answer = self.patiently("POST", f"{root(claim)}/result", body, headers=kind)
        if answer.status_code == 409 and (version := field(answer, "compare_with")) is not None:
            return int(version)
        log.info("job %s: %s", claim.id, check(answer).json())
        return None

    def failed(self, claim: Claim, reason: str, retry: bool) -> None:
        answer = {"reason": reason, "retry": retry}
        self.patiently("POST", f"{root(claim)}/failed", json=answer)

    def release(self, claim: Claim) -> None:
        """Put the job back, without patience: we are told to stop."""
        try:
            self.once("POST", f"{root(claim)}/release", TELL_TIMEOUT, json={})
        except AWAY as error:
            log.info("the lease has to run out: %s", str(error)[:200])


def root(claim: Claim) -> str:
    return f"/worker/jobs/{claim.id}/{claim.attempt}"


def check(answer: requests.Response) -> requests.Response:
    if answer.status_code in (404, 409):
        raise Over(sentence(answer))
    if not answer.ok:
        raise Refused(sentence(answer))
    return answer


def taken(answer: requests.Response) -> Claim:
    return msgspec.json.decode(check(answer).content, type=Claim)
