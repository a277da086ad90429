"""Find out how a CSV is written, and read its records in bounded memory.

    CsvFile(shown name, binary file) ──▶ .header, .chunks(…): records, a block at a time

The delimiter is comma, semicolon or tab, whichever fits the first rows best. The encoding is UTF-8
if all of the file is, else cp1251. Line ends may be mixed, and a quoted cell may hold some. A file
that cannot be read so raises InvalidDatasetError with the line.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from typing import IO, Any, NoReturn, TypeVar

from retrain_api.errors import InvalidDatasetError
from retrain_api.ingest.cells import is_number

BLOCK_BYTES = 1 << 19  # read at once: with fewer, starting pandas takes much of the time
MAX_ROW_BYTES = 1 << 18  # a longer row passes if it lies within a block
SAMPLE_ROWS, SAMPLE_CELLS = 20, 1000  # that decide on the delimiter, at most

DELIMITERS = ",;\t"
NOT_CLOSED = "a quote is opened and never closed; close it"

Record = tuple[int, list[str]]  # the line where it begins, its cells
Records = Callable[[], Iterator[Record]]
T = TypeVar("T")


def csv_reader(lines: Iterable[str], delimiter: str) -> Any:
    csv.field_size_limit(4 * BLOCK_BYTES)  # of the process; longer rows are refused before that
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)


def is_blank(cells: list[str]) -> bool:
    return len(cells) < 2 and not "".join(cells).strip()


def fit(text: str, delimiter: str) -> tuple[int, float]:
    """Return how many of the first rows are as wide as the header, and their share of numbers."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        for row in islice(csv_reader(io.StringIO(text), delimiter), SAMPLE_ROWS):
            rows += [] if is_blank(row) else [row]
    fitting = [row for row in rows if len(row) == len(rows[0]) > 1]
    cells = list(islice(chain.from_iterable(fitting), SAMPLE_CELLS))
    numbers = sum(is_number(cell, delimiter != ",") for cell in cells)
    return len(fitting), numbers / max(1, len(cells))


class CsvFile:
    """One CSV: its `encoding`, `delimiter` and `decimal_comma`, its `header` and the line of it."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name, self.file = name, file
        self.file.seek(0)
        start = file.read(4)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self.refuse("this is UTF-16; save it as CSV in UTF-8")
        if start == b"PK\3\4":
            self.refuse("this is an Excel workbook or a zip archive; save the sheet as CSV")
        self.bom_bytes = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
        self.encoding = "utf-8" if self.bom_bytes or self.is_utf8() else "cp1251"
        text = self.decode(*next(self.blocks(), (1, b"")))
        self.delimiter = max(DELIMITERS, key=lambda delimiter: fit(text, delimiter))
        self.decimal_comma = self.delimiter != ","
        self.rest = ""
        self.line, self.header, self.header_lines = self.first_record(text)

    def refuse(self, what: str, line: int | None = None, column: Any = None) -> NoReturn:
        """Raise InvalidDatasetError with the place in the file."""
        where = f", line {line}" * (line is not None) + f", column {column}" * (column is not None)
        raise InvalidDatasetError(f"{self.name}{where}: {what}") from None

    def is_utf8(self) -> bool:
        self.file.seek(0)
        blocks = iter(partial(self.file.read, BLOCK_BYTES), b"")
        try:
            for _ in codecs.iterdecode(blocks, "utf-8"):
                pass
            return True
        except UnicodeDecodeError:
            return False

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number of the first line, whole lines, each ended by a LF) of about a block."""
        line, rest = 1, b""
        self.file.seek(self.bom_bytes)
        while piece := self.file.read(BLOCK_BYTES):
            block = rest + piece
            before_last = len(block) - 1  # a CR there may be the first byte of a CRLF
            end = 1 + max(block.rfind(b"\n"), block.rfind(b"\r", 0, before_last))
            rest = block[end:]
            block = block[:end]
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if block:
                yield line, block
            line += block.count(b"\n")
            if len(rest) > MAX_ROW_BYTES:
                self.refuse_long_row(line)
        if rest:
            yield line, rest.rstrip(b"\r") + b"\n"

    def refuse_long_row(self, line: int) -> NoReturn:
        kib = MAX_ROW_BYTES // 1024
        self.refuse(f"a row of over {kib} KiB; end each row, and close each quote", line)

    def decode(self, line: int, block: bytes) -> str:
        """Decode a block that begins in `line`."""
        if (at := block.find(b"\0")) >= 0:
            line += block.count(b"\n", 0, at)
            self.refuse("a NUL byte; send text, saved as CSV in UTF-8", line)
        try:
            return block.decode(self.encoding)
        except UnicodeDecodeError as error:
            line += block.count(b"\n", 0, error.start)
            self.refuse("neither UTF-8 nor cp1251; save it as CSV in UTF-8", line)

    def records(self, line: int, text: str) -> Iterator[Record]:
        """Yield each record in `text`, which begins in `line`.

        Leave in `rest` the text of a last record whose end is in a later block.
        """
        lines = io.StringIO(text).readlines()
        end, reader = 0, csv_reader(lines, self.delimiter)
        try:
            for cells in reader:
                if len(cells) > 1 or not is_blank(cells):
                    yield line + end, cells
                end = reader.line_num
        except csv.Error as error:
            if "end of data" not in str(error):
                self.refuse("text behind a closing quote; double a quote inside a cell", line + end)
        self.rest = "".join(lines[end:])

    def first_record(self, text: str) -> tuple[int, list[str], int]:
        """Return the line where the first record in `text` begins, its cells, and its last line."""
        records = self.records(1, text)
        first, second = next(records, None), next(records, None)
        if first is None and self.rest:
            self.refuse(NOT_CLOSED, 1)
        if first is None:
            self.refuse("the file is empty; send the names of the columns, then rows")
        last = text.count("\n") - self.rest.count("\n") if second is None else second[0] - 1
        return *first, last

    def chunks(
        self, fast: Callable[[bytes], T | None], exact: Callable[[Records], T]
    ) -> Iterator[T]:
        """Yield for each block behind the header the result of one of two parsers.

        `fast` gets the bytes and may return None. Then `exact` gets a function that returns the
        records of the block, anew for each call.
        """
        rest = ""
        for line, block in self.blocks():
            if line == 1:
                block = block.split(b"\n", self.header_lines)[-1]
                line += self.header_lines
            parsed = None if rest else fast(block)
            if parsed is None:
                text = rest + self.decode(line, block)
                parsed = exact(partial(self.records, line - rest.count("\n"), text))
                rest = self.rest
            yield parsed
            if rest:
                line += block.count(b"\n") - rest.count("\n")
            if len(rest) > MAX_ROW_BYTES:
                self.refuse_long_row(line)
        if rest:
            self.refuse(NOT_CLOSED, line)
