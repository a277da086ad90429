"""Run steps as processes of this machine, where there is no Docker engine.

    launch ──▶ a folder with in/, out/ and log, and a group of processes
    state, log, read, remove ──▶ as in `docker_runner`

This is no sandbox: a program reaches what this user reaches. So an uploaded model is rejected
unless ALLOW_UNSANDBOXED_MODELS says that such models are trusted. The processes end together with
their worker; its next life reports the attempt as lost, so that the API starts another one.
"""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from common import lifecycle
from retrain_worker.runners import outputs
from retrain_worker.runners.protocol import (
    BY_SIGNAL,
    FileStream,
    Inputs,
    Step,
    StepFailedError,
    StepState,
)
from retrain_worker.settings import ALLOW_UNSANDBOXED_MODELS, TRAIN_OUTPUT_BYTES

ROOT = Path(__file__).resolve().parents[2]  # where `common` and `serving` are
TEMPORARY = Path(tempfile.gettempdir())
PREFIX = "monitoring-job-"
PROGRAMS = {"training": "train.py", "scoring": "score.py"}  # among the inputs
MODELS = {"model.keras", "model.h5"}
NOT_SANDBOXED = (
    "An uploaded model is a program, and without Docker nothing keeps it from this machine. "
    "Start with Docker, or set ALLOW_UNSANDBOXED_MODELS=yes if you trust who sends models."
)


class ProcessRunner:
    def __init__(self) -> None:
        self.processes: dict[Step, tuple[subprocess.Popen[bytes], float]] = {}  # and their start
        self.locks: dict[Path, int] = {}  # of the folders of this life

    def attempts(self) -> set[tuple[str, int]]:
        """Return (job, attempt) of what a dead worker left: no process locks its folder."""
        folders = [folder for folder in TEMPORARY.glob(f"{PREFIX}*") if is_abandoned(folder)]
        names = [folder.name.removeprefix(PREFIX).rpartition("-") for folder in folders]
        return {(job, int(attempt)) for job, _, attempt in names if attempt.isdigit()}

    def prewarm(self) -> None:
        """Do nothing: here each job starts cold."""

    def launch(self, step: Step, inputs: Inputs) -> str:
        folder = folder_of(step.job, step.attempt)
        if folder.exists() and folder not in self.locks:
            return ""  # of an earlier life: `state` reports it as lost
        if MODELS & set(inputs) and not ALLOW_UNSANDBOXED_MODELS:
            raise StepFailedError(NOT_SANDBOXED)
        try:
            self._lock(folder)
            write_inputs(folder / step.name, inputs)
            process = start_program(folder / step.name, step.role)
        except OSError as error:
            reason = f"The worker could not start the {step.role}: {error}"
            raise StepFailedError(reason, retry=True) from error
        self.processes[step] = process, time.monotonic()
        return f"process {process.pid}"

    def _lock(self, folder: Path) -> None:
        """Create and lock the folder of an attempt; nobody sees it before it is locked."""
        if folder not in self.locks:
            fresh = Path(tempfile.mkdtemp(dir=TEMPORARY))
            lock = os.open(fresh, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.locks[folder] = lock
            fresh.rename(folder)

    def state(self, step: Step) -> StepState:
        if step not in self.processes:
            return StepState(lost=True)
        process, start = self.processes[step]
        code, seconds = process.poll(), time.monotonic() - start
        if code is None:
            return StepState(True, 0, seconds)
        end_group(process.pid)  # the program may have started others
        return StepState(False, code if code >= 0 else BY_SIGNAL - code, seconds)

    def wait(self, step: Step, seconds: float) -> None:
        lifecycle.report_liveness()
        with suppress(subprocess.TimeoutExpired):
            self.processes[step][0].wait(seconds)

    def log(self, step: Step) -> bytes:
        try:
            with (folder_of_step(step) / "log").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - outputs.LOG_BYTES))
                return file.read(outputs.LOG_BYTES)
        except FileNotFoundError:
            return b""

    def read(self, step: Step, name: str, max_bytes: int) -> FileStream | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # no symlink; a pipe would block
        try:
            descriptor = os.open(folder_of_step(step) / "out" / name, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise outputs.InvalidOutputError(f"{name} is not a regular file") from error
        found = os.fstat(descriptor)
        try:
            outputs.check_file(name, stat.S_ISREG(found.st_mode), found.st_size, max_bytes)
        except outputs.InvalidOutputError:
            os.close(descriptor)
            raise
        file = os.fdopen(descriptor, "rb", outputs.CHUNK_BYTES)  # refuses a folder
        chunks = unless_lost(step, outputs.read_exactly(file, name, found.st_size))
        return FileStream(found.st_size, chunks, file.close)

    def kill(self, step: Step) -> None:
        if step in self.processes:
            end_group(self.processes[step][0].pid)

    def remove(self, job: str, attempt: int) -> None:
        for step in [step for step in self.processes if step[:2] == (job, attempt)]:
            self.kill(step)
            self.processes.pop(step)[0].wait()
        folder = folder_of(job, attempt)
        shutil.rmtree(folder, ignore_errors=True)
        if folder in self.locks:
            os.close(self.locks.pop(folder))

    def close(self) -> None:
        """Do nothing: nothing waits for a job here."""


def folder_of(job: str, attempt: int) -> Path:
    return TEMPORARY / f"{PREFIX}{job}-{attempt}"


def folder_of_step(step: Step) -> Path:
    return folder_of(step.job, step.attempt) / step.name


def is_abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # it was removed meanwhile, or belongs to another user
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def unless_lost(step: Step, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield chunks; an OSError here must not pass for one of the receiver's connection."""
    try:
        yield from chunks
    except OSError as error:
        raise step.lost() from error


def write_inputs(folder: Path, inputs: Inputs) -> None:
    for name in ("in", "out", "tmp"):
        (folder / name).mkdir(parents=True)
    for name, open_input in inputs.items():
        with (folder / "in" / name).open("wb") as file:
            file.writelines(open_input().chunks)


def start_program(folder: Path, role: str) -> "subprocess.Popen[bytes]":
    """Start the program of a step in a group of its own, with limits where the tools exist."""
    limits = ["prlimit", "--core=0", f"--fsize={TRAIN_OUTPUT_BYTES}"]
    ends_with_worker = ["setpriv", "--pdeathsig", "KILL"]
    tools = [tool for tool in (limits, ends_with_worker) if shutil.which(tool[0])]
    source, out = folder / "in", folder / "out"
    home = str(folder / "tmp")
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "TMPDIR": home}
    environment |= {"PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if role == "scoring":
        environment["PYTHONPATH"] = str(ROOT)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*chain(*tools), sys.executable, source / PROGRAMS[role], source, out],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
