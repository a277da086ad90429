"""A training container that waits for its job with TensorFlow imported, which takes seconds.

    start ──▶ `monitoring-warm-…`: two volumes, and `waiting.py` in a jail like any other
    take  ──▶ the step's name instead, and the step's own from then on
    go    ──▶ its inputs are there

One container for one job: nothing of a job is left to the next. It costs memory and no processor
time. Where there is none, or it ended, a job starts cold.
"""

import logging
import os
import secrets
import signal
import time
from contextlib import suppress
from datetime import datetime

from docker.errors import APIError, NotFound
from jail import create_volumes, discard, jail, program

TRAIN_WARM = int(os.environ.get("TRAIN_WARM", "1"))  # 0: each job starts cold
PREFIX = "monitoring-warm-"
ROLE = "monitoring.role"  # label; `warm` tells what waits, or waited, from what started cold
WARM = {"label": f"{ROLE}=warm"}
HEARS = b"waiting for a job"  # its first line
HEARS_AFTER = 10  # seconds, at most
OLD_SECONDS = 3600  # whatever it was made for is over
AGAIN_SECONDS = 60  # after one that did not wait, or ended, before a job came
STOPS = signal.SIGINT, signal.SIGTERM, signal.SIGALRM
GO = signal.Signals.SIGUSR1.name

log = logging.getLogger("retrain_worker")


class Warm:
    """The container of this worker that waits, if there is one."""

    def __init__(self, client, labels: dict):
        self.client, self.api, self.labels = client, client.api, labels | {ROLE: "warm"}
        self.name, self.not_before = "", 0.0

    def is_wanted(self) -> bool:
        """Is one to wait, and none does?"""
        return TRAIN_WARM > 0 and time.monotonic() >= self.not_before and not self.waits()

    def start(self, cpus: float) -> None:
        """Let one wait."""
        self.not_before = time.monotonic() + AGAIN_SECONDS
        # An engine whose client is interrupted goes on, and nobody would find what it makes.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            self.remove()
            self.create(PREFIX + secrets.token_hex(6), cpus)
        except APIError as error:  # a job will say what is wrong
            log.info("the next job starts cold: %s", error)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def create(self, name: str, cpus: float) -> None:
        create_volumes(self.api, name, self.labels)
        more = {"name": name, "labels": self.labels} | jail(name, cpus)
        self.client.containers.create(**program("warm"), **more)
        self.api.start(name)
        self.name = name

    def waits(self) -> bool:
        if self.name:
            with suppress(NotFound):
                return self.api.inspect_container(self.name)["State"]["Running"]
        return False

    def hears(self) -> bool:
        """Does one wait that hears the signal? Before its first line it does not."""
        for _ in range(HEARS_AFTER * 20):
            if not self.waits():
                return False
            if self.api.logs(self.name).startswith(HEARS):
                return True
            time.sleep(0.05)
        return False

    def take(self, name: str) -> None:
        """Give the container that waits to a step, which calls it by this name."""
        self.api.rename(self.name, name)
        self.name, self.not_before = "", 0.0

    def remove(self) -> None:
        """Remove what waits for us, be it for an earlier life, and what has ended, whoever's."""
        named = {"name": f"^/{PREFIX}"}  # and no step's
        for found in self.api.containers(all=True, filters=WARM | named):
            ours = self.labels.items() <= found["Labels"].items()
            if ours or found["State"] == "exited":
                discard(self.api, [found])
        for volume in self.api.volumes(filters=WARM | {"dangling": True})["Volumes"] or []:
            made = datetime.fromisoformat(volume["CreatedAt"]).timestamp()
            if self.labels.items() <= volume["Labels"].items() or made < time.time() - OLD_SECONDS:
                discard(self.api, [], [volume["Name"]])


def go(api, name: str) -> None:
    """Tell a container that waited that its inputs are there; twice does no harm."""
    with suppress(APIError):  # it has ended meanwhile
        api.kill(name, GO)


def is_warm(found: dict) -> bool:
    """Did the container with this description wait before it became a step's?"""
    return found["Config"]["Labels"].get(ROLE) == "warm"
