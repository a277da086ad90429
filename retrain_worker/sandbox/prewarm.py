"""Import TensorFlow, wait for the inputs of a job, then be its `train.py`.

    /in/.complete ──▶ /in/train.py /in /out, in a process that has its imports behind it

The first process of a container that serves one job. It ends with the exit code of the training,
which it kills SECONDS after the inputs are complete. After an hour without a job it ends, since its
worker may be gone for good; a live worker starts another one.

    python prewarm.py SECONDS
"""

import os
import runpy
import signal
import sys
import time

IN, OUT = "/in", "/out"
MARKER = f"{IN}/.complete"  # the worker writes it after all other inputs
POLL_SECONDS = 0.1  # costs 0.06 % of a core
HOUR = 3600
UNUSED = 128 + signal.SIGTERM  # as if ended from outside: a job that came too late is retried


def train(start: int) -> None:
    """Import, wait until the other end of the pipe `start` is closed, and train."""
    import libraries  # noqa: F401, here, and not in the process that keeps the time

    os.read(start, 1)
    sys.path[0], sys.argv = IN, [f"{IN}/train.py", IN, OUT]
    runpy.run_path(sys.argv[0], run_name="__main__")


def wait_for_inputs() -> None:
    """Return when the inputs are complete or the child has ended; exit after an hour."""
    end = time.monotonic() + HOUR
    while not os.path.exists(MARKER):
        if time.monotonic() > end:
            raise SystemExit(UNUSED)
        if signal.sigtimedwait([signal.SIGCHLD], POLL_SECONDS):
            return


def exit_code(child: int, seconds: float) -> int:
    """Return the exit code of `child` as a shell would; kill it after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        left = deadline - time.monotonic()
        if left <= 0:
            os.kill(child, signal.SIGKILL)
        signal.sigtimedwait([signal.SIGCHLD], max(left, 1))


def main() -> None:
    seconds = float(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # sigtimedwait receives it
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        return train(reader)
    wait_for_inputs()
    os.close(writer)
    raise SystemExit(exit_code(child, seconds))


if __name__ == "__main__":
    main()
