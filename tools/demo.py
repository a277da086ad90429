"""Tell what happens while a model rots and heals, and draw it when it is over.

    logs/metric_log.csv  id,y_true,y_pred,absolute_error       ──┐
    logs/drift_log.csv   at,event,id,version,job,text          ──┴▶ demo ──▶ lines, logs/demo.png

It only reads what the services write. It ends with code 0 when a new version has taken over and is
confirmed, and with 1 when that does not come in time; the picture shows what there is.

    make demo        # starts a system for it to watch
"""

import csv
import os
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

LOGS_DIR = Path(os.environ.get("LOGS_DIR", "logs"))
FEATURES_DRIFT_AFTER = int(os.environ.get("FEATURES_DRIFT_AFTER") or "400")  # rows
DEMO_SECONDS = int(os.environ.get("DEMO_SECONDS", "300"))  # then it is given up
ROLLING = 60  # rows over which an error is averaged
TELL_SECONDS = 5  # between two lines about the error
AFTERWARDS_SECONDS = 3

Row = tuple[float, float]  # Unix time, absolute error
COLOURS = {"drift": "#d62728", "job": "#ff7f0e", "deployed": "#2ca02c", "rolled back": "#9467bd"}


def records(file: Path) -> list[dict]:
    """Return the whole records of a CSV; [] if there is none yet."""
    text = file.read_text("utf-8", "replace") if file.exists() else ""
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def rows() -> list[Row]:
    """Return the rows so far; an id of `features` is the time when it was sent."""
    found = records(LOGS_DIR / "metric_log.csv")
    return sorted((float(row["id"]), float(row["absolute_error"])) for row in found)


def events() -> list[dict]:
    found = records(LOGS_DIR / "drift_log.csv")
    return [event | {"time": datetime.fromisoformat(event["at"]).timestamp()} for event in found]


def rolling(errors: list[float]) -> list[float]:
    """Return for each error the mean of it and those before it, ROLLING at most."""
    sums = [0.0, *accumulate(errors)]
    begins = [max(0, end - ROLLING) for end in range(1, len(sums))]
    return [(sums[end] - sums[begin]) / (end - begin) for end, begin in enumerate(begins, 1)]


def phases(rows: list[Row], events: list[dict]) -> dict[str, list[Row]]:
    """Return the rows before the change, before the new version, and after it."""
    taken_over = [event["time"] for event in events if event["event"] == "deployed"]
    healed = taken_over[-1] if taken_over else float("inf")
    changed = rows[FEATURES_DRIFT_AFTER:]
    return {
        "before": rows[:FEATURES_DRIFT_AFTER],
        "during": [row for row in changed if row[0] < healed],
        "after": [row for row in changed if row[0] >= healed],
    }


def is_over(events: list[dict]) -> bool:
    kinds = [event["event"] for event in events]
    return "deployed" in kinds and kinds[-1] == "confirmed"


def told() -> Iterator[str]:
    """Yield a line for whatever happens, until it is over or takes too long."""
    end, next_line, changed, seen = time.monotonic() + DEMO_SECONDS, 0.0, False, 0
    while time.monotonic() < end:
        sent, happened = rows(), events()
        if len(sent) > FEATURES_DRIFT_AFTER and not changed:
            changed = True
            yield f"row {FEATURES_DRIFT_AFTER}: the world has changed, and nobody was told"
        for event in happened[seen:]:
            yield f"{event['event']}: {event['text']}"
        seen = len(happened)
        if is_over(happened):
            return
        if sent and time.monotonic() > next_line:
            next_line = time.monotonic() + TELL_SECONDS
            error = fmean(error for _, error in sent[-ROLLING:])
            yield f"row {len(sent)}: the error of the last {ROLLING} rows is {error:.1f}"
        time.sleep(0.5)


def draw(rows: list[Row], events: list[dict], file: Path) -> None:
    begin = rows[0][0]
    seconds = [moment - begin for moment, _ in rows]
    errors = [error for _, error in rows]
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel="seconds", ylabel="absolute error")
    axes.scatter(seconds, errors, s=4, color="#c6dbef", label="one row")
    label = f"mean of the last {ROLLING} rows"
    axes.plot(seconds, rolling(errors), color="#08306b", linewidth=2, label=label)
    for name, part in phases(rows, events).items():
        if part:
            mean, left, right = fmean(e for _, e in part), part[0][0] - begin, part[-1][0] - begin
            axes.hlines(mean, left, right, colors="black", linestyles=":")
            axes.annotate(f"{name}: {mean:.1f}", ((left + right) / 2, 0.97), ha="center", va="top",
                          xycoords=("data", "axes fraction"), fontsize=13)  # fmt: skip
    mark(axes, rows, events)
    axes.set(xlim=(0, seconds[-1]), ylim=(0, None))
    figure.suptitle(
        "The world changes, the model rots, is noticed, learned and healed", fontsize=15
    )
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    fresh = file.with_name(f".{file.name}")
    figure.savefig(fresh, format="png")
    os.replace(fresh, file)


def mark(axes, rows: list[Row], events: list[dict]) -> None:
    """Draw what happened as lines, and the training as a band."""
    begin, shown = rows[0][0], set()
    if len(rows) > FEATURES_DRIFT_AFTER:
        changed = rows[FEATURES_DRIFT_AFTER][0] - begin
        axes.axvline(changed, color="black", linestyle="--", label="the world changes")
    for event in events:
        kind, moment = event["event"], event["time"] - begin
        if kind in COLOURS:
            label = None if kind in shown else kind
            axes.axvline(moment, color=COLOURS[kind], linewidth=2, label=label)
            shown.add(kind)
    moments = {event["event"]: event["time"] - begin for event in events}
    if moments.get("job", 0) < moments.get("deployed", 0):
        band = {"color": "#fdd0a2", "alpha": 0.5, "linewidth": 0, "label": "a new model is trained"}
        axes.axvspan(moments["job"], moments["deployed"], **band)


def main() -> None:
    began = time.monotonic()
    for line in told():
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"{minutes}:{seconds:02}  {line}", flush=True)
    time.sleep(AFTERWARDS_SECONDS)
    sent, happened = rows(), events()
    if not sent:
        raise SystemExit("No row came.")
    draw(sent, happened, LOGS_DIR / "demo.png")
    print()
    for name, part in phases(sent, happened).items():
        error = f"{fmean(e for _, e in part):6.1f}" if part else "     -"
        print(f"{name:7} mean absolute error {error} over {len(part)} rows")
    if not is_over(happened):
        raise SystemExit(f"It was not healed in {DEMO_SECONDS} s.")


if __name__ == "__main__":
    main()
