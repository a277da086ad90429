"""The sandbox: what every container of a job can reach and use, which is as little as possible.

    /in    a volume that only the pause container may write to, never the program of the job
    /out   a tmpfs volume, since no other kind has a quota on every engine; it keeps its files as
           long as a running container mounts it

Uploaded models are programs, and these settings stand between them and the host.
"""

from math import ceil
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from retrain_worker.settings import (
    MODEL_IMAGE,
    TRAIN_GPUS,
    TRAIN_MEMORY,
    TRAIN_OUTPUT_BYTES,
    TRAIN_TIMEOUT_SECONDS,
    TRAINER_IMAGE,
)

Options = dict[str, Any]  # arguments of docker.containers.create

MAX_OUTPUT_FILES = 1024
MAX_TEMPORARY_FILES = 16384
MAX_PROCESSES = 128
PAUSE_MEMORY = "32m"
NOBODY = "65534:65534"
# A step ends even where its worker is gone for good. The worker itself ends it sooner.
DEADLINE_SECONDS = str(TRAIN_TIMEOUT_SECONDS + 60)
WITH_DEADLINE = ["timeout", "-s", "KILL", DEADLINE_SECONDS]
PAUSE = ["sleep", str(TRAIN_TIMEOUT_SECONDS + 24 * 3600)]  # until the outputs are collected
COMMANDS = {
    "training": [*WITH_DEADLINE, "python", "/in/train.py", "/in", "/out"],
    "warm": ["python", "/app/prewarm.py", DEADLINE_SECONDS],
    "scoring": [*WITH_DEADLINE, "python", "/in/score.py", "/in", "/out"],
}
IMAGES = {"training": TRAINER_IMAGE, "warm": TRAINER_IMAGE, "scoring": MODEL_IMAGE}


def output_volume_options() -> dict[str, str]:
    """Return the options of the volume `out`, for Docker's driver `local`."""
    limits = f"size={TRAIN_OUTPUT_BYTES},nr_inodes={MAX_OUTPUT_FILES}"
    access = "mode=0700,uid=65534,gid=65534,nosuid,nodev,noexec"
    return {"type": "tmpfs", "device": "tmpfs", "o": f"{limits},{access}"}


def program_container(role: str, volumes: str, cpus: float) -> Options:
    """Return the options of the container that runs the program of a role.

    `volumes` is the name that the volumes have in common; roles are training, warm and scoring.
    """
    options = _sandbox(volumes, cpus, writable_inputs=False)
    if role == "scoring":
        options["environment"]["PYTHONPATH"] = "/app"  # where `common` and `serving` are
    elif TRAIN_GPUS:
        options["device_requests"] = [DeviceRequest(count=TRAIN_GPUS, capabilities=[["gpu"]])]
    limits = {"mem_limit": TRAIN_MEMORY, "memswap_limit": TRAIN_MEMORY}
    return options | {"image": IMAGES[role], "command": COMMANDS[role]} | limits


def pause_container(role: str, volumes: str, cpus: float) -> Options:
    """Return the options of the container that fills the volumes and keeps them mounted."""
    limits = {"mem_limit": PAUSE_MEMORY, "memswap_limit": PAUSE_MEMORY}
    command = {"image": IMAGES[role], "command": PAUSE}
    return _sandbox(volumes, cpus, writable_inputs=True) | command | limits


def _sandbox(volumes: str, cpus: float, writable_inputs: bool) -> Options:
    """Return what all containers of a job have in common."""
    tmp = f"size={TRAIN_OUTPUT_BYTES},nr_inodes={MAX_TEMPORARY_FILES}"
    return {
        "mounts": [
            Mount("/in", f"{volumes}-in", read_only=not writable_inputs, no_copy=True),
            Mount("/out", f"{volumes}-out", no_copy=True),
        ],
        "network_mode": "none",
        "ipc_mode": "private",
        "read_only": True,
        "tmpfs": {"/tmp": tmp},
        "user": NOBODY,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": MAX_PROCESSES,
        "nano_cpus": int(cpus * 1e9),
        "oom_score_adj": 500,  # a host short of memory ends these containers first
        "ulimits": [
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="nofile", soft=4096, hard=4096),
            Ulimit(name="fsize", soft=TRAIN_OUTPUT_BYTES, hard=TRAIN_OUTPUT_BYTES),
        ],
        "log_config": LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
        "environment": _environment(cpus),
    }


def _environment(cpus: float) -> dict[str, str]:
    threads = str(ceil(cpus))  # TensorFlow would start some for each CPU of the host
    return {
        "HOME": "/tmp",
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
    }
