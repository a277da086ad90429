"""The versions that `model` has on disk: the last good one, for a start without the API.

A folder for each process, the first that no other process has locked: replicas may share
MODEL_CACHE.

    0/state.json        {"format": 1, "good": {"version": 4, "sha256": …} or null,
                         "trials": {sha256: number}}
    0/<sha256>.tflite   the good version, and the one on trial
    0/new.tflite, 0/golden.json   a download that is not tried yet

A version is on trial until it has answered for a while. The number of its trials is raised before
one starts and lowered when it has ended, well or for another reason: so a trial that ends the
process is still counted in its next life. After MAX_TRIALS of them the version is refused.
"""

import fcntl
import hashlib
import itertools
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from common.artifacts import Sha256
from common.files import replace_file
from common.messages import INVALID, encode
from common.worker_api import ServedVersion
from serving.network import UnservableError

FORMAT = 1  # of state.json; the one before had no number
MAX_TRIALS = 3  # that ended the process; more than one, because it may end for another reason
MAX_REMEMBERED = 20  # versions with such trials

log = logging.getLogger("model")


class State(msgspec.Struct, kw_only=True):
    """state.json: the good version, and how many trials of each hash did not end."""

    format: int = FORMAT
    good: ServedVersion | None = None
    trials: dict[Sha256, int] = {}


class UnnumberedState(msgspec.Struct):
    """state.json as the releases before format 1 wrote it."""

    good: ServedVersion | None = None
    tries: dict[Sha256, int] = {}


class Format(msgspec.Struct):
    format: int = 0


def read_state(path: Path) -> State:
    """Read state.json, of this format or the one before. An unreadable one counts as empty.

    Raise SystemExit if a newer release wrote it.
    """
    try:
        content = path.read_bytes()
        number = msgspec.json.decode(content, type=Format).format
        if number == FORMAT:
            return msgspec.json.decode(content, type=State)
        if number < FORMAT:
            before = msgspec.json.decode(content, type=UnnumberedState)
            return State(good=before.good, trials=before.tries)
    except FileNotFoundError:
        return State()
    except INVALID as error:
        log.warning("%s is unreadable, starting with an empty state: %s", path, error)
        return State()
    raise SystemExit(
        f"{path} has the format {number}, and this release knows formats up to {FORMAT}:"
        " start the release that wrote it, or remove the folder."
    )


class Cache:
    """One process's folder under `folder`; OSError where it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._writing = threading.Lock()  # the updates' thread, and the main one at its end
        for number in itertools.count():
            self.folder = folder / str(number)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                self._lock.close()
        self.state = read_state(self.folder / "state.json")

    def close(self) -> None:
        """Release the folder to another process."""
        self._lock.close()

    def path(self, version: ServedVersion) -> Path:
        return self.folder / f"{version.sha256}.tflite"

    def has(self, version: ServedVersion) -> bool:
        """Whether the file of `version` is here, with the right hash."""
        path = self.path(version)
        if not path.exists():
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == version.sha256

    def write(self, name: str, chunks: Iterable[bytes]) -> str:
        """Write chunks to a file in the folder, and to the disk; return its hash."""
        digest = hashlib.sha256()
        with (self.folder / name).open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def start_trial(self, version: ServedVersion) -> None:
        """Count a trial of `version`; raise UnservableError if too many of them did not end."""
        sha256 = version.sha256 or ""
        with self._writing:
            trials = dict(self.state.trials)
            before = trials.pop(sha256, 0)
            refused = before >= MAX_TRIALS
            # A version that is refused now has one more trial in the next life: another program
            # may have killed the process. A bad one costs every second life.
            trials[sha256] = MAX_TRIALS - 1 if refused else before + 1
            self._write(self.state.good, dict(list(trials.items())[-MAX_REMEMBERED:]))
        if refused:
            raise UnservableError(f"the process died {before} times while this version answered")

    def end_trial(self, version: ServedVersion) -> None:
        """Uncount the trial of `version`, if it is on trial: the process survived it."""
        with self._writing:
            trials = dict(self.state.trials)
            if version.sha256 and trials.get(version.sha256):
                trials[version.sha256] -= 1
                self._write(self.state.good, trials)

    def promote(self, version: ServedVersion) -> None:
        """Make `version` the good one, which the next start serves; remove the files of others."""
        with self._writing:
            good = version if version.sha256 else None
            trials = {sha: n for sha, n in self.state.trials.items() if sha != version.sha256}
            self._write(good, trials)
            for path in self.folder.glob("*.tflite"):
                if not good or path != self.path(good):
                    path.unlink()

    def _write(self, good: ServedVersion | None, trials: dict[Sha256, int]) -> None:
        state = State(good=good, trials=trials)
        replace_file(self.folder / "state.json", encode(state))
        self.state = state
