"""Dead letters are shown without being removed, and replayed to the queue that they came from."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support.csv_files import rows_of
from tests.support.environment import ROOT
from tests.support.rows import message
from tests.support.waiting import wait_for

LETTER = {"reason": "Expected `float`, got `str`", "queue": "y_true"}


def tool(broker, *arguments: str, **settings: str) -> str:
    """Return what the tool prints and logs."""
    process = start(broker, *arguments, **settings)
    return process.communicate(timeout=60)[0]


def start(broker, *arguments: str, **settings: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "tools/dead_letters.py", *arguments],
        env=os.environ | {"AMQP_URL": broker.url} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_show_prints_body_reason_and_origin_and_removes_nothing_however_often(any_broker):
    assert tool(any_broker) == "0 dead letters\n"
    any_broker.send("dead", [b'{"id": 1, "body": "x"}'], LETTER)
    for _ in range(25):  # a quorum queue of RabbitMQ 4 drops what was delivered 20 times
        shown = tool(any_broker)
        assert "1 dead letter\n" in shown and '{"id": 1, "body": "x"}' in shown
        assert "from    y_true" in shown and "reason  Expected `float`, got `str`" in shown
    assert any_broker.count("dead") == 1


def test_a_long_body_is_cut_and_many_letters_are_counted(any_broker):
    tool(any_broker)
    any_broker.send("dead", [b"\xff" + b"x" * 10_000_000] + [b"short"] * 4, LETTER)
    shown = tool(any_broker, MAX_SHOWN_LETTERS="2")
    assert "10000001 bytes in all" in shown and "and 3 more" in shown and len(shown) < 1000


def test_replay_sends_each_letter_to_its_queue_with_its_headers(any_broker):
    tool(any_broker)
    any_broker.send("dead", [b"a"], LETTER)
    any_broker.send("dead", [b"b"], LETTER | {"queue": "y_pred", "model_version": 3})
    assert "sent 2 again\n" in tool(any_broker, "replay")
    [(headers, body)] = any_broker.take("y_pred")
    assert body == b"b" and headers["model_version"] == 3 and "reason" not in headers
    assert [body for _, body in any_broker.take("y_true")] == [b"a"]
    assert any_broker.count("dead") == 0


def test_odd_headers_are_shown_and_replayed(any_broker, odd_headers):
    tool(any_broker)
    any_broker.send("dead", [b"a", b"b"], LETTER | odd_headers)
    assert "2 dead letters\n" in tool(any_broker)
    assert "sent 2 again\n" in tool(any_broker, "replay")
    assert [body for _, body in any_broker.take("y_true")] == [b"a", b"b"]


def test_replay_of_many_letters_leaves_none(any_broker):
    tool(any_broker)
    bodies = [b"%d" % number for number in range(360)]
    any_broker.send("dead", bodies, LETTER)
    assert "sent 360 again\n" in tool(any_broker, "replay")
    assert [body for _, body in any_broker.take("y_true")] == bodies
    assert any_broker.take("dead") == []


@pytest.mark.parametrize("headers", [None, {}, {"queue": "elsewhere"}, {"queue": 7}])
def test_replay_leaves_letters_of_unknown_origin(any_broker, headers):
    tool(any_broker)
    any_broker.send("dead", [b"a"], headers)
    any_broker.send("dead", [b"b"], LETTER)
    assert "sent 1 again, left 1" in tool(any_broker, "replay")
    assert [body for _, body in any_broker.take("dead")] == [b"a"]


def test_a_message_that_kills_its_consumer_becomes_a_dead_letter_and_is_replayed(any_broker):
    tool(any_broker)
    any_broker.send("features", [b"poison"])
    for _ in range(22):
        with (
            any_broker.connect() as connection
        ):  # a service that ends with the message unacknowledged
            connection.channel().basic_get("features")
    wait_for(lambda: any_broker.count("dead") == 1, 30, "the dead letter")
    shown = tool(any_broker)
    assert "from    features" in shown and "delivered more than 20 times" in shown
    assert "sent 1 again" in tool(any_broker, "replay")
    assert [body for _, body in any_broker.take("features")] == [b"poison"]


def test_a_letter_whose_reason_is_gone_is_joined_after_a_replay(any_broker, run, logs):
    metric = run("metric", any_broker)
    wait_for(lambda: "started" in metric.said(), 30, "metric")
    any_broker.send("dead", [message("a", 1.5)], LETTER)
    any_broker.send("dead", [message("a", 1.5)], LETTER | {"queue": "y_pred"})
    tool(any_broker, "replay")
    wait_for(lambda: rows_of(logs / "metric_log.csv"), 30, "the row")
    assert rows_of(logs / "metric_log.csv") == [["a", "1.5", "1.50", "0.00"]]


def test_letters_are_counted_when_the_queue_is_busy(broker):
    tool(broker)
    broker.send("dead", [b"a", b"b"], LETTER)
    leader = "erlang:suspend_process(whereis('%2F_dead'))"
    broker.evaluate(f"spawn(fun() -> {leader}, timer:sleep(3000) end).")
    assert "2 dead letters\n" in tool(broker)


def test_another_command_is_refused_with_a_sentence(any_broker):
    assert tool(any_broker, "reply").strip() == (
        "Use `dead_letters.py show` to see dead letters, `replay` to send them."
    )


def test_the_former_name_of_its_setting_is_refused_with_the_new_one(broker):
    assert "SHOW_AT_MOST is called MAX_SHOWN_LETTERS now" in tool(broker, SHOW_AT_MOST="2")


def test_a_stop_in_the_middle_of_a_replay_loses_no_letter_and_sends_none_twice(broker):
    tool(broker)
    bodies = [b"%d" % number for number in range(5000)]
    broker.send("dead", bodies, LETTER)
    process = start(broker, "replay")
    wait_for(lambda: broker.count("y_true"), 60, "the first letters")
    process.send_signal(signal.SIGINT)
    assert "sent " in process.communicate(timeout=60)[0] and process.returncode == 0
    wait_for(lambda: broker.count("dead") + broker.count("y_true") == 5000, 30, "all of them")
    sent, left = ([body for _, body in broker.take(queue)] for queue in ("y_true", "dead"))
    assert sent and left and sorted(sent + left) == sorted(bodies)
