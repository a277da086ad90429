"""The stream: rows a second, milliseconds a row, and what it costs to exchange the model.

Speeds are compared with something that is measured right beside them, on the same broker. The
milliseconds of one row and of a swap are this machine's; beside them stands what they come from.
"""

import itertools
import re
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from bench.figure import Figure, at_least, at_most
from tests.support.api import Api, result_files
from tests.support.broker import InstalledBroker
from tests.support.csv_files import rows_of
from tests.support.environment import ROOT
from tests.support.networks import networks
from tests.support.service import Service
from tests.support.waiting import wait_for

ROWS, SLOW_ROWS, SINGLE_ROWS = 30_000, 3_000, 300
PAIRS = 3  # of measurements that are compared; the median counts
SWAPS = 10


class Follower(threading.Thread):
    """Notes, about every millisecond, how many rows a CSV has by now."""

    def __init__(self, csv: Path):
        super().__init__(daemon=True)
        self.csv, self.seen, self.following = csv, [], True
        self.start()

    def run(self) -> None:
        wait_for(self.csv.exists, 60, "the CSV")
        with self.csv.open("rb") as file:
            rows = -1  # the header is none
            while self.following:
                if new := file.read().count(b"\n"):
                    rows += new
                    self.seen.append((time.monotonic(), rows))
                time.sleep(0.001)

    def wait_for(self, rows: int) -> None:
        wait_for(lambda: self.seen and self.seen[-1][1] >= rows, 300, f"{rows} rows")

    def speed(self) -> float:
        """Return rows a second, from the first that came to the last."""
        (start, first), (end, last) = next(s for s in self.seen if s[1]), self.seen[-1]
        return (last - first) / (end - start)

    def longest_gap(self) -> float:
        """Return seconds."""
        times = [moment for moment, rows in self.seen if rows]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def stop(self) -> None:
        self.following = False
        self.join()


@contextmanager
def services(broker, folder: Path, **settings):
    """Yield a function that starts `features`; model and metric run, and their CSV is followed."""
    folder.mkdir()
    environment = {"AMQP_URL": broker.url, "LOGS_DIR": str(folder), "API_URL": ""}
    environment |= {"MODEL_CACHE": str(folder / "cache"), "FEATURES_DELAY_SECONDS": "0"}
    environment |= settings
    started = []

    def start(name: str, **more) -> Service:
        log = folder / f"{name}.log"
        started.append(Service(name, log, environment | more, supervised=False))
        return started[-1]

    try:
        for name in ("model", "metric"):
            wait_for(start(name).has_started, 60, name)
        start.follower = Follower(folder / "metric_log.csv")
        yield start
        start.follower.stop()
    finally:
        for service in reversed(started):
            service.end()
    broker.delete_queues()


def speed_of_services(broker, folder: Path, rows: int, **settings) -> float:
    """Return rows a second from `features` to a synced CSV row; each has to be there once."""
    with services(broker, folder, **settings) as start:
        features = start("features", FEATURES_COUNT=str(rows))
        start.follower.wait_for(rows)
        assert features.process.wait(60) == 0
        assert len({row[0] for row in rows_of(folder / "metric_log.csv")}) == rows
        return start.follower.speed()


def speed_of_relay(broker, rows: int) -> float:
    running = {}
    for role in ("sink", "middle", "source"):
        command = [sys.executable, ROOT / "bench/relay.py", role, broker.url, str(rows)]
        running[role] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert running[role].stdout.readline() == "ready\n"
    seconds, moved = map(float, running["sink"].communicate(timeout=300)[0].split())
    for process in running.values():
        process.wait(30)
    return moved / seconds


def speed(broker, folder: Path):
    ratios, ours = [], []
    for number in range(PAIRS):
        relay = speed_of_relay(broker, ROWS)
        ours.append(speed_of_services(broker, folder / f"full-{number}", ROWS))
        ratios.append(ours[-1] / relay)
    one = speed_of_services(broker, folder / "ones", SLOW_ROWS, BATCH_SIZE="1")
    full = statistics.median(ours)
    note = f"{full:,.0f} rows/s; the relay {full / statistics.median(ratios):,.0f}"
    yield Figure("stream / relay", statistics.median(ratios), at_least(1.3), note)
    yield Figure("stream / batches of one", full / one, at_least(8), f"{one:,.0f} rows/s")


