"""The one SQLite file of the API: jobs, versions, and the number of the current version.

All of it is in one file, so that a result, its version and its deployment are one transaction.
Each transaction has a connection of its own, so threads share nothing, and each commit is synced:
an answer of the API is true after a power cut, too. One more connection stays idle: while it is
open, readers need no new room on the disk, and work when that is full.

PRAGMA user_version is the format: 0 while a new file is being filled, 1 before there were epochs.
"""

import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

FORMAT = 2
LOCK_SECONDS = 30  # limit of the wait for another writer

# Format 2 differs from 1 by the table `epochs`, which is added to an older file.
TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    key TEXT UNIQUE,                    -- the Idempotency-Key it came with
    created REAL NOT NULL,
    job TEXT NOT NULL,                  -- job.json
    state TEXT NOT NULL,                -- queued, running, succeeded, failed, cancelled
    published INTEGER NOT NULL,         -- whether the broker has confirmed it since it was queued
    attempt INTEGER NOT NULL DEFAULT 0, -- the number of the last claim, never used again
    lost INTEGER NOT NULL DEFAULT 0,    -- attempts that failed for no fault of the job
    worker TEXT,
    started REAL,
    finished REAL,
    progress TEXT,                      -- the newest epoch
    containers TEXT,
    version INTEGER,
    reason TEXT,
    purged INTEGER NOT NULL DEFAULT 0   -- whether its files are removed
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, published);
CREATE INDEX IF NOT EXISTS to_purge ON jobs (purged, finished);
CREATE TABLE IF NOT EXISTS epochs (     -- of the last attempt of each job that is not purged
    job TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    epochs INTEGER NOT NULL,
    loss REAL,
    val_loss REAL,
    PRIMARY KEY (job, epoch)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (
    version INTEGER PRIMARY KEY,
    fits_stream INTEGER NOT NULL,
    deployed INTEGER NOT NULL,          -- when it was stored
    sha256 TEXT,                        -- of model.tflite
    deleted INTEGER NOT NULL DEFAULT 0  -- the row stays: a number is never used again
);
CREATE TABLE IF NOT EXISTS state (current INTEGER NOT NULL);
INSERT INTO state SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM state);
"""


class DatabaseFormatError(Exception):
    """The file was written by a newer release."""


def check_format(path: Path) -> int:
    """Return the format of a file, 0 of a new one; raise DatabaseFormatError."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as db:
        found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if found > FORMAT:
        raise DatabaseFormatError(
            f"{path} has format {found}, and this release reads {FORMAT} at most: start the release"
            " that wrote it, or set DATA_DIR to another folder"
        )
    return found


class Database:
    """`is_new` says that the file was made just now, or that its maker was killed meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = check_format(path)
        self.is_new = not found
        version = f"PRAGMA user_version = {FORMAT};" if found else ""
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN IMMEDIATE; {TABLES} {version} COMMIT;")
        idle = sqlite3.connect(path, check_same_thread=False)
        idle.execute("SELECT current FROM state").fetchall()
        weakref.finalize(self, idle.close)

    def mark_complete(self) -> None:
        """Note that a new file has all its contents."""
        with self.transaction() as db:
            db.execute(f"PRAGMA user_version = {FORMAT}")

    @contextmanager
    def transaction(self, write: bool = True) -> Iterator[sqlite3.Connection]:
        """Commit what is done inside, or nothing of it. Writers wait for each other."""
        with closing(sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            with db:
                db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield db

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a SELECT."""
        with self.reading() as db:
            return db.execute(query, values).fetchall()

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a transaction that only reads."""
        return self.transaction(write=False)
