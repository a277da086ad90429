"""The prison that every container of a job is: it reaches and keeps as little as can be.

    /in    a volume that only the holder may write into, and nobody once the program runs
    /out   a tmpfs as a volume, since nothing else has a quota everywhere; it lives as long as a
           running container mounts it

Uploaded models are programs, and this is what stands between them and the host.
"""

import os
import time
from contextlib import suppress
from math import ceil

from docker.errors import APIError, NotFound
from docker.types import DeviceRequest, LogConfig, Mount, Ulimit
from step import TRAIN_MEMORY, TRAIN_OUTPUT_BYTES, TRAIN_TIMEOUT_SECONDS

TRAINER_IMAGE = os.environ.get("TRAINER_IMAGE", "monitoring-trainer")
MODEL_IMAGE = os.environ.get("MODEL_IMAGE", "monitoring-model")
TRAIN_CPUS = float(os.environ.get("TRAIN_CPUS", "2"))
TRAIN_GPUS = int(os.environ.get("TRAIN_GPUS", "0"))  # -1: all of them
OUTPUT_FILES = 1024
NOBODY = "65534:65534"
# A step ends even where its worker is gone for good; the worker itself is quicker, and says why.
LAST = str(TRAIN_TIMEOUT_SECONDS + 60)
END = ["timeout", "-s", "KILL", LAST]
HOLD = ["sleep", str(TRAIN_TIMEOUT_SECONDS + 24 * 3600)]  # until it is collected
PROGRAMS = {
    "training": (TRAINER_IMAGE, [*END, "python", "/in/train.py", "/in", "/out"]),
    "warm": (TRAINER_IMAGE, ["python", "/app/waiting.py", LAST]),
    "scoring": (MODEL_IMAGE, [*END, "python", "/app/score.py", "/in", "/out"]),
}


def create_volumes(api, name: str, labels: dict) -> None:
    """Create what `jail` mounts under this name."""
    size = f"size={TRAIN_OUTPUT_BYTES},nr_inodes={OUTPUT_FILES},mode=0700,uid=65534,gid=65534"
    tmpfs = {"type": "tmpfs", "device": "tmpfs", "o": size + ",nosuid,nodev,noexec"}
    api.create_volume(f"{name}-in", labels=labels)
    api.create_volume(f"{name}-out", "local", tmpfs, labels)


def discard(api, containers: list[dict], volumes: list[str] = ()) -> None:
    """Remove containers, the volumes that they mount, and further ones, as far as they let us."""
    mounts = [mount for found in containers for mount in found["Mounts"]]
    mounted = {mount["Name"] for mount in mounts if mount["Type"] == "volume"}
    for found in containers:
        remove_container(api, found["Id"])
    for name in mounted.union(volumes):
        remove_volume(api, name)


def remove_container(api, id: str) -> None:
    with suppress(APIError):
        api.remove_container(id, v=True, force=True)


def remove_volume(api, name: str) -> None:
    for pause in (0.1, 0.2, 0.4, 0):  # what was in use a moment ago may be for another one
        try:
            return api.remove_volume(name, force=True)
        except NotFound:
            return None
        except APIError:
            time.sleep(pause)


def program(role: str) -> dict:
    """Return what runs in a container of this role, and what it gets for that."""
    image, command = PROGRAMS[role]
    gpus = [DeviceRequest(count=TRAIN_GPUS, capabilities=[["gpu"]])]
    gpus = gpus if TRAIN_GPUS and role != "scoring" else None
    limits = {"mem_limit": TRAIN_MEMORY, "memswap_limit": TRAIN_MEMORY, "device_requests": gpus}
    return {"image": image, "command": command} | limits


def sleeper(role: str) -> dict:
    """Return the same for what keeps the volumes of such a container: the same image, asleep."""
    image, _ = PROGRAMS[role]
    return {"image": image, "command": HOLD, "mem_limit": "32m", "memswap_limit": "32m"}


def jail(volumes: str, cpus: float, fills: bool = False) -> dict:
    """Return what the containers of a job have in common."""
    written = f"size={TRAIN_OUTPUT_BYTES},nr_inodes=16384"
    threads = str(ceil(cpus))  # TensorFlow would start some for each cpu of the host
    threads = dict.fromkeys(("OMP_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP"), threads)
    return {
        "mounts": [
            Mount("/in", f"{volumes}-in", read_only=not fills, no_copy=True),
            Mount("/out", f"{volumes}-out", no_copy=True),
        ],
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
