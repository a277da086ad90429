"""A disk that is full under `metric` or the API, for long or again and again."""

import random
import shutil
import threading
import time

import pytest

from tests.support.api import Api, epoch
from tests.support.csv_files import rows_of
from tests.support.environment import SOAK, small_disk_at
from tests.support.rows import message
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def small_disk(logs):
    with small_disk_at(logs, "40m"):
        yield logs


class Hog(threading.Thread):
    """Takes every byte that is free on a disk, also those that become free, while `full` is set."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.file, self.full, self.running = folder / "hog", threading.Event(), True
        self.start()

    def run(self):
        while self.running:
            if self.full.is_set():
                with self.file.open("ab", buffering=0) as file:
                    while self.full.is_set() and shutil.disk_usage(self.file).free:
                        try:
                            file.write(bytes(4096))
                        except OSError:
                            break
            else:
                self.file.unlink(missing_ok=True)
            time.sleep(0.02)

    def stop(self):
        self.full.clear()
        self.running = False
        self.join()
        self.file.unlink(missing_ok=True)


@pytest.mark.parametrize(("times", "seconds"), [("once", 120), ("again and again", 60)])
def test_a_full_disk_loses_nothing_and_metric_goes_on_when_there_is_room(
    broker, run, small_disk, figure, times, seconds
):
    chance = random.Random(seed := random.randrange(10**6))
    print("seed", seed)
    metric = run("metric", broker, supervised=True)
    wait_for(lambda: "started" in metric.said(), 60, "metric")
    hog, sent, end = Hog(small_disk), 0, time.monotonic() + seconds * SOAK
    try:
        while time.monotonic() < end:
            for queue in ("y_true", "y_pred"):
                broker.send(queue, [message(number, 1.5) for number in range(sent, sent + 20)])
            sent += 20
            hog.full.set()
            time.sleep(chance.uniform(0.5, 2))
            if times == "again and again" and chance.random() < 0.2:
                hog.full.clear()
                time.sleep(chance.uniform(0, 8))
        assert "the disk is full" in metric.said()
        assert times != "once" or len(rows_of(small_disk / "metric_log.csv")) < sent
    finally:
        hog.stop()
    path = small_disk / "metric_log.csv"
    wait_for(lambda: len(rows_of(path)) >= sent, 60, "every row, when there is room")
    assert sorted(int(row[0]) for row in rows_of(path)) == list(range(sent))
    assert broker.count("dead") == 0
    ends = f"metric ended {len(metric.codes)} times"
    figure(f"disk full {times} in {seconds * SOAK} s: {sent} rows, {ends}")


@pytest.fixture
def small_api(tmp_path, broker):
    (tmp_path / "small").mkdir()
    with (
        small_disk_at(tmp_path / "small", "20m") as folder,
        Api(folder, broker, MIN_FREE_BYTES=10**6) as api,
    ):
        hog = Hog(folder)
        try:
            yield api, hog
        finally:
            hog.stop()


def fill(api, hog) -> None:
    hog.full.set()
    wait_for(lambda: not shutil.disk_usage(api.data).free, 20, "a full disk")


def test_on_a_full_disk_the_api_reads_and_says_what_is_wrong_and_goes_on_when_there_is_room(
    small_api,
):
    api, hog = small_api
    running, queued, process = api.new_job(), api.new_job(), api.pid()
    api.claim(running)
    fill(api, hog)
    end = time.monotonic() + 5  # some turns of the scheduler
    while time.monotonic() < end:
        assert api.job(queued)["state"] == "queued" and api.get("/models/current").ok
        answers = [
            api.claim(queued),
            api.call("DELETE", f"/jobs/{queued}"),
            api.upload(),
            api.progress(running, 1, epochs=[epoch(1)], log="line\n" * 50_000),
            api.progress(running, 1, log="line\n" * 50_000),
        ]
        assert [answer.status_code for answer in answers] == [507] * 5
        assert all("free some" in answer.json()["error"] for answer in answers)
    assert api.get("/healthz").status_code == 503
    hog.full.clear()
    wait_for(lambda: api.claim(queued).ok, 30, "a claim")
    assert api.progress(running, 1, epochs=[epoch(2)], log="all").ok and api.pid() == process
    assert sorted(p.name for p in (api.data / "jobs" / running).iterdir()) == [
        "hold_out.npy",
        "log.txt",
        "train.npy",
    ]


def test_an_api_that_starts_on_a_full_disk_waits_for_room(small_api):
    api, hog = small_api
    job = api.new_job()
    api.process.stop()
    fill(api, hog)
    api.process.start()
    wait_for(lambda: "waiting for room" in api.process.said(), 30, "the API to say so")
    hog.full.clear()
    api.wait_until_up()
    assert api.job(job)["state"] == "queued"
