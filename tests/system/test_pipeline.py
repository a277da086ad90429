"""The services on a real broker: bad bodies, odd ids, late and repeated values, lost files."""

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import time
from functools import partial

import msgspec
import pandas
import pytest

from tests.support.bodies import ODD_IDS, bad_bodies
from tests.support.csv_files import rows_of
from tests.support.environment import ROOT, SOAK
from tests.support.rows import data, message
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

ROW = data[0].tolist()
WEEK_HOURS = 7 * 24


def started(service, times: int = 1):
    wait_for(lambda: service.said().count("started") >= times, 60, f"{service.name} to start")
    return service


def ids_of(logs) -> list[str]:
    return [row[0] for row in rows_of(logs / "metric_log.csv")]


@pytest.mark.parametrize("queue", ["features", "y_true", "y_pred"])
def test_bad_bodies_go_to_dead_with_their_reason_while_good_rows_flow(any_broker, run, logs, queue):
    services = [started(run(name, any_broker)) for name in ("model", "metric")]
    kinds = bad_bodies(queue)
    assert len(kinds) >= 60
    for number, bad in enumerate(kinds.values()):
        any_broker.send("features", [message(number, ROW)])
        any_broker.send(queue, [bad])
        any_broker.send("y_true", [message(number, 1.0)])
    wait_for(lambda: len(ids_of(logs)) == len(kinds), 60, "the good rows")
    wait_for(lambda: any_broker.count("dead") == len(kinds), 60, "the bad ones")
    dead = any_broker.take("dead")
    assert sorted(body for _, body in dead) == sorted(kinds.values())
    assert all(headers["queue"] == queue and headers["reason"] for headers, _ in dead)
    assert [service.process.poll() for service in services] == [None, None]


@pytest.mark.parametrize(("name", "queue"), [("model", "features"), ("metric", "y_true")])
def test_many_large_bodies_in_a_queue_do_not_fill_the_memory(broker, run, figure, name, queue):
    started(run(name, broker)).stop()
    for _ in range(30):
        broker.send(queue, [b"x" * 10_000_000])
    service = run(name, broker, supervised=True)
    # they may fill the memory of the broker, which then cuts off who cannot answer for 15 s
    wait_for(lambda: service.remember_peak() or broker.count("dead") >= 30, 180, "the bad bodies")
    figure(f"30 bodies of 10 MB in a queue: VmHWM of {name} {service.peak:.0f} MB")
    assert service.peak < 300


def test_odd_ids_are_joined_and_the_csv_stays_one(any_broker, run, logs):
    services = [started(run(name, any_broker)) for name in ("model", "metric")]
    any_broker.send("features", [message(row_id, ROW) for row_id in ODD_IDS])
    any_broker.send("y_true", [message(row_id, 1.5) for row_id in reversed(ODD_IDS)])
    wait_for(lambda: len(ids_of(logs)) == len(ODD_IDS), 30, "the rows")
    assert sorted(ids_of(logs)) == sorted(map(str, ODD_IDS))
    frame = pandas.read_csv(logs / "metric_log.csv", dtype={"id": str}, keep_default_na=False)
    assert frame.id.tolist() == ids_of(logs) and frame.absolute_error.min() > 0
    assert any_broker.count("dead") == 0
    errors = [msgspec.json.decode(body)["id"] for body in any_broker.stream(len(ODD_IDS))]
    assert sorted(map(repr, errors)) == sorted(map(repr, ODD_IDS))
    assert [service.stop() for service in services] == [0, 0]


def test_a_second_value_of_a_finished_id_is_dropped_and_counted(any_broker, run, logs):
    metric = started(run("metric", any_broker))
    any_broker.send("y_true", [message("a", 1.0), message("a", 2.0)])
    any_broker.send("y_pred", [message("a", 3.0)], {"model_version": 0})
    wait_for(lambda: ids_of(logs) == ["a"], 30, "the row")
    any_broker.send("y_pred", [message("a", 4.0)], {"model_version": 1})
    wait_for(lambda: "repeated 2" in metric.said(), 30, "the count")
    assert rows_of(logs / "metric_log.csv") == [["a", "1.0", "3.00", "2.00"]]


