"""Split rows into training and hold-out.

    scratch file of float32 rows ──▶ train.npy and hold_out.npy

The side of a row follows from a hash of its numbers and from nothing else: equal rows are on the
same side, whatever file they came in, and the same upload is always split the same way. Hashes fall
into buckets, which are counted for each file while it is read; then `choose` adds buckets to the
hold-out until each file has its share there, and `write` distributes the rows. The memory is that
of the buckets and of one chunk. No row is checked: `dataset` refuses rows that cannot be split.
"""

import os
from pathlib import Path
from typing import IO

import numpy as np
from pandas.util import hash_array

from retrain_api import settings
from retrain_api.storage.disk import check_room

SHARE = 0.2  # of the rows of each file, for the hold-out
BUCKETS = 1 << 16  # two different rows share a bucket so rarely that it does not matter
CHUNK_CELLS = 1 << 17

FLOAT = np.dtype("<f4")
FILES = "train.npy", "hold_out.npy"


def buckets(rows: np.ndarray) -> np.ndarray:
    """Return the bucket of each row; `rows` has the shape (rows, columns) and no -0.0."""
    cells = hash_array(rows.ravel()).reshape(rows.shape)
    odd = 2 * np.arange(rows.shape[1], dtype=np.uint64) + 1  # a cell counts by its column, too
    found: np.ndarray = cells @ odd >> np.uint64(48)
    return found


def count(rows: np.ndarray) -> np.ndarray:
    """Return how many of the rows fall into each bucket."""
    return np.bincount(buckets(rows).astype(np.int64), minlength=BUCKETS).astype(np.uint32)


def choose(counts: list[np.ndarray]) -> np.ndarray:
    """Return for each bucket whether its rows are held out.

    `counts` has for each file the rows in each bucket. The lowest buckets that have rows of a file
    are added until the file has its share. A bucket that alone exceeds the share of some file holds
    one row many times: it stays in training, unless its file has nothing else.
    """
    heavy = np.zeros(BUCKETS, bool)
    for of_file in counts:
        heavy |= of_file > share(of_file)
    held_out = np.zeros(BUCKETS, bool)
    for of_file in counts:
        light = np.where(heavy, 0, of_file)
        if light.any():
            rows = min(share(of_file), max(1, light.sum() // 2))
            last = np.searchsorted(np.cumsum(light), rows)
            held_out[: last + 1] |= light[: last + 1] > 0
        else:
            held_out[np.argmin(np.where(of_file > 0, of_file, of_file.max() + 1))] = True
    return held_out


def share(of_file: np.ndarray) -> int:
    """Return how many rows of a file are to be held out."""
    return max(1, round(SHARE * int(of_file.sum())))


def write(
    scratch: IO[bytes], columns: int, held_out: np.ndarray, hold_out_rows: int, folder: Path
) -> tuple[float, float, float]:
    """Write the rows in `scratch` to both arrays in their order, and sync these.

    Return the smallest, the largest and the mean target of the training rows.
    """
    rows = scratch.seek(0, os.SEEK_END) // (columns * FLOAT.itemsize)
    scratch.seek(0)
    smallest, largest, total = np.inf, -np.inf, 0.0
    with (folder / FILES[0]).open("wb") as train, (folder / FILES[1]).open("wb") as hold_out:
        write_header(train, rows - hold_out_rows, columns)
        write_header(hold_out, hold_out_rows, columns)
        while piece := scratch.read(max(1, CHUNK_CELLS // columns) * columns * FLOAT.itemsize):
            check_room(folder, len(piece), settings.MIN_FREE_BYTES)
            chunk = np.frombuffer(piece, FLOAT).reshape(-1, columns)
            side = held_out[buckets(chunk)]
            training = chunk.compress(~side, axis=0)
            hold_out.write(chunk.compress(side, axis=0).data)
            train.write(training.data)
            targets = training[:, -1].astype(float)
            smallest = targets.min(initial=smallest)
            largest = targets.max(initial=largest)
            total += targets.sum()
        for file in (train, hold_out):
            file.flush()
            os.fsync(file.fileno())
    return smallest, largest, float(total / (rows - hold_out_rows))


def write_header(file: IO[bytes], rows: int, columns: int) -> None:
    header = {"descr": FLOAT.str, "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(file, header)
