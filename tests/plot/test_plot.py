"""`plot` as a process: neither the CSV nor the disk stops it, and it costs the same at any size."""

import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from common import lifecycle
from plot import plot
from plot.csv_reader import CsvReader
from plot.histogram import Histogram
from tests.support.environment import ROOT, small_disk_at
from tests.support.memory import peak_memory
from tests.support.waiting import wait_for

HEADER = "id,y_true,y_pred,absolute_error\n"
GOOD = "1765912012.233366,101.00,116.95,15.95\n"


@pytest.fixture(autouse=True)
def no_watchdog(monkeypatch):
    monkeypatch.setattr(lifecycle, "report_liveness", lambda: None)  # it would end the tests


def is_whole(png: bytes) -> bool:
    image = Image.open(io.BytesIO(png))
    image.load()  # raises where the file ends early
    return image.size == (1000, 600) and png.endswith(b"IEND\xaeB`\x82")


class Logs:
    """A folder with a CSV, its picture, and processes that draw it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.csv, self.png = folder / "metric_log.csv", folder / "error_distribution.png"
        self.log = folder / "plot.log"
        self.last = 0  # when the picture was drawn that a test has seen last
        self.processes = []

    def run(self, *command, **settings: str) -> subprocess.Popen:
        environment = os.environ | {"LOGS_DIR": str(self.folder), "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command], env=environment | settings, stderr=log
            )
        self.processes.append(process)
        return process

    def start(self, **settings: str) -> subprocess.Popen:
        settings = {"PLOT_INTERVAL_SECONDS": "0.1"} | settings
        return self.run(ROOT / "plot/plot.py", **settings)

    def append(self, text: str) -> None:
        with self.csv.open("ab") as file:
            file.write(text.encode())

    def says(self, pattern: str):
        return re.search(pattern, self.log.read_text())

    def wait_for_log(self, pattern: str, seconds: float = 60) -> None:
        wait_for(lambda: self.says(pattern), seconds, f"{pattern!r} in the log")

    def wait_for_picture(self, pattern: str, seconds: float = 60) -> None:
        """Wait until the log says `pattern`, and for the picture after that."""
        self.wait_for_log(pattern, seconds)
        wait_for(lambda: self.drawn() > self.last, 60, "the picture")
        self.last = self.drawn()
        assert is_whole(self.png.read_bytes())

    def drawn(self) -> int:
        return self.png.stat().st_mtime_ns if self.png.exists() else 0


@pytest.fixture
def logs(tmp_path):
    logs = Logs(tmp_path)
    yield logs
    for process in logs.processes:
        process.kill()
        process.wait()


# The life of the process


def test_plot_waits_for_a_csv_and_for_its_first_row(logs):
    process = logs.start()
    logs.wait_for_log("started")
    logs.append("")
    logs.wait_for_log("counting")
    logs.append(HEADER)
    logs.wait_for_log("counted 0 rows")
    assert not logs.png.exists() and process.poll() is None
    logs.append(GOOD)
    logs.wait_for_picture("counted 1 rows")


def test_a_torn_tail_and_foreign_lines_do_not_stop_it(logs):
    logs.append(HEADER + GOOD + GOOD[:20])
    logs.start()
    logs.wait_for_picture("counted 1 rows")
    logs.append(GOOD[20:])
    logs.wait_for_picture("counted 2 rows, skipped 0")
    logs.append('"never closed\n' + GOOD * 200)
    logs.wait_for_picture("counted 202 rows, skipped 1")


def delete(logs):
    logs.csv.unlink()
    time.sleep(0.5)
    logs.append(HEADER + GOOD * 5)


def replace(logs):
    new = logs.folder / "new"
    new.write_text(HEADER + GOOD * 5)
    new.replace(logs.csv)


def cut(logs):
    logs.csv.write_text(HEADER)
    wait_for(lambda: logs.log.read_text().count("from its first row") == 2, 20, "plot to see it")
    logs.append(GOOD * 5)


def write_over(logs):
    with logs.csv.open("r+") as file:  # as long as before at every moment
        file.write(HEADER + GOOD[:-3] + "4\n" + GOOD[:-3] + "4\n" + GOOD * 3)


@pytest.mark.slow
@pytest.mark.parametrize("change", [delete, replace, cut, write_over])
def test_a_csv_that_starts_anew_is_counted_anew(logs, change):
    logs.append(HEADER + GOOD * 2)
    process = logs.start()
    logs.wait_for_picture("counted 2 rows")
    change(logs)
    logs.wait_for_picture("counted 5 rows")
    assert len(re.findall("from its first row", logs.log.read_text())) >= 2
    assert process.poll() is None


@pytest.mark.slow
def test_a_long_interval_is_interrupted_for_the_healthcheck_and_for_a_stop(logs):
    alive = logs.folder / "alive"
    logs.append(HEADER + GOOD)
    process = logs.start(PLOT_INTERVAL_SECONDS="600", LIVENESS_FILE=str(alive))
    logs.wait_for_picture("counted 1 rows")
    for _ in range(3):
        alive.unlink(missing_ok=True)
        wait_for(alive.exists, 10, "the file of the healthcheck")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0 and logs.says("stopped")


@pytest.mark.slow
def test_a_restart_catches_up(logs):
    logs.append(HEADER + GOOD)
    first = logs.start()
    logs.wait_for_picture("counted 1 rows")
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 0 and logs.says("stopped")
    logs.append(GOOD * 99)
    logs.start()
    logs.wait_for_picture("counted 100 rows")


def test_a_stop_ends_the_counting_of_a_large_csv(logs):
    logs.append(HEADER)
    for _ in range(50):
        logs.append(GOOD * 100_000)
    process = logs.start()
    logs.wait_for_log("from its first row")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0 and logs.says("stopped") and not logs.says("counted")


def test_plot_needs_no_library_of_the_broker():
    code = "import sys; from plot import plot; print('pika' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout == b"False\n"


# Its picture


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk_at(disk, "512k"):
        yield disk


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_keeps_the_old_picture_until_there_is_room(small_disk, logs):
    logs.csv, logs.png = small_disk / logs.csv.name, small_disk / logs.png.name
    logs.append(HEADER + GOOD)
    logs.folder = small_disk
    process = logs.start()
    logs.wait_for_picture("counted 1 rows")
    old, filler = logs.png.read_bytes(), small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        fill(filler)
    logs.append(GOOD)  # there is room in the last page
    logs.wait_for_log("the picture stays as it was: .*No space left")
    assert logs.png.read_bytes() == old and process.poll() is None
    filler.unlink()
    wait_for(lambda: logs.png.read_bytes() != old, 60, "another picture")
    assert is_whole(logs.png.read_bytes())
    names = {"metric_log.csv", "error_distribution.png"}
    wait_for(lambda: {path.name for path in small_disk.iterdir()} == names, 60, "no other file")


SAVE = """
from plot import plot
pictures = []
for errors in ([1.0], [float(error) for error in range(300)]):
    histogram = plot.Histogram()
    histogram.add(errors)
    pictures.append(plot.draw(histogram, foreign=0))
