"""Wait with TensorFlow imported until the inputs of a job are there; then be its `train.py`.

    SIGUSR1 ──▶ /in/train.py /in /out, in a process that has its imports behind it

It is the first process of a container that is used for one job, and ends with the exit code of the
training, which it kills after SECONDS. It sleeps until then. After an hour without a signal it
ends, since its worker may be gone for good; one that is not lets another wait.

    python waiting.py SECONDS
"""

import os
import runpy
import signal
import sys
import time

HOUR = 3600
GO, CHILD_ENDED = signal.SIGUSR1, signal.SIGCHLD
UNUSED = (
    128 + signal.SIGTERM
)  # as if somebody had ended it: a job that came too late is tried again
IN, OUT = "/in", "/out"


def train(go: int) -> None:
    """Import, wait for the other end of the pipe `go` to be closed, train."""
    import libraries  # noqa: F401, here, and not in the process that keeps the time

    os.read(go, 1)
    sys.path[0], sys.argv = IN, [f"{IN}/train.py", IN, OUT]
    runpy.run_path(sys.argv[0], run_name="__main__")


def end_of(child: int, seconds: float) -> int:
    """Return the exit code of `child`, as a shell would, after killing it if it is late."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        left = deadline - time.monotonic()
        if left <= 0:
            os.kill(child, signal.SIGKILL)
        signal.sigtimedwait([CHILD_ENDED], max(left, 1))


def main() -> None:
    seconds = float(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, [GO, CHILD_ENDED])  # before they can come
    begin, go = os.pipe()
    child = os.fork()
    if not child:
        os.close(go)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [GO, CHILD_ENDED])
        return train(begin)
    print("waiting for a job", flush=True)  # GO is heard from now on
    if signal.sigtimedwait([GO, CHILD_ENDED], HOUR) is None:
        raise SystemExit(UNUSED)
    os.close(go)
    raise SystemExit(end_of(child, seconds))


if __name__ == "__main__":
    main()
