"""Parsing and joining, and `metric` as a process of its own."""

import os
import subprocess
import sys

import pytest

from common.consuming import Message
from metric import metric
from metric.database import Row
from tests.support.bodies import bad_bodies
from tests.support.csv_files import rows_of
from tests.support.environment import ROOT, copy_project
from tests.support.rows import message
from tests.support.waiting import wait_for


def received(queue: str, body: bytes, version: int | None = None) -> Message:
    return Message(1, queue, {} if version is None else {"model_version": version}, body)


@pytest.mark.parametrize("queue", ["y_true", "y_pred"])
@pytest.mark.parametrize("kind", bad_bodies("y_true"))
def test_a_bad_body_is_rejected_with_a_reason(queue, kind):
    bad = received(queue, bad_bodies(queue)[kind])
    good = [received(queue, message(number, 1.0)) for number in (1, 2)]
    values, rejected = metric.parse([good[0], bad, good[1]])
    assert [value.id for value in values] == [1, 2]
    [(letter, reason)] = rejected
    assert letter is bad and reason


def test_values_are_joined_in_any_order():
    values, _ = metric.parse(
        [
            received("y_pred", message("b", 1.5), version=3),
            received("y_true", message("a", 2)),
            received("y_true", message("b", 4)),
            received("y_pred", message("a", 2.25), version=4),
        ]
    )
    joined, changed, repeated = metric.join({}, values)
    assert [(row.id, row.absolute_error, row.model_version) for row in joined] == [
        ("b", 2.5, 3),
        ("a", 0.25, 4),
    ]
    assert changed.keys() == {"a", "b"} and not repeated


def test_the_first_of_two_values_of_an_id_counts():
    values, _ = metric.parse([received("y_true", message(1, body)) for body in (5, 6)])
    rows = {}
    joined, changed, repeated = metric.join(rows, values)
    assert rows == changed == {"1": Row(5.0, None, None)}
    assert (joined, repeated) == ([], 1)


def test_a_repeated_prediction_does_not_change_the_version_of_a_row():
    values, _ = metric.parse(
        [received("y_pred", message(1, 5.0), version=version) for version in (3, 4)]
    )
    rows = {}
    metric.join(rows, values)
    assert rows == {"1": Row(None, 5.0, 3)}


def test_metric_runs_from_a_copied_tree_without_being_installed(broker, tmp_path):
    copy_project(tmp_path / "clone")
    where = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": "", "AMQP_URL": broker.url}}
    find = [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('common'))"]
    assert subprocess.run(find, capture_output=True, text=True, **where).stdout == "None\n"
    where["cwd"] = tmp_path / "clone"
    with (tmp_path / "metric.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "metric/metric.py"], stderr=log, **where)
    try:
        wait_for(lambda: "started" in (tmp_path / "metric.log").read_text(), 30, "metric")
        broker.send("y_true", [message("a", 1.0)])
        broker.send("y_pred", [message("a", 3.0)])
        csv = tmp_path / "clone/logs/metric_log.csv"
        wait_for(lambda: rows_of(csv) == [["a", "1.0", "3.00", "2.00"]], 30, "the row")
    finally:
        process.terminate()
    assert process.wait(30) == 0


STOP_IN_A_BATCH = """
import os, signal
from metric import metric
publish_batch = metric.publish_batch
def stop(channel, queue, bodies):
    publish_batch(channel, queue, bodies)
    if bodies:
        os.kill(os.getpid(), signal.SIGINT)
metric.publish_batch = stop
metric.main()
"""


def test_a_stop_in_the_middle_of_a_batch_comes_behind_it(broker, logs, run):
    first = run("metric", broker)
    wait_for(lambda: "started" in first.said(), 30, "metric")  # it declares the queues
    first.stop()
    broker.send("y_true", [b"bad", message("a", 1.0)])
    broker.send("y_pred", [message("a", 3.0)])
    environment = {"AMQP_URL": broker.url, "LOGS_DIR": str(logs), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", STOP_IN_A_BATCH]
    assert subprocess.run(command, env=os.environ | environment, timeout=60).returncode == 0
    assert rows_of(logs / "metric_log.csv") == [["a", "1.0", "3.00", "2.00"]]
    assert len(broker.stream(1)) == 1 and broker.count("dead") == 1
    assert broker.take("y_true") == broker.take("y_pred") == []  # all of it is acknowledged
