"""Find out how a CSV is written, and read its records in bounded memory.

    Csv(shown name, binary file) ──▶ .header, .chunks(…): records, a block at a time

Cells are parted by comma, semicolon or tab, whichever fits the first rows best. The encoding is
UTF-8 if all of the file is, and else cp1251. Lines end as they like, and a quoted cell may hold
line ends. What cannot be read so raises Refused, with the line.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from typing import BinaryIO, NoReturn

from retrain_api.cells import Refused, is_number

BLOCK = 2**19  # bytes read at once: with fewer pandas spends much of its time on beginning
LONGEST_ROW = 2**18  # bytes; a longer one passes if it lies within a block
LOOK_AT = 20, 1000  # rows and cells, at most, that decide on the delimiter

DELIMITERS = ",;\t"
NOT_CLOSED = "a quote is opened and never closed; close it"


def reader(lines, delimiter: str):
    csv.field_size_limit(4 * BLOCK)  # for the whole process; longer rows are refused before that
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)


def is_blank(cells: list[str]) -> bool:
    return len(cells) < 2 and not "".join(cells).strip()


def fit(text: str, delimiter: str) -> tuple[int, float]:
    """Return how many of the first rows are as wide as the header, and their share of numbers."""
    rows = []
    with suppress(csv.Error):
        for row in islice(reader(io.StringIO(text), delimiter), LOOK_AT[0]):
            rows += [] if is_blank(row) else [row]
    fitting = [row for row in rows if len(row) == len(rows[0]) > 1]
    cells = list(islice(chain.from_iterable(fitting), LOOK_AT[1]))
    numbers = sum(is_number(cell, delimiter != ",") for cell in cells)
    return len(fitting), numbers / max(1, len(cells))


class Csv:
    """One CSV. `comma` says whether a comma is a decimal mark in it, `line` where `header` is."""

    def __init__(self, name: str, file: BinaryIO):
        self.name, self.file = name, file
        self.file.seek(0)
        start = file.read(4)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self.refuse("this is UTF-16; save it as CSV in UTF-8")
        if start == b"PK\3\4":
            self.refuse("this is an Excel workbook or a zip archive; save the sheet as CSV")
        self.bom = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
        self.encoding = "utf-8" if self.bom or self.is_utf8() else "cp1251"
        text = self.decode(*next(self.blocks(), (1, b"")))
        self.delimiter = max(DELIMITERS, key=lambda delimiter: fit(text, delimiter))
        self.comma = self.delimiter != ","
        self.rest = ""
        self.line, self.header, self.skip = self.first_record(text)

    def refuse(self, what: str, line: int | None = None, column: str | None = None) -> NoReturn:
        where = f", line {line}" * (line is not None) + f", column {column}" * (column is not None)
        raise Refused(f"{self.name}{where}: {what}") from None

    def is_utf8(self) -> bool:
        decoder = codecs.getincrementaldecoder("utf-8")()
        self.file.seek(0)
        try:
            while block := self.file.read(BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        return True

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number of the first line, whole lines, each ended by a LF) of about a BLOCK."""
        line, rest = 1, b""
        self.file.seek(self.bom)
        while piece := self.file.read(BLOCK):
            block = rest + piece
            before_last = len(block) - 1  # a CR there may be one half of a CRLF
            end = 1 + max(block.rfind(b"\n"), block.rfind(b"\r", 0, before_last))
            rest = block[end:]
            block = block[:end]
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if block:
                yield line, block
            line += block.count(b"\n")
            if len(rest) > LONGEST_ROW:
                self.refuse_long(line)
        if rest:
            yield line, rest.rstrip(b"\r") + b"\n"

    def refuse_long(self, line: int) -> NoReturn:
        kib = LONGEST_ROW // 1024
        self.refuse(f"a row of over {kib} KiB; end each row, and close each quote", line)

    def decode(self, line: int, block: bytes) -> str:
        if (at := block.find(b"\0")) >= 0:
            line += block.count(b"\n", 0, at)
            self.refuse("a NUL byte; send text, saved as CSV in UTF-8", line)
        try:
            return block.decode(self.encoding)
        except UnicodeDecodeError as error:
            line += block.count(b"\n", 0, error.start)
            self.refuse("neither UTF-8 nor cp1251; save it as CSV in UTF-8", line)

    def records(self, line: int, text: str) -> Iterator[tuple[int, list[str]]]:
        """Yield (line where it begins, cells) for each record in `text`, which begins in `line`.

        At the end `rest` is the text of a last record whose end is yet to come.
        """
        lines = io.StringIO(text).readlines()
        end, cells_of = 0, reader(lines, self.delimiter)
        try:
            for cells in cells_of:
                if len(cells) > 1 or not is_blank(cells):
                    yield line + end, cells
                end = cells_of.line_num
        except csv.Error as error:
            if "end of data" not in str(error):
                self.refuse("text behind a closing quote; double a quote inside a cell", line + end)
        self.rest = "".join(lines[end:])

    def first_record(self, text: str) -> tuple[int, list[str], int]:
        """Return the line where the first record in `text` begins, its cells, and its last line."""
        records = self.records(1, text)
        line, cells = next(records, (1, None))
        behind, _ = next(records, (None, None))
        if cells is None and self.rest:
            self.refuse(NOT_CLOSED, 1)
        if cells is None:
            self.refuse("the file is empty; send the names of the columns, then rows")
        end = text.count("\n") - self.rest.count("\n") if behind is None else behind - 1
        return line, cells, end

    def chunks(self, plain: Callable, careful: Callable) -> Iterator:
        """Yield for each block behind the header what one of two functions makes of it.

        `plain` gets the bytes, and may return None. Then `careful` gets a function that returns the
        block's `records`, for each time it wants to go through all of them.
        """
        rest = ""
        for line, block in self.blocks():
            if line == 1:
                block = block.split(b"\n", self.skip)[-1]
                line += self.skip
            made = None if rest else plain(block)
            if made is None:
                text = rest + self.decode(line, block)
                made = careful(partial(self.records, line - rest.count("\n"), text))
                rest = self.rest
            yield made
            if rest:
                line += block.count(b"\n") - rest.count("\n")
            if len(rest) > LONGEST_ROW:
                self.refuse_long(line)
        if rest:
            self.refuse(NOT_CLOSED, line)
