"""Statistics of the rows on `errors`, in bounded memory.

    rows, one by one ──▶ a histogram of the last errors, the rolling mean over time, which version
                         answers since when, rows per minute, some pairs of truth and prediction

Nothing here knows Flask or RabbitMQ. Ten million rows need as much memory as twenty thousand.
"""

import math
from collections import Counter, deque
from typing import Any

import msgspec
import numpy as np

from common.messages import Id, JoinedRow, Version

ROLLING_ROWS = 100  # in the rolling mean
HISTOGRAM_ROWS = 20_000  # the last ones
BINS = 40
SHOWN_SHARE = 0.995  # of the errors; a few huge ones would squeeze the rest into one bin
MAX_POINTS = 400  # of the line; with more, two become one
MAX_PAIRS = 400  # of truth and prediction
MAX_MARKS = 30
MAX_KNOWN_IDS = 2000  # rows come at least once: a crash of `metric` repeats a batch
RETURN_SECONDS = 5  # a version that was absent for longer gets a new mark
MAX_AGE_SECONDS = 30 * 86_400  # of a time in an id


class Line:
    """A value over time, in at most MAX_POINTS points; their distance doubles when necessary."""

    def __init__(self) -> None:
        self.step = 1.0  # seconds
        self.points: dict[float, float] = {}  # beginning of a step: the last value in it

    def add(self, at: float, value: float) -> None:
        self.points[at // self.step * self.step] = value
        while len(self.points) > MAX_POINTS:
            self.step *= 2
            self.points = {t // self.step * self.step: v for t, v in self.points.items()}


class Mark(msgspec.Struct):
    """The time from which a version answers, its rows, and their mean absolute error."""

    at: float
    version: Version
    rows: int = 0
    error: float = 0.0


class RowStatistics:
    def __init__(self) -> None:
        self.count, self.at = 0, 0.0
        self.version: Version = None
        self.known_ids: set[str] = set()
        self.id_order: deque[str] = deque()
        self.errors = np.zeros(HISTOGRAM_ROWS)
        self.rolling: deque[float] = deque(maxlen=ROLLING_ROWS)
        self.line = Line()
        self.pairs: deque[tuple[float, float]] = deque(maxlen=MAX_PAIRS)
        self.marks: deque[Mark] = deque(maxlen=MAX_MARKS)
        self.last_answers: dict[Version, float] = {}
        self.seconds: Counter[int] = Counter()  # rows in each of the last seconds

    def add(self, row: JoinedRow, now: float, is_past: bool) -> None:
        """Count a row: one of the past at the time in its id, if there is one, others now."""
        if not self.is_new(row.id):
            return
        at = time_of(row.id, now) if is_past else now
        self.at = max(self.at, at)  # rows come in any order, the line goes forward
        self.errors[self.count % HISTOGRAM_ROWS] = row.absolute_error
        self.count += 1
        self.rolling.append(row.absolute_error)
        self.line.add(self.at, self.error() or 0.0)
        self.pairs.append((row.y_true, row.y_pred))
        self.seconds[int(self.at)] += 1
        self.count_answer(row.model_version, row.absolute_error)

    def is_new(self, row_id: Id) -> bool:
        key = str(row_id)
        if key in self.known_ids:
            return False
        self.known_ids.add(key)
        self.id_order.append(key)
        if len(self.id_order) > MAX_KNOWN_IDS:
            self.known_ids.discard(self.id_order.popleft())
        return True

    def count_answer(self, version: Version, error: float) -> None:
        """Add a mark where a version starts to answer, and count its rows from there on.

        Two versions that answer in turns get one mark each.
        """
        is_back = self.last_answers.get(version, -math.inf) < self.at - RETURN_SECONDS
        if is_back and version != self.version:
            self.marks.append(Mark(self.at, version))
        self.version = version
        self.last_answers[version] = self.at
        if len(self.last_answers) > MAX_MARKS:
            del self.last_answers[min(self.last_answers, key=self.last_answers.__getitem__)]
        for mark in reversed(self.marks):
            if mark.version == version:
                mark.rows += 1
                mark.error += (error - mark.error) / mark.rows
                break

    def error(self) -> float | None:
        """Return the mean absolute error of the last rows."""
        return sum(self.rolling) / len(self.rolling) if self.rolling else None

    def numbers(self, now: float) -> dict[str, Any]:
        self.seconds = Counter({s: n for s, n in self.seconds.items() if s > now - 60})
        return {
            "rows": self.count,
            "per_minute": self.seconds.total(),
            "error": self.error(),
            "version": self.version,
            "rolling": len(self.rolling),
        }

    def charts(self) -> dict[str, Any]:
        """Return what is drawn: points as [x, y] lists, times in seconds since 1970."""
        return {
            "error": list(self.line.points.items()),
            "marks": list(self.marks),
            "histogram": self.histogram(),
            "pairs": list(self.pairs),
        }

    def histogram(self) -> dict[str, Any]:
        """Return counts of the last errors in equal bins from 0 to `top`; `beyond` are larger."""
        errors = self.errors[: min(self.count, HISTOGRAM_ROWS)]
        if not self.count:
            return {"top": 1, "counts": [], "beyond": 0}
        top = float(np.quantile(errors, SHOWN_SHARE)) or 1.0
        counts, _ = np.histogram(errors, BINS, (0, top))
        return {"top": top, "counts": counts.tolist(), "beyond": int(len(errors) - counts.sum())}


def time_of(row_id: Id, now: float) -> float:
    """Return the time in an id of `features`; `now` if the id is no such time."""
    is_time = isinstance(row_id, float | int) and now - MAX_AGE_SECONDS < row_id <= now
    return float(row_id) if is_time else now
