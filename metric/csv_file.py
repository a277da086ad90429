"""logs/metric_log.csv: its records, its end, and writes that can be repeated.

    id,y_true,y_pred,absolute_error
    1765912012.233366,101.0,116.95,15.95

Bytes that a reader may have seen are never changed: a record is written at a known offset, and a
repeated write puts the same bytes at the same place. Lines that others appended stay.
"""

import csv
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from common.messages import JoinedRow

HEADER = b"id,y_true,y_pred,absolute_error\n"
MAX_CELL_CHARACTERS = 4096  # no cell of ours is longer, so a stray quote spans no more

log = logging.getLogger("metric")


def format_record(row: JoinedRow, decimals: int) -> bytes:
    """Return the line of a row; `decimals` are those of y_pred and absolute_error."""
    row_id = str(row.id)
    if any(character in row_id for character in ',"\r\n'):  # csv.writer does not quote the \r
        row_id = '"' + row_id.replace('"', '""') + '"'
    error = f"{row.absolute_error:.{decimals}f}"
    return f"{row_id},{row.y_true},{row.y_pred:.{decimals}f},{error}\n".encode()


class Record(NamedTuple):
    """A record, and the offset of its end; `is_row` is false for the header and foreign lines."""

    cells: list[str]
    end: int

    @property
    def is_row(self) -> bool:
        return len(self.cells) == 4 and ",".join(self.cells).encode() + b"\n" != HEADER


class CsvFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def end(self, expected: int) -> tuple[int, bytes]:
        """Return the offset for the next record, and the bytes that have to stand before it.

        `expected` is where our last record ended. A file that is shorter now is put aside, and a
        new one starts with the header. In a longer one, what others appended stays.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < expected:
            log.warning("%s: deleted or cut; starting a new one", self.path)
            if size:
                self.path.rename(self._aside())
                size = 0
        if size == 0:
            return 0, HEADER
        with self.path.open("rb") as file:
            file.seek(size - 1)
            return size, b"" if file.read() == b"\n" else b"\n"

    def can_take(self, offset: int, records: bytes) -> bool:
        """Return whether the file ends at `offset`, or goes on from there as `records` do."""
        if not self.path.exists():
            return offset == 0
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(offset)
            return offset <= size and records.startswith(file.read(len(records)))

    def write(self, offset: int, records: bytes) -> None:
        """Write records at an offset, and sync them."""
        flags = os.O_WRONLY | (0 if offset else os.O_CREAT)  # never a hole where the file was
        with open(os.open(self.path, flags, 0o644), "wb") as file:
            file.seek(offset)
            file.write(records)
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> Iterator[Record]:
        """Yield each record that ends with its line; create the file if there is none."""
        self.path.touch()
        with self.path.open("rb") as file:
            yield from _whole_records(file)

    def cut(self, end: int) -> None:
        """Cut the file at an offset, and put what was behind it into a file of its own."""
        with self.path.open("rb+") as file:
            file.seek(end)
            if torn := file.read():
                log.warning("%s: torn at byte %d; the rest is put aside", self.path, end)
                self._aside().write_bytes(torn)
                file.truncate(end)
                os.fsync(file.fileno())

    def _aside(self) -> Path:
        return self.path.with_name(f"metric_log.cut-{time.time_ns()}.csv")


def _whole_records(lines: Iterable[bytes]) -> Iterator[Record]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    end, line = 0, b""

    def texts() -> Iterator[str]:
        nonlocal end, line
        for line in lines:
            end += len(line)
            yield line.decode(errors="replace")

    reader = csv.reader(texts(), strict=True)  # strict: a quote still open at the end is an error
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            continue
        if line.endswith(b"\n"):
            yield Record(cells, end)
