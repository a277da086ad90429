"""Steps of a job as containers, each a prison: see `jail`.

    launch ──▶ volume `in` (what goes in), volume `out` (a tmpfs, so what comes out has a limit),
               a holder, which keeps `out` mounted until it is collected, and the container itself
    state, log, read ──▶ how it stands, its output, one file that it left
    remove ──▶ nothing of an attempt is left on this engine

Everything has a name made of job, attempt and step: who starts a step twice finds the first one.
Uploaded models are programs; nothing that they were near is believed (see `outputs`).
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from math import ceil
from tarfile import GNU_FORMAT, TarInfo

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.types import DeviceRequest, LogConfig, Mount, Ulimit
from outputs import CHUNK, LOG_BYTES, File, only_file
from step import TRAIN_MEMORY, TRAIN_OUTPUT_BYTES, TRAIN_TIMEOUT_SECONDS, Inputs, State, Step

TRAINER_IMAGE = os.environ.get("TRAINER_IMAGE", "monitoring-trainer")
MODEL_IMAGE = os.environ.get("MODEL_IMAGE", "monitoring-model")
TRAIN_CPUS = float(os.environ.get("TRAIN_CPUS", "2"))
TRAIN_GPUS = int(os.environ.get("TRAIN_GPUS", "0"))  # -1: all of them
OUTPUT_FILES = 1024
ENGINE_TIMEOUT = 30  # seconds for one answer of the engine
NOBODY = "65534:65534"
# A step ends even where its worker is gone for good; the worker itself is quicker, and says why.
END = ["timeout", "-s", "KILL", str(TRAIN_TIMEOUT_SECONDS + 60)]
HOLD = ["sleep", str(TRAIN_TIMEOUT_SECONDS + 24 * 3600)]  # until it is collected
PROGRAMS = {
    "training": (TRAINER_IMAGE, [*END, "python", "/in/train.py", "/in", "/out"]),
    "scoring": (MODEL_IMAGE, [*END, "python", "/app/score.py", "/in", "/out"]),
}
LABEL = "monitoring."  # job, attempt, worker, role, api
OURS = {"label": [f"{LABEL}job", f"{LABEL}attempt"]}
LOG_LINES = 400  # of 16 KiB at most


def jail(labels: dict, cpus: float) -> dict:
    """Return how every container of a job is created: it reaches and keeps as little as can be."""
    written = f"size={TRAIN_OUTPUT_BYTES},nr_inodes=16384"
    threads = str(ceil(cpus))  # TensorFlow would start some for each cpu of the host
    threads = dict.fromkeys(("OMP_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP"), threads)
    return {
        "labels": labels,
        "network_mode": "none",
        "ipc_mode": "private",
        "read_only": True,
        "tmpfs": {"/tmp": written},
        "user": NOBODY,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 128,
        "nano_cpus": int(cpus * 1e9),
        "oom_score_adj": 500,  # a host short of memory ends this first
        "ulimits": [
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="nofile", soft=4096, hard=4096),
            Ulimit(name="fsize", soft=TRAIN_OUTPUT_BYTES, hard=TRAIN_OUTPUT_BYTES),
        ],
        "log_config": LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
        "environment": {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        | {f"{name}_THREADS": count for name, count in threads.items()},
    }


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
        self.worker, self.api = worker, api
        try:
            self.client = docker.from_env(timeout=ENGINE_TIMEOUT)
        except DockerException as error:
            raise SystemExit(f"no Docker engine answers: {error}") from error
        self.ahead, self.cpus = 0.0, TRAIN_CPUS  # its clock may not be ours; it may have fewer

    def labels(self, step: Step, role: str) -> dict[str, str]:
        known = {"job": step.job, "attempt": step.attempt, "worker": self.worker, "role": role}
        return {LABEL + name: str(value) for name, value in (known | {"api": self.api}).items()}

    def attempts(self) -> set[tuple[str, int]]:
        """Return (job, attempt) of all that is left here of jobs of our API, whoever ran them."""
        labels = [c["Labels"] for c in self.client.api.containers(all=True, filters=OURS)]
        labels += [v["Labels"] for v in self.client.api.volumes(filters=OURS)["Volumes"] or []]
        return {
            (found[LABEL + "job"], int(found[LABEL + "attempt"]))
            for found in labels
            if found.get(LABEL + "api", self.api) == self.api
        }

    def launch(self, step: Step, inputs: Inputs) -> str:
        """Start `step` unless an earlier life did; return its container's id."""
        host = self.client.info()
        self.ahead = datetime.fromisoformat(host["SystemTime"]).timestamp() - time.time()
        self.cpus = min(TRAIN_CPUS, host["NCPU"])
        if not self.stands(step):
            self.clear(step)
            self.prepare(step, inputs)
        found = self.inspect(step.name)
        if found["State"]["Status"] == "created":
            self.client.api.start(step.name)
        return found["Id"]

    def stands(self, step: Step) -> bool:
        """Is it ready to start, or was it started? Its container is what is created last."""
        found = self.inspect(step.name)
        return bool(found) and (found["State"]["Status"] != "created" or self.is_held(step))

    def is_held(self, step: Step) -> bool:
        holder = self.inspect(holder_of(step))
        return bool(holder) and holder["State"]["Running"]

    def inspect(self, name: str) -> dict | None:
        try:
            return self.client.api.inspect_container(name)
        except NotFound:
            return None

    def prepare(self, step: Step, inputs: Inputs) -> None:
        """Create all of `step`, in an order that `stands` relies on."""
        api, (image, command) = self.client.api, PROGRAMS[step.role]
        size = f"size={TRAIN_OUTPUT_BYTES},nr_inodes={OUTPUT_FILES},mode=0700,uid=65534,gid=65534"
        tmpfs = {"type": "tmpfs", "device": "tmpfs", "o": size + ",nosuid,nodev,noexec"}
        api.create_volume(f"{step.name}-in", labels=self.labels(step, step.role))
        api.create_volume(f"{step.name}-out", "local", tmpfs, self.labels(step, step.role))
        self.create(step, "holder", image, HOLD, "32m")
        api.put_archive(holder_of(step), "/in", tar(inputs))
        api.start(holder_of(step))
        gpus = [DeviceRequest(count=TRAIN_GPUS, capabilities=[["gpu"]])]
        gpus = gpus if TRAIN_GPUS and step.role == "training" else None
        self.create(step, step.role, image, command, TRAIN_MEMORY, device_requests=gpus)

    def create(self, step: Step, role: str, image: str, command, memory: str, **more) -> None:
        mounts = [
            Mount("/in", f"{step.name}-in", read_only=role != "holder", no_copy=True),
            Mount("/out", f"{step.name}-out", no_copy=True),
        ]
        self.client.containers.create(
            image,
            command,
            name=holder_of(step) if role == "holder" else step.name,
            mounts=mounts,
            mem_limit=memory,
            memswap_limit=memory,
            **jail(self.labels(step, role), self.cpus),
            **more,
        )

    def state(self, step: Step) -> State:
        found = self.inspect(step.name)
        if not found:
            return State(lost=True)
        state = found["State"]
        end = state["FinishedAt"] if not state["Running"] else None
        begin = datetime.fromisoformat(state["StartedAt"]).timestamp()
        now = datetime.fromisoformat(end).timestamp() if end else time.time() + self.ahead
        lost = not state["Running"] and not self.is_held(step)
        code, memory = state["ExitCode"], state["OOMKilled"]
        return State(state["Running"], code, now - begin, memory, lost)

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
        for name in (step.name, holder_of(step)):
            with suppress(NotFound):
                self.client.api.remove_container(name, v=True, force=True)
        for name in (f"{step.name}-in", f"{step.name}-out"):
            with suppress(NotFound):
                self.client.api.remove_volume(name, force=True)

    def remove(self, job: str, attempt: int) -> None:
        """Remove all that is there of an attempt; what resists is left to the next sweep."""
        labels = {"label": [f"{LABEL}job={job}", f"{LABEL}attempt={attempt}"]}
        api = self.client.api
        for pause in (0, 0, 0.1, 0.2, 0.4, 0.8):
            time.sleep(pause)  # for one that is being removed already
            containers = [found["Id"] for found in api.containers(all=True, filters=labels)]
            volumes = [found["Name"] for found in api.volumes(filters=labels)["Volumes"] or []]
            if not containers and not volumes:
                return
            for name in containers:
                with suppress(APIError):
                    api.remove_container(name, v=True, force=True)
            for name in volumes:
                with suppress(APIError):
                    api.remove_volume(name, force=True)


def holder_of(step: Step) -> str:
    return f"{step.name}-holder"
