"""Split rows into those that train a model and those that judge it.

    scratch file of float32 rows ──▶ train.npy and hold_out.npy

The side of a row follows from a hash of its numbers and from nothing else: rows that are equal are
on the same side, whatever file they came in, and the same upload is always split the same way.
Hashes fall into buckets, which are counted for each file while it is read; then `choose` takes
buckets for the hold-out until each file has its share there, and `write` deals out the rows. All
memory is for buckets and one chunk. No row is checked: `prepare` refuses what cannot be split.
"""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pandas.util import hash_array

from retrain_api import disk

SHARE = 0.2  # of each file's rows, to be held out
BUCKETS = 2**16  # two rows that differ share one so rarely that it does not matter
CHUNK_CELLS = 2**17

FLOAT = np.dtype("<f4")
FILES = "train.npy", "hold_out.npy"


def buckets(rows: np.ndarray) -> np.ndarray:
    """Return the bucket of each row; `rows` has the shape (rows, columns) and holds no -0.0."""
    cells = hash_array(rows.ravel()).reshape(rows.shape)
    odd = 2 * np.arange(rows.shape[1], dtype=np.uint64) + 1  # a cell counts by its place, too
    return cells @ odd >> np.uint64(48)


def count(rows: np.ndarray) -> np.ndarray:
    """Return how many of the rows fall into each bucket."""
    return np.bincount(buckets(rows).astype(np.int64), minlength=BUCKETS).astype(np.uint32)


def choose(counts: list[np.ndarray]) -> np.ndarray:
    """Return for each bucket whether its rows are held out.

    `counts` has for each file the rows in each bucket. The lowest buckets that have rows of a file
    are taken until it has its share. A bucket that alone is more than the share, of whichever file,
    holds one row over and over: it stays in training, unless its file has nothing else.
    """
    heavy = np.zeros(BUCKETS, bool)
    for of_file in counts:
        heavy |= of_file > wanted(of_file)
    held_out = np.zeros(BUCKETS, bool)
    for of_file in counts:
        light = np.where(heavy, 0, of_file)
        if light.any():
            want = min(wanted(of_file), max(1, light.sum() // 2))
            last = np.searchsorted(np.cumsum(light), want)
            held_out[: last + 1] |= light[: last + 1] > 0
        else:
            held_out[np.argmin(np.where(of_file > 0, of_file, of_file.max() + 1))] = True
    return held_out


def wanted(of_file: np.ndarray) -> int:
    return max(1, round(SHARE * int(of_file.sum())))


def write(scratch: BinaryIO, columns: int, held_out: np.ndarray, rows: int, folder: Path) -> dict:
    """Deal out the rows in `scratch`, of which `rows` are held out, in the order they came.

    Return the smallest, the largest and the mean target (the last column) of the training rows.
    """
    size = scratch.seek(0, os.SEEK_END) // (columns * FLOAT.itemsize)
    scratch.seek(0)
    smallest, largest, total = np.inf, -np.inf, 0.0
    with open(folder / FILES[0], "wb") as train, open(folder / FILES[1], "wb") as hold_out:
        begin(train, size - rows, columns)
        begin(hold_out, rows, columns)
        while piece := scratch.read(max(1, CHUNK_CELLS // columns) * columns * FLOAT.itemsize):
            disk.check_room(folder, len(piece), disk.KEEP_FREE_BYTES)
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
    return {"smallest": smallest, "largest": largest, "mean": total / (size - rows)}


def begin(file: BinaryIO, rows: int, columns: int) -> None:
    header = {"descr": FLOAT.str, "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(file, header)
