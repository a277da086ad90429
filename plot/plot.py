"""Draw the distribution of the absolute errors, and draw it again when there are new ones.

    logs/metric_log.csv  id,y_true,y_pred,absolute_error
        └──▶ plot ──▶ logs/error_distribution.png

Nothing is read twice: `plot` remembers how far it has read and how many errors fell into each bin
of 0.1, so the ten millionth row costs what the tenth did. A torn record waits for its rest, a
foreign one is skipped and counted. A CSV that was deleted, replaced or cut is counted anew. A
picture is replaced in one step, and stays while there is no room for the next. Whatever else fails
ends the process, and its supervisor starts it again.

    python plot/plot.py        # wants no broker
"""

import csv
import faulthandler
import io
import logging
import math
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

LOGS_DIR = Path(os.environ.get("LOGS_DIR", "logs"))
PLOT_INTERVAL_SECONDS = float(os.environ.get("PLOT_INTERVAL_SECONDS", "10"))
WATCHDOG_SECONDS = int(os.environ.get("WATCHDOG_SECONDS", "60"))  # a turn may take this long
ALIVE_FILE = os.environ.get("ALIVE_FILE")  # touched each turn, for the container's healthcheck
TURN_SECONDS = 5  # the longest wait in a turn

CSV, PNG = LOGS_DIR / "metric_log.csv", LOGS_DIR / "error_distribution.png"
HEADER = b"id,y_true,y_pred,absolute_error\n"
# A record ends with its line, unless that begins with a quote: the id alone is ever quoted.
RECORD = re.compile(rb'(?:"(?:[^"]|"")*+"|(?!"))[^\n]*+\n')
LONGEST = 4096  # bytes: `metric` writes no record as long
PIECE = 1 << 18  # bytes read at once, some 6,000 rows
BINS = 1 << 22  # of 0.1; 32 MB, of which the system provides what is written to
LAST = (BINS - 1) / 10  # the last bin holds all errors from 419,430.3 on

log = logging.getLogger("plot")


@dataclass
class Counts:
    """What is remembered of the CSV: as much after 10 million rows as after 10."""

    offset: int = 0  # bytes used, up to the end of a record
    tail: bytes = b""  # the last of them
    rows: int = 0
    foreign: int = 0
    total: float = 0.0  # sum of the errors
    bins: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, errors: list[float]) -> None:
        """Count errors: bin k holds those from k / 10 to below (k + 1) / 10."""
        # 10 times the float nearest to k / 10 is exactly k (Goldberg 1991, theorem 7: 10 = 2 + 8).
        # Division by 0.1 is not so kind: 0.3 / 0.1 < 3.
        found = (np.minimum(errors, LAST) * 10).astype(np.int64)
        np.add.at(self.bins, found, 1)
        self.rows += len(errors)
        self.total += sum(errors)


def absolute_errors(text: str) -> list[float]:
    """Return the last field of each CSV record; raise ValueError or csv.Error if one is foreign."""
    errors = []
    for id, truth, prediction, error in csv.reader(io.StringIO(text, newline="\n"), strict=True):
        errors.append(float(error))
        finite = math.isfinite(float(truth) - float(prediction) + errors[-1])  # so all three are
        if errors[-1] < 0 or not finite or len(id) > LONGEST // 4:  # of 4 bytes a character
            raise ValueError("not a record of metric's")
    return errors


def take(piece: bytes) -> tuple[list[float], int, int]:
    """Return the errors in `piece`, the number of foreign lines, and how many bytes these took.

    What is left is a torn record. Of a record that is foreign only the first line is skipped: the
    others may be good ones, behind a quote that somebody opened and did not close.
    """
    lines = piece[: piece.rfind(b"\n") + 1]
    if lines and b'"' not in lines:  # each line is a record: all at once, unless one is foreign
        with suppress(ValueError, csv.Error):
            return absolute_errors(lines.decode()), 0, len(lines)
    errors, foreign, start = [], 0, 0
    while (record := RECORD.match(piece, start, start + LONGEST)) or len(piece) - start > LONGEST:
        try:
            [error] = absolute_errors(record[0].decode() if record else "")
        except (ValueError, csv.Error):
            if not (line := piece.find(b"\n", start) + 1):
                return errors, foreign, len(piece) - LONGEST - 1  # what stays is still too long
            foreign, start = foreign + 1, line
        else:
            errors.append(error)
            start = record.end()
    return errors, foreign, start


def bin_of(rank: int, filled: np.ndarray, reached: np.ndarray) -> int:
    """Return the bin of the error with this rank, from 1.

    `filled` are the bins that are not empty, `reached` is how many errors lie in or below each.
    """
    return int(filled[np.searchsorted(reached, rank)])


