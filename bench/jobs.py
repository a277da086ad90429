"""Jobs: an upload, one small job from POST to deployed, and many of them on two workers."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from sklearn.datasets import load_diabetes

from bench.figure import Figure, at_least, at_most
from retrain_worker.job import TRAINING_PROGRAM
from tests.support.api import Api, write_large_csv
from tests.support.docker import docker, has_docker
from tests.support.environment import ROOT
from tests.support.memory import peak_memory
from tests.support.retraining import TRAINER_IMAGE, job_images, retraining, write
from tests.support.waiting import wait_for

BYTES = 10**9
COUNTS = (1, 2, 4, 8)


def seconds(call) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


def upload(folder: Path):
    large = write_large_csv(folder / "large.csv", BYTES)
    copy = f"cp {large} {folder}/copy && sync {folder}/copy && sha256sum {folder}/copy"
    plain = seconds(lambda: subprocess.run(copy, shell=True, check=True, capture_output=True))
    with Api(folder) as api:
        send = ["curl", "-sSf", "--noproxy", "*", "-F", f"data=@{large}", f"{api.url}/jobs"]
        ours = seconds(lambda: subprocess.run(send, check=True, capture_output=True))
        memory = peak_memory(api.pid())
    note = f"{ours:.1f} s for 1 GB; cp and sha256sum {plain:.1f} s"
    yield Figure("upload / cp and sha256sum", ours / plain, at_most(4), note)
    yield Figure("upload, VmHWM in MB", memory, at_most(150))


@contextmanager
def two_workers(folder: Path, **settings: str):
    """Yield the retraining half, with `model` and two workers, each job with one CPU."""
    folder.mkdir()
    with retraining(folder) as system:
        model = system.start("model")
        names = [settings | {"WORKER_NAME": f"w{n}"} for n in range(2)]
        workers = [system.start("retrain_worker", **each) for each in names]
        wait_for(lambda: model.has_started(), 60, "the model")
        for worker in workers:
            wait_for(lambda w=worker: "waiting for a job" in w.said(), 60, "the workers")
        yield system


def deployed(system, table: Path) -> str:
    """Post a job, and return its id when `model` serves what came of it."""
    job_id = system.upload(table, deploy="always")
    wait_for(lambda: system.job(job_id)["state"] == "succeeded", 300, "the job")
    version = system.job(job_id)["version"]

    def served() -> bool:
        replicas = system.get("/models/current")["replicas"].values()
        return {replica["serves"] for replica in replicas} == {version}

    wait_for(served, 60, "the new version")
    return job_id


def bare(system, job_id: str, folder: Path) -> None:
    """Run the training script on the inputs of a job, in a container that starts cold."""
    given = folder / f"in-{job_id}"
    given.mkdir()
    job = {key: system.job(job_id)[key] for key in ("columns", "epochs", "seed", "model")}
    (given / "job.json").write_text(json.dumps(job))
    program = [ROOT / "retrain_worker/sandbox" / name for name in TRAINING_PROGRAM]
    for file in (system.folder / f"data/jobs/{job_id}/train.npy", *program):
        (given / file.name).write_bytes(file.read_bytes())
    os.chmod(given, 0o755)
    limits = ["--cpus", "1", "--network", "none", "--tmpfs", "/tmp", "--tmpfs", "/out:mode=1777"]
    threads = [f"{name}_THREADS=1" for name in ("OMP_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")]
    limits += [argument for name in threads for argument in ("-e", name)]
    command = ["python", "/in/train.py", "/in", "/out"]
    docker("run", "--rm", *limits, "-v", f"{given}:/in:ro", TRAINER_IMAGE, *command)


def small_job(system, table: Path, folder: Path):
    deployed(system, table)  # everything was read from the disk once
    time.sleep(10)  # the next container imports TensorFlow, and then waits
    start = time.monotonic()
    job_id = deployed(system, table)
    ours = time.monotonic() - start
    plain = seconds(lambda: bare(system, job_id, folder))
    note = f"{ours:.1f} s from POST to deployed; the script in a cold container {plain:.1f} s"
    yield Figure("small job / docker run", ours / plain, at_most(1), note)


def many_jobs(system, table: Path):
    """Compare many jobs with one. They start cold: what waits warm has done some work before."""
    took = {}
    for count in COUNTS:
        start = time.monotonic()
        ids = [system.upload(table, deploy="never") for _ in range(count)]
        ends = []
        for job_id in ids:
            wait_for(lambda i=job_id: system.job(i)["state"] == "succeeded", 600, "a job")
            ends.append(time.monotonic() - start)
        took[count] = max(ends)
    cores = min(2, os.cpu_count())
    gains = {count: count * took[1] / took[count] for count in COUNTS[1:]}
    said = ", ".join(f"{count} jobs {took[count]:.0f} s" for count in COUNTS)
    for count, gain in gains.items():
        yield Figure(f"{count} jobs on two workers, gain", gain, at_least(0.8 * cores), said)


def figures(folder: Path):
    yield from upload(folder)
    if not has_docker():
        print("No Docker engine answers: the figures of jobs are left out.", file=sys.stderr)
        return
    table = write(folder / "diabetes.csv", load_diabetes().target)
    with job_images():
        with two_workers(folder / "warm") as system:
            yield from small_job(system, table, folder)
        with two_workers(folder / "cold", TRAIN_PREWARM="0") as system:
            yield from many_jobs(system, table)
