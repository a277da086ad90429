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

from retrain_worker.runners.engine import Engine, StuckContainerError, timestamp
from retrain_worker.runners.outputs import CHUNK_BYTES, LOG_BYTES, single_file
from retrain_worker.runners.protocol import FileStream, Inputs, Step, StepState
from retrain_worker.runners.sandbox_settings import pause_container, program_container
from retrain_worker.runners.warm_pool import ROLE_LABEL, WarmPool, complete, was_warm

LABEL = "monitoring."  # job, attempt, worker, role, api
OF_STEPS = [f"{LABEL}job", f"{LABEL}attempt"]
LOG_LINES = 400  # of 16 KiB at most
REMOVAL_PAUSES = (0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds

log = logging.getLogger("retrain_worker")


class DockerRunner:
    def __init__(self, worker: str, api: str) -> None:
        self.api_name, self.labels = api, {f"{LABEL}worker": worker, f"{LABEL}api": api}
        self.engine = Engine()
        self.warm_pool = WarmPool(self.engine, self.labels)

    def attempts(self) -> set[tuple[str, int]]:
        """Return (job, attempt) of what is here of jobs of our API, whoever ran them.

        Attempts with a stuck container are left out until their next turn.
        """
        found = self.engine.containers(label=OF_STEPS) + self.engine.volumes(label=OF_STEPS)
        attempts = {
            (labels[f"{LABEL}job"], int(labels[f"{LABEL}attempt"]))
            for labels in (each["Labels"] for each in found)
            if labels.get(f"{LABEL}api", self.api_name) == self.api_name
        }
        return {attempt for attempt in attempts if attempt not in self.engine.stuck}

    def prewarm(self) -> None:
        self.warm_pool.prewarm()

    def launch(self, step: Step, inputs: Inputs) -> str:
        with self.engine.calls(step.name):
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
        engine, cpus, pause = self.engine, self.engine.cpus, pause_name(step)
        warm = self.warm_pool.ready() if step.role == "training" else ""
        volumes = warm or step.name
        if not warm:
            engine.create_volumes(volumes, self._labels_of(step, step.role))
        self._create(step, pause, "pause", pause_container(step.role, volumes, cpus))
        if warm:
            self.warm_pool.claim(step.name)  # before anything of the job is in it
        engine.put_files(pause, inputs)
        engine.api.start(pause)
        if not warm:
            self._create(step, step.name, step.role, program_container(step.role, volumes, cpus))

    def _create(self, step: Step, name: str, role: str, options: dict[str, Any]) -> None:
        labels = self._labels_of(step, role)
        self.engine.client.containers.create(name=name, labels=labels, **options)

    def _labels_of(self, step: Step, role: str) -> dict[str, str]:
        of_step = {f"{LABEL}job": step.job, f"{LABEL}attempt": str(step.attempt), ROLE_LABEL: role}
        return self.labels | of_step

    def state(self, step: Step) -> StepState:
        with self.engine.calls(step.name):
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
        with self.engine.calls(step.name):
            try:
                output: bytes = self.engine.api.logs(step.name, tail=LOG_LINES)
            except NotFound:
                return b""
        return output[-LOG_BYTES:]

    def read(self, step: Step, name: str, max_bytes: int) -> FileStream | None:
        """Open what a step left, through the pause container, in which no program of a job runs."""
        pause = pause_name(step)
        with self.engine.calls(pause):
            try:
                stream, _ = self.engine.api.get_archive(pause, f"/out/{name}", CHUNK_BYTES)
            except NotFound:
                return None
        return single_file(self._guarded(pause, stream), name, max_bytes)

    def _guarded(self, name: str, stream: Generator[bytes]) -> Generator[bytes]:
        try:
            with self.engine.calls(name):
                yield from stream
        finally:
            stream.close()

    def kill(self, step: Step) -> None:
        with self.engine.calls(step.name), suppress(APIError):  # it has just ended by itself
            self.engine.api.kill(step.name)

    def remove(self, job: str, attempt: int) -> None:
        """Remove everything of an attempt; what is stuck stays until a later call."""
        try:
            self._remove(job, attempt)
        except StuckContainerError as error:
            log.info("job %s, attempt %d is left for later: %s", job, attempt, error)
            self.engine.stuck.add((job, attempt))

    def _remove(self, job: str, attempt: int) -> None:
        engine, labels = self.engine, [f"{LABEL}job={job}", f"{LABEL}attempt={attempt}"]
        # By name: one that was warm has no such labels. It goes first, as long as others have them.
        training = f"^/monitoring-{job}-{attempt}-training-0$"
        for pause in REMOVAL_PAUSES:
            time.sleep(pause)  # for one that is being removed already
            trainings, found = engine.containers(name=training), engine.containers(label=labels)
            volumes = [each["Name"] for each in engine.volumes(label=labels)]
            if not trainings and not found and not volumes:
                return
            for container in trainings:
                engine.remove_container(container["Id"])
            if not engine.containers(name=training):
                engine.discard(trainings + found, volumes)

    def _clear(self, step: Step) -> None:
        """Remove what is here of one step."""
        found = [self.engine.inspect(name) for name in (step.name, pause_name(step))]
        self.engine.discard(list(filter(None, found)), (f"{step.name}-in", f"{step.name}-out"))

    def close(self) -> None:
        self.warm_pool.remove()


def pause_name(step: Step) -> str:
    return f"{step.name}-pause"
