"""Rows for as long as it takes: each is in the CSV once, and the later ones cost no more memory.

A million of them in `make soak`.
"""

import csv
import itertools
import re
import statistics
import time

import pytest

from features import features
from tests.support.environment import SOAK
from tests.support.memory import memory
from tests.support.rows import data, message, shown, target
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

ROWS = 1_000_000 if SOAK > 1 else 60_000
SLOWEST = 500  # rows a second
SEED = "1"
PICTURES = 30  # after some twenty Matplotlib has what it needs
GROWTH = 1.02  # of a service's memory, from the third quarter of the run to the last, and PAGES
PAGES = 1.0  # MB


def warm_up(broker, plot) -> dict[str, tuple]:
    """Send one row for each of PICTURES; return {id: what the CSV has to show}."""
    ids = [f"warm {number}" for number in range(PICTURES)]
    for drawn, row_id in enumerate(ids):
        for queue in ("y_true", "y_pred"):
            broker.send(queue, [message(row_id, 1.0)])
        wait_for(lambda n=drawn: plot.said().count("counted") > n, 30, "a picture")
    return dict.fromkeys(ids, ("1.0", "1.00", "0.00"))


def watch(path, services: list) -> dict[str, list[float]]:
    """Wait until a CSV has all rows; return the MB that each service had in memory meanwhile."""
    measured = {service.name: [] for service in services}
    end, rows = time.monotonic() + 60 + ROWS / SLOWEST, -1  # the header is none
    with path.open("rb") as file:
        while (rows := rows + file.read().count(b"\n")) < PICTURES + ROWS:
            assert time.monotonic() < end, f"{rows} rows"
            for service in services:
                if now := memory(service.process.pid, "VmRSS"):  # features ends before the others
                    measured[service.name].append(now)
            time.sleep(0.1)
    return measured


def expected(sender) -> dict[str, tuple]:
    """Return {id: the numbers that the CSV has to show} of all that was sent."""
    said = "".join(re.findall(r"sent .*\n", sender.said()))
    known = {tuple(x): shown(x, y) for x, y in zip(data.tolist(), target.tolist(), strict=True)}
    drawn = itertools.islice(features.draw_rows(data, target, SEED), ROWS)
    ids = re.findall(r"\d{10}\.\d{6}", said)
    return {row_id: known[tuple(row.body)] for row_id, row in zip(ids, drawn, strict=True)}


def test_a_long_run_loses_no_row_and_costs_no_more_memory_at_its_end(broker, run, logs, figure):
    readers = [run(name, broker, PLOT_INTERVAL_SECONDS=0.5) for name in ("model", "metric", "plot")]
    wait_for(lambda: all(service.has_started() for service in readers), 60, "the services")
    path, left = logs / "metric_log.csv", warm_up(broker, readers[-1])
    start = time.monotonic()
    sender = run("features", broker, FEATURES_COUNT=ROWS, FEATURES_SEED=SEED)
    measured = watch(path, [sender, *readers])
    seconds = time.monotonic() - start
    assert sender.process.wait(60) == 0
    figure(f"long run: {ROWS:,} rows in {seconds:.0f} s, each once in the CSV")
    left |= expected(sender)
    with path.open(newline="") as file:
        for row_id, *numbers in itertools.islice(csv.reader(file), 1, None):
            assert left.pop(row_id) == tuple(numbers)  # a second one finds nothing
    assert not left and not broker.count("dead")
    drawn = f"counted {PICTURES + ROWS} rows, skipped 0"
    wait_for(lambda: drawn in readers[-1].said(), 60, "the picture of all rows")
    for name, samples in measured.items():
        check_flat(name, samples, figure)


def check_flat(name: str, samples: list[float], figure) -> None:
    quarter = len(samples) // 4
    third, last = samples[2 * quarter : 3 * quarter], samples[3 * quarter :]
    before, now = statistics.median(third), statistics.median(last)
    figure(f"long run: {name} {before:.1f} MB in the third quarter, {now:.1f} in the last")
    assert len(last) >= 10 and now <= GROWTH * before + PAGES, samples[:: max(1, quarter // 5)]
