import itertools
import json
import os
import re
import subprocess
import sys
import time

import msgspec
import pytest
from sklearn.datasets import load_diabetes

from features import features
from tests.support.environment import ROOT
from tests.support.waiting import wait_for


@pytest.mark.parametrize("clock", [[5.0] * 1000, [9.0, 8.0, 7.0] * 300], ids=["still", "back"])
def test_ids_increase_whatever_the_clock_does(clock):
    ids = list(itertools.accumulate(clock, lambda last, now: features.next_id(now, last)))[1:]
    assert all(earlier < later for earlier, later in itertools.pairwise(ids))


def test_an_id_is_the_time_in_seconds_with_six_decimals():
    last = 0.0
    for _ in range(20_000):
        before = time.time()
        last = features.next_id(before, last)
        assert abs(last - before) < 0.1
        assert re.fullmatch(rb"\d{10}\.\d{6}", msgspec.json.encode(last))


def test_the_same_seed_draws_the_same_rows_and_another_seed_others():
    data, target = load_diabetes(return_X_y=True)

    def draw(seed):
        rows = itertools.islice(features.draw_rows(data, target, seed), 100)
        return [(row.body, row.y_true) for row in rows]

    assert draw("1") == draw("1") != draw("2")
    assert draw(None) != draw(None)


def test_rows_are_drawn_from_all_442():
    data, target = load_diabetes(return_X_y=True)
    rows = itertools.islice(features.draw_rows(data, target, "1"), 6000)
    assert {tuple(row.body) for row in rows} == {tuple(row) for row in data.tolist()}


def test_the_world_changes_after_so_many_rows_and_once_more():
    data, target = load_diabetes(return_X_y=True)
    one, changing = (features.draw_rows(data, target, "1", changes) for changes in ((), (100, 200)))
    for number, (row, changed) in enumerate(zip(one, changing, strict=False)):
        y = row.y_true
        assert changed.body == row.body
        assert changed.y_true == (y, 371 - y, 371 + y)[number // 100]
        if number == 299:
            break


def test_each_row_is_on_the_history_as_it_went_out(any_broker, run):
    service = run("features", any_broker, FEATURES_COUNT=450, FEATURES_DRIFT_AFTER="300")
    assert service.process.wait(60) == 0
    lists = [msgspec.json.decode(body) for body in any_broker.stream(5, "history")]
    known, true = (
        {row["id"]: row["body"] for _, body in any_broker.take(queue) for row in [json.loads(body)]}
        for queue in ("features", "y_true")
    )
    whole = [(row["id"], row["body"], row["y_true"]) for rows in lists for row in rows]
    assert (
        whole == [(row_id, known[row_id], true[row_id]) for row_id in known] and len(whole) == 450
    )


def test_each_row_goes_out_as_two_halves_under_one_id(any_broker, run):
    service = run("features", any_broker, FEATURES_COUNT=450)
    assert service.process.wait(60) == 0
    known = [msgspec.json.decode(body) for _, body in any_broker.take("features")]
    true = [msgspec.json.decode(body) for _, body in any_broker.take("y_true")]
    assert [row["id"] for row in known] == [row["id"] for row in true]
    assert len({row["id"] for row in known}) == 450
    data, target = load_diabetes(return_X_y=True)
    pairs = {(*x, y) for x, y in zip(data.tolist(), target.tolist(), strict=True)}
    assert all((*x["body"], y["body"]) in pairs for x, y in zip(known, true, strict=True))


def test_what_was_sent_is_logged_after_its_commit(any_broker, run):
    service = run("features", any_broker, FEATURES_COUNT=450)
    assert service.process.wait(60) == 0
    logged = re.findall(r"\d{10}\.\d{6}", service.said())
    assert logged == [str(msgspec.json.decode(body)["id"]) for _, body in any_broker.take("y_true")]


def test_it_waits_between_two_rows(any_broker, run):
    service = run("features", any_broker, FEATURES_COUNT=3, FEATURES_DELAY_SECONDS=1)
    assert service.process.wait(60) == 0
    first, second, third = (msgspec.json.decode(b)["id"] for _, b in any_broker.take("features"))
    assert second - first >= 1 and third - second >= 1


def test_a_stop_before_the_last_row_is_no_success_and_the_last_row_is(any_broker, run):
    service = run("features", any_broker, FEATURES_DELAY_SECONDS=0.1)
    wait_for(lambda: "sent" in service.said(), 30, "the first row")
    assert service.stop() == 130
    assert run("features", any_broker, FEATURES_COUNT=1).process.wait(60) == 0


STOPPED = """
import os, signal
from features import features
publish = features.publish_batch
def stopped(*arguments):
    publish(*arguments)
    features.publish_batch = publish
    os.kill(os.getpid(), signal.SIGINT)
features.publish_batch = stopped
features.main()
"""


def test_a_stop_in_the_middle_of_a_batch_comes_behind_it(broker):
    """An interrupt in the middle of pika left half a frame, and the broker an error."""
    environment = {"AMQP_URL": broker.url, "FEATURES_DELAY_SECONDS": "0"}
    environment |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", STOPPED], env=os.environ | environment, timeout=60)
    assert done.returncode == 130
    assert len(broker.take("features")) == len(broker.take("y_true")) == features.BATCH_SIZE


def test_it_waits_while_nobody_takes_what_it_sends(broker, run):
    """Without an end to it the broker would be full, and block those who could empty it."""
    run("features", broker, FEATURES_COUNT=1).process.wait(60)
    broker.send("y_true", [b"{}"] * features.MAX_BACKLOG)
    service = run("features", broker)
    wait_for(lambda: "waiting, as" in service.said(), 60, "features to wait")
    sent = service.said().count("sent")
    time.sleep(2)
    assert service.said().count("sent") == sent < 10
    last = run("features", broker, FEATURES_COUNT=1)
    assert last.process.wait(30) == 0  # it has nothing left to wait for
    with broker.connect() as connection:
        connection.channel().queue_purge("y_true")
    wait_for(lambda: service.said().count("sent") > sent, 30, "more rows")


def test_it_ends_with_an_error_when_its_queue_is_deleted(any_broker, run):
    service = run("features", any_broker, FEATURES_DELAY_SECONDS=0.2)
    wait_for(lambda: "sent" in service.said(), 30, "the first row")
    with any_broker.connect() as connection:
        connection.channel().queue_delete("y_true")
    assert service.process.wait(10) == 1
    assert "no queue 'y_true'" in service.said()
