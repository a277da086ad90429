"""The plot: what it counts, what the picture says, and that neither CSV nor disk stops it."""

import csv
import importlib.util
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.environment import small_disk_at
from tests.support.waiting import wait_for

PLOT = Path(__file__).parent.parent / "plot" / "plot.py"
HEADER = "id,y_true,y_pred,absolute_error\n"
GOOD = "1765912012.233366,101.00,116.95,15.95\n"
ODD_IDS = [
    "a,b", 'a"b', '"', '""', "a\nb", "\n", "a\rb", "a\r\nb", "строка", "=1+2", "a\u2028b",
    "a\x85b", "a\0b", " ", "'", "1,2,3,4", f"x\n{GOOD}y", "я" * 255, '"' * 255, "\n" * 255, "-1",
]  # fmt: skip
FOREIGN = {
    "an empty line": b"\n",
    "a blank line": b"   \n",
    "one word": b"hello\n",
    "three fields": b"1,2,3\n",
    "five fields": b"1,2,3,1,1\n",
    "words for numbers": b"1,two,three,one\n",
    "an empty error": b"1,2,3,\n",
    "an empty truth": b"1,,3,1\n",
    "not a number": b"1,2,3,nan\n",
    "a truth that is not a number": b"1,nan,3,1\n",
    "infinity": b"1,2,3,inf\n",
    "an infinite prediction": b"1,2,-inf,1\n",
    "too large a number": b"1,2,3,1e999\n",
    "a negative error": b"1,2,3,-1\n",
    "the header again": HEADER.encode(),
    "bad UTF-8": b"\xff\xfe,2,3,1\n",
    "UTF-16": "1,2,3,1\n".encode("utf-16-le")[:-1],
    "other separators": b"1;2;3;1\n",
    "a bare carriage return": b"1,2\r,3,1\n",
    "text after a quote": b'"1"x,2,3,1\n',
    "an open quote": b'"1,2,3,1\n',
    "an open quote further on": b'1,2,"3,1\n',
    "an open quote after a closed one": b'"1",2,"3,1\n',
    "quotes that do not pair": b'"1",x","\n',
    "binary": bytes(set(range(256)) - {10}) + b"\n",
    "5,000 digits": b"1,2,3," + b"9" * 5000 + b"\n",
    "a long line": b"x" * 10_000 + b",2,3,1\n",
    "a line longer than a piece": b"x" * 1_000_000 + b",2,3,1\n",
    "a quoted line longer than a piece": b'"' + b"x," * 500_000 + b'",2,3,1\n',
    "a million quotes": b'"' * 1_000_001 + b"\n",
}


def load(name):
    path = PLOT.parent.parent / name / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.alive = lambda: None  # its watchdog would end the tests
    return module


plot = load("plot")


def count(data: bytes, step: int | None = None):
    """Count `data`, which arrives in one go or `step` bytes at a time."""
    counts = plot.Counts()
    for end in range(step, len(data) + step, step) if step else [len(data)]:
        plot.follow(io.BytesIO(data[:end]), counts)
    return counts


def counted(errors):
    counts = plot.Counts()
    counts.add(list(errors))
    return counts


def record(id: str, quoting=csv.QUOTE_NONNUMERIC) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerow([id, 1.0, 3.5, 2.5])
    return text.getvalue().encode()


def words(counts, monkeypatch) -> str:
    """Draw, and return the title and the legend."""
    figures = []

    class Kept(plot.Figure):
        def savefig(self, file):
            figures.append(self)
            super().savefig(file)

    monkeypatch.setattr(plot, "Figure", Kept)
    assert whole(plot.picture(counts))
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    return ", ".join([figures[0].axes[0].get_title(), *texts])


def whole(png: bytes) -> bool:
    image = Image.open(io.BytesIO(png))
    image.load()  # raises where the file ends early
    return image.size == (1000, 600) and png.endswith(b"IEND\xaeB`\x82")


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


