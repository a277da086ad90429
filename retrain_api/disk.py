"""Files on the data volume: synced before anybody counts on them, and never until it is full.

What is stored appears under its name in one step, whole, or not at all. Full says that there is no
room, before there is none: a reserve of KEEP_FREE_BYTES stays for ending what was begun.
"""

import errno
import hashlib
import io
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

KEEP_FREE_BYTES = int(os.environ.get("KEEP_FREE_BYTES", str(500 * 10**6)))  # uploads stop there
CHECK_BYTES = 2**20  # a file that grows looks at the disk this often
BLOCK = 2**20
LEAST_BYTES = 2**20  # free, to begin with

log = logging.getLogger("retrain_api")


class Full(Exception):
    """There is no room for what was sent."""


def free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def is_full(error: Exception) -> bool:
    """Tell whether a disk, or a quota, had no room; SQLite may call that an I/O error."""
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte; the rest are details
    number = getattr(error, "errno", None)
    full = kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return full or number in (errno.ENOSPC, errno.EDQUOT)


def wait_for_room(folder: Path) -> None:
    """Wait until the little that a start takes is free."""
    while free(folder) < LEAST_BYTES:
        log.warning("the disk of %s is full: waiting for room", folder)
        time.sleep(5)


def check_room(folder: Path, more: int, reserve: int) -> None:
    """Raise Full unless `more` bytes leave `reserve` bytes free."""
    left = free(folder)
    if left - more < reserve:
        raise Full(
            f"the disk of the service has {left:,} bytes free, of which {reserve:,} are kept back;"
            f" this needs {more:,}: send less, or free some disk and send it again"
        )


class Spool(io.BufferedRandom):
    """A file without a name, for what is being sent: when its process dies, it is gone."""

    def __init__(self, folder: Path, reserve: int, moving: Callable[[], None] | None = None):
        super().__init__(tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115  closed by who asked
        self.folder, self.reserve, self.moving, self.unchecked = folder, reserve, moving, 0

    def write(self, data) -> int:
        self.unchecked += len(data)
        if self.unchecked >= CHECK_BYTES:
            check_room(self.folder, self.unchecked, self.reserve)
            self.unchecked = 0
            if self.moving:
                self.moving()
        return super().write(data)


def size_of(file: BinaryIO) -> int:
    """Return the bytes in `file`, and go to its beginning."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def copy(file: BinaryIO, path: Path) -> str:
    """Copy `file` from its beginning to `path`; return the SHA-256 of it in hexadecimal."""
    file.seek(0)
    digest = hashlib.sha256()
    with path.open("xb") as target:
        while block := file.read(BLOCK):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def move(folder: Path, place: Path) -> None:
    """Give a finished folder its final name, once all that is in it is on the disk."""
    for path in folder.iterdir():
        sync(path)
    sync(folder)
    os.rename(folder, place)
    sync(place.parent)


def remove(path: Path) -> None:
    """Remove a folder, or a file, whether it is there or not."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
