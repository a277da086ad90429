"""Read the absolute errors from logs/metric_log.csv, each record once.

A torn record is left until its rest is there. A foreign line is skipped and counted.
"""

import csv
import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from common import lifecycle

HEADER = b"id,y_true,y_pred,absolute_error\n"
# A record ends with its line, unless that starts with a quote: only an id is ever quoted.
RECORD = re.compile(rb'(?:"(?:[^"]|"")*+"|(?!"))[^\n]*+\n')
MAX_RECORD_BYTES = 4096  # `metric` writes shorter ones
CHUNK_BYTES = 1 << 18  # some 6,000 rows
TAIL_BYTES = 64


class CsvReader:
    """The position in a CSV that is open as `file`, unbuffered."""

    def __init__(self, file: BinaryIO | io.BytesIO) -> None:
        self.file = file
        self.offset = 0  # up to the end of a record
        self.tail = b""  # the last bytes before the offset
        self.foreign = 0  # lines that were skipped

    def chunks(self) -> Iterator[list[float]]:
        """Yield the errors that were appended, a chunk at a time, up to the present end.

        Raise StopRequested on a stop request.
        """
        size = CHUNK_BYTES
        while size == CHUNK_BYTES:  # not until nothing is left: a fast writer would keep us here
            lifecycle.report_liveness()
            lifecycle.check_stop()
            self.file.seek(self.offset)
            chunk = self.file.read(CHUNK_BYTES)
            size = len(chunk)
            header = len(HEADER) if not self.offset and chunk.startswith(HEADER) else 0
            errors, foreign, used = parse(chunk[header:])
            self.foreign += foreign
            self.offset += header + used
            if header + used:
                self.tail = chunk[: header + used][-TAIL_BYTES:]
            yield errors

    def is_current(self, path: Path) -> bool:
        """Return whether `path` is still this file, with the tail where it was read."""
        self.file.seek(self.offset - len(self.tail))
        stands = self.file.read(len(self.tail)) == self.tail
        return stands and os.path.samestat(path.stat(), os.fstat(self.file.fileno()))


def parse(chunk: bytes) -> tuple[list[float], int, int]:
    """Return the errors in a chunk, the number of foreign lines, and the bytes of both.

    The bytes behind them are a torn record. Of a foreign record only the first line is skipped:
    the others may be good ones, behind a quote that was opened and never closed.
    """
    lines = chunk[: chunk.rfind(b"\n") + 1]
    if lines and b'"' not in lines:  # each line is a record: all at once, unless one is foreign
        with suppress(ValueError, csv.Error):
            return absolute_errors(lines.decode()), 0, len(lines)
    return _parse_one_by_one(chunk)


def _parse_one_by_one(chunk: bytes) -> tuple[list[float], int, int]:
    errors: list[float] = []
    foreign = start = 0
    while True:
        record = RECORD.match(chunk, start, start + MAX_RECORD_BYTES)
        if not record and len(chunk) - start <= MAX_RECORD_BYTES:
            return errors, foreign, start
        if record and (error := _error_of(record[0])) is not None:
            errors.append(error)
            start = record.end()
        elif line_end := chunk.find(b"\n", start) + 1:
            foreign, start = foreign + 1, line_end
        else:  # drop the start of a line without an end; the rest is still too long
            return errors, foreign, len(chunk) - MAX_RECORD_BYTES - 1


def _error_of(record: bytes) -> float | None:
    with suppress(ValueError, csv.Error):
        [error] = absolute_errors(record.decode())
        return error
    return None


def absolute_errors(text: str) -> list[float]:
    """Return the last field of each CSV record.

    Raise ValueError or csv.Error if one is not a record of `metric`.
    """
    errors = []
    records = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    for row_id, y_true, y_pred, absolute_error in records:
        error = float(absolute_error)
        finite = math.isfinite(float(y_true) - float(y_pred) + error)  # so all three are
        if error < 0 or not finite or len(row_id) > MAX_RECORD_BYTES // 4:  # of 4 bytes each
            raise ValueError("not a record of metric")
        errors.append(error)
    return errors
