"""The services on a real broker: what they do with rubbish, with odd ids, and when it is late."""

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
from sklearn.datasets import load_diabetes

from tests.support.bodies import ODD_IDS, bad_bodies
from tests.support.csv_files import rows_of
from tests.support.environment import ROOT, SOAK
from tests.support.waiting import wait_for

ROW = load_diabetes(return_X_y=True)[0][0].tolist()


def half(id, value) -> bytes:
    return msgspec.json.encode({"id": id, "body": value})


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
        any_broker.send("features", [half(number, ROW)])
        any_broker.send(queue, [bad])
        any_broker.send("y_true", [half(number, 1.0)])
    wait_for(lambda: len(ids_of(logs)) == len(kinds), 60, "the good rows")
    wait_for(lambda: any_broker.count("dead") == len(kinds), 60, "the bad ones")
    dead = any_broker.take("dead")
    assert sorted(body for _, body in dead) == sorted(kinds.values())
    assert all(headers["queue"] == queue and headers["reason"] for headers, _ in dead)
    assert [service.process.poll() for service in services] == [None, None]


@pytest.mark.parametrize("name, queue", [("model", "features"), ("metric", "y_true")])
def test_many_large_bodies_that_wait_do_not_fill_the_memory(broker, run, figure, name, queue):
    started(run(name, broker)).stop()
    for _ in range(30):
        broker.send(queue, [b"x" * 10_000_000])
    service = run(name, broker, supervised=True)
    # they may fill the memory of the broker, which then cuts off who cannot answer for 15 s
    wait_for(lambda: service.remember_peak() or broker.count("dead") >= 30, 180, "the bad bodies")
    figure(f"30 waiting bodies of 10 MB: VmHWM of {name} {service.peak:.0f} MB")
    assert service.peak < 300


def test_odd_ids_are_joined_and_the_csv_stays_one(any_broker, run, logs):
    services = [started(run(name, any_broker)) for name in ("model", "metric")]
    any_broker.send("features", [half(id, ROW) for id in ODD_IDS])
    any_broker.send("y_true", [half(id, 1.5) for id in reversed(ODD_IDS)])
    wait_for(lambda: len(ids_of(logs)) == len(ODD_IDS), 30, "the rows")
    assert sorted(ids_of(logs)) == sorted(map(str, ODD_IDS))
    frame = pandas.read_csv(logs / "metric_log.csv", dtype={"id": str}, keep_default_na=False)
    assert frame.id.tolist() == ids_of(logs) and frame.absolute_error.min() > 0
    assert any_broker.count("dead") == 0
    errors = [msgspec.json.decode(body)["id"] for body in any_broker.stream(len(ODD_IDS))]
    assert sorted(map(repr, errors)) == sorted(map(repr, ODD_IDS))
    assert [service.stop() for service in services] == [0, 0]


def test_a_second_half_with_a_finished_id_is_dropped_and_counted(any_broker, run, logs):
    metric = started(run("metric", any_broker))
    any_broker.send("y_true", [half("a", 1.0), half("a", 2.0)])
    any_broker.send("y_pred", [half("a", 3.0)], {"model_version": 0})
    wait_for(lambda: ids_of(logs) == ["a"], 30, "the row")
    any_broker.send("y_pred", [half("a", 4.0)], {"model_version": 1})
    wait_for(lambda: "repeated 2" in metric.said(), 30, "the count")
    assert rows_of(logs / "metric_log.csv") == [["a", "1.0", "3.00", "2.00"]]


def test_the_errors_stream_has_each_row_at_full_precision(any_broker, run, logs):
    started(run("metric", any_broker))
    any_broker.send("y_true", [half(1765912012.233366, 101.0)])
    any_broker.send("y_pred", [half(1765912012.233366, 116.94999)], {"model_version": 7})
    [error] = any_broker.stream(1)
    assert msgspec.json.decode(error) == {
        "id": 1765912012.233366,
        "y_true": 101.0,
        "y_pred": 116.94999,
        "absolute_error": 116.94999 - 101.0,
        "model_version": 7,
    }
    assert rows_of(logs / "metric_log.csv") == [["1765912012.233366", "101.0", "116.95", "15.95"]]


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
    any_broker.send("y_true", [half("a", 1.0)])
    any_broker.send("y_pred", [half("a", 3.0)], {"model_version": sent})
    wait_for(lambda: ids_of(logs) == ["a"], 30, "the row")
    [error] = any_broker.stream(1)
    assert msgspec.json.decode(error)["model_version"] == kept
    assert metric.stop() == 0


