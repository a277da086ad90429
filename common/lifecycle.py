"""The life of one service process: its start, the stop flag, the watchdog, and waiting.

    SIGINT, SIGTERM ──▶ a flag, which loops and chunk callbacks check between two units of work
    a second signal ──▶ the process ends at once
    report_liveness ──▶ the watchdog starts anew, LIVENESS_FILE is touched for the healthcheck

Nothing is raised inside pika, so a stop never leaves half a frame on a connection.
"""

import faulthandler
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

WATCHDOG_SECONDS = int(os.environ.get("WATCHDOG_SECONDS", "60"))  # limit of one unit of work
LIVENESS_FILE = os.environ.get("LIVENESS_FILE")  # touched in each turn; no file if not set
POLL_SECONDS = 0.5  # the longest wait between two checks of the stop flag
RENAMED_SETTINGS = {
    "ALIVE_FILE": "LIVENESS_FILE",
    "ALLOW_UNJAILED_MODELS": "ALLOW_UNSANDBOXED_MODELS",
    "DRIFT_JUDGE_ROWS": "DRIFT_TRIAL_ROWS",
    "KEEP_FREE_BYTES": "MIN_FREE_BYTES",
    "KEEP_SECONDS": "METRIC_RETENTION_SECONDS",
    "KEEP_UPLOADS_SECONDS": "UPLOAD_RETENTION_SECONDS",
    "RESERVE_BYTES": "METRIC_BALLAST_BYTES",
    "SHOW_AT_MOST": "MAX_SHOWN_LETTERS",
    "TRAIN_IN": "TRAIN_BACKEND",
    "TRAIN_WARM": "TRAIN_PREWARM",
}


class StopRequested(SystemExit):
    """A stop was requested. Uncaught, it ends the process with exit code 0."""


class _StopFlag:
    raised = False


def start(*quiet_loggers: str) -> None:
    """Configure logging, install the signal handlers, and refuse settings with an old name.

    Loggers named in `quiet_loggers`, and pika's, log warnings only.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for name in ("pika", *quiet_loggers):
        logging.getLogger(name).setLevel(logging.WARNING)
    refuse_renamed_settings()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)


def refuse_renamed_settings(environment: Mapping[str, str] = os.environ) -> None:
    """Raise SystemExit if a setting has its old name. An empty value counts as not set."""
    for old, new in RENAMED_SETTINGS.items():
        if environment.get(old):
            raise SystemExit(f"The setting {old} is called {new} now: set {new} instead.")


def request_stop(number: int, frame: FrameType | None) -> None:
    """Set the stop flag; end the process at once if it is set already. A signal handler."""
    if _StopFlag.raised:
        os._exit(128 + number)  # also as PID 1, where the kernel ignores default actions
    _StopFlag.raised = True


def stop_requested() -> bool:
    return _StopFlag.raised


def check_stop() -> None:
    """Raise StopRequested if a stop was requested."""
    if _StopFlag.raised:
        raise StopRequested


def report_liveness() -> None:
    """Start the watchdog anew, and touch the file that the healthcheck reads."""
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)  # unlike SIGALRM, as PID 1 too
    if LIVENESS_FILE:
        Path(LIVENESS_FILE).touch()


def wait(seconds: float, sleep: Callable[[float], object] = time.sleep) -> None:
    """Wait for `seconds`, or until a stop is requested; report liveness meanwhile.

    `sleep` waits for some seconds. With `connection.sleep` the connection stays alive.
    """
    end = time.monotonic() + seconds
    while not stop_requested() and (left := end - time.monotonic()) > 0:
        report_liveness()
        sleep(min(left, POLL_SECONDS))