def delay(broker, folder: Path):
    """One row at a time: from its id, which is the time when it was sent, to the CSV."""
    with services(broker, folder / "single") as start:
        start("features", FEATURES_DELAY_SECONDS="0.02", FEATURES_COUNT=str(SINGLE_ROWS))
        start.follower.wait_for(SINGLE_ROWS)
        offset = time.time() - time.monotonic()
        ids = [float(row[0]) for row in rows_of(folder / "single/metric_log.csv")]
    moments = arrivals(start.follower.seen)
    delays = sorted(
        1000 * (moment + offset - sent) for moment, sent in zip(moments, ids, strict=True)
    )
    p99 = delays[int(len(delays) * 0.99)]
    trip = round_trip(broker)
    note = f"median {statistics.median(delays):.1f} ms; a round trip through one queue {trip:.1f}"
    yield Figure("one row, p99 in ms", p99, at_most(50), note)


def arrivals(seen: list[tuple[float, int]]) -> list[float]:
    """Return for each row when it was first seen."""
    moments, before = [], 0
    for moment, rows in seen:
        moments += [moment] * (rows - max(before, 0))
        before = rows
    return moments


def round_trip(broker) -> float:
    """Return the median milliseconds from publishing on a quorum queue to the delivery."""
    took = []
    with broker.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("bench", durable=True, arguments={"x-queue-type": "quorum"})
        came = channel.consume("bench", auto_ack=True)
        for _ in range(SINGLE_ROWS):
            start = time.perf_counter()
            channel.basic_publish("", "bench", b"x" * 45)
            next(came)
            took.append(1000 * (time.perf_counter() - start))
        channel.cancel()
        channel.queue_delete("bench")
    return statistics.median(took)


def swap(broker, folder: Path):
    """Exchange the model again and again while rows flow as fast as they can."""
    (folder / "api").mkdir()
    tflite = (networks() / "first.tflite").read_bytes()
    golden = (networks() / "first.json").read_bytes()
    with Api(folder / "api", broker) as api:
        job_id = api.new_job(deploy="always")
        api.claim(job_id)
        answer = api.result(job_id, 1, files=result_files(model_tflite=tflite, golden_json=golden))
        version = answer.json()["version"]
        api.call("POST", "/models/0/deploy")
        still = gap(broker, folder / "still", api, [])
        swapping = gap(broker, folder / "swapping", api, [version, 0] * (SWAPS // 2))
    note = f"{SWAPS} swaps, each row once; without a swap {still:.0f} ms"
    yield Figure("longest gap in swaps, ms", swapping, at_most(250), note)


def gap(broker, folder: Path, api: Api, versions: list[int]) -> float:
    """Return the longest time without a new row, in milliseconds."""
    with services(broker, folder, API_URL=api.url) as start:
        features = start("features")
        start.follower.wait_for(1000)
        start.follower.seen.clear()
        for version in versions or [0] * SWAPS:
            api.call("POST", f"/models/{version}/deploy")
            wait_for(lambda v=version: serves(api) == {v}, 60, f"version {version}")
            time.sleep(0.5)
        found = 1000 * start.follower.longest_gap()
        features.stop()
        sent = set(re.findall(r"\d{10}\.\d{6}", features.said()))
        wait_for(lambda: sent <= {r[0] for r in rows_of(folder / "metric_log.csv")}, 60, "all rows")
    ids = [row[0] for row in rows_of(folder / "metric_log.csv")]
    assert len(ids) == len(set(ids))
    return found


def serves(api: Api) -> set[int]:
    return {said["serves"] for said in api.get("/models/current").json()["replicas"].values()}


def figures(folder: Path):
    (folder / "broker").mkdir()
    broker = InstalledBroker(folder / "broker")
    try:
        for measure in (speed, delay, swap):
            yield from measure(broker, folder)
    finally:
        broker.stop()