def test_the_errors_stream_has_each_row_at_full_precision(any_broker, run, logs):
    started(run("metric", any_broker))
    any_broker.send("y_true", [message(1765912012.233366, 101.0)])
    any_broker.send("y_pred", [message(1765912012.233366, 116.94999)], {"model_version": 7})
    [error] = any_broker.stream(1)
    assert msgspec.json.decode(error) == {
        "id": 1765912012.233366,
        "y_true": 101.0,
        "y_pred": 116.94999,
        "absolute_error": 116.94999 - 101.0,
        "model_version": 7,
    }
    assert rows_of(logs / "metric_log.csv") == [["1765912012.233366", "101.0", "116.95", "15.95"]]


def test_the_counts_are_published_with_each_batch_and_every_five_seconds(any_broker, run):
    metric = started(run("metric", any_broker))
    with any_broker.connect() as connection:
        channel = connection.channel()
        mine = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(mine, "metric_counts")
        got = (
            (time.monotonic(), msgspec.json.decode(body)) for _, _, body in channel.consume(mine)
        )
        idle = [next(got) for _ in range(3)]
        any_broker.send("y_true", [message("a", 1.0), message("a", 2.0), message("b", 1.0)])
        any_broker.send("y_pred", [message("a", 1.0)])
        found = next(counts for _, counts in got if counts["joined"])
    assert all(4 < later[0] - sooner[0] < 8 for sooner, later in itertools.pairwise(idle[:3]))
    assert idle[0][1] == {"joined": 0, "pending": 0, "repeated": 0, "expired": 0}
    assert found == {"joined": 1, "pending": 1, "repeated": 1, "expired": 0}
    assert metric.stop() == 0


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (2**40, 2**40),  # of another kind in AMQP, and in pika
        (-1, -1),
        ("challenger", "challenger"),
        ("\x01" * 30_000, "\x01" * 255),
        (None, None),
        ({"a": 1}, None),
        ([1], None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_version_of_any_kind_stops_nothing(any_broker, run, logs, sent, kept):
    metric = started(run("metric", any_broker))
    any_broker.send("y_true", [message("a", 1.0)])
    any_broker.send("y_pred", [message("a", 3.0)], {"model_version": sent})
    wait_for(lambda: ids_of(logs) == ["a"], 30, "the row")
    [error] = any_broker.stream(1)
    assert msgspec.json.decode(error)["model_version"] == kept
    assert metric.stop() == 0


def test_late_values_in_random_order_are_all_joined_in_little_memory(any_broker, run, logs, figure):
    count = 100_000 * SOAK
    ids = [f"{number:07}" for number in range(count)]
    metric = started(run("metric", any_broker, supervised=True))
    for queue, value in (("y_true", 100.0), ("y_pred", 98.5)):
        random.shuffle(ids)
        for quarter in range(4):
            any_broker.send(queue, [message(row_id, value) for row_id in ids[quarter::4]])
            metric.remember_peak()
            metric.kill()
        started(metric, len(metric.codes) + 1)
        wait_for(lambda queue=queue: not any_broker.count(queue), 300 * SOAK, f"{queue} to be read")
        if queue == "y_true":  # now some of them come hours late
            metric.supervised = False
            metric.stop()
            let_age(logs, hours=random.randrange(1, 160), share=3)
            metric = started(run("metric", any_broker, supervised=True))
    wait_for(lambda: len(ids_of(logs)) >= count, 300 * SOAK, "the rows")
    metric.stop()
    assert sorted(ids_of(logs)) == sorted(ids)
    figure(
        f"late values on {any_broker.name}: {count} joined, VmHWM of metric {metric.peak:.0f} MB"
    )
    assert metric.peak < 150


def let_age(logs, hours: float, share: int) -> None:
    """Let one in `share` of the ids in the database of `metric` have arrived `hours` earlier."""
    database = sqlite3.connect(logs / "metric.sqlite3")
    with database:
        database.execute(
            "UPDATE ids SET arrived = arrived - ? WHERE CAST(id AS INTEGER) % ? = 0",
            (hours * 3600, share),
        )
    database.close()


def test_a_value_that_is_pending_for_a_week_expires_and_its_counterpart_is_pending(
    any_broker, run, logs
):
    metric = started(run("metric", any_broker))
    any_broker.send("y_true", [message(n, 1.0) for n in range(10)])
    wait_for(lambda: "pending 10" in metric.said(), 30, "the values")
    metric.stop()
    let_age(logs, hours=WEEK_HOURS + 1, share=2)
    metric = run("metric", any_broker)
    wait_for(lambda: "expired 5 ids, 5 of them pending" in metric.said(), 30, "the expiry")
    any_broker.send("y_pred", [message(n, 1.0) for n in range(10)])
    wait_for(lambda: "joined 5, pending 5, repeated 0, expired 5" in metric.said(), 30, "the count")
    assert sorted(ids_of(logs)) == ["1", "3", "5", "7", "9"]


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is down"])
@pytest.mark.parametrize("gone", ["csv", "database", "both"])
def test_metric_starts_anew_what_was_deleted(any_broker, run, logs, gone, running):
    def rows(first: int, last: int):
        any_broker.send("y_true", [message(n, 1.0) for n in range(first, last)])
        any_broker.send("y_pred", [message(n, 1.5) for n in range(first, last)])

    metric = started(run("metric", any_broker, supervised=True))
    rows(0, 100)
    wait_for(lambda: "joined 100," in metric.said(), 30, "the first rows")
    time.sleep(0.5)  # they are acknowledged
    before = (logs / "metric_log.csv").read_bytes()
    if not running:
        metric.stop()
    for pattern in {"csv": ["*.csv"], "database": ["*.sqlite3*"], "both": ["*"]}[gone]:
        for file in logs.glob(pattern):
            file.unlink()
    if not running:
        metric = run("metric", any_broker, supervised=True)
    rows(0 if gone != "both" else 100, 200)  # at once: nothing may go into a deleted database
    expected = 200 if gone == "database" else 100
    wait_for(lambda: len(ids_of(logs)) >= expected, 30, "the other rows")
    after = (logs / "metric_log.csv").read_bytes()
    assert after.startswith(before) == (gone == "database")
    assert sorted(map(int, ids_of(logs))) == list(range(200 - expected, 200))
    assert any_broker.count("dead") == 0


def test_a_broker_that_hangs_ends_the_services_and_they_come_back(broker, run, logs):
    url = broker.url.replace("heartbeat=30", "heartbeat=6")
    run = partial(run, supervised=True, WATCHDOG_SECONDS=8, AMQP_URL=url)
    services = [started(run(name, broker)) for name in ("model", "metric")]
    sender = run("features", broker, FEATURES_DELAY_SECONDS=0.1)
    wait_for(lambda: ids_of(logs), 30, "the first row")
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        for service in (sender, *services):
            wait_for(lambda s=service: s.codes, 60, f"{service.name} to give up")
        assert sender.codes[0] == 1 and "Timeout" in sender.said()
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)
    seen = len(ids_of(logs))
    wait_for(lambda: len(ids_of(logs)) > seen + 10, 60, "rows after the pause")
    wait_for(lambda: all(service.has_started() for service in services), 60, "all to run")


def test_a_broker_without_memory_delivers_no_row_to_a_service_that_cannot_publish(broker, run):
    def watermark(value: str) -> None:
        control = [ROOT / "deploy/broker", "ctl", broker.folder, "set_vm_memory_high_watermark"]
        subprocess.run([*control, "absolute", value], check=True, capture_output=True, timeout=60)

    started(run("model", broker)).stop()
    broker.send("features", [message(n, ROW) for n in range(50)])
    watermark("1MB")
    try:
        model = run("model", broker)
        time.sleep(10)
        assert broker.count("features") == 50 and "started" not in model.said()
    finally:
        watermark("600MB")
    wait_for(lambda: broker.count("y_pred") == 50, 60, "the answers")
