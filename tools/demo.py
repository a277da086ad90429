"""Log what happens while the data change and the model is retrained, and draw it at the end.

    logs/metric_log.csv  id,y_true,y_pred,absolute_error       ──┐
    logs/drift_log.csv   at,event,id,version,job,text          ──┴▶ demo ──▶ lines, logs/demo.png

It only reads what the services write. The exit code is 0 when a new version is deployed and
confirmed, and 1 when that does not happen within DEMO_SECONDS; the picture shows what there is.

    make demo        # starts a system of its own for it
"""

import csv
import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` is
from common.files import replace_file
from common.messages import RENAMED_EVENTS

LOGS_DIR = Path(os.environ.get("LOGS_DIR", "logs"))
FEATURES_DRIFT_AFTER = int(os.environ.get("FEATURES_DRIFT_AFTER") or "400")  # rows
DEMO_SECONDS = int(os.environ.get("DEMO_SECONDS", "300"))  # then it has failed
ROLLING_ROWS = 60  # over which an error is averaged
LINE_SECONDS = 5  # between two lines about the error
POLL_SECONDS = 0.5
AFTERWARDS_SECONDS = 3  # of rows of the new version, for the picture

COLOURS = {
    "drift_detected": "#d62728",
    "job_submitted": "#ff7f0e",
    "deployed": "#2ca02c",
    "rolled_back": "#9467bd",
}


class Row(NamedTuple):
    time: float  # Unix time
    error: float


class Event(NamedTuple):
    time: float  # Unix time
    name: str
    text: str


def records(path: Path) -> list[dict[str, str]]:
    """Return the whole records of a CSV; [] if there is none yet."""
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def read_rows() -> list[Row]:
    """Return the rows so far, by time: an id of `features` is the time when it was sent."""
    found = records(LOGS_DIR / "metric_log.csv")
    return sorted(Row(float(row["id"]), float(row["absolute_error"])) for row in found)


def read_events() -> list[Event]:
    """Return the events so far under their present names."""
    return [
        Event(
            datetime.fromisoformat(record["at"]).timestamp(),
            RENAMED_EVENTS.get(record["event"], record["event"]),
            record["text"],
        )
        for record in records(LOGS_DIR / "drift_log.csv")
    ]


def mean_error(rows: list[Row]) -> float:
    return fmean(row.error for row in rows)


def rolling_mean(errors: Sequence[float]) -> list[float]:
    """Return for each error the mean of it and those before it, ROLLING_ROWS at most."""
    sums = [0.0, *accumulate(errors)]
    starts = [max(0, end - ROLLING_ROWS) for end in range(1, len(sums))]
    return [(sums[end] - sums[start]) / (end - start) for end, start in enumerate(starts, 1)]


def phases(rows: list[Row], events: list[Event]) -> dict[str, list[Row]]:
    """Return the rows before the change, before the new version, and after it."""
    deployments = [event.time for event in events if event.name == "deployed"]
    deployed = deployments[-1] if deployments else float("inf")
    changed = rows[FEATURES_DRIFT_AFTER:]
    return {
        "before": rows[:FEATURES_DRIFT_AFTER],
        "during": [row for row in changed if row.time < deployed],
        "after": [row for row in changed if row.time >= deployed],
    }


def is_complete(events: list[Event]) -> bool:
    names = [event.name for event in events]
    return "deployed" in names and names[-1] == "confirmed"


def progress() -> Iterator[str]:
    """Yield a line for each event, and for the error, until it is complete or DEMO_SECONDS over."""
    end, next_line, is_changed, seen = time.monotonic() + DEMO_SECONDS, 0.0, False, 0
    while time.monotonic() < end:
        rows, events = read_rows(), read_events()
        if len(rows) > FEATURES_DRIFT_AFTER and not is_changed:
            is_changed = True
            yield f"row {FEATURES_DRIFT_AFTER}: the target is mirrored from here on"
        for event in events[seen:]:
            yield f"{event.name}: {event.text}"
        seen = len(events)
        if is_complete(events):
            return
        if rows and time.monotonic() > next_line:
            next_line = time.monotonic() + LINE_SECONDS
            error = mean_error(rows[-ROLLING_ROWS:])
            yield f"row {len(rows)}: the mean error of the last {ROLLING_ROWS} rows is {error:.1f}"
        time.sleep(POLL_SECONDS)


def draw(rows: list[Row], events: list[Event]) -> bytes:
    """Return a PNG of 1200 x 600 pixels: the errors, and what happened."""
    start = rows[0].time
    rows = [row._replace(time=row.time - start) for row in rows]
    events = [event._replace(time=event.time - start) for event in events]
    seconds, errors = zip(*rows, strict=True)
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel="seconds", ylabel="absolute error")
    axes.scatter(seconds, errors, s=4, color="#c6dbef", label="one row")
    label = f"mean of the last {ROLLING_ROWS} rows"
    axes.plot(seconds, rolling_mean(errors), color="#08306b", linewidth=2, label=label)
    draw_phases(axes, rows, events)
    draw_events(axes, rows, events)
    axes.set(xlim=(0, seconds[-1]), ylim=(0, None))
    figure.suptitle("The data change, drift is detected, a new version takes over", fontsize=15)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def draw_phases(axes: Axes, rows: list[Row], events: list[Event]) -> None:
    """Draw the mean error of each phase."""
    for name, part in phases(rows, events).items():
        if part:
            mean, left, right = mean_error(part), part[0].time, part[-1].time
            axes.hlines(mean, left, right, colors="black", linestyles=":")
            place, system = ((left + right) / 2, 0.97), ("data", "axes fraction")
            text = f"{name}: {mean:.1f}"
            axes.annotate(text, place, ha="center", va="top", xycoords=system, fontsize=13)


def draw_events(axes: Axes, rows: list[Row], events: list[Event]) -> None:
    """Draw events as lines, and the training as a band."""
    if len(rows) > FEATURES_DRIFT_AFTER:
        changed = rows[FEATURES_DRIFT_AFTER].time
        axes.axvline(changed, color="black", linestyle="--", label="the data change")
    for name, colour in COLOURS.items():
        moments = [event.time for event in events if event.name == name]
        for number, moment in enumerate(moments):
            axes.axvline(moment, color=colour, linewidth=2, label=None if number else name)
    last = {event.name: event.time for event in events}
    training = last.get("job_submitted", 0.0), last.get("deployed", 0.0)
    if 0 < training[0] < training[1]:
        axes.axvspan(*training, color="#fdd0a2", alpha=0.5, linewidth=0, label="training")


def main() -> None:
    started = time.monotonic()
    for line in progress():
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        print(f"{minutes}:{seconds:02}  {line}", flush=True)
    time.sleep(AFTERWARDS_SECONDS)
    rows, events = read_rows(), read_events()
    if not rows:
        raise SystemExit("No row came.")
    replace_file(LOGS_DIR / "demo.png", draw(rows, events))
    print()
    for name, part in phases(rows, events).items():
        error = f"{mean_error(part):6.1f}" if part else "     -"
        print(f"{name:7} mean absolute error {error} over {len(part)} rows")
    if not is_complete(events):
        raise SystemExit(f"No new version was confirmed within {DEMO_SECONDS} s.")


if __name__ == "__main__":
    main()