def extent(filled: np.ndarray, reached: np.ndarray) -> tuple[int, int]:
    """Return how many bins the axis shows, and how many of them make a bar: 24 to 60 bars.

    Errors far above nine tenths of all lie beyond the axis, or they would squash the picture.
    With few rows far is farther, and nine tenths of three are two.
    """
    rows = int(reached[-1])
    usual = bin_of(max(1, rows * 9 // 10), filled, reached)
    far = min(max(30, usual * (5 + 100 / rows)), BINS - 2)
    shown = max(30, 1.05 * (int(filled[filled <= far].max(initial=0)) + 1))
    widths = (step * 10**power for power in range(7) for step in (1, 2, 5))
    width = next(width for width in widths if shown <= 60 * width)
    return math.ceil(shown / width) * width, width


def label_axes(axes, width: float) -> None:
    axes.set_xlabel("absolute error |y_true − y_pred|, in units of disease progression")
    axes.set_ylabel(f"rows in a bar of width {width:,g}")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def picture(counts: Counts) -> bytes:
    """Return a PNG of 1000 x 600 pixels."""
    filled = np.flatnonzero(counts.bins)
    reached = np.cumsum(counts.bins[filled])
    shown, width = extent(filled, reached)
    seen = counts.bins[: min(shown, BINS - 1)]
    bars = np.arange(0, len(seen), width)
    heights = np.add.reduceat(seen, bars)
    figure = Figure(figsize=(10, 6), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlim=(0, shown / 10), ylim=(0, max(1, heights.max()) * 1.05))
    axes.bar(bars / 10, heights, width / 10, align="edge", color="#9ecae1", edgecolor="white")
    ranks = (-(-counts.rows * percent // 100) for percent in (50, 90))
    median, p90 = (bin_of(rank, filled, reached) / 10 for rank in ranks)
    for name, value, decimals, style in (
        ("mean", counts.total / counts.rows, 2, "-"),
        ("median", median, 1, "--"),
        ("90th percentile", p90, 1, ":"),
    ):
        label = f"{name} {value:,.{decimals}f}" if value < LAST else f"{name} > {LAST:,.0f}"
        label += " (beyond the axis)" if value > shown / 10 else ""
        axes.axvline(value, label=label, linestyle=style, linewidth=2, color="#08306b")
    label_axes(axes, width / 10)
    parts = ("rows", counts.rows), ("beyond the axis", counts.rows - int(seen.sum()))
    parts += (("foreign lines skipped", counts.foreign),)
    axes.set_title(",  ".join(f"{what}: {count:,}" for what, count in parts if count))
    figure.suptitle("Absolute errors of the predictions", fontsize=15)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    png = io.BytesIO()
    figure.savefig(png)
    return png.getvalue()


def alive() -> None:
    """Begin a turn: rearm the watchdog, and touch the file that the healthcheck looks at."""
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)  # unlike SIGALRM, as PID 1 too
    if ALIVE_FILE:
        Path(ALIVE_FILE).touch()


def wait(seconds: float) -> None:
    """Let `seconds` pass, a turn at a time."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        alive()
        time.sleep(min(left, TURN_SECONDS))


def same(file, counts: Counts) -> bool:
    """Is `file` still the CSV, and do the bytes that were read last still stand there?"""
    file.seek(counts.offset - len(counts.tail))
    stands = file.read(len(counts.tail)) == counts.tail
    return stands and os.path.samestat(CSV.stat(), os.fstat(file.fileno()))


def follow(file, counts: Counts) -> bool:
    """Count what has come, a piece at a time. Return whether there was anything."""
    begin = counts.offset
    while True:
        alive()
        file.seek(counts.offset)
        piece = file.read(PIECE)
        header = len(HEADER) if not counts.offset and piece.startswith(HEADER) else 0
        errors, foreign, used = take(piece[header:])
        counts.add(errors)
        counts.foreign += foreign
        counts.offset += header + used
        if header + used:
            counts.tail = piece[: header + used][-64:]
        if len(piece) < PIECE:  # not "until there is nothing": a fast writer would keep us here
            return counts.offset > begin


def save(png: bytes) -> bool:
    """Replace the picture in one step. Return whether there was room for it."""
    new = PNG.with_suffix(".tmp")  # what a killed process left there is written over
    try:
        with new.open("wb") as file:
            file.write(png)
            file.flush()
            os.fsync(file.fileno())
        new.replace(PNG)
    except OSError as error:
        log.warning("the picture stays as it was: %s", error)
        with suppress(OSError):
            new.unlink()
        return False
    return True


def watch(file) -> None:
    """Draw what stands in `file`, until it is cut, or another file is the CSV."""
    counts, drawn = Counts(), True
    log.info("counting %s from its first row", CSV)
    while same(file, counts):
        if follow(file, counts):
            log.info("counted %d rows, skipped %d foreign lines", counts.rows, counts.foreign)
            drawn = False
        if counts.rows and not drawn:
            drawn = save(picture(counts))
        wait(PLOT_INTERVAL_SECONDS)


def serve() -> None:
    while True:
        alive()
        try:
            with CSV.open("rb", buffering=0) as file:
                watch(file)
        except FileNotFoundError:  # not there yet, or deleted
            wait(PLOT_INTERVAL_SECONDS)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    log.info("started, a picture every %g s", PLOT_INTERVAL_SECONDS)
    with suppress(KeyboardInterrupt):
        serve()
    log.info("stopped")


if __name__ == "__main__":
    main()
