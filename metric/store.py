"""What `metric` keeps: the halves that wait and the ids that are done, in SQLite, and the CSV.

Redo, never undo. `commit` puts a batch into SQLite together with the bytes that it adds to the CSV
and the offset where they belong; `write_csv` writes them there and syncs; `settle` notes that the
batch is out everywhere. A life that ends in between leaves a batch that is not settled, and the
next one writes the same bytes at the same place: what a reader of the CSV saw is never taken back.

A full disk is an OSError or sqlite3.Error for which `is_full` is true. Each step that writes gives
up the reserve file then and runs once more, so that a batch in hand can be finished; what the
second try raises goes up.
"""

import csv
import errno
import functools
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

KEEP_SECONDS = float(os.environ.get("KEEP_SECONDS", 7 * 24 * 3600))  # halves and finished ids
RESERVE_BYTES = int(os.environ.get("RESERVE_BYTES", 8 * 2**20))  # far more than a batch writes
LOOK_AGAIN_SECONDS = 5  # at a full disk

HEADER = b"id,y_true,y_pred,absolute_error\n"
SCHEMA = """
CREATE TABLE IF NOT EXISTS ids (
    id TEXT PRIMARY KEY, y_true REAL, y_pred REAL, model_version, arrived REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_arrival ON ids (arrived);
CREATE TABLE IF NOT EXISTS state (  -- one row: the last batch, and what was counted so far
    offset INTEGER, csv BLOB DEFAULT x'', errors BLOB DEFAULT x'', settled INTEGER DEFAULT TRUE,
    joined INTEGER DEFAULT 0, waiting INTEGER DEFAULT 0,
    repeated INTEGER DEFAULT 0, orphans INTEGER DEFAULT 0
);
"""

log = logging.getLogger("metric")


def is_full(error: Exception) -> bool:
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # SQLite's low byte; the rest are details
    number = getattr(error, "errno", None)
    full = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # the second one if a quota is used up
    return number in (errno.ENOSPC, errno.EDQUOT) or kind in full


def with_room(step: Callable) -> Callable:
    """Let `step`, a method of Store, run once more without the reserve if the disk is full."""

    @functools.wraps(step)
    def twice(store, *arguments):
        try:
            return step(store, *arguments)
        except (OSError, sqlite3.Error) as error:
            if not is_full(error):
                raise
            log.warning("%s: %s; giving up the reserve to finish the batch", store.csv, error)
            store.reserve.unlink(missing_ok=True)
            return step(store, *arguments)

    return twice


