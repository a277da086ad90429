"""What `metric` has on the disk: a database, the CSV, and the ballast for a full disk.

Redo, never undo. `commit` stores a batch together with the bytes that it adds to the CSV and the
offset where they belong; `write_csv` writes them there and syncs; `mark_published` notes that the
batch is everywhere. After a kill in between, the next process finds a batch that is not published
and writes the same bytes at the same place: bytes that a reader of the CSV saw stay.

On a full disk each step releases the ballast and runs once more, so that a batch in hand can be
finished; what the second run raises ends the process, and the next one waits for room.
"""

import logging
import time
from pathlib import Path

from common import lifecycle
from common.messages import MetricCounts
from metric.ballast import Ballast
from metric.csv_file import HEADER, CsvFile
from metric.database import Database, Rows, StoredBatch

ADOPT_AT_ONCE = 10_000  # records of an existing CSV between two checks of the stop flag

log = logging.getLogger("metric")


class Store:
    """The files of `metric` in a folder, for one process at a time."""

    def __init__(self, folder: Path, ballast_bytes: int) -> None:
        """Open the files, or create them; an existing CSV without a database is adopted.

        Wait while the disk is full. Raise SystemExit if another process has the files open.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.csv = CsvFile(folder / "metric_log.csv")
        self.ballast = Ballast(folder / "metric.ballast", ballast_bytes)
        if (former := folder / "metric.reserve").exists():  # its name up to format 0
            former.replace(self.ballast.path)
        self.ballast.hold()
        self.database = Database(folder / "metric.sqlite3")
        try:
            if self.database.is_new():
                self._adopt_csv()
        except BaseException:  # such as StopRequested
            self.close()
            raise

    def _adopt_csv(self) -> None:
        """Insert each id in an existing CSV as finished, and cut a torn record at its end."""
        now, end = time.time(), 0
        with self.database.transaction():
            for number, record in enumerate(self.csv.records()):
                if number % ADOPT_AT_ONCE == 0:
                    lifecycle.report_liveness()
                    lifecycle.check_stop()
                if record.is_row:
                    self.database.insert_finished(record.cells, now)
                end = record.end
            self.csv.cut(end)
            self.database.insert_state(end)

    def close(self) -> None:
        self.database.close()

    def check_database(self) -> None:
        """Raise SystemExit if the database was deleted: the next process adopts the CSV."""
        if not self.database.is_in_place():
            raise SystemExit(f"{self.database.path} was deleted: starting again from the CSV")

    def check_ballast(self) -> None:
        """Raise SystemExit if the ballast is gone: the next process waits for room."""
        if not self.ballast.is_held():
            raise SystemExit(f"{self.ballast.path} is gone: the disk was full, or it was deleted")

    def unpublished_errors(self) -> list[bytes]:
        """Return the messages for `errors` of the last batch; [] if it is published."""
        batch = self.database.last_batch()
        return [] if batch.is_published else batch.errors

    def commit(
        self, rows: Rows, records: bytes, errors: list[bytes], added: MetricCounts, now: float
    ) -> None:
        """Commit a batch: changed rows, what goes to the CSV and to `errors`, and more counts."""

        def step() -> None:
            offset, before = self.csv.end(self.database.last_end())
            batch = StoredBatch(offset, before + records, errors, is_published=False)
            self.database.commit_batch(rows, batch, added, now)

        self.ballast.retry(step)

    def write_csv(self) -> None:
        """Write the last batch into the CSV, unless it is published; repeatable."""
        self.ballast.retry(self._write_csv)

    def _write_csv(self) -> None:
        offset, records, _, is_published = self.database.last_batch()
        if is_published:
            return
        if not self.csv.can_take(offset, records):
            offset, before = self.csv.end(offset)
            records = before + records.removeprefix(HEADER)
            self.database.move_batch(offset, records)
        if records:
            self.csv.write(offset, records)

    def mark_published(self) -> None:
        self.ballast.retry(self.database.mark_published)

    def create_csv(self) -> None:
        """Write the header if there is no CSV: commit a batch without rows."""
        self.commit({}, b"", [], MetricCounts(0, 0, 0, 0), time.time())
        self.write_csv()
        self.mark_published()

    def expire(self, before: float) -> None:
        """Delete ids that arrived before a Unix time, and count the pending ones as expired."""

        def step() -> None:
            ids, pending = self.database.expire(before)
            if ids:
                log.info("expired %d ids, %d of them pending", ids, pending)

        self.ballast.retry(step)