while True:
    for png in pictures:
        assert plot.save(png)
"""


def start_saving(logs) -> subprocess.Popen:
    process = logs.run("-c", SAVE)
    wait_for(logs.png.exists, 60, "the first picture")
    return process


@pytest.mark.slow
def test_a_reader_never_sees_half_a_picture(logs):
    process = start_saving(logs)
    seen = set()
    while len(seen) < 300:
        assert is_whole(logs.png.read_bytes()) and process.poll() is None
        seen.add(logs.drawn())


@pytest.mark.slow
def test_a_kill_while_a_picture_is_saved_leaves_a_whole_one_and_no_obstacle(logs):
    for _ in range(4):
        logs.png.unlink(missing_ok=True)
        process = start_saving(logs)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.wait()
        assert is_whole(logs.png.read_bytes())
    logs.png.unlink()
    left_over = logs.png.with_name("error_distribution.png.new")
    left_over.write_bytes(b"half a picture")
    logs.append(HEADER + GOOD)
    logs.start()
    logs.wait_for_picture("counted 1 rows")
    assert not left_over.exists()


# Its cost


def random_rows(number: int) -> str:
    draw = random.Random(number)
    errors = (abs(draw.gauss(0, 50)) for _ in range(number))
    return "".join(
        f"{1765912012 + i / 100:.6f},0.00,{e:.2f},{e:.2f}\n" for i, e in enumerate(errors)
    )


@pytest.mark.slow
def test_ten_million_rows_fit_into_150_megabytes(logs):
    logs.append(HEADER)
    part = random_rows(100_000)
    for _ in range(100):
        logs.append(part)
    process = logs.start()
    logs.wait_for_picture("counted 10000000 rows, skipped 0", seconds=180)
    for more in range(1, 6):
        logs.append(GOOD)
        logs.wait_for_picture(f"counted {10_000_000 + more} rows")
    assert peak_memory(process.pid) < 150_000 / 1024


@pytest.mark.slow
def test_one_more_row_costs_the_same_after_a_thousand_and_after_three_million(tmp_path):
    seconds = {}
    for parts in (1, 3000):
        path = tmp_path / f"{parts}.csv"
        path.write_text(HEADER + random_rows(1000) * parts)
        histogram, costs = Histogram(), []
        with path.open("rb", buffering=0) as file, path.open("a") as more:
            reader = CsvReader(file)
            for _ in range(10):  # the first turn reads the whole file
                start = time.perf_counter()
                for errors in reader.chunks():
                    histogram.add(errors)
                assert plot.draw(histogram, reader.foreign)
                costs.append(time.perf_counter() - start)
                print(GOOD, end="", file=more, flush=True)
        assert histogram.rows == parts * 1000 + 9
        seconds[parts] = min(costs[1:])
    assert seconds[3000] < 2 * seconds[1]
