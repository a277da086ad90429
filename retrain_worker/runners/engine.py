"""Calls to the Docker engine, each of which ends: with an answer, or after a timeout.

An engine can stop to answer about ONE container, whose lock it holds, and go on with all others.
Such a container costs its own attempt, and no other: calls about it raise StuckContainerError, and
its removal is postponed. If the engine as a whole does not answer, RunnerUnavailableError ends the
process, and its next life goes on with the steps that run.
"""

import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from tarfile import GNU_FORMAT, TarInfo
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from urllib3.exceptions import TimeoutError as SocketTimeoutError

from common.lifecycle import report_liveness
from retrain_worker.runners.protocol import Inputs, RunnerUnavailableError, StepFailedError
from retrain_worker.runners.sandbox_settings import output_volume_options
from retrain_worker.settings import ENGINE_TIMEOUT_SECONDS, TRAIN_CPUS

TAR_BLOCK_BYTES = 512
POSTPONED_SECONDS = 600  # until the next try to remove what does not let itself be removed


class StuckContainerError(StepFailedError):
    """The engine answers, but not about this container."""

    def __init__(self, name: str) -> None:
        waited = f"{ENGINE_TIMEOUT_SECONDS:g} s"
        reason = f"The engine did not answer about the container {name} for {waited}."
        super().__init__(reason, retry=True)


class Engine:
    """A Docker engine, on this machine or another one (DOCKER_HOST)."""

    def __init__(self) -> None:
        try:
            self.client = docker.from_env(timeout=ENGINE_TIMEOUT_SECONDS)
        except DockerException as error:
            raise SystemExit(f"no Docker engine answers: {error}") from error
        self.api = self.client.api
        self.clock_offset = 0.0  # its clock minus ours, in seconds
        self.cpus = TRAIN_CPUS  # it may have fewer
        self.stuck = Postponed()

    def refresh(self) -> None:
        """Read the engine's clock and its number of CPUs."""
        info = self.client.info()
        self.clock_offset = timestamp(info["SystemTime"]) - time.time()
        self.cpus = min(TRAIN_CPUS, info["NCPU"])

    @contextmanager
    def calls(self, about: str = "") -> Iterator[None]:
        """Turn errors of calls, perhaps `about` one container, into those of the protocol.

        Raise StepFailedError or StuckContainerError if only that container is concerned, else
        RunnerUnavailableError.
        """
        report_liveness()
        try:
            yield
        except requests.RequestException as error:
            if about and isinstance(error, APIError):
                reason = f"The worker could not run the job: {error}"
                raise StepFailedError(reason, retry=True) from error
            if about and is_timeout(error) and self.answers():
                raise StuckContainerError(about) from error
            raise RunnerUnavailableError(str(error)) from error

    def answers(self) -> bool:
        report_liveness()
        try:
            return bool(self.api.ping())
        except requests.RequestException:
            return False

    def inspect(self, name: str) -> dict[str, Any] | None:
        """Return the description of a container; None if there is none."""
        report_liveness()
        try:
            description: dict[str, Any] = self.api.inspect_container(name)
        except NotFound:
            return None
        return description

    def containers(self, **filters: Any) -> list[dict[str, Any]]:
        """Return descriptions of the containers that fit, also of those that do not run."""
        with self.calls():
            found: list[dict[str, Any]] = self.api.containers(all=True, filters=filters)
        return found

    def volumes(self, **filters: Any) -> list[dict[str, Any]]:
        with self.calls():
            return self.api.volumes(filters=filters)["Volumes"] or []

    def create_volumes(self, name: str, labels: dict[str, str]) -> None:
        """Create the two volumes that the containers of a step mount."""
        self.api.create_volume(f"{name}-in", labels=labels)
        self.api.create_volume(f"{name}-out", "local", output_volume_options(), labels)

    def put_files(self, container: str, inputs: Inputs) -> None:
        """Write `inputs` to /in of a container."""
        self.api.put_archive(container, "/in", tar(inputs))

    def discard(self, containers: list[dict[str, Any]], volumes: Iterable[str] = ()) -> None:
        """Remove containers, the volumes that they mount, and `volumes`, as far as possible.

        `containers` are descriptions. Raise StuckContainerError at the first one that is stuck.
        """
        mounts = [mount for container in containers for mount in container["Mounts"]]
        mounted = {mount["Name"] for mount in mounts if mount["Type"] == "volume"}
        for container in containers:
            self.remove_container(container["Id"])
        for name in mounted.union(volumes):
            self.remove_volume(name)

    def remove_container(self, container: str) -> None:
        with self.calls(container[:12]), suppress(APIError):  # it is being removed already
            self.api.remove_container(container, v=True, force=True)

    def remove_volume(self, name: str) -> None:
        """Remove a volume, unless it is in use for longer than a moment."""
        for pause in (0.1, 0.2, 0.4, 0):  # the engine may take a while to unmount it
            with self.calls(name):
                try:
                    self.api.remove_volume(name, force=True)
                    return
                except NotFound:
                    return
                except APIError:
                    time.sleep(pause)


class Postponed:
    """What is stuck, and stays as it is until some time has passed."""

    def __init__(self) -> None:
        self.until: dict[Hashable, float] = {}

    def add(self, key: Hashable) -> None:
        self.until[key] = time.monotonic() + POSTPONED_SECONDS

    def __contains__(self, key: Hashable) -> bool:
        return time.monotonic() < self.until.get(key, 0)


def tar(inputs: Inputs) -> Iterator[bytes]:
    """Yield a tar of `inputs` in their order, never a whole file at once.

    Raise StepFailedError if an input is shorter or longer than announced.
    """
    for name, open_input in inputs.items():
        file = open_input()
        header = TarInfo(name)
        header.size, header.mode, left = file.size, 0o444, file.size
        yield header.tobuf(GNU_FORMAT)  # this format has no limit of 8 GiB
        try:
            for chunk in file.chunks:
                yield chunk
                left -= len(chunk)
        finally:
            file.close()
        if left:
            raise StepFailedError(f"The input {name} ended {left} bytes early.", retry=True)
        yield bytes(-header.size % TAR_BLOCK_BYTES)
    yield bytes(2 * TAR_BLOCK_BYTES)


def is_timeout(error: Exception) -> bool:
    """Whether an answer did not come in time; within a body, requests hides that in the args."""
    if isinstance(error, requests.Timeout | SocketTimeoutError | TimeoutError):
        return True
    return any(is_timeout(cause) for cause in error.args if isinstance(cause, Exception))


def timestamp(moment: str) -> float:
    """Return a time of the engine as seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()