class Logs:
    """A folder with a CSV, its picture, and a plot that runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.csv, self.png = folder / "metric_log.csv", folder / "error_distribution.png"
        self.log = folder / "plot.log"
        self.last = 0  # when the picture was drawn that a test has seen last
        self.processes = []

    def start(self):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits "ignored"
        env = os.environ | {"LOGS_DIR": str(self.folder), "PLOT_INTERVAL_SECONDS": "0.1"}
        with self.log.open("ab") as log:
            self.processes.append(subprocess.Popen([sys.executable, PLOT], env=env, stderr=log))
        return self.processes[-1]

    def append(self, text):
        with self.csv.open("ab") as file:
            file.write(text.encode())

    def says(self, pattern):
        return re.search(pattern, self.log.read_text())

    def draws(self, pattern, seconds=60):
        """Wait until the log says `pattern`, and for the picture after that."""
        until(lambda: self.says(pattern), seconds)
        until(lambda: self.drawn() > self.last)
        self.last = self.drawn()
        assert whole(self.png.read_bytes())

    def drawn(self):
        return self.png.stat().st_mtime_ns if self.png.exists() else 0


@pytest.fixture
def logs(tmp_path):
    logs = Logs(tmp_path)
    yield logs
    for process in logs.processes:
        process.kill()
        process.wait()


# What is counted


def test_each_tenth_begins_its_own_bin():
    counts = counted(float(f"{k / 10:.1f}") for k in range(200_000))
    assert counts.bins[:200_000].tolist() == [1] * 200_000


def test_two_decimals_fall_into_the_bin_of_their_first():
    counts = counted(float(f"{k / 100:.2f}") for k in range(200_000))
    assert counts.bins[:20_000].tolist() == [10] * 20_000


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize("quoting", [csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL])
@pytest.mark.parametrize("id", ODD_IDS, ids=range(len(ODD_IDS)))
def test_an_odd_id_is_one_row(id, quoting, step):
    counts = count(HEADER.encode() + record(id, quoting) + GOOD.encode(), step)
    assert (counts.rows, counts.foreign, counts.total) == (2, 0, 2.5 + 15.95)


@pytest.mark.parametrize("id", [id for id in ODD_IDS if not set(id) & set(',"\r\n')])
def test_an_odd_id_without_quotes_is_one_row(id):
    counts = count(f"{HEADER}{id},1.0,3.5,2.5\n{GOOD}".encode())
    assert (counts.rows, counts.foreign, counts.total) == (2, 0, 2.5 + 15.95)


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_line_costs_no_good_row(line):
    good = (GOOD + record("a\nb").decode() + GOOD).encode()
    counts = count(HEADER.encode() + good + line + good * 100)
    assert (counts.rows, counts.foreign) == (303, 1)


@pytest.mark.parametrize("line", [line for line in FOREIGN.values() if len(line) < 10_000])
def test_a_foreign_line_may_come_in_pieces(line):
    data = (HEADER + GOOD).encode() + line + GOOD.encode() * 150
    counts = count(data, step=7)
    assert (counts.rows, counts.foreign) == (151, 1)


def test_foreign_lines_without_an_end_are_not_kept():
    data = (HEADER + GOOD).encode() + b"x" * 3_000_000
    counts = count(data, step=500_000)
    assert counts.offset > 2_900_000 and counts.foreign == 0
    plot.follow(io.BytesIO(data + b",1,2,1\n" + GOOD.encode()), counts)
    assert (counts.rows, counts.foreign) == (2, 1)


@pytest.mark.parametrize("seed", range(20))
def test_it_does_not_matter_in_which_pieces_the_file_comes(seed):
    draw = random.Random(seed)
    short = [line for line in FOREIGN.values() if len(line) < 1000]
    kinds = [lambda: draw.choice(short), lambda: record(draw.choice(ODD_IDS)), GOOD.encode]
    data = b"".join(draw.choices(kinds, (1, 2, 6))[0]() for _ in range(300)) + GOOD.encode() * 200
    at_once = count(data)
    for counts in (count(data, step=1 + seed * 37), count(data, step=4096)):
        assert (counts.rows, counts.foreign) == (at_once.rows, at_once.foreign)
        assert (counts.bins == at_once.bins).all() and counts.offset == len(data)


@pytest.mark.parametrize("record", [GOOD.encode(), record("a\nb,c"), record('"\n"')])
def test_a_torn_record_waits_for_its_rest(record):
    for end in range(1, len(record)):
        counts = count(HEADER.encode() + record[:end])
        assert (counts.rows, counts.foreign, counts.offset) == (0, 0, len(HEADER))
        plot.follow(io.BytesIO(HEADER.encode() + record), counts)
        assert (counts.rows, counts.foreign) == (1, 0)


# What the picture says


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [1, 2, 3, 10, 442, 5001])
def test_median_and_p90_are_those_of_numpy_to_one_bin(rows, seed, monkeypatch):
    errors = np.abs(np.random.default_rng(seed).normal(0, 50, rows)).round(2)
    said = words(counted(errors.tolist()), monkeypatch)
    for name, percent in (("median", 50), ("90th percentile", 90)):
        exact = np.percentile(errors, percent, method="inverted_cdf")
        shown = float(re.search(rf"{name} ([\d.]+)", said)[1])
        assert shown <= exact < shown + 0.1 + 1e-9
    assert f"rows: {rows:,}" in said and f"mean {errors.mean():.2f}" in said


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        ([0.0] * 5, "rows: 5, mean 0.00, median 0.0, 90th percentile 0.0"),
        ([43.2] * 1000, "rows: 1,000, mean 43.20, median 43.2, 90th percentile 43.2"),
        ([3.2, 15.95, 80], "rows: 3, mean 33.05, median 15.9, 90th percentile 80.0"),
        (
            [10, 20, 1e9],
            "rows: 3,  beyond the axis: 1, mean > 419,430 (beyond the axis), median 20",
        ),
        ([30.0] * 400 + [1e6] * 3 + [1e300], "rows: 404,  beyond the axis: 4"),
        ([1e6, 1e9], "beyond the axis: 2"),
        ([1.7e308] * 3, "90th percentile > 419,430 (beyond the axis)"),
    ],
)
def test_outliers_and_equal_rows_are_said_in_words(errors, sentence, monkeypatch):
    assert sentence in words(counted(errors), monkeypatch)


def test_foreign_lines_are_said_on_the_picture(monkeypatch):
    counts = count((HEADER + GOOD + "x\n" * 1234).encode())
    assert "foreign lines skipped: 1,234" in words(counts, monkeypatch)


@pytest.mark.parametrize("largest", [0, 0.1, 1, 12, 130, 999, 40_000, 419_430])
def test_the_axis_has_nice_bars_and_not_too_many(largest):
    errors = np.linspace(0, largest, 1000)
    bins = counted(errors.tolist()).bins
    filled = np.flatnonzero(bins)
    shown, width = plot.extent(filled, np.cumsum(bins[filled]))
    assert 24 <= shown / width <= 60
    assert str(width).rstrip("0") in ("1", "2", "5")
    assert shown >= largest * 10


# How it lives


def test_it_waits_for_a_csv_and_for_its_first_row(logs):
    process = logs.start()
    until(lambda: logs.says("started"))
    logs.append("")
    until(lambda: logs.says("counting"))
    logs.append(HEADER)
    until(lambda: logs.says("counted 0 rows"))
    assert not logs.png.exists() and process.poll() is None
    logs.append(GOOD)
    logs.draws("counted 1 rows")


def test_a_torn_tail_and_foreign_lines_do_not_stop_it(logs):
    logs.append(HEADER + GOOD + GOOD[:20])
    logs.start()
    logs.draws("counted 1 rows")
    logs.append(GOOD[20:])
    logs.draws("counted 2 rows, skipped 0")
    logs.append('"never closed\n' + GOOD * 200)
    logs.draws("counted 202 rows, skipped 1")


def deleted(logs):
    logs.csv.unlink()
    time.sleep(0.5)
    logs.append(HEADER + GOOD * 5)


def replaced(logs):
    new = logs.folder / "new"
    new.write_text(HEADER + GOOD * 5)
    new.replace(logs.csv)


def cut(logs):
    logs.csv.write_text(HEADER)
    wait_for(lambda: logs.log.read_text().count("from its first row") == 2, 20, "plot to see it")
    logs.append(GOOD * 5)


def written_over(logs):
    with logs.csv.open("r+") as file:  # as long as before at every moment
        file.write(HEADER + GOOD[:-3] + "4\n" + GOOD[:-3] + "4\n" + GOOD * 3)


@pytest.mark.parametrize("change", [deleted, replaced, cut, written_over])
def test_a_csv_that_begins_anew_is_counted_anew(logs, change):
    logs.append(HEADER + GOOD * 2)
    process = logs.start()
    logs.draws("counted 2 rows")
    change(logs)
    logs.draws("counted 5 rows")
    assert len(re.findall("from its first row", logs.log.read_text())) >= 2
    assert process.poll() is None


def test_a_long_interval_is_waited_for_in_turns(monkeypatch):
    turns = []
    monkeypatch.setattr(plot, "alive", lambda: turns.append(time.monotonic()))
    monkeypatch.setattr(plot, "TURN_SECONDS", 0.01)
    plot.wait(0.5)
    assert len(turns) >= 5 and turns[-1] - turns[0] < 0.5


def test_a_restart_catches_up_and_an_interrupt_ends_with_0(logs):
    logs.append(HEADER + GOOD)
    first = logs.start()
    logs.draws("counted 1 rows")
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 0 and logs.says("stopped")
    logs.append(GOOD * 99)
    logs.start()
    logs.draws("counted 100 rows")


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk_at(disk, "512k"):
        yield disk


def test_a_full_disk_keeps_the_old_picture_until_there_is_room(small_disk, logs):
    logs.csv, logs.png = small_disk / logs.csv.name, small_disk / logs.png.name
    logs.append(HEADER + GOOD)
    logs.folder = small_disk
    process = logs.start()
    logs.draws("counted 1 rows")
    old, ballast = logs.png.read_bytes(), small_disk / "ballast"
    with pytest.raises(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    logs.append(GOOD)  # there is room in the last page
    until(lambda: logs.says("the picture stays as it was: .*No space left"))
    assert logs.png.read_bytes() == old and process.poll() is None
    ballast.unlink()
    until(lambda: logs.png.read_bytes() != old)
    assert whole(logs.png.read_bytes())
    until(lambda: not (small_disk / "error_distribution.tmp").exists())


SAVES = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("plot", {str(PLOT)!r})
plot = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plot)
pictures = []
for errors in ([1.0], [float(error) for error in range(300)]):
    counts = plot.Counts()
    counts.add(errors)
    pictures.append(plot.picture(counts))
while True:
    for png in pictures:
        assert plot.save(png)
"""


