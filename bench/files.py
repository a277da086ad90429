"""What grows, and may cost nothing: a redraw and a start beside ten million rows.

python -m bench.files redraw CSV

That is in a process of its own, for its memory; it prints the seconds of a redraw, and VmHWM in MB.
"""

import os
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from bench.figure import Figure, at_most
from metric.store import Store
from tests.support.broker import InstalledBroker
from tests.support.environment import ROOT
from tests.support.memory import peak_memory
from tests.support.service import Service
from tests.support.waiting import wait_for

FEW, MANY, FINISHED = 1000, 10_000_000, 1_000_000
REDRAWS, RUNS, STARTS = 15, 3, 5
NEW = 10  # rows, between two pictures
HEADER = b"id,y_true,y_pred,absolute_error\n"


def record(number: int) -> str:
    return f"{1765912012 + number / 100:.6f},101.0,{number % 300}.25,{number % 200}.75\n"


def write(csv: Path, rows: int) -> None:
    with csv.open("wb") as file:
        file.write(HEADER)
        for first in range(0, rows, 100_000):
            last = min(rows, first + 100_000)
            file.write("".join(map(record, range(first, last))).encode())


def redraw(csv: Path) -> None:
    os.environ["LOGS_DIR"] = str(csv.parent)
    from plot import plot  # here, as it reads LOGS_DIR
    from plot.csv_reader import CsvReader
    from plot.histogram import Histogram

    histogram, took = Histogram(), []
    with csv.open("rb", buffering=0) as file, csv.open("ab") as more:
        reader = CsvReader(file)
        for errors in reader.chunks():
            histogram.add(errors)
        for _ in range(REDRAWS):
            more.write("".join(map(record, range(NEW))).encode())
            more.flush()
            start = time.perf_counter()
            for errors in reader.chunks():
                histogram.add(errors)
            assert plot.save(plot.draw(histogram, reader.foreign))
            took.append(time.perf_counter() - start)
    print(statistics.median(took), peak_memory(os.getpid()))


def redraw_of(csv: Path) -> tuple[float, float]:
    command = [sys.executable, "-m", "bench.files", "redraw", csv]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, memory = map(float, said.stdout.split())
    return seconds, memory


def plot_figures(few: Path, many: Path):
    runs = [(redraw_of(few), redraw_of(many)) for _ in range(RUNS)]  # in turns: a machine is noisy
    short, long = (min(run[side][0] for run in runs) for side in (0, 1))
    memory = max(run[1][1] for run in runs)
    note = f"{1000 * long:.0f} ms at {MANY:,} rows, {1000 * short:.0f} ms at {FEW:,}"
    yield Figure("redraw, many rows / few", long / short, at_most(1.2), note)
    yield Figure("redraw, VmHWM in MB", memory, at_most(150))


def keep_finished(folder: Path, rows: int, finished: int) -> None:
    """Make the database of `metric` as it is when the last of `rows` ids are still kept."""
    csv = folder / "metric_log.csv"
    whole = csv.rename(folder / "whole.csv")
    Store(folder, ballast_bytes=1).close()
    with closing(sqlite3.connect(folder / "metric.sqlite3")) as database, database:
        ids = (record(number).split(",")[0] for number in range(rows - finished, rows))
        done = ((row_id, 101.0, 1.0, 0, time.time()) for row_id in ids)
        database.executemany("INSERT INTO ids VALUES (?, ?, ?, ?, ?)", done)
        size = whole.stat().st_size
        database.execute("UPDATE state SET offset = ?, joined = ?", (size, rows))
    whole.replace(csv)


def start_of(folder: Path, broker) -> float:
    """Return the median seconds from the start of `metric` until it takes messages."""
    took = []
    for number in range(STARTS):
        environment = {"AMQP_URL": broker.url, "LOGS_DIR": str(folder)}
        start = time.monotonic()
        metric = Service("metric", folder / f"{number}.log", environment, supervised=False)
        wait_for(metric.has_started, 300, "metric")
        took.append(time.monotonic() - start)
        metric.stop()
    return statistics.median(took)


def metric_figures(few: Path, many: Path, broker):
    keep_finished(few.parent, FEW, FEW)
    keep_finished(many.parent, MANY, FINISHED)
    short, long = start_of(few.parent, broker), start_of(many.parent, broker)
    note = f"{long:.2f} s with {FINISHED:,} finished ids, {short:.2f} s with {FEW:,}"
    yield Figure("start of metric, many rows / few", long / short, at_most(2), note)


def figures(folder: Path):
    few, many = folder / "few/metric_log.csv", folder / "many/metric_log.csv"
    for csv, rows in ((few, FEW), (many, MANY)):
        csv.parent.mkdir()
        write(csv, rows)
    yield from plot_figures(few, many)
    (folder / "broker").mkdir()
    broker = InstalledBroker(folder / "broker")
    try:
        yield from metric_figures(few, many, broker)
    finally:
        broker.stop()


if __name__ == "__main__":
    redraw(Path(sys.argv[2]))
