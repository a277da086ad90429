"""Steps of a job as containers, each a prison: see `jail`.

    launch ──▶ volume `in` (what goes in), volume `out` (a tmpfs, so what comes out has a limit),
               a holder, which keeps `out` mounted until it is collected, and the container itself
    state, log, read ──▶ how it stands, its output, one file that it left
    remove ──▶ nothing of an attempt is left on this engine

A container has a name made of job, attempt and step: who starts a step twice finds the first one.
A training takes over a container that waits for it, if there is one: see `warm`. Uploaded models
are programs; nothing that they were near is believed (see `outputs`).
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from tarfile import GNU_FORMAT, TarInfo

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from jail import TRAIN_CPUS, create_volumes, discard, jail, program, remove_container, sleeper
from outputs import CHUNK, LOG_BYTES, File, only_file
from step import Inputs, State, Step
from warm import ROLE, Warm, go, is_warm

ENGINE_TIMEOUT = 30  # seconds for one answer of the engine
LABEL = "monitoring."  # job, attempt, worker, role, api
OURS = {"label": [f"{LABEL}job", f"{LABEL}attempt"]}
LOG_LINES = 400  # of 16 KiB at most


def tar(inputs: Inputs) -> Iterator[bytes]:
    """Yield a tar of `inputs`, never a whole file at once."""
    for name, open_input in inputs.items():
        file = open_input()
        header = TarInfo(name)
        header.size, header.mode, left = file.size, 0o444, file.size
        yield header.tobuf(GNU_FORMAT)  # this format has no limit of 8 GiB
        for chunk in file.chunks:
            yield chunk
            left -= len(chunk)
        if left:
            raise OSError(f"{name} ended {left} bytes before its end")
        yield bytes(-header.size % 512)
    yield bytes(1024)


class Engine:
    """A Docker engine, here or elsewhere (DOCKER_HOST)."""

    errors = (APIError,)  # it answers, and refuses

    def __init__(self, worker: str, api: str):
        self.labels = {f"{LABEL}worker": worker, f"{LABEL}api": api}
        self.api = api
        try:
            self.client = docker.from_env(timeout=ENGINE_TIMEOUT)
        except DockerException as error:
            raise SystemExit(f"no Docker engine answers: {error}") from error
        self.ahead, self.cpus = 0.0, TRAIN_CPUS  # its clock may not be ours; it may have fewer
        self.warm = Warm(self.client, self.labels)

    def labels_of(self, step: Step, role: str) -> dict[str, str]:
        known = {f"{LABEL}job": step.job, f"{LABEL}attempt": str(step.attempt), ROLE: role}
        return self.labels | known

    def attempts(self) -> set[tuple[str, int]]:
        """Return (job, attempt) of all that is left here of jobs of our API, whoever ran them."""
        labels = [c["Labels"] for c in self.client.api.containers(all=True, filters=OURS)]
        labels += [v["Labels"] for v in self.client.api.volumes(filters=OURS)["Volumes"] or []]
        return {
            (found[LABEL + "job"], int(found[LABEL + "attempt"]))
            for found in labels
            if found.get(LABEL + "api", self.api) == self.api
        }

    def warm_up(self) -> None:
        """Let a container wait for the next job, unless one does."""
        if self.warm.is_wanted():
            self.look()
            self.warm.start(self.cpus)

    def look(self) -> None:
        """See what the engine's clock says, and how many processors it has."""
        host = self.client.info()
        self.ahead = datetime.fromisoformat(host["SystemTime"]).timestamp() - time.time()
        self.cpus = min(TRAIN_CPUS, host["NCPU"])

    def launch(self, step: Step, inputs: Inputs) -> str:
        """Start `step` unless an earlier life did; return its container's id."""
        self.look()
        if not self.stands(step):
            self.clear(step)
            self.prepare(step, inputs)
        found = self.inspect(step.name)
        if found["State"]["Status"] == "created":
            self.client.api.start(step.name)
        elif is_warm(found):
            go(self.client.api, step.name)
        return found["Id"]

    def stands(self, step: Step) -> bool:
        """Is it ready to start, or was it started? A holder is started with all inputs in it."""
        found, holder = self.inspect(step.name), self.inspect(holder_of(step))
        if not found or not holder or holder["State"]["Status"] == "created":
            return False
        return holder["State"]["Running"] or found["State"]["Status"] != "created"

    def inspect(self, name: str) -> dict | None:
        try:
            return self.client.api.inspect_container(name)
        except NotFound:
            return None

    def prepare(self, step: Step, inputs: Inputs) -> None:
        """Bring all of `step` to where it can go, in an order that `stands` relies on."""
        api = self.client.api
        warm = self.warm.name if step.role == "training" and self.warm.hears() else None
        volumes = warm or step.name
        if not warm:
            create_volumes(api, volumes, self.labels_of(step, step.role))
        self.create(step, "holder", sleeper(step.role), jail(volumes, self.cpus, fills=True))
        if warm:
            self.warm.take(step.name)  # before anything of the job is in it
        api.put_archive(holder_of(step), "/in", tar(inputs))
        api.start(holder_of(step))
        if not warm:
            self.create(step, step.role, program(step.role), jail(volumes, self.cpus))

    def create(self, step: Step, role: str, runs: dict, prison: dict) -> None:
        name = holder_of(step) if role == "holder" else step.name
        labels = self.labels_of(step, role)
        self.client.containers.create(name=name, labels=labels, **runs, **prison)

    def state(self, step: Step) -> State:
        found, holder = self.inspect(step.name), self.inspect(holder_of(step))
        if not found or not holder:
            return State(lost=True)
        state = found["State"]
        end = seconds(state["FinishedAt"]) if not state["Running"] else time.time() + self.ahead
        begin = max(seconds(each["State"]["StartedAt"]) for each in (found, holder))
        lost = not state["Running"] and not holder["State"]["Running"]
        code, memory = state["ExitCode"], state["OOMKilled"]
        return State(state["Running"], code, end - begin, memory, lost)

    def wait(self, step: Step, most: float) -> None:
        """Return as soon as `step` has ended, or after `most` seconds; ask `state` which."""
        with suppress(NotFound, requests.ConnectionError, requests.Timeout):
            self.client.api.wait(step.name, timeout=most)

    def log(self, step: Step) -> bytes:
        try:
            return self.client.api.logs(step.name, tail=LOG_LINES)[-LOG_BYTES:]
        except NotFound:
            return b""

    def read(self, step: Step, name: str, most: int) -> File | None:
        """Open what `step` left as /out/`name`; return None if it left nothing.

        Through the holder, in which no program runs that could exchange files under our hands.
        """
        try:
            stream, _ = self.client.api.get_archive(holder_of(step), f"/out/{name}", CHUNK)
        except NotFound:
            return None
        return only_file(stream, name, most)

    def kill(self, step: Step) -> None:
        with suppress(APIError):  # it has just ended by itself
            self.client.api.kill(step.name)

    def clear(self, step: Step) -> None:
        """Remove what is there of one step."""
        found = [self.inspect(name) for name in (step.name, holder_of(step))]
        volumes = [f"{step.name}-in", f"{step.name}-out"]
        discard(self.client.api, [each for each in found if each], volumes)

    def remove(self, job: str, attempt: int) -> None:
        """Remove all that is there of an attempt; what resists is left to the next sweep."""
        api = self.client.api
        label = {"label": [f"{LABEL}job={job}", f"{LABEL}attempt={attempt}"]}
        name = {"name": f"^/monitoring-{job}-{attempt}-training-0$"}  # has no label if it was warm
        for pause in (0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
            time.sleep(pause)  # for one that is being removed already
            training = api.containers(all=True, filters=name)
            found = api.containers(all=True, filters=label)
            volumes = [volume["Name"] for volume in api.volumes(filters=label)["Volumes"] or []]
            if not training and not found and not volumes:
                return
            for each in training:  # first: while it is there, something with a label has to be
                remove_container(api, each["Id"])
            if not api.containers(all=True, filters=name):
                discard(api, training + found, volumes)

    def close(self) -> None:
        self.warm.remove()


def holder_of(step: Step) -> str:
    return f"{step.name}-holder"


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
