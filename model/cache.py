"""What `model` keeps of the versions it served: the last good one, for a start without the API.

A folder for each process, the first one that nobody else holds: replicas may share MODEL_CACHE.

    0/state.json        {"good": {"version": 4, "sha256": …} or null, "tries": {sha256: number}}
    0/<sha256>.tflite   the good version, and the one that is tried

A version is on trial until it has answered for a while. Each trial is counted here before it
begins and taken off when it has ended well, or had no chance to end: so a life that a version
killed is remembered by the next one. After TRIES such lives the version is refused.
"""

import fcntl
import hashlib
import itertools
import logging
import os
import threading
from pathlib import Path
from typing import Annotated

import msgspec

TRIES = 3  # more than one: somebody else may have killed us
REMEMBERED = 20  # versions with trials that did not end well

log = logging.getLogger("model")

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Version(msgspec.Struct, frozen=True):
    """A number, and the hash of its model.tflite; version 0 is built in and has none."""

    version: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    sha256: Sha256 | None = None


BUILTIN = Version(0)


class State(msgspec.Struct):
    good: Version | None = None
    tries: dict[Sha256, int] = {}


class Cache:
    """One process's folder under `folder`. OSError where it cannot be written."""

    def __init__(self, folder: Path):
        self.changing = threading.Lock()  # the updates' thread, and the main one at its end
        for number in itertools.count():
            self.folder = folder / str(number)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = (self.folder / "lock").open("w")
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                self.lock.close()
        self.state = self.read()

    def close(self) -> None:
        self.lock.close()

    def read(self) -> State:
        path = self.folder / "state.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except ValueError as error:
            log.warning("%s: %s; beginning a new one", path, error)
            return State()

    def write(self, state: State) -> None:
        """Replace the state in one step: a kill leaves the old one or the new."""
        new = self.folder / "state.new"
        with new.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / "state.json")
        self.state = state

    def path(self, version: Version) -> Path:
        return self.folder / f"{version.sha256}.tflite"

    def holds(self, version: Version) -> bool:
        """Tell whether the file of `version` is here, whole."""
        path = self.path(version)
        if not path.exists():
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == version.sha256

    def begin(self, version: Version) -> None:
        """Count a trial of `version`; raise ValueError if too many of them did not end."""
        with self.changing:
            tries = dict(self.state.tries)
            before = tries.pop(version.sha256, 0)
            refused = before >= TRIES
            # A version that is refused now has one more try in the next life: it may be innocent,
            # and costs one life in two if not.
            tries[version.sha256] = TRIES - 1 if refused else before + 1
            self.write(State(self.state.good, dict(list(tries.items())[-REMEMBERED:])))
        if refused:
            raise ValueError(f"the process died {before} times while this version answered")

    def end(self, version: Version) -> None:
        """Take off the trial of `version`, if it is on trial: it ended without a death."""
        with self.changing:
            tries = dict(self.state.tries)
            if tries.get(version.sha256):
                tries[version.sha256] -= 1
                self.write(State(self.state.good, tries))

    def settle(self, version: Version) -> None:
        """Note that `version` is good, and remove the files of others."""
        with self.changing:
            good = version if version.sha256 else None
            tries = {sha: n for sha, n in self.state.tries.items() if sha != version.sha256}
            self.write(State(good, tries))
            for path in self.folder.glob("*.tflite"):
                if not good or path != self.path(good):
                    path.unlink()
