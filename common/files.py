"""Files that appear under their name whole and on the disk, or not at all; and a full disk."""

import errno
import os
import shutil
import sqlite3
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def replace_file(path: Path, content: bytes, mode: int | None = None) -> None:
    """Replace a file in one step: after a kill there is the old content or the new.

    One writer at a time: the content goes to a file beside it first, with `.new` at its end, which
    a killed process may leave and the next call overwrites. Raise OSError, and remove that file.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            fresh.chmod(mode)
        os.replace(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def is_full(error: BaseException) -> bool:
    """Whether an error of a file or of SQLite says that a disk, or a quota, has no room."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # SQLite's low byte; the rest are details
    full = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # the second one if a quota is used up
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or code in full
