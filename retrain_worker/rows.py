"""The rows of train.npy for training and validation, a buffer at a time.

A file of any size comes in, batches of float32 in random order go out, without end, and no more
than BUFFER_BYTES of it are in memory. The same seed gives the same batches.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BUFFER_BYTES = 16 * 2**20
RUNS = 10_000  # beyond so many rows, neighbours stay together: reading one by one is slow
VALIDATION = 0.15  # the share of the rows that decides when to stop


class Rows:
    """The rows of train.npy in two parts, `training` and `validation`.

    Both are lists of the first rows of runs: `run` rows, one after another in the file, that are
    read together. Up to RUNS rows a run is one row.
    """

    def __init__(self, path: Path, seed: int):
        self.path, self.seed = path, seed
        self.count, self.width = np.load(path, mmap_mode="r").shape
        self.run = math.ceil(self.count / RUNS)
        self.at_once = max(1, BUFFER_BYTES // (4 * self.width * self.run))  # runs in a buffer
        runs = np.random.default_rng(seed).permutation(np.arange(0, self.count, self.run))
        held_back = min(max(1, round(len(runs) * VALIDATION)), self.at_once)
        self.validation, self.training = runs[:held_back], runs[held_back:]

    def read(self, runs: np.ndarray) -> np.ndarray:
        """Return the rows of `runs`: float32, (rows, columns + 1)."""
        parts, header = [], self.path.stat().st_size - 4 * self.count * self.width
        with self.path.open("rb") as file:  # a memmap would count as our memory, page by page
            for first in runs:
                file.seek(header + 4 * first * self.width)
                parts.append(np.fromfile(file, "float32", self.run * self.width))
        return np.concatenate(parts).reshape(-1, self.width)

    def buffers(self, runs: np.ndarray) -> Iterator[np.ndarray]:
        for first in range(0, len(runs), self.at_once):
            yield self.read(runs[first : first + self.at_once])

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield training rows in random order, at most `size`: (rows, columns) and (rows, 1)."""
        draw = np.random.default_rng(self.seed + 1)  # its own: Keras reads ahead
        while True:
            for rows in self.buffers(draw.permutation(self.training)):
                order = draw.permutation(len(rows))  # shuffling rows in place is ten times slower
                for first in range(0, len(rows), size):
                    batch = rows[order[first : first + size]]
                    yield batch[:, :-1], batch[:, -1:]

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each column: float64, (columns + 1,) each."""
        shift = self.read(self.training[:1])[0].astype(float)  # near the mean: the sums stay exact
        count, total, squares = 0, 0.0, 0.0
        for rows in self.buffers(self.training):
            rows = rows - shift
            count, total = count + len(rows), total + rows.sum(axis=0)
            squares = squares + np.square(rows, out=rows).sum(axis=0)
        spread = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
        return shift + total / count, spread
