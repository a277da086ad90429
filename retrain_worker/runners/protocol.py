"""What every runner does with a step of a job: `docker_runner` and `process_runner` do it.

    launch ──▶ the step runs, with its inputs in IN
    state, log ──▶ how it goes
    read ──▶ one file that the step left in OUT, once it has ended
    remove ──▶ nothing of the attempt is left

The outputs come from a program that is not trusted: `outputs` reads them.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

BY_SIGNAL = 128  # plus the number of the signal: the exit code of a program that it ended


class StepFailedError(Exception):
    """The job fails with this sentence. With `retry`, only this attempt fails."""

    def __init__(self, reason: str, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


class RunnerUnavailableError(Exception):
    """The engine does not answer at all. The steps may go on: the next life of the worker asks."""


class Step(NamedTuple):
    """One program of one attempt. `round` tells two scorings apart."""

    job: str
    attempt: int
    role: str  # training or scoring
    round: int = 0

    @property
    def name(self) -> str:
        return f"monitoring-{self.job}-{self.attempt}-{self.role}-{self.round}"

    def lost(self) -> StepFailedError:
        reason = f"The {self.role} was lost: its engine or worker was restarted."
        return StepFailedError(reason, retry=True)


class StepState(NamedTuple):
    """The state of a step. `lost`: the step or its outputs are gone."""

    running: bool = False
    code: int = 0
    seconds: float = 0
    out_of_memory: bool = False
    lost: bool = False


class FileStream(NamedTuple):
    """One file: its size in bytes, and its content, to be read once or closed.

    Until a stream out of a container is read or closed, the engine does not answer other calls
    about that container.
    """

    size: int
    chunks: Iterable[bytes]
    close: Callable[[], None] = lambda: None


Inputs = dict[str, Callable[[], FileStream]]  # each is opened when its turn comes


class Runner(Protocol):
    """Run the steps of jobs. Each call may raise StepFailedError or RunnerUnavailableError."""

    def attempts(self) -> set[tuple[str, int]]:
        """Return (job, attempt) of what earlier lives and other workers left here."""

    def prewarm(self) -> None:
        """Prepare for the next job, as far as this runner can."""

    def launch(self, step: Step, inputs: Inputs) -> str:
        """Start a step, unless an earlier life did; return the id of its container or process."""

    def state(self, step: Step) -> StepState: ...

    def wait(self, step: Step, seconds: float) -> None:
        """Return when the step has ended, or after so many seconds."""

    def log(self, step: Step) -> bytes:
        """Return the end of what the step printed, of limited size."""

    def read(self, step: Step, name: str, max_bytes: int) -> FileStream | None:
        """Open a file that an ended step left; None if there is none.

        Raise outputs.InvalidOutputError unless it is a regular file of at most `max_bytes`.
        """

    def kill(self, step: Step) -> None: ...

    def remove(self, job: str, attempt: int) -> None:
        """End and remove everything that belongs to an attempt."""

    def close(self) -> None:
        """Remove what waits for the next job."""
