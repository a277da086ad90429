"""The one SQLite file of the API: jobs, versions, and which version is to be served.

All three are in one file, so that a result, its version and its deployment are one transaction.
Each transaction has a connection of its own, so threads share nothing, and each commit is synced:
what the API has answered is true after a power cut, too. One more connection does nothing: while
it is open, reading takes no new room on the disk, and goes on when that is full.
"""

import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    key TEXT UNIQUE,                    -- the Idempotency-Key it came with
    created REAL NOT NULL,
    job TEXT NOT NULL,                  -- job.json
    state TEXT NOT NULL,                -- queued, running, succeeded, failed, cancelled
    published INTEGER NOT NULL,         -- has the broker confirmed it since it was queued
    attempt INTEGER NOT NULL DEFAULT 0, -- the number of the last claim, never used again
    lost INTEGER NOT NULL DEFAULT 0,    -- attempts that came to nothing
    worker TEXT,
    started REAL,
    finished REAL,
    progress TEXT,
    containers TEXT,
    version INTEGER,
    reason TEXT,
    purged INTEGER NOT NULL DEFAULT 0   -- are its files removed
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, published);
CREATE INDEX IF NOT EXISTS to_purge ON jobs (purged, finished);
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


class Database:
    def __init__(self, path: Path):
        self.path = path
        with closing(sqlite3.connect(path)) as db:
            self.is_new = not db.execute("PRAGMA user_version").fetchone()[0]
            db.executescript(SCHEMA)
        idle = sqlite3.connect(path, check_same_thread=False)
        idle.execute("SELECT current FROM state").fetchall()
        weakref.finalize(self, idle.close)

    def settle(self) -> None:
        """Note that this file has all that is to be in it, so that it is not new any more."""
        with self.transaction() as db:
            db.execute("PRAGMA user_version = 1")

    @contextmanager
    def transaction(self, write: bool = True) -> Iterator[sqlite3.Connection]:
        """Commit what is done inside, or nothing of it. Writers wait for each other."""
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            with db:
                db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield db

    def rows(self, query: str, *values) -> list[sqlite3.Row]:
        with self.transaction(write=False) as db:
            return db.execute(query, values).fetchall()
