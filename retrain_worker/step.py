"""One step of an attempt, training or scoring: a program that runs alone, files in, files out.

    launch ──▶ wait ──▶ collect

Three functions, the same for every step and for every place that it may run in (`engine.Engine`,
`process.Process`). A step that did not end well raises `Failed` with a sentence.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from outputs import JSON_BYTES, REASON_BYTES, File, last_line, log_text, parse, plain

TRAIN_TIMEOUT_SECONDS = float(os.environ.get("TRAIN_TIMEOUT_SECONDS", "3600"))  # for each step
TRAIN_MEMORY = os.environ.get("TRAIN_MEMORY", "2g")  # what is in /tmp and /out counts too
TRAIN_OUTPUT_BYTES = int(os.environ.get("TRAIN_OUTPUT_BYTES", str(256 << 20)))  # in all
TELL_SECONDS = 1  # between two reports of a step that runs
BY_SIGNAL = 128  # a program that a signal ended has this plus its number as exit code

FULL_DISK = re.compile(r"Errno 2[78]\b|errno = 2[78]\b|No space left on device|File too large")
NO_MEMORY = re.compile(r"MemoryError|bad_alloc|Cannot allocate memory|OOM when allocating")

Inputs = Mapping[str, Callable[[], File]]  # each is opened when its turn comes


class Failed(Exception):
    """The job ends with this sentence; with `retry`, only this attempt at it does."""

    def __init__(self, reason: str, retry: bool = False):
        super().__init__(reason)
        self.retry = retry


class Step(NamedTuple):
    """One program of one attempt. `turn` tells two scorings apart."""

    job: str
    attempt: int
    role: str  # training or scoring
    turn: int = 0

    @property
    def name(self) -> str:
        return f"monitoring-{self.job}-{self.attempt}-{self.role}-{self.turn}"


class State(NamedTuple):
    """How a step stands. `lost`: it has gone, or what it left has."""

    running: bool = False
    code: int = 0
    seconds: float = 0
    out_of_memory: bool = False
    lost: bool = False


def launch(place, step: Step, inputs: Inputs) -> str:
    """Start `step`, unless an earlier life did; return the id of what it runs in."""
    return place.launch(step, inputs)


def wait(place, step: Step, tell: Callable[[], None]) -> State:
    """Return how `step` ended. `tell` reports how it goes, and may end the wait by raising."""
    state = place.state(step)
    begin = time.monotonic() - state.seconds  # a clock that stands still while the machine sleeps
    while True:
        tell()
        if not state.running:
            return state
        if state.seconds > TRAIN_TIMEOUT_SECONDS:
            place.kill(step)
        place.wait(step, TELL_SECONDS)
        state = place.state(step)._replace(seconds=time.monotonic() - begin)


def collect(place, step: Step, state: State, kinds: dict[str, type]) -> list:
    """Return the JSON files that `step` left, as structs of these kinds."""
    if state.lost:
        raise lost(step)
    if state.code:
        file = place.read(step, "reason.txt", REASON_BYTES) if state.code == 2 else None
        reason = plain(b"".join(file.chunks), 1000) if file else ""
        raise why(step.role, state, log_text(place.log(step)), reason)
    return [parse(kind, name, place.read(step, name, JSON_BYTES)) for name, kind in kinds.items()]


def lost(step: Step) -> Failed:
    return Failed(f"The {step.role} was lost: its engine or worker was restarted.", retry=True)


def why(role: str, state: State, log: str, reason: str) -> Failed:
    """Return why a step failed, in a sentence that a student understands."""
    end = "\n".join(log.splitlines()[-5:])
    if state.seconds >= TRAIN_TIMEOUT_SECONDS:
        return Failed(
            f"The {role} was stopped, as it took longer than {TRAIN_TIMEOUT_SECONDS:g} s "
            "(TRAIN_TIMEOUT_SECONDS). Fewer epochs or less data may fit."
        )
    if state.code == 2 and reason:
        return Failed(reason)
    killed = state.code == BY_SIGNAL + signal.SIGKILL
    if (killed and state.out_of_memory) or NO_MEMORY.search(end):
        return Failed(
            f"The {role} ran out of memory: it may use {TRAIN_MEMORY} (TRAIN_MEMORY), and what "
            "it writes counts. A smaller model may fit."
        )
    if FULL_DISK.search(end):
        return Failed(
            f"The {role} filled its disk: it may write {TRAIN_OUTPUT_BYTES} bytes "
            "(TRAIN_OUTPUT_BYTES) in not too many files."
        )
    if killed:
        return Failed(f"The {role} was killed from outside; was its host short of memory?", True)
    if state.code == BY_SIGNAL + signal.SIGTERM:
        return Failed(f"The {role} was ended from outside; was its engine stopped?", True)
    words = last_line(log)
    words = f"the last line of its log: {words}" if words else "its log is empty"
    return Failed(f"The {role} crashed ({ended(state.code)}); {words}")


def ended(code: int) -> str:
    try:
        return signal.Signals(code - BY_SIGNAL).name
    except ValueError:
        return f"exit code {code}"