def test_late_halves_in_random_order_are_all_joined_in_little_memory(any_broker, run, logs, figure):
    count = 100_000 * SOAK
    ids = [f"{number:07}" for number in range(count)]
    metric = started(run("metric", any_broker, supervised=True))
    for queue, value in (("y_true", 100.0), ("y_pred", 98.5)):
        random.shuffle(ids)
        for quarter in range(4):
            any_broker.send(queue, [half(id, value) for id in ids[quarter::4]])
            metric.remember_peak()
            metric.kill()
        started(metric, len(metric.codes) + 1)
        wait_for(lambda queue=queue: not any_broker.count(queue), 300 * SOAK, f"{queue} to be read")
        if queue == "y_true":  # now some of them come hours late
            metric.supervised = False
            metric.stop()
            turn_clock(logs, hours=random.randrange(1, 160), share=3)
            metric = started(run("metric", any_broker, supervised=True))
    wait_for(lambda: len(ids_of(logs)) >= count, 300 * SOAK, "the rows")
    metric.stop()
    assert sorted(ids_of(logs)) == sorted(ids)
    figure(
        f"late halves on {any_broker.name}: {count} joined, VmHWM of metric {metric.peak:.0f} MB"
    )
    assert metric.peak < 150


def turn_clock(logs, hours: float, share: int) -> None:
    """Let one in `share` of the ids in the database of `metric` have come `hours` earlier."""
    database = sqlite3.connect(logs / "metric.sqlite3")
    with database:
        database.execute(
            "UPDATE ids SET arrived = arrived - ? WHERE CAST(id AS INTEGER) % ? = 0",
            (hours * 3600, share),
        )
    database.close()


def test_a_half_that_waited_for_a_week_is_an_orphan_and_its_partner_waits_anew(
    any_broker, run, logs
):
    metric = started(run("metric", any_broker))
    any_broker.send("y_true", [half(n, 1.0) for n in range(10)])
    wait_for(lambda: "waiting 10" in metric.said(), 30, "the halves")
    metric.stop()
    turn_clock(logs, hours=7 * 24 + 1, share=2)
    metric = run("metric", any_broker)
    wait_for(lambda: "forgot 5 ids, 5 of them orphans" in metric.said(), 30, "the forgetting")
    any_broker.send("y_pred", [half(n, 1.0) for n in range(10)])
    wait_for(lambda: "joined 5, waiting 5, repeated 0, orphans 5" in metric.said(), 30, "the count")
    assert sorted(ids_of(logs)) == ["1", "3", "5", "7", "9"]


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is down"])
@pytest.mark.parametrize("gone", ["csv", "database", "both"])
def test_files_that_are_deleted(any_broker, run, logs, gone, running):
    def rows(first: int, last: int):
        any_broker.send("y_true", [half(n, 1.0) for n in range(first, last)])
        any_broker.send("y_pred", [half(n, 1.5) for n in range(first, last)])

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


def test_a_broker_without_memory_leaves_no_row_in_the_hands_of_a_service_that_cannot_answer(
    broker, run
):
    def watermark(value: str) -> None:
        control = [ROOT / "deploy/broker", "ctl", broker.folder, "set_vm_memory_high_watermark"]
        subprocess.run([*control, "absolute", value], check=True, capture_output=True, timeout=60)

    started(run("model", broker)).stop()
    broker.send("features", [half(n, ROW) for n in range(50)])
    watermark("1MB")
    try:
        model = run("model", broker)
        time.sleep(10)
        assert broker.count("features") == 50 and "started" not in model.said()
    finally:
        watermark("600MB")
    wait_for(lambda: broker.count("y_pred") == 50, 60, "the answers")