class Store:
    """The files of `metric` in `folder`, for one process at a time: another one fails to open."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.csv = folder / "metric_log.csv"
        self.path = folder / "metric.sqlite3"
        self.reserve = folder / "metric.reserve"
        self.hold_reserve()
        self.database = sqlite3.connect(self.path)
        try:
            self.prepare()
        except sqlite3.OperationalError as error:
            self.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise SystemExit(f"another metric already writes to {folder}") from None
            raise
        self.opened = self.path.stat()
        if not self.database.execute("SELECT 1 FROM state").fetchone():
            self.adopt()

    def prepare(self) -> None:
        self.database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.executescript(SCHEMA)

    def close(self) -> None:
        self.database.close()

    def state(self, columns: str) -> tuple:
        return self.database.execute(f"SELECT {columns} FROM state").fetchone()

    def hold_reserve(self) -> None:
        """Wait until there is room for the reserve, and as much again beside it."""
        while True:
            try:
                if not self.has_reserve():
                    self.reserve.write_bytes(bytes(RESERVE_BYTES))
                if shutil.disk_usage(self.reserve).free >= RESERVE_BYTES:
                    return
            except OSError as error:
                if not is_full(error):
                    raise
                self.reserve.unlink(missing_ok=True)
            log.warning("%s: the disk is full; waiting for room, unsubscribed", self.csv.parent)
            time.sleep(LOOK_AGAIN_SECONDS)  # no connection is open yet

    def has_reserve(self) -> bool:
        return self.reserve.exists() and self.reserve.stat().st_size == RESERVE_BYTES

    def check(self) -> None:
        """End the process, by SystemExit, if the database is not in its place any more."""
        if not self.path.exists() or not os.path.samestat(self.path.stat(), self.opened):
            raise SystemExit(f"{self.path} was deleted: starting again from the CSV")

    def adopt(self) -> None:
        """Take each id in an existing CSV as finished, and the last full record as its end.

        A torn record behind that is put aside.
        """
        now, end = time.time(), 0
        self.csv.touch()
        with self.csv.open("rb+") as file, self.database:
            for position, cells in records(file):
                end = position
                if len(cells) == 4 and ",".join(cells).encode() + b"\n" != HEADER:
                    row = (*cells[:3], now)
                    self.database.execute(
                        "INSERT OR IGNORE INTO ids VALUES (?, ?, ?, NULL, ?)", row
                    )
            file.seek(end)
            if torn := file.read():
                log.warning("%s: torn at byte %d; the rest is put aside", self.csv, end)
                self.aside().write_bytes(torn)
                file.truncate(end)
                os.fsync(file.fileno())
            self.database.execute("INSERT INTO state (offset) VALUES (?)", (end,))

    def aside(self) -> Path:
        """Return a new name for what was cut off the CSV."""
        return self.csv.with_name(f"metric_log.cut-{time.time_ns()}.csv")

    def rows(self, ids: list[str]) -> dict[str, list]:
        """Return [y_true, y_pred, model version] of those `ids` that are known."""
        known = f"SELECT * FROM ids WHERE id IN ({','.join('?' * len(ids))})"
        return {id: row for id, *row, _ in self.database.execute(known, ids)}

    @with_room
    def commit(
        self, changed: dict, records: bytes, errors: bytes, now: float, counts: tuple[int, ...]
    ) -> None:
        """Commit a batch: the rows of `changed` ids, and what goes to the CSV and to `errors`.

        `counts` are how many more rows are joined, wait, and came again.
        """
        offset, before = self.end_of_csv(*self.state("offset + length(csv)"))
        with self.database:
            rows = ((id, *row, now) for id, row in changed.items())
            self.database.executemany("REPLACE INTO ids VALUES (?, ?, ?, ?, ?)", rows)
            self.database.execute(
                "UPDATE state SET settled = FALSE, offset = ?, csv = ?, errors = ?,"
                " joined = joined + ?, waiting = waiting + ?, repeated = repeated + ?",
                (offset, before + records, errors, *counts),
            )

    def end_of_csv(self, end: int) -> tuple[int, bytes]:
        """Return the offset for the next record, and the bytes that have to stand before it.

        `end` is where we left the CSV. If it is gone or shorter now, a new one is begun. If it is
        longer, somebody else wrote there; that may have been read, and stays.
        """
        size = self.csv.stat().st_size if self.csv.exists() else 0
        if size < end:
            log.warning("%s: gone, or cut; beginning a new one", self.csv)
            if size:
                self.csv.rename(self.aside())
                size = 0
        if size == 0:
            return 0, HEADER
        with self.csv.open("rb") as file:
            file.seek(size - 1)
            return size, b"" if file.read() == b"\n" else b"\n"

    @with_room
    def write_csv(self) -> None:
        """Write the last batch at its offset, and sync it, however often it was written before."""
        offset, records = self.state("offset, csv")
        if not self.fits(offset, records):
            offset, before = self.end_of_csv(offset)
            records = before + records.removeprefix(HEADER)
            with self.database:
                self.database.execute("UPDATE state SET offset = ?, csv = ?", (offset, records))
        if records:
            flags = os.O_WRONLY | (0 if offset else os.O_CREAT)  # never a hole where the CSV was
            with open(os.open(self.csv, flags, 0o644), "wb") as file:
                file.seek(offset)
                file.write(records)
                file.flush()
                os.fsync(file.fileno())

    def fits(self, offset: int, records: bytes) -> bool:
        """Tell whether the CSV ends at `offset`, or goes on from there as `records` do."""
        if not self.csv.exists():
            return offset == 0
        with self.csv.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(offset)
            return offset <= size and records.startswith(file.read(len(records)))

    @with_room
    def settle(self) -> None:
        """Note that the last batch is out. Not synced: were it forgotten, it would go out again."""
        self.database.execute("PRAGMA synchronous = NORMAL")
        with self.database:
            self.database.execute("UPDATE state SET settled = TRUE")
        self.database.execute("PRAGMA synchronous = FULL")

    @with_room
    def forget(self, now: float) -> None:
        """Forget ids that came over KEEP_SECONDS ago, some at a time, and count the orphans."""
        old = self.database.execute(
            "SELECT id, y_true IS NULL OR y_pred IS NULL FROM ids WHERE arrived < ? LIMIT 5000",
            (now - KEEP_SECONDS,),
        ).fetchall()
        if old:
            orphans = sum(alone for _, alone in old)
            changes = "UPDATE state SET waiting = waiting - ?, orphans = orphans + ?"
            with self.database:
                self.database.executemany("DELETE FROM ids WHERE id = ?", [(id,) for id, _ in old])
                self.database.execute(changes, (orphans, orphans))
            log.info("forgot %d ids, %d of them orphans", len(old), orphans)


def records(file) -> Iterator[tuple[int, list[str]]]:
    """Yield (bytes up to its end, cells) for each full record of a CSV; a torn last one is none."""
    csv.field_size_limit(4096)  # no cell of ours is longer, so a stray quote swallows no more
    position, line = 0, b""

    def lines():
        nonlocal position, line
        for line in file:
            position += len(line)
            yield line.decode(errors="replace")

    reader = csv.reader(lines(), strict=True)  # strict: a quote still open at the end is an error
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            continue
        if line.endswith(b"\n"):
            yield position, cells
