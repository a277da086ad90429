"""One training container that has TensorFlow imported before there is a job: that takes seconds.

    start ──▶ `monitoring-warm-…`: two volumes, and `prewarm.py` in a sandbox like any other
    ready ──▶ its name, and that of its volumes, if it runs
    claim ──▶ it has the name of a step, and belongs to that step from now on
    complete ──▶ all inputs are there: it trains

One container for one job: nothing of a job stays for the next one. A waiting container costs memory
and no processor time. A job starts cold where there is none.
"""

import logging
import secrets
import time
from typing import Any

from common import lifecycle
from retrain_worker.runners.engine import Engine, StuckContainerError, timestamp
from retrain_worker.runners.protocol import FileStream, StepFailedError
from retrain_worker.runners.sandbox_settings import program_container
from retrain_worker.settings import TRAIN_PREWARM

PREFIX = "monitoring-warm-"
ROLE_LABEL = "monitoring.role"  # `warm`: the container waits, or waited, for its job
WARM = f"{ROLE_LABEL}=warm"
MARKER = ".complete"  # prewarm.py waits for this file in /in
START_SECONDS = 1  # an image that cannot run prewarm.py has ended by then
MAX_AGE_SECONDS = 3600  # of volumes that some worker left
RETRY_SECONDS = 60  # between two starts, if the container ends before there is a job

log = logging.getLogger("retrain_worker")


class WarmPool:
    """The waiting container of this worker, if there is one."""

    def __init__(self, engine: Engine, labels: dict[str, str]) -> None:
        self.engine, self.labels = engine, labels | {ROLE_LABEL: "warm"}
        self.name, self.started_at, self.not_before = "", 0.0, 0.0

    def prewarm(self) -> None:
        """Start a container if one is needed, and remove what an earlier one left."""
        if TRAIN_PREWARM <= 0 or time.monotonic() < self.not_before or self.is_running():
            return
        self.not_before = time.monotonic() + RETRY_SECONDS
        name = PREFIX + secrets.token_hex(6)
        try:
            self.remove()
            with self.engine.calls(name):
                self.engine.refresh()
                self.engine.create_volumes(name, self.labels)
                options = program_container("warm", name, self.engine.cpus)
                self.engine.client.containers.create(name=name, labels=self.labels, **options)
                self.engine.api.start(name)
        except StepFailedError as error:  # a job will report what is wrong
            log.info("the next job starts cold: %s", error)
            return
        self.name, self.started_at = name, time.monotonic()

    def is_running(self) -> bool:
        if not self.name:
            return False
        try:
            with self.engine.calls(self.name):
                found = self.engine.inspect(self.name)
        except StepFailedError as error:
            log.info("the next job starts cold: %s", error)
            self.name = ""
            return False
        return bool(found and found["State"]["Running"])

    def ready(self) -> str:
        """Return the name of the container if it runs, else an empty text."""
        if self.name:
            lifecycle.wait(self.started_at + START_SECONDS - time.monotonic())
        return self.name if self.is_running() else ""

    def claim(self, name: str) -> None:
        """Give the container to a step, under this name."""
        self.engine.api.rename(self.name, name)
        self.name, self.not_before = "", 0.0

    def remove(self) -> None:
        """Remove this worker's containers, be they of an earlier life, and all that have ended."""
        for container in self.engine.containers(label=WARM, name=f"^/{PREFIX}"):  # and no step's
            if self._is_ours(container) or container["State"] == "exited":
                self._discard(container["Id"], [container], [])
        for volume in self.engine.volumes(label=WARM, dangling=True):
            age = time.time() - timestamp(volume["CreatedAt"])
            if self._is_ours(volume) or age > MAX_AGE_SECONDS:
                self._discard(volume["Name"], [], [volume["Name"]])

    def _is_ours(self, found: dict[str, Any]) -> bool:
        return bool(self.labels.items() <= found["Labels"].items())

    def _discard(self, key: str, containers: list[dict[str, Any]], volumes: list[str]) -> None:
        if key in self.engine.stuck:
            return
        try:
            self.engine.discard(containers, volumes)
        except StuckContainerError as error:
            log.info("left for later: %s", error)
            self.engine.stuck.add(key)


def complete(engine: Engine, pause_container: str) -> None:
    """Write the file that a warm container waits for; a second time does no harm."""
    engine.put_files(pause_container, {MARKER: lambda: FileStream(0, [])})


def was_warm(container: dict[str, Any]) -> bool:
    """Whether the container with this description waited before it became a step's."""
    return bool(container["Config"]["Labels"].get(ROLE_LABEL) == "warm")
