"""One step of an attempt, training or scoring: a program that runs alone, files in, files out.

    runner.launch ──▶ wait_for_success ──▶ read_json

The same for every step and every runner. A step that fails raises StepFailedError with a sentence
that a student understands.
"""

import re
import signal
import time
from collections.abc import Callable
from typing import TypeVar

from common import lifecycle
from common.artifacts import MAX_JSON_BYTES
from retrain_worker.progress import read_log
from retrain_worker.runners.outputs import last_line, parse_json, printable_line
from retrain_worker.runners.protocol import BY_SIGNAL, Runner, Step, StepFailedError, StepState
from retrain_worker.settings import TRAIN_MEMORY, TRAIN_OUTPUT_BYTES, TRAIN_TIMEOUT_SECONDS

MAX_REASON_BYTES = 4096
REPORT_SECONDS = 1  # between two reports of a running step

FULL_DISK = re.compile(r"Errno 2[78]\b|errno = 2[78]\b|No space left on device|File too large")
NO_MEMORY = re.compile(r"MemoryError|bad_alloc|Cannot allocate memory|OOM when allocating")

T = TypeVar("T")


def wait_for_end(runner: Runner, step: Step, report: Callable[[], None]) -> StepState:
    """Return how a step ended; kill it after TRAIN_TIMEOUT_SECONDS.

    `report` is called about every second, and may end the wait by raising. Raise StopRequested on
    a stop request.
    """
    state = runner.state(step)
    started = time.monotonic() - state.seconds  # this clock stands still while the machine sleeps
    while True:
        lifecycle.check_stop()
        report()
        if not state.running:
            return state
        if state.seconds > TRAIN_TIMEOUT_SECONDS:
            runner.kill(step)
        runner.wait(step, REPORT_SECONDS)
        state = runner.state(step)._replace(seconds=time.monotonic() - started)


def wait_for_success(runner: Runner, step: Step, report: Callable[[], None]) -> None:
    """Return when a step has ended as `wait_for_end` does; raise StepFailedError if it failed."""
    state = wait_for_end(runner, step, report)
    if state.lost:
        raise step.lost()
    if state.code:
        file = runner.read(step, "reason.txt", MAX_REASON_BYTES) if state.code == 2 else None
        reason = printable_line(b"".join(file.chunks), 1000) if file else ""
        raise explain_failure(step.role, state, read_log(runner.log(step)).text, reason)


def read_json(runner: Runner, step: Step, name: str, kind: type[T]) -> T:
    """Return a JSON file that a step left; raise InvalidOutputError if it is not accepted."""
    return parse_json(kind, name, runner.read(step, name, MAX_JSON_BYTES))


def explain_failure(role: str, state: StepState, log: str, reason: str) -> StepFailedError:
    """Return why a step failed. `log` is its printable log, `reason` its own reason.txt."""
    end = "\n".join(log.splitlines()[-5:])
    killed = state.code == BY_SIGNAL + signal.SIGKILL
    if state.seconds >= TRAIN_TIMEOUT_SECONDS:
        return StepFailedError(
            f"The {role} was stopped, as it took longer than {TRAIN_TIMEOUT_SECONDS:g} s "
            "(TRAIN_TIMEOUT_SECONDS). Fewer epochs or less data may fit."
        )
    if state.code == 2 and reason:
        return StepFailedError(reason)
    if (killed and state.out_of_memory) or NO_MEMORY.search(end):
        return StepFailedError(
            f"The {role} ran out of memory: it may use {TRAIN_MEMORY} (TRAIN_MEMORY), and what "
            "it writes counts. A smaller model may fit."
        )
    if FULL_DISK.search(end):
        return StepFailedError(
            f"The {role} filled its disk: it may write {TRAIN_OUTPUT_BYTES} bytes "
            "(TRAIN_OUTPUT_BYTES) in not too many files."
        )
    return _explain_exit(role, state.code, log)


def _explain_exit(role: str, code: int, log: str) -> StepFailedError:
    if code == BY_SIGNAL + signal.SIGKILL:
        reason = f"The {role} was killed from outside; was its host short of memory?"
        return StepFailedError(reason, retry=True)
    if code == BY_SIGNAL + signal.SIGTERM:
        reason = f"The {role} was ended from outside; was its engine stopped?"
        return StepFailedError(reason, retry=True)
    line = last_line(log)
    words = f"the last line of its log: {line}" if line else "its log is empty"
    return StepFailedError(f"The {role} crashed ({_exit_name(code)}); {words}")


def _exit_name(code: int) -> str:
    try:
        return signal.Signals(code - BY_SIGNAL).name
    except ValueError:
        return f"exit code {code}"
