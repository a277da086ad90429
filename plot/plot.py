"""Draw the distribution of the absolute errors, and draw it again when there are new ones.

    logs/metric_log.csv  id,y_true,y_pred,absolute_error
        └──▶ plot ──▶ logs/error_distribution.png

Nothing is read twice: `plot` keeps its position in the CSV and a count for each bin of 0.1, so row
ten million costs what row ten did. A CSV that was deleted, replaced or cut is counted anew. A
picture is replaced in one step, and stays while the disk has no room for the next. Any other
failure ends the process, and the supervisor starts it again.

    python plot/plot.py        # needs no broker
"""

import io
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` is
from common import lifecycle
from common.files import replace_file
from plot.csv_reader import CsvReader
from plot.histogram import BINS, LAST, Histogram, axis_bins, bin_of

LOGS_DIR = Path(os.environ.get("LOGS_DIR", "logs"))
PLOT_INTERVAL_SECONDS = float(os.environ.get("PLOT_INTERVAL_SECONDS", "10"))
CSV, PNG = LOGS_DIR / "metric_log.csv", LOGS_DIR / "error_distribution.png"

log = logging.getLogger("plot")


def label_axes(axes: Axes, width: float) -> None:
    axes.set_xlabel("absolute error |y_true − y_pred|, in units of disease progression")
    axes.set_ylabel(f"rows in a bar of width {width:,g}")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def draw_statistics(axes: Axes, mean: float, median: float, p90: float, shown: int) -> None:
    """Draw statistics as lines on an axis of `shown` bins."""
    for name, value, decimals, style in (
        ("mean", mean, 2, "-"),
        ("median", median, 1, "--"),
        ("90th percentile", p90, 1, ":"),
    ):
        label = f"{name} {value:,.{decimals}f}" if value < LAST else f"{name} > {LAST:,.0f}"
        label += " (beyond the axis)" if value > shown / 10 else ""
        axes.axvline(value, label=label, linestyle=style, linewidth=2, color="#08306b")


def draw(histogram: Histogram, foreign: int) -> bytes:
    """Return a PNG of 1000 x 600 pixels; `foreign` is the number of lines that were skipped."""
    filled, cumulated = histogram.filled()
    shown, width = axis_bins(filled, cumulated)
    bins = histogram.bins[: min(shown, BINS - 1)]
    bars = np.arange(0, len(bins), width)
    heights = np.add.reduceat(bins, bars)
    figure = Figure(figsize=(10, 6), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlim=(0, shown / 10), ylim=(0, max(1, heights.max()) * 1.05))
    axes.bar(bars / 10, heights, width / 10, align="edge", color="#9ecae1", edgecolor="white")
    ranks = (-(-histogram.rows * percent // 100) for percent in (50, 90))  # rounded up
    median, p90 = (bin_of(rank, filled, cumulated) / 10 for rank in ranks)
    draw_statistics(axes, histogram.total / histogram.rows, median, p90, shown)
    label_axes(axes, width / 10)
    counts = {
        "rows": histogram.rows,
        "beyond the axis": histogram.rows - int(bins.sum()),
        "foreign lines skipped": foreign,
    }
    axes.set_title(",  ".join(f"{what}: {count:,}" for what, count in counts.items() if count))
    figure.suptitle("Absolute errors of the predictions", fontsize=15)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    png = io.BytesIO()
    figure.savefig(png)
    return png.getvalue()


def save(png: bytes) -> bool:
    """Replace the picture in one step. Return whether there was room for it."""
    try:
        replace_file(PNG, png)
    except OSError as error:
        log.warning("the picture stays as it was: %s", error)
        return False
    return True


def follow(reader: CsvReader) -> None:
    """Draw a CSV and what is appended to it, until it is cut, or another file has its name.

    Raise FileNotFoundError if it was deleted.
    """
    histogram, is_drawn = Histogram(), True
    log.info("counting %s from its first row", CSV)
    while not lifecycle.stop_requested() and reader.is_current(CSV):
        start = reader.offset
        for errors in reader.chunks():
            histogram.add(errors)
        if reader.offset > start:
            log.info("counted %d rows, skipped %d foreign lines", histogram.rows, reader.foreign)
            is_drawn = False
        if histogram.rows and not is_drawn:
            is_drawn = save(draw(histogram, reader.foreign))
        lifecycle.wait(PLOT_INTERVAL_SECONDS)


def serve() -> None:
    """Follow the CSV, and each one that replaces it, until a stop is requested."""
    while not lifecycle.stop_requested():
        lifecycle.report_liveness()
        try:
            with CSV.open("rb", buffering=0) as file:
                follow(CsvReader(file))
        except FileNotFoundError:  # not there yet, or deleted
            lifecycle.wait(PLOT_INTERVAL_SECONDS)


def main() -> None:
    lifecycle.start("matplotlib")
    log.info("started, a picture every %g s", PLOT_INTERVAL_SECONDS)
    with suppress(lifecycle.StopRequested):
        serve()
    log.info("stopped")


if __name__ == "__main__":
    main()
