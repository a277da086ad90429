"""Files on the data volume: synced before they count, and refused before the disk is full.

A file or a folder appears under its name in one step, whole, or not at all. MIN_FREE_BYTES are
reserved for results of jobs that run already. An upload in transit is a file without a name, which
ends with its process.
"""

import hashlib
import io
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from common.files import free_bytes, sync
from retrain_api.errors import DiskFullError

BLOCK_BYTES = 1 << 20
CHECK_BYTES = 1 << 20  # of an upload, written between two looks at the disk
MIN_START_BYTES = 1 << 20  # free at the start
RETRY_SECONDS = 5

log = logging.getLogger("retrain_api")


def wait_for_room(folder: Path) -> None:
    """Wait until the little that a start needs is free."""
    while free_bytes(folder) < MIN_START_BYTES:
        log.warning("the disk of %s is full: waiting for room", folder)
        time.sleep(RETRY_SECONDS)


def check_room(folder: Path, size: int, reserve: int) -> None:
    """Raise DiskFullError unless `reserve` bytes stay free beside `size` more bytes."""
    free = free_bytes(folder)
    if free - size < reserve:
        raise DiskFullError(
            f"the disk of the service has {free:,} bytes free, of which {reserve:,} are reserved;"
            f" this needs {size:,}: send less, or free some disk and send it again"
        )


def size_of(file: IO[bytes]) -> int:
    """Return the bytes in `file`, and go to its beginning."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def copy(file: IO[bytes], path: Path) -> str:
    """Copy `file` from its beginning to `path`; return its SHA-256 in hexadecimal."""
    file.seek(0)
    digest = hashlib.sha256()
    with path.open("xb") as target:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def move_into_place(folder: Path, place: Path) -> None:
    """Give a complete folder its final name after all that is in it is on the disk."""
    for path in folder.iterdir():
        sync(path)
    sync(folder)
    os.rename(folder, place)
    sync(place.parent)


def remove(path: Path) -> None:
    """Remove a folder or a file, whether it exists or not."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class Spool(io.BufferedRandom):
    """A file in `folder`. Writing raises DiskFullError before less than `reserve` bytes are free.

    `on_write` is called every CHECK_BYTES.
    """

    def __init__(self, folder: Path, reserve: int, on_write: Callable[[], None] | None) -> None:
        unnamed = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 closed by the user
        super().__init__(unnamed)
        self.folder, self.reserve, self.on_write, self.unchecked = folder, reserve, on_write, 0

    def write(self, data) -> int:  # type: ignore[no-untyped-def]  # any buffer
        self.unchecked += len(data)
        if self.unchecked >= CHECK_BYTES:
            check_room(self.folder, self.unchecked, self.reserve)
            self.unchecked = 0
            if self.on_write:
                self.on_write()
        return super().write(data)
