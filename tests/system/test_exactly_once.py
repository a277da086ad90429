"""20,000 rows while everything is killed: each row that was sent is in the CSV once, and right."""

import itertools
import random
import re
import threading
import time
from contextlib import contextmanager

import msgspec
import pytest

from features import features
from tests.support.broker import in_a_container, installed
from tests.support.csv_files import rows_of
from tests.support.environment import SOAK
from tests.support.rows import data, shown, target
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

ROWS = 20_000 * SOAK
ROWS_OF_A_SENDER = 3000
KILLS = 24 * SOAK


class Follower(threading.Thread):
    """Reads the CSV all the time, and remembers whether a byte that it has read ever changed."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.seen, self.changed, self.reads = path, b"", False, 0
        self.following = True
        self.start()

    def run(self):
        while self.following:
            now = self.path.read_bytes() if self.path.exists() else b""
            self.changed |= not now.startswith(self.seen)
            self.seen = now
            self.reads += 1
            time.sleep(0.02)

    def stop(self):
        self.following = False
        self.join()


class Sender:
    """One process of `features` after another, each with a seed of its own."""

    def __init__(self, start, chance):
        self.start, self.chance, self.services = start, chance, []

    def running(self):
        """Start a process if the last one has ended; return the one that runs."""
        if not self.services or self.services[-1].process.poll() is not None:
            settings = {"FEATURES_COUNT": ROWS_OF_A_SENDER, "FEATURES_SEED": len(self.services)}
            self.services.append(self.start("features", **settings))
        return self.services[-1]

    def in_full_flow(self):
        """Return the process that runs, a moment after it started to send."""
        while True:
            service = self.running()
            wait_for(
                lambda s=service: "sent" in s.said() or s.process.poll() is not None, 60, "rows"
            )
            time.sleep(self.chance.uniform(0, 0.3))
            if service.process.poll() is None:
                return service

    def sent(self) -> list[str]:
        """Return the ids whose commit returned: those in whole lines of the log."""
        said = "".join(
            re.findall(r"sent .*\n", "".join(service.said() for service in self.services))
        )
        return re.findall(r"\d{10}\.\d{6}", said)

    def expected(self) -> dict[str, tuple]:
        """Return {id: (y_true, y_pred and error as the CSV shows them)} of what was sent."""
        rows = {}
        for seed, service in enumerate(self.services):
            drawn = features.draw_rows(data, target, str(seed))
            ids = re.findall(r"\d{10}\.\d{6}", "".join(re.findall(r"sent .*\n", service.said())))
            for row_id, row in zip(ids, itertools.islice(drawn, len(ids)), strict=True):
                rows[row_id] = shown(row.body, row.y_true)
        return rows


@contextmanager
def stage(kind: str, folder, run):
    """Yield a new broker, and a function that starts services; end all of them."""
    (folder / "broker").mkdir(parents=True)
    broker = installed(folder / "broker") if kind == "installed_broker" else in_a_container()
    started = []

    def start(name: str, **settings):
        started.append(run(name, broker, LOGS_DIR=folder, **settings))
        return started[-1]

    try:
        yield broker, start
    finally:
        for service in started:
            service.end()
        broker.stop()


@pytest.mark.parametrize("kind", ["installed_broker", "rabbitmq4"])
def test_every_row_that_was_sent_stands_in_the_csv_once(kind, tmp_path, run, figure):
    for name in ("first", "second"):
        with stage(kind, tmp_path / name, run) as (broker, start):
            try:
                return send_and_kill(broker, start, tmp_path / name, figure)
            except pytest.fail.Exception:
                if name == "second" or broker.takes_messages():
                    raise
        figure(f"RabbitMQ ({kind}) lost the leader of a queue by SIGKILL; once more")


def send_and_kill(broker, start, logs, figure):
    """Send to a broker that no other test needs: it is killed, too."""
    chance = random.Random(seed := random.randrange(10**6))
    print("seed", seed)
    model, metric = (start(name, supervised=True) for name in ("model", "metric"))
    wait_for(lambda: "started" in model.said() and "started" in metric.said(), 60, "the services")
    sender, follower = Sender(start, chance), Follower(logs / "metric_log.csv")
    try:
        kills = kill_again_and_again(broker, sender, [model, metric], chance)
        sent = set(sender.sent())
        wait_for(lambda: sent <= {r[0] for r in rows_of(logs / "metric_log.csv")}, 180, "every row")
    finally:
        follower.stop()
    counts = re.findall(r"joined .*", metric.said())[-1]
    figure(
        f"exactly once on {broker.name}: {len(sent)} rows sent, {kills} kills,"
        f" 2 restarts of the broker, {follower.reads} reads of the CSV; {counts}"
    )
    check(sender, logs)
    assert sent <= {str(msgspec.json.decode(error)["id"]) for error in broker.stream()}
    assert not follower.changed and follower.reads > 100
    assert broker.count("dead") == 0


def kill_again_and_again(broker, sender: Sender, services: list, chance) -> int:
    """Send ROWS, and kill the services meanwhile; return how often."""
    kills, restarts = 0, [(KILLS, True), (KILLS // 2, False)]
    while kills < KILLS:
        wait_for(lambda: all(s.has_started() for s in services), 60, "the services")
        features_service = sender.in_full_flow()
        kills += chance.choice([*services, features_service]).kill()
        if kills >= restarts[-1][0]:  # long enough after the queues were declared
            sender.in_full_flow()
            broker.restart(kill=restarts.pop()[1])
    while len(sender.sent()) < ROWS:
        sender.running().process.wait(120)
    return kills


def check(sender: Sender, logs) -> None:
    rows = rows_of(logs / "metric_log.csv")
    assert all(len(row) == 4 for row in rows)
    ids = [row[0] for row in rows]
    assert len(set(ids)) == len(ids)
    expected = sender.expected()
    possible = {shown(x, y) for x, y in zip(data.tolist(), target.tolist(), strict=True)}
    for row_id, *numbers in rows:  # a commit without an answer may have gone through
        assert tuple(numbers) == expected.get(row_id) or (
            row_id not in expected and tuple(numbers) in possible
        )
    assert (logs / "metric_log.csv").read_bytes().endswith(b"\n")
