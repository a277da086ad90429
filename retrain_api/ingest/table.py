"""A CSV as a table: a header with names, and rows as float32 arrays.

Each block is parsed by pandas if it has bare numbers only, else cell by cell, which also finds the
cell to complain about. InvalidDatasetError says the file, the line and the column.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from functools import partial
from operator import itemgetter
from typing import IO, NoReturn

import numpy as np

from retrain_api.ingest import cells
from retrain_api.ingest.cells import quoted
from retrain_api.ingest.dialect import CsvFile, Records

MAX_COLUMNS = 1000
MAX_NAME_CHARACTERS = 200
MAX_LISTED_NAMES = 10  # in a sentence


def listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - MAX_LISTED_NAMES
    return ", ".join(map(quoted, names[:MAX_LISTED_NAMES])) + f" and {more} more" * (more > 0)


def clean_name(name: str) -> str:
    """Return a column's name as it is compared: macOS writes й as two characters, others as one."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


class Table(CsvFile):
    """A CSV with a header: `names` are its columns, `places` their indices."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        super().__init__(name, file)
        self.names = [clean_name(cell) for cell in self.header]
        self.places: dict[str, int] = {}
        self.check_header()
        for at, column in enumerate(self.names):
            self.check_name(at, column)

    def check_header(self) -> None:
        names = self.names
        if len(names) > MAX_COLUMNS:
            self.refuse(f"{len(names)} columns; send at most {MAX_COLUMNS}", self.line)
        if len(names) == 1:
            what = f"only one column, {quoted(names[0])}; separate cells by comma, semicolon or tab"
            self.refuse(what, self.line)
        if all(cells.is_number(name, self.decimal_comma) for name in names):
            self.refuse("no header, only numbers; send the names of the columns first", self.line)

    def check_name(self, at: int, name: str) -> None:
        if not name:
            self.refuse("no name; name each column", self.line, at + 1)
        if len(name) > MAX_NAME_CHARACTERS:
            what = f"a name of {len(name)} characters; send at most {MAX_NAME_CHARACTERS}"
            self.refuse(what, self.line, quoted(name))
        if (first := self.places.setdefault(name, at)) < at:
            what = f"the columns {first + 1} and {at + 1} have this name; give each its own"
            self.refuse(what, self.line, quoted(name))

    def rows(self, columns: list[str]) -> Iterator[np.ndarray]:
        """Yield float32 arrays of the shape (rows, columns), some thousand rows at a time."""
        places = [self.places[column] for column in columns]
        fast, exact = partial(self.parse_fast, places), partial(self.parse_exact, places)
        yield from filter(len, self.chunks(fast, exact))

    def parse_fast(self, places: list[int], block: bytes) -> np.ndarray | None:
        """Return the rows of a block that has bare numbers only, else None."""
        commas = b"," if self.decimal_comma else b""
        marks = block.translate(None, cells.NUMBER_CHARACTERS + commas)
        row = self.delimiter.encode() * (len(self.names) - 1) + b"\n"
        if marks != row * (len(marks) // len(row)):
            return None  # a quote, a text, a blank line, or a short row, which pandas would fill up
        try:
            block = block.replace(commas, b".") if commas else block
            return cells.as_float32(cells.read_with_pandas(block, self.delimiter)[:, places])
        except (ValueError, OverflowError):
            return None  # parse_exact finds the cell

    def parse_exact(self, places: list[int], records: Records) -> np.ndarray:
        """Return the rows of a block with quotes, blanks or texts, or refuse it."""
        pick, texts = itemgetter(*places), []
        for _, row in records():
            if len(row) != len(self.names):
                self.refuse_first(places, records)
            texts += pick(row)
        if not texts:
            return np.empty((0, len(places)), "<f4")
        try:
            return cells.floats(texts, self.decimal_comma).reshape(-1, len(places))
        except (ValueError, OverflowError):
            self.refuse_first(places, records)

    def refuse_first(self, places: list[int], records: Records) -> NoReturn:
        """Refuse the first record that is wrong."""
        for line, row in records():
            if len(row) != len(self.names):
                width = "1 cell" if len(row) == 1 else f"{len(row)} cells"
                what = f"{width}, but {len(self.names)} columns; send as many cells"
                self.refuse(f"{what}, and quote one that holds {quoted(self.delimiter)}", line)
            for at in sorted(places):
                if problem := cells.describe_problem(row[at], self.decimal_comma):
                    line += sum(cell.count("\n") for cell in row[:at])
                    self.refuse(problem, line, quoted(self.names[at]))
        raise AssertionError("every record is right")
