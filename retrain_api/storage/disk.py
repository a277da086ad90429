"""Files on the data volume: synced before they count, and refused before the disk is full.

A file or a folder appears under its name in one step, whole, or not at all. MIN_FREE_BYTES are
reserved for results of jobs that run already.
"""

import hashlib
import logging
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from common.files import free_bytes
from common.files import sync
from retrain_api.errors import DiskFullError

BLOCK_BYTES = 1 << 20
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


def size_of(file: BinaryIO) -> int:
    """Return the bytes in `file`, and go to its beginning."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def copy(file: BinaryIO, path: Path) -> str:
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