def saver(logs):
    env = os.environ | {"LOGS_DIR": str(logs.folder)}
    logs.processes.append(subprocess.Popen([sys.executable, "-c", SAVES], env=env))
    until(logs.png.exists)
    return logs.processes[-1]


def test_a_reader_never_sees_half_a_picture(logs):
    process = saver(logs)
    seen = set()
    while len(seen) < 300:
        assert whole(logs.png.read_bytes()) and process.poll() is None
        seen.add(logs.drawn())


def test_a_kill_in_the_middle_leaves_nothing_that_hurts(logs):
    for _ in range(4):
        logs.png.unlink(missing_ok=True)
        process = saver(logs)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.wait()
        assert whole(logs.png.read_bytes())
    logs.png.unlink()
    (logs.folder / "error_distribution.tmp").write_bytes(b"half a picture")
    logs.append(HEADER + GOOD)
    logs.start()
    logs.draws("counted 1 rows")
    assert not (logs.folder / "error_distribution.tmp").exists()


# What it costs


def rows(number: int) -> str:
    draw = random.Random(number)
    errors = (abs(draw.gauss(0, 50)) for _ in range(number))
    return "".join(
        f"{1765912012 + i / 100:.6f},0.00,{e:.2f},{e:.2f}\n" for i, e in enumerate(errors)
    )


def test_ten_million_rows_fit_into_150_megabytes(logs):
    logs.append(HEADER)
    part = rows(100_000)
    for _ in range(100):
        logs.append(part)
    process = logs.start()
    logs.draws("counted 10000000 rows, skipped 0", seconds=180)
    for more in range(1, 6):
        logs.append(GOOD)
        logs.draws(f"counted {10_000_000 + more} rows")
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 150_000


def test_one_more_row_costs_the_same_after_a_thousand_and_after_three_million(tmp_path):
    seconds = {}
    for parts in (1, 3000):
        data = HEADER + rows(1000) * parts
        path = tmp_path / f"{parts}.csv"
        path.write_text(data)
        counts, costs = plot.Counts(), []
        with path.open("rb", buffering=0) as file, path.open("a") as more:
            plot.follow(file, counts)
            for _ in range(9):
                print(GOOD, end="", file=more, flush=True)
                begin = time.perf_counter()
                assert plot.follow(file, counts) and plot.picture(counts)
                costs.append(time.perf_counter() - begin)
        assert counts.rows == parts * 1000 + 9
        seconds[parts] = min(costs)
    assert seconds[3000] < 2 * seconds[1]
