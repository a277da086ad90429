"""The rows of train.npy for training and validation, one buffer at a time.

A file of any size comes in, batches of float32 in random order go out, without end, and no more
than BUFFER_BYTES of the file are in memory. The same seed gives the same batches.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BUFFER_BYTES = 16 * 2**20
MAX_RUNS = 10_000  # with more rows, neighbours stay together: reading single rows is slow
VALIDATION_SHARE = 0.15  # of the rows; they decide when to stop


class Dataset:
    """The rows of train.npy in two parts, `training` and `validation`.

    Both are arrays with the first row of each run: `run_length` rows that follow one another in the
    file and are read together. Up to MAX_RUNS rows a run is one row.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        self.count, self.width = np.load(path, mmap_mode="r").shape
        self.run_length = math.ceil(self.count / MAX_RUNS)
        self.runs_in_buffer = max(1, BUFFER_BYTES // (4 * self.width * self.run_length))
        starts = np.arange(0, self.count, self.run_length)
        runs = np.random.default_rng(seed).permutation(starts)
        held_out = min(max(1, round(len(runs) * VALIDATION_SHARE)), self.runs_in_buffer)
        self.validation, self.training = runs[:held_out], runs[held_out:]

    def read(self, runs: np.ndarray) -> np.ndarray:
        """Return the rows of `runs`: float32, (rows, columns + 1)."""
        parts, header = [], self.path.stat().st_size - 4 * self.count * self.width
        with self.path.open("rb") as file:  # a memmap would count as our memory, page by page
            for first in runs:
                file.seek(header + 4 * first * self.width)
                parts.append(np.fromfile(file, "float32", self.run_length * self.width))
        return np.concatenate(parts).reshape(-1, self.width)

    def buffers(self, runs: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the rows of `runs`, a buffer at a time."""
        for first in range(0, len(runs), self.runs_in_buffer):
            yield self.read(runs[first : first + self.runs_in_buffer])

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield training rows in random order, at most `size`: (rows, columns) and (rows, 1)."""
        generator = np.random.default_rng(self.seed + 1)  # its own, as Keras reads ahead
        while True:
            for rows in self.buffers(generator.permutation(self.training)):
                order = generator.permutation(len(rows))  # ten times faster than shuffling rows
                for first in range(0, len(rows), size):
                    batch = rows[order[first : first + size]]
                    yield batch[:, :-1], batch[:, -1:]

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each column: float64, (columns + 1,) each.

        A row is subtracted first: it is near the mean, so the sums of squares keep their digits.
        """
        shift = self.read(self.training[:1])[0].astype(float)
        count, total, squares = 0, np.zeros(self.width), np.zeros(self.width)
        for rows in self.buffers(self.training):
            shifted = rows - shift
            count, total = count + len(rows), total + shifted.sum(axis=0)
            squares = squares + np.square(shifted, out=shifted).sum(axis=0)
        deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
        return shift + total / count, deviation
