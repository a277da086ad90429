"""A full disk, which is waited for and not an error of ours."""

import errno
import shutil
import sqlite3
from pathlib import Path


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def is_full(error: BaseException) -> bool:
    """Whether an error of a file or of SQLite says that a disk, or a quota, has no room."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # SQLite's low byte; the rest are details
    full = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # the second one if a quota is used up
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or code in full
