"""The SQLite file of `metric`: pending rows, finished ids, the last batch, and the counts.

    ids     a row for each id of the last METRIC_RETENTION_SECONDS: its values, if known
    state   one row: the last batch, whether it is published, and the counts

One process at a time opens the file. PRAGMA user_version is the number of its format; a file of an
older format is migrated in one transaction, one of a newer format is refused.
"""

import os
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import astuple

from common.messages import MetricCounts

FORMAT = 1
MAX_EXPIRED_AT_ONCE = 5000  # ids in a transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS ids (
    id TEXT PRIMARY KEY, y_true REAL, y_pred REAL, model_version, arrived REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_arrival ON ids (arrived);
CREATE TABLE IF NOT EXISTS state (
    offset INTEGER, csv BLOB DEFAULT x'', errors BLOB DEFAULT x'', published INTEGER DEFAULT TRUE,
    joined INTEGER DEFAULT 0, pending INTEGER DEFAULT 0,
    repeated INTEGER DEFAULT 0, expired INTEGER DEFAULT 0
);
"""
FROM_FORMAT_0 = """
ALTER TABLE state RENAME COLUMN settled TO published;
ALTER TABLE state RENAME COLUMN waiting TO pending;
ALTER TABLE state RENAME COLUMN orphans TO expired;
"""


class Row(msgspec.Struct):
    """What is known of one id. A row with one of the two values is pending."""

    y_true: float | None = None
    y_pred: float | None = None
    model_version: int | str | None = None


Rows = dict[str, Row]  # by id


class StoredBatch(NamedTuple):
    """The last batch: `records` belong into the CSV at `offset`, `errors` onto the stream."""

    offset: int
    records: bytes
    errors: list[bytes]
    is_published: bool


class Database:
    def __init__(self, path: Path) -> None:
        """Open or create the file. Raise SystemExit if another process has it open."""
        self.path = path
        self._connection = sqlite3.connect(path)
        try:
            self._prepare()
        except (sqlite3.Error, SystemExit) as error:
            self.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise SystemExit(f"another metric already writes to {path.parent}") from None
            raise
        self._opened = path.stat()

    def _prepare(self) -> None:
        for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._connection.execute(f"PRAGMA {setting}")
        [number] = self._connection.execute("PRAGMA user_version").fetchone()
        if number > FORMAT:
            raise SystemExit(
                f"{self.path} has format {number}, and this metric knows formats up to {FORMAT}:"
                " use the newer metric that wrote it, or move the file away."
            )
        if number < FORMAT:
            has_tables = "SELECT 1 FROM sqlite_master WHERE name = 'state'"
            migration = FROM_FORMAT_0 if self._connection.execute(has_tables).fetchone() else ""
            self._connection.executescript(
                f"BEGIN; {migration} {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"
            )

    def close(self) -> None:
        self._connection.close()

    def is_in_place(self) -> bool:
        """Return whether the open file still has its name: it may have been deleted."""
        return self.path.exists() and os.path.samestat(self.path.stat(), self._opened)

    def transaction(self) -> sqlite3.Connection:
        """Return a context whose end commits, or rolls back on an error."""
        return self._connection

    def is_new(self) -> bool:
        return self._connection.execute("SELECT 1 FROM state").fetchone() is None

    def insert_state(self, offset: int) -> None:
        """Complete a new database: the CSV ends at `offset`."""
        self._connection.execute("INSERT INTO state (offset) VALUES (?)", (offset,))

    def insert_finished(self, cells: list[str], now: float) -> None:
        """Insert a record of an existing CSV, unless its id is there."""
        values = (*cells[:3], now)  # id, y_true, y_pred
        self._connection.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?, NULL, ?)", values)

    def rows(self, ids: Collection[str]) -> Rows:
        """Return the rows of those ids that are known."""
        places = ",".join("?" * len(ids))
        query = f"SELECT id, y_true, y_pred, model_version FROM ids WHERE id IN ({places})"
        found = self._connection.execute(query, tuple(ids))
        return {row_id: Row(y_true, y_pred, version) for row_id, y_true, y_pred, version in found}

    def counts(self) -> MetricCounts:
        query = "SELECT joined, pending, repeated, expired FROM state"
        return MetricCounts(*self._connection.execute(query).fetchone())

    def last_batch(self) -> StoredBatch:
        query = "SELECT offset, csv, errors, published FROM state"
        offset, records, errors, published = self._connection.execute(query).fetchone()
        return StoredBatch(offset, records, errors.splitlines(), bool(published))

    def last_end(self) -> int:
        """Return the offset in the CSV behind the last batch."""
        return int(self._connection.execute("SELECT offset + length(csv) FROM state").fetchone()[0])

    def commit_batch(self, rows: Rows, batch: StoredBatch, added: MetricCounts, now: float) -> None:
        """Commit the changed rows, the batch that follows from them, and what to add to counts."""
        changed = ((row_id, *astuple(row), now) for row_id, row in rows.items())
        offset, records, errors, is_published = batch
        state = (offset, records, b"\n".join(errors), is_published)
        with self._connection:
            self._connection.executemany("REPLACE INTO ids VALUES (?, ?, ?, ?, ?)", changed)
            self._connection.execute(
                "UPDATE state SET offset = ?, csv = ?, errors = ?, published = ?,"
                " joined = joined + ?, pending = pending + ?, repeated = repeated + ?",
                (*state, added.joined, added.pending, added.repeated),
            )

    def move_batch(self, offset: int, records: bytes) -> None:
        """Commit another place in the CSV for the last batch."""
        with self._connection:
            self._connection.execute("UPDATE state SET offset = ?, csv = ?", (offset, records))

    def mark_published(self) -> None:
        """Note that the last batch is published. Not synced: a lost note repeats the batch."""
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with self._connection:
            self._connection.execute("UPDATE state SET published = TRUE")
        self._connection.execute("PRAGMA synchronous = FULL")

    def expire(self, before: float) -> tuple[int, int]:
        """Delete ids that arrived before a Unix time, MAX_EXPIRED_AT_ONCE at most.

        Return how many were deleted, and how many of them were pending, which are counted.
        """
        query = "SELECT id, y_true IS NULL OR y_pred IS NULL FROM ids WHERE arrived < ? LIMIT ?"
        old = self._connection.execute(query, (before, MAX_EXPIRED_AT_ONCE)).fetchall()
        pending = sum(is_pending for _, is_pending in old)
        if old:
            update = "UPDATE state SET pending = pending - ?, expired = expired + ?"
            with self._connection:
                ids = ((row_id,) for row_id, _ in old)
                self._connection.executemany("DELETE FROM ids WHERE id = ?", ids)
                self._connection.execute(update, (pending, pending))
        return len(old), pending
