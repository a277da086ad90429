"""Steps of a job as processes of this machine, where there is no Docker engine.

    launch ──▶ a folder with in/, out/ and log, and a group of processes
    state, log, read, remove ──▶ as in `engine`

It is no prison: a program reaches what this user reaches. So a model that somebody uploaded is
refused unless ALLOW_UNJAILED_MODELS says that such models are trusted. A worker that dies takes its
process along; its next life reports the attempt as lost, so that the API begins another.
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
from contextlib import suppress
from pathlib import Path

from outputs import CHUNK, LOG_BYTES, File, Unusable, check_size, whole
from requests import RequestException
from step import BY_SIGNAL, TRAIN_OUTPUT_BYTES, Failed, Inputs, State, Step

ALLOW_UNJAILED_MODELS = os.environ.get("ALLOW_UNJAILED_MODELS", "")  # anything means yes
SCORE = Path(__file__).parent.parent / "model/score.py"
TEMPORARY = Path(tempfile.gettempdir())
PREFIX = "monitoring-job-"
UNJAILED = (
    "An uploaded model is a program, and without Docker nothing keeps it from this machine. "
    "Start with Docker, or set ALLOW_UNJAILED_MODELS=yes if you trust who sends models."
)


class Process:
    """This machine, without an engine."""

    errors = ()  # what goes wrong here is `Failed` or ours

    def __init__(self, worker: str, api: str):
        self.children: dict[Step, tuple[subprocess.Popen, float]] = {}
        self.locks: dict[Path, int] = {}  # of each folder of ours, as long as we live

    def attempts(self) -> set[tuple[str, int]]:
        """Return (job, attempt) of what a worker left that is dead: nobody locks its folder."""
        left = [folder for folder in TEMPORARY.glob(f"{PREFIX}*") if abandoned(folder)]
        names = [folder.name.removeprefix(PREFIX).rpartition("-") for folder in left]
        return {(job, int(attempt)) for job, _, attempt in names if attempt.isdigit()}

    def warm_up(self) -> None:
        """Do nothing: here each job starts cold."""

    def launch(self, step: Step, inputs: Inputs) -> str:
        """Start `step`; return the id of its process. One that an earlier life started is lost."""
        folder = folder_of(step.job, step.attempt)
        if folder.exists() and folder not in self.locks:
            return ""
        if {"model.keras", "model.h5"} & set(inputs) and not ALLOW_UNJAILED_MODELS:
            raise Failed(UNJAILED)
        try:
            self.own(folder)
            prepare(folder / step.name, inputs)
            child = start(folder / step.name, step.role)
        except RequestException:  # the API, not this machine; an OSError as well
            raise
        except OSError as error:
            raise Failed(f"The worker could not start the {step.role}: {error}", True) from error
        self.children[step] = child, time.monotonic()
        return f"process {child.pid}"

    def own(self, folder: Path) -> None:
        """Make and lock the folder of an attempt; whoever sees it sees it locked."""
        if folder not in self.locks:
            made = Path(tempfile.mkdtemp(dir=TEMPORARY))
            lock = os.open(made, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.locks[folder] = lock
            made.rename(folder)

    def state(self, step: Step) -> State:
        if step not in self.children:
            return State(lost=True)
        child, begin = self.children[step]
        code, seconds = child.poll(), time.monotonic() - begin
        if code is None:
            return State(True, 0, seconds)
        end_group(child.pid)  # what it may have started
        return State(False, code if code >= 0 else BY_SIGNAL - code, seconds)

    def wait(self, step: Step, most: float) -> None:
        """Return as soon as `step` has ended, or after `most` seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.children[step][0].wait(most)

    def log(self, step: Step) -> bytes:
        try:
            with (place_of(step) / "log").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
                return file.read(LOG_BYTES)
        except FileNotFoundError:
            return b""

    def read(self, step: Step, name: str, most: int) -> File | None:
        """Open what `step` left as out/`name`; return None if it left nothing."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # no symlink; a pipe would block
            file = os.fdopen(os.open(place_of(step) / "out" / name, flags), "rb", CHUNK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unusable(f"{name} is not a regular file") from error
        found = os.fstat(file.fileno())
        try:
            if not stat.S_ISREG(found.st_mode):
                raise Unusable(f"{name} is not a regular file")
            check_size(name, found.st_size, most)
        except Unusable:
            file.close()
            raise
        return File(found.st_size, whole(file, name, found.st_size), file.close)

    def close(self) -> None:
        """Do nothing: `remove` has done all."""

    def kill(self, step: Step) -> None:
        if step in self.children:
            end_group(self.children[step][0].pid)

    def remove(self, job: str, attempt: int) -> None:
        """End and remove all that is there of an attempt."""
        for step in [step for step in self.children if step[:2] == (job, attempt)]:
            self.kill(step)
            self.children.pop(step)[0].wait()
        folder = folder_of(job, attempt)
        shutil.rmtree(folder, ignore_errors=True)
        if folder in self.locks:
            os.close(self.locks.pop(folder))


def folder_of(job: str, attempt: int) -> Path:
    return TEMPORARY / f"{PREFIX}{job}-{attempt}"


def place_of(step: Step) -> Path:
    return folder_of(step.job, step.attempt) / step.name


def abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # removed by now, or not ours
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def prepare(folder: Path, inputs: Inputs) -> None:
    for name in ("in", "out", "tmp"):
        (folder / name).mkdir(parents=True)
    for name, open_input in inputs.items():
        with (folder / "in" / name).open("wb") as file:
            for chunk in open_input().chunks:
                file.write(chunk)


def start(folder: Path, role: str) -> subprocess.Popen:
    """Start the program of a step in a group of its own, with limits where there are such tools."""
    limits = ["prlimit", "--core=0", f"--fsize={TRAIN_OUTPUT_BYTES}"]
    dies_with_us = ["setpriv", "--pdeathsig", "KILL"]
    tools = [tool for tool in (limits, dies_with_us) if shutil.which(tool[0])]
    program = folder / "in/train.py" if role == "training" else SCORE
    command = [*sum(tools, []), sys.executable, program, folder / "in", folder / "out"]
    here = {"HOME": str(folder / "tmp"), "TMPDIR": str(folder / "tmp"), "PYTHONUNBUFFERED": "1"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=folder / "tmp",
            env={"PATH": os.getenv("PATH", os.defpath), "TF_CPP_MIN_LOG_LEVEL": "2"} | here,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def end_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
