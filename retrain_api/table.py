"""Read uploaded CSVs, once, into float32 arrays to train on and to judge by.

    [(shown name, binary file), …] ──▶ prepare ──▶ train.npy, hold_out.npy, and a dict about them

The files have the same columns, in any order; each is a region. What is no table of plain numbers
raises Refused: one sentence with file, line and column that says what to send instead. Memory does
not grow with the files. Whatever is raised, a full disk for one, nothing is left in the folder.

    python -c 'import retrain_api.table as t; print(t.prepare([("a", open("a.csv", "rb"))], "."))'
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from retrain_api import disk, hold_out
from retrain_api.cells import PLAIN, Refused, as_float32, floats, is_number, many, shown, why_not
from retrain_api.dialect import Csv

MOST_FILES = 100  # each keeps 256 KiB of counts
MOST_COLUMNS = 1000
LONGEST_NAME = 200  # characters
FEWEST_ROWS = 20


def listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(shown, names[:10])) + more


def clean(name: str) -> str:
    """Return a column's name as it is compared: a Mac writes й as two characters, others as one."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


class Table:
    """A CSV with a header: `names` are its columns, `places` tells where each is."""

    def __init__(self, name: str, file: BinaryIO):
        self.csv = Csv(name, file)
        self.refuse = self.csv.refuse
        self.line, self.names = self.csv.line, [clean(cell) for cell in self.csv.header]
        self.places = {}
        self.check_header()

    def check_header(self) -> None:
        names = self.names
        if len(names) > MOST_COLUMNS:
            self.refuse(f"{len(names)} columns; send at most {MOST_COLUMNS}", self.line)
        if len(names) == 1:
            what = f"only one column, {shown(names[0])}; separate cells by comma, semicolon or tab"
            self.refuse(what, self.line)
        if all(is_number(name, self.csv.comma) for name in names):
            self.refuse("no header, only numbers; send the names of the columns first", self.line)
        for at, name in enumerate(names):
            if not name:
                self.refuse("no name; name each column", self.line, at + 1)
            if len(name) > LONGEST_NAME:
                what = f"a name of {len(name)} characters; send at most {LONGEST_NAME}"
                self.refuse(what, self.line, shown(name))
            if (first := self.places.setdefault(name, at)) < at:
                what = f"the columns {first + 1} and {at + 1} have this name; give each its own"
                self.refuse(what, self.line, shown(name))

    def rows(self, columns: list[str]) -> Iterator[np.ndarray]:
        """Yield float32 arrays of the shape (rows, columns), some thousand rows at a time."""
        places = [self.places[column] for column in columns]
        plain, careful = partial(self.plain, places), partial(self.careful, places)
        for rows in self.csv.chunks(plain, careful):
            if len(rows):
                yield rows

    def plain(self, places: list[int], block: bytes) -> np.ndarray | None:
        """Return the rows of a block that holds bare numbers and nothing else; or None."""
        delimiter = self.csv.delimiter
        commas = b"," if self.csv.comma else b""
        marks = block.translate(None, PLAIN + commas)
        row = delimiter.encode() * (len(self.names) - 1) + b"\n"
        if marks != row * (len(marks) // len(row)):
            return None  # a quote, a text, a blank line, or a short row, which pandas would fill up
        try:
            rows = many(block.replace(commas, b".") if commas else block, delimiter)
            return as_float32(rows[:, places])
        except (ValueError, OverflowError):
            return None  # `careful` will say where

    def careful(self, places: list[int], records: Callable) -> np.ndarray:
        """Return the rows of a block that holds quotes, blanks or texts, or refuse it."""
        pick, cells = itemgetter(*places), []
        for _, row in records():
            if len(row) != len(self.names):
                self.refuse_first(places, records)
            cells += pick(row)
        try:
            return floats(cells, self.csv.comma).reshape(-1, len(places)) if cells else []
        except (ValueError, OverflowError):
            self.refuse_first(places, records)

    def refuse_first(self, places: list[int], records: Callable) -> NoReturn:
        """Refuse the first of the records that is not as it should be."""
        for line, row in records():
            if len(row) != len(self.names):
                cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
                what = f"{cells}, but {len(self.names)} columns; send as many cells"
                self.refuse(f"{what}, and quote one that holds {shown(self.csv.delimiter)}", line)
            for at in sorted(places):
                if what := why_not(row[at], self.csv.comma):
                    line += sum(cell.count("\n") for cell in row[:at])
                    self.refuse(what, line, shown(self.names[at]))
        raise AssertionError("each record is as it should be")


def choose_columns(tables: list[Table], target: str | None, ignore: Iterable[str]) -> list[str]:
    """Return the columns to use in the order of the first file, the target last."""
    names = tables[0].names
    ignored = {clean(name): None for name in ignore}  # in the order they were sent
    for name in ignored:
        if not any(name in table.places for table in tables):
            raise Refused(f"ignore: there is no column {shown(name)}; choose of {listed(names)}")
    target = names[-1] if target is None else clean(target)
    if target not in names:
        raise Refused(f"target: there is no column {shown(target)}; choose of {listed(names)}")
    if target in ignored:
        what = f"ignore: {shown(target)} is the target, as the last column is if none is named"
        raise Refused(f"{what}; send another column as target")
    features = [name for name in names if name not in ignored and name != target]
    if not features:
        raise Refused(f"no column is left beside the target {shown(target)}; ignore fewer")
    for table in tables[1:]:
        check_same(tables[0], table, [*features, target], ignored)
    return [*features, target]


def check_same(first: Table, table: Table, columns: list[str], ignored: Iterable[str]) -> None:
    known = {*columns, *ignored}
    missing = [name for name in columns if name not in table.places]
    foreign = [name for name in table.names if name not in known]
    what = [f"no column {listed(missing)}"] if missing else []
    what += [f"{first.csv.name} has no column {listed(foreign)}"] if foreign else []
    if what:
        send = "send the same columns in each file, or name some in ignore"
        table.refuse(f"{', and '.join(what)}; {send}", table.line)


def prepare(
    files: list[tuple[str, BinaryIO]],
    folder: Path | str,
    target: str | None = None,
    ignore: Iterable[str] = (),
) -> dict:
    """Write train.npy and hold_out.npy into `folder`, and return what job.json says of them.

    `files` are (shown name, seekable file). The arrays are float32 of the shape (rows, columns),
    columns in the order of the first file, the target last; hold_out.npy has one file's rows after
    the other's. Raise Refused for what cannot be used, disk.Full before the disk is.
    """
    if not 0 < len(files) <= MOST_FILES:
        raise Refused(f"{len(files)} files; send at least one CSV and at most {MOST_FILES}")
    tables = [Table(name, file) for name, file in files]
    columns = choose_columns(tables, target, ignore)
    try:
        with disk.Spool(Path(folder), disk.KEEP_FREE_BYTES) as scratch:
            counts = read(tables, columns, scratch)
            return split(tables, columns, counts, scratch, Path(folder))
    except BaseException:
        for name in hold_out.FILES:
            (Path(folder) / name).unlink(missing_ok=True)
        raise


def read(tables: list[Table], columns: list[str], scratch: BinaryIO) -> list[np.ndarray]:
    """Write all rows into `scratch`; return for each file how many fall into each bucket."""
    counts, targets = [], set()
    for table in tables:
        counts.append(np.zeros(hold_out.BUCKETS, np.uint32))
        for rows in table.rows(columns):
            scratch.write(rows.data.cast("B"))
            counts[-1] += hold_out.count(rows)
            targets |= {rows[:, -1].min(), rows[:, -1].max()}
            targets = {min(targets), max(targets)}
        if not counts[-1].any():
            table.refuse("a header and no rows; send rows, or leave this file out")
    rows = sum(int(count.sum()) for count in counts)
    if rows < FEWEST_ROWS:
        raise Refused(f"{rows} rows in all; send at least {FEWEST_ROWS}")
    if len(targets) == 1:
        refuse_constant(columns[-1], "each row")
    return counts


def refuse_constant(target: str, where: str) -> NoReturn:
    what = f"target: {shown(target)} has the same value in {where}, so there is nothing to learn"
    raise Refused(f"{what}; send rows that differ in it, or name another column as target")


def split(tables, columns: list[str], counts: list[np.ndarray], scratch, folder: Path) -> dict:
    """Deal the rows in `scratch` out to the two arrays, and describe them."""
    held_out = hold_out.choose(counts)
    shares = [int(count[held_out].sum()) for count in counts]
    hold_out_rows = sum(shares)
    training_rows = sum(int(count.sum()) for count in counts) - hold_out_rows
    if not training_rows:
        raise Refused("too few rows differ to hold some out; send more rows that differ")
    target = hold_out.write(scratch, len(columns), held_out, hold_out_rows, folder)
    if target["smallest"] == target["largest"]:
        refuse_constant(columns[-1], "each row that is not held out")
    regions = zip((table.csv.name for table in tables), shares, strict=True)
    return {
        "columns": columns[:-1],
        "target": columns[-1],
        "rows": training_rows,
        "hold_out_rows": hold_out_rows,
        "target_mean": float(target["mean"]),
        "regions": [{"file": file, "hold_out_rows": rows} for file, rows in regions],
    }
