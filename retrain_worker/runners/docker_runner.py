"""Run steps in containers, each a sandbox: see `sandbox_settings`.

    launch ──▶ volume `in` with the inputs, volume `out` on a tmpfs, a pause container, which keeps
               `out` mounted until it is collected, and the container that runs the program
    state, log, read ──▶ the state of the step, its output, one file that it left
    remove ──▶ nothing of an attempt is left on this engine

The names of the containers consist of job, attempt and step, so a second launch finds the first
one. A training takes the waiting container of `warm_pool`, if there is one. While a program runs,
nothing is read out of its volumes: an engine that opens a file there may block for good on a pipe
that the program put in its place. Its log is the only thing that is read.
"""

import logging
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import requests
from docker.errors import APIError, NotFound

from retrain_worker.runners.archive import tar
from retrain_worker.runners.engine import Engine, Postponed, StuckContainerError, timestamp
from retrain_worker.runners.outputs import CHUNK_BYTES, single_file
from retrain_worker.runners.printable import LOG_BYTES
from retrain_worker.runners.protocol import FileStream, Inputs, Step, StepState
from retrain_worker.runners.sandbox_settings import pause_container, program_container
from retrain_worker.runners.warm_pool import ROLE_LABEL, WarmPool, complete, was_warm

LABEL = "monitoring."  # job, attempt, worker, role, api
STEPS = {"label": [f"{LABEL}job", f"{LABEL}attempt"]}
LOG_LINES = 400  # of 16 KiB at most
REMOVAL_PAUSES = (0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds

log = logging.getLogger("retrain_worker")


class DockerRunner:
    def __init__(self, worker: str, api: str) -> None:
        self.api_name, self.labels = api, {f"{LABEL}worker": worker, f"{LABEL}api": api}
        self.engine = Engine()
        self.warm_pool = WarmPool(self.engine, self.labels)
        self.stuck = Postponed()

    def attempts(self) -> set[tuple[str, int]]:
        """Return (job, attempt) of what is here of jobs of our API, whoever ran them.

        Attempts with a stuck container are left out until their next turn.
        """
        api = self.engine.api
        with self.engine.calls():
            found = api.containers(all=True, filters=STEPS)
            found += api.volumes(filters=STEPS)["Volumes"] or []
        labels = [each["Labels"] for each in found]
        attempts = {
            (each[f"{LABEL}job"], int(each[f"{LABEL}attempt"]))
            for each in labels
            if each.get(f"{LABEL}api", self.api_name) == self.api_name
        }
        return {attempt for attempt in attempts if attempt not in self.stuck}

    def prewarm(self) -> None:
        if self.warm_pool.needs_container():
            self.warm_pool.start()

    def launch(self, step: Step, inputs: Inputs) -> str:
        with self.engine.calls_about(step.name):
            self.engine.refresh()
            if not self._is_prepared(step):
                self._clear(step)
                self._prepare(step, inputs)
            found = self.engine.api.inspect_container(step.name)
            if found["State"]["Status"] == "created":
                self.engine.api.start(step.name)
            elif was_warm(found):
                complete(self.engine, pause_name(step))
            return str(found["Id"])

    def _is_prepared(self, step: Step) -> bool:
        """Whether a step can start, or was started: its pause container starts after the inputs."""
        found, pause = self.engine.inspect(step.name), self.engine.inspect(pause_name(step))
        if not found or not pause or pause["State"]["Status"] == "created":
            return False
        return bool(pause["State"]["Running"] or found["State"]["Status"] != "created")

    def _prepare(self, step: Step, inputs: Inputs) -> None:
        """Create the containers of a step, in an order that `_is_prepared` relies on."""
        engine, cpus = self.engine, self.engine.cpus
        warm = self.warm_pool.ready() if step.role == "training" else ""
        volumes = warm or step.name
        if not warm:
            engine.create_volumes(volumes, self._labels_of(step, step.role))
        self._create(step, pause_name(step), "pause", pause_container(step.role, volumes, cpus))
        if warm:
            self.warm_pool.claim(step.name)  # before anything of the job is in it
        engine.api.put_archive(pause_name(step), "/in", tar(inputs))
        engine.api.start(pause_name(step))
        if not warm:
            self._create(step, step.name, step.role, program_container(step.role, volumes, cpus))

    def _create(self, step: Step, name: str, role: str, options: dict[str, Any]) -> None:
        labels = self._labels_of(step, role)
        self.engine.client.containers.create(name=name, labels=labels, **options)

    def _labels_of(self, step: Step, role: str) -> dict[str, str]:
        of_step = {f"{LABEL}job": step.job, f"{LABEL}attempt": str(step.attempt), ROLE_LABEL: role}
        return self.labels | of_step

    def state(self, step: Step) -> StepState:
        with self.engine.calls_about(step.name):
            found, pause = self.engine.inspect(step.name), self.engine.inspect(pause_name(step))
        if not found or not pause:
            return StepState(lost=True)
        state, running = found["State"], bool(found["State"]["Running"])
        now = time.time() + self.engine.clock_offset
        end = now if running else timestamp(state["FinishedAt"])
        start = max(timestamp(each["State"]["StartedAt"]) for each in (found, pause))
        lost = not running and not pause["State"]["Running"]
        return StepState(running, state["ExitCode"], end - start, state["OOMKilled"], lost)

    def wait(self, step: Step, seconds: float) -> None:
        with suppress(requests.RequestException):  # a timeout, or an error that `state` meets, too
            self.engine.api.wait(step.name, timeout=seconds)

    def log(self, step: Step) -> bytes:
        with self.engine.calls_about(step.name):
            try:
                output: bytes = self.engine.api.logs(step.name, tail=LOG_LINES)
            except NotFound:
                return b""
        return output[-LOG_BYTES:]

    def read(self, step: Step, name: str, max_bytes: int) -> FileStream | None:
        """Open what a step left, through the pause container, in which no program of a job runs."""
        pause = pause_name(step)
        with self.engine.calls_about(pause):
            try:
                stream, _ = self.engine.api.get_archive(pause, f"/out/{name}", CHUNK_BYTES)
            except NotFound:
                return None
        return single_file(self._guarded(pause, stream), name, max_bytes)

    def _guarded(self, name: str, stream: Generator[bytes]) -> Generator[bytes]:
        try:
            with self.engine.calls_about(name):
                yield from stream
        finally:
            stream.close()

    def kill(self, step: Step) -> None:
        with self.engine.calls_about(step.name), suppress(APIError):  # it has just ended by itself
            self.engine.api.kill(step.name)

    def remove(self, job: str, attempt: int) -> None:
        """Remove everything of an attempt; what is stuck stays until a later call."""
        try:
            self._remove(job, attempt)
        except StuckContainerError as error:
            log.info("job %s, attempt %d is left for later: %s", job, attempt, error)
            self.stuck.add((job, attempt))

    def _remove(self, job: str, attempt: int) -> None:
        api = self.engine.api
        labels = {"label": [f"{LABEL}job={job}", f"{LABEL}attempt={attempt}"]}
        # By name: one that was warm has no such labels. It goes first, as long as others have them.
        training = {"name": f"^/monitoring-{job}-{attempt}-training-0$"}
        for pause in REMOVAL_PAUSES:
            time.sleep(pause)  # for one that is being removed already
            with self.engine.calls():
                trainings = api.containers(all=True, filters=training)
                found = api.containers(all=True, filters=labels)
                volumes = [each["Name"] for each in api.volumes(filters=labels)["Volumes"] or []]
            if not trainings and not found and not volumes:
                return
            for container in trainings:
                self.engine.remove_container(container["Id"])
            with self.engine.calls():
                left = api.containers(all=True, filters=training)
            if not left:
                self.engine.discard(trainings + found, tuple(volumes))

    def _clear(self, step: Step) -> None:
        """Remove what is here of one step."""
        found = [self.engine.inspect(name) for name in (step.name, pause_name(step))]
        volumes = f"{step.name}-in", f"{step.name}-out"
        self.engine.discard([each for each in found if each], volumes)

    def close(self) -> None:
        self.warm_pool.remove()


def pause_name(step: Step) -> str:
    return f"{step.name}-pause"
