"""Read uploaded CSVs, once, into float32 arrays for training and for the hold-out.

    [(shown name, binary file), …] ──▶ prepare ──▶ train.npy, hold_out.npy, and their description

The files have the same columns, in any order; each is a region. A file that is no table of numbers
raises InvalidDatasetError: one sentence with file, line and column that says what to send instead.
Memory does not grow with the files. After an error, nothing is left in the folder.

    python -c 'from retrain_api.ingest.dataset import prepare
    print(prepare([("a.csv", open("a.csv", "rb"))], "."))'
"""

from collections.abc import Iterable
from pathlib import Path
from typing import IO, NoReturn

import msgspec
import numpy as np

from retrain_api import settings
from retrain_api.errors import InvalidDatasetError
from retrain_api.ingest import split
from retrain_api.ingest.cells import quoted
from retrain_api.ingest.table import Table, clean_name, listed
from retrain_api.storage.disk import Spool

MAX_FILES = 100  # each needs 256 KiB for counts
MIN_ROWS = 20

Upload = tuple[str, IO[bytes]]  # the name to show, a seekable file


class HoldOutRegion(msgspec.Struct):
    """How many rows of hold_out.npy come from one file; they stand in the order of the files."""

    file: str
    hold_out_rows: int


class DatasetDescription(msgspec.Struct):
    """What job.json says of the arrays. `rows` and `target_mean` are of the training rows."""

    columns: list[str]
    target: str
    rows: int
    hold_out_rows: int
    target_mean: float
    regions: list[HoldOutRegion]


def choose_columns(tables: list[Table], target: str | None, ignore: Iterable[str]) -> list[str]:
    """Return the columns to use in the order of the first file, the target last."""
    names = tables[0].names
    ignored = {clean_name(name): None for name in ignore}  # in the order they were sent
    for name in ignored:
        if not any(name in table.places for table in tables):
            refuse(f"ignore: there is no column {quoted(name)}; choose of {listed(names)}")
    target = names[-1] if target is None else clean_name(target)
    if target not in names:
        refuse(f"target: there is no column {quoted(target)}; choose of {listed(names)}")
    if target in ignored:
        what = f"ignore: {quoted(target)} is the target, as the last column is if none is named"
        refuse(f"{what}; send another column as target")
    features = [name for name in names if name not in ignored and name != target]
    if not features:
        refuse(f"no column is left beside the target {quoted(target)}; ignore fewer")
    for table in tables[1:]:
        check_columns(tables[0], table, [*features, target], ignored)
    return [*features, target]


def refuse(sentence: str) -> NoReturn:
    raise InvalidDatasetError(sentence)


def check_columns(first: Table, table: Table, columns: list[str], ignored: Iterable[str]) -> None:
    """Refuse a table that has other columns than the first one."""
    known = {*columns, *ignored}
    missing = [name for name in columns if name not in table.places]
    unknown = [name for name in table.names if name not in known]
    what = [f"no column {listed(missing)}"] if missing else []
    what += [f"{first.name} has no column {listed(unknown)}"] if unknown else []
    if what:
        send = "send the same columns in each file, or name some in ignore"
        table.refuse(f"{', and '.join(what)}; {send}", table.line)


def prepare(
    files: list[Upload], folder: Path | str, target: str | None = None, ignore: Iterable[str] = ()
) -> DatasetDescription:
    """Write train.npy and hold_out.npy into `folder`, and describe them.

    The arrays are float32 of the shape (rows, columns), columns in the order of the first file, the
    target last; hold_out.npy has the rows of one file after those of the other. Raise
    InvalidDatasetError, and DiskFullError before the disk is full.
    """
    if not 0 < len(files) <= MAX_FILES:
        refuse(f"{len(files)} files; send at least one CSV and at most {MAX_FILES}")
    tables = [Table(name, file) for name, file in files]
    columns = choose_columns(tables, target, ignore)
    names, folder = [name for name, _ in files], Path(folder)
    try:
        with Spool(folder, settings.MIN_FREE_BYTES, None) as scratch:
            counts = read_rows(tables, columns, scratch)
            return split_rows(names, columns, counts, scratch, folder)
    except BaseException:
        for name in split.FILES:
            (folder / name).unlink(missing_ok=True)
        raise


def read_rows(tables: list[Table], columns: list[str], scratch: IO[bytes]) -> list[np.ndarray]:
    """Write all rows into `scratch`; return for each file how many rows each bucket has."""
    counts: list[np.ndarray] = []
    targets: set[float] = set()
    for table in tables:
        counts.append(np.zeros(split.BUCKETS, np.uint32))
        for rows in table.rows(columns):
            scratch.write(rows.data.cast("B"))
            counts[-1] += split.count(rows)
            targets |= {rows[:, -1].min(), rows[:, -1].max()}
            targets = {min(targets), max(targets)}
        if not counts[-1].any():
            table.refuse("a header and no rows; send rows, or leave this file out")
    total = sum(int(count.sum()) for count in counts)
    if total < MIN_ROWS:
        refuse(f"{total} rows in all; send at least {MIN_ROWS}")
    if len(targets) == 1:
        refuse_constant(columns[-1], "each row")
    return counts


def refuse_constant(target: str, where: str) -> NoReturn:
    what = f"target: {quoted(target)} has the same value in {where}, so there is nothing to learn"
    refuse(f"{what}; send rows that differ in it, or name another column as target")


def split_rows(
    names: list[str], columns: list[str], counts: list[np.ndarray], scratch: IO[bytes], folder: Path
) -> DatasetDescription:
    """Distribute the rows in `scratch` to the two arrays, and describe these."""
    held_out = split.choose(counts)
    shares = [int(count[held_out].sum()) for count in counts]
    rows = sum(int(count.sum()) for count in counts) - sum(shares)
    if not rows:
        refuse("too few rows differ to hold some out; send more rows that differ")
    smallest, largest, mean = split.write(scratch, len(columns), held_out, sum(shares), folder)
    if smallest == largest:
        refuse_constant(columns[-1], "each row that is not held out")
    regions = [HoldOutRegion(name, share) for name, share in zip(names, shares, strict=True)]
    return DatasetDescription(columns[:-1], columns[-1], rows, sum(shares), mean, regions)
