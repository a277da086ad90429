"""Count errors in bins of 0.1: as much memory after 10 million rows as after 10."""

import math
from dataclasses import dataclass, field

import numpy as np

BINS = 1 << 22  # of 0.1; 32 MB, of which the system provides the pages that are written to
LAST = (BINS - 1) / 10  # the last bin holds all errors from 419,430.3 on


@dataclass
class Histogram:
    rows: int = 0
    total: float = 0.0  # sum of the errors
    bins: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, errors: list[float]) -> None:
        """Count errors: bin k holds those from k / 10 to below (k + 1) / 10."""
        # 10 times the float nearest to k / 10 is exactly k (Goldberg 1991, theorem 7: 10 = 2 + 8).
        # Division by 0.1 is not exact: 0.3 / 0.1 < 3.
        found = (np.minimum(errors, LAST) * 10).astype(np.int64)
        np.add.at(self.bins, found, 1)
        self.rows += len(errors)
        self.total += sum(errors)

    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bins that are not empty, and the number of errors in or below each."""
        filled = np.flatnonzero(self.bins)
        return filled, np.cumsum(self.bins[filled])


def bin_of(rank: int, filled: np.ndarray, cumulated: np.ndarray) -> int:
    """Return the bin of the error with this rank, from 1; see Histogram.filled."""
    return int(filled[np.searchsorted(cumulated, rank)])


def axis_bins(filled: np.ndarray, cumulated: np.ndarray) -> tuple[int, int]:
    """Return how many bins the axis shows, and how many of them make a bar: 24 to 60 bars.

    Errors far above the 90th percentile lie beyond the axis, or the other bars would be too thin
    to read. With few rows the limit is farther out: nine tenths of three rows are two.
    """
    rows = int(cumulated[-1])
    usual = bin_of(max(1, rows * 9 // 10), filled, cumulated)
    far = min(max(30, usual * (5 + 100 / rows)), BINS - 2)
    shown = max(30, 1.05 * (int(filled[filled <= far].max(initial=0)) + 1))
    widths = (step * 10**power for power in range(7) for step in (1, 2, 5))
    width = next(width for width in widths if shown <= 60 * width)
    return math.ceil(shown / width) * width, width
