"""What the page shows of the rows on `errors`, in memory that does not grow.

    rows, one by one ──▶ a histogram of the last errors, the rolling mean over time, which version
                         answered since when, rows per minute, some pairs of truth and prediction

Nothing here knows Flask or RabbitMQ. Ten million rows take as much memory as twenty thousand.
"""

import math
from collections import Counter, deque
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

ROLLING = 100  # rows in the rolling mean
IN_HISTOGRAM = 20_000  # rows, the last ones
BINS = 40
SHOWN = 0.995  # of the errors; a few huge ones would squeeze the rest into one bin
POINTS = 400  # of the line; when there are more, two become one
PAIRS = 400  # of truth and prediction
MARKS = 30
REMEMBERED = 2000  # ids: `errors` is told at least once, a crash of `metric` repeats a batch
AGAIN_SECONDS = 5  # a version that was away for longer has come back, and gets a mark


Name = Annotated[str, Meta(max_length=200)]
Value = Annotated[float, Meta(ge=-1e300, le=1e300)]  # beyond, sums and distances are infinite


class Row(msgspec.Struct):
    """A message on `errors`."""

    id: int | float | Name
    y_true: Value
    y_pred: Value
    absolute_error: Annotated[float, Meta(ge=0, le=1e300)]
    model_version: int | Name | None = None


class Line:
    """A value over time, in at most POINTS points whose distance doubles when they are too many."""

    def __init__(self):
        self.step, self.points = 1.0, {}  # beginning of a step in seconds: last value in it

    def add(self, at: float, value: float) -> None:
        self.points[at // self.step * self.step] = value
        while len(self.points) > POINTS:
            self.step *= 2
            self.points = {t // self.step * self.step: v for t, v in self.points.items()}


class Mark(msgspec.Struct):
    """Since when a version answers, how many rows, and with which mean absolute error."""

    at: float
    version: int | str | None
    rows: int = 0
    error: float = 0.0


class Rows:
    def __init__(self):
        self.count, self.at, self.version = 0, 0.0, None
        self.known, self.order = set(), deque()
        self.errors = np.zeros(IN_HISTOGRAM)
        self.rolling, self.line = deque(maxlen=ROLLING), Line()
        self.pairs = deque(maxlen=PAIRS)
        self.marks, self.seen = deque(maxlen=MARKS), {}  # version: when it answered last
        self.seconds = Counter()  # rows in each of the last seconds

    def take(self, row: Row, now: float, history: bool) -> None:
        """Count a row: one of the past at the time that its id tells, if it does, others now."""
        if not self.is_new(row.id):
            return
        at = time_in(row.id, now) if history else now
        self.at = max(self.at, at)  # halves come in any order, a line goes forward
        self.errors[self.count % IN_HISTOGRAM] = row.absolute_error
        self.count += 1
        self.rolling.append(row.absolute_error)
        self.line.add(self.at, self.error())
        self.pairs.append((row.y_true, row.y_pred))
        self.seconds[int(self.at)] += 1
        self.answered(row.model_version, row.absolute_error)

    def is_new(self, id) -> bool:
        id = str(id)
        if id in self.known:
            return False
        self.known.add(id)
        self.order.append(id)
        if len(self.order) > REMEMBERED:
            self.known.discard(self.order.popleft())
        return True

    def answered(self, version, error: float) -> None:
        """Put a mark where a version begins to answer, and count what it does from there on.

        Of two that take turns each gets one mark.
        """
        if self.seen.get(version, -math.inf) < self.at - AGAIN_SECONDS and version != self.version:
            self.marks.append(Mark(self.at, version))
        self.version = version
        self.seen[version] = self.at
        if len(self.seen) > MARKS:
            del self.seen[min(self.seen, key=self.seen.get)]
        for mark in reversed(self.marks):
            if mark.version == version:
                mark.rows += 1
                mark.error += (error - mark.error) / mark.rows
                break

    def error(self) -> float | None:
        """Return the mean absolute error of the last rows."""
        return sum(self.rolling) / len(self.rolling) if self.rolling else None

    def per_minute(self, now: float) -> int:
        self.seconds = Counter({s: n for s, n in self.seconds.items() if s > now - 60})
        return sum(self.seconds.values())

    def numbers(self, now: float) -> dict:
        told = {"rows": self.count, "per_minute": self.per_minute(now), "error": self.error()}
        return told | {"version": self.version, "rolling": len(self.rolling)}

    def charts(self) -> dict:
        """Return what is drawn: points as [x, y] lists, times in seconds since 1970."""
        return {
            "error": list(self.line.points.items()),
            "marks": list(self.marks),
            "histogram": self.histogram(),
            "pairs": list(self.pairs),
        }

    def histogram(self) -> dict:
        """Return counts of the last errors in equal bins from 0 to `top`; the rest lie beyond."""
        errors = self.errors[: min(self.count, IN_HISTOGRAM)]
        if not self.count:
            return {"top": 1, "counts": [], "beyond": 0}
        top = float(np.quantile(errors, SHOWN)) or 1.0
        counts, _ = np.histogram(errors, BINS, (0, top))
        return {"top": top, "counts": counts.tolist(), "beyond": int(len(errors) - counts.sum())}


def time_in(id, now: float) -> float:
    """Return the time that an id tells, as those of `features` do; `now` if it is no such time."""
    is_time = isinstance(id, float | int) and now - 30 * 86_400 < id <= now
    return float(id) if is_time else now
