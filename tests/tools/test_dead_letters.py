import os
import subprocess
import sys

import msgspec
import pytest

from tests.support.csv_files import rows_of
from tests.support.environment import ROOT, load
from tests.support.waiting import wait_for

dead = load("tools/dead_letters.py")
LETTER = {"reason": "Expected `float`, got `str`", "queue": "y_true"}


def tool(broker, *arguments: str, **settings: str) -> str:
    command = [sys.executable, ROOT / "tools/dead_letters.py", *arguments]
    environment = os.environ | {"AMQP_URL": broker.url} | settings
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_showing_tells_body_reason_and_origin_and_takes_nothing_out_however_often(any_broker):
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
    shown = tool(any_broker, SHOW_AT_MOST="2")
    assert "10000001 bytes in all" in shown and "and 3 more" in shown and len(shown) < 1000


def test_replaying_sends_each_back_to_where_it_came_from_with_its_headers(any_broker):
    tool(any_broker)
    any_broker.send("dead", [b"a"], LETTER)
    any_broker.send("dead", [b"b"], LETTER | {"queue": "y_pred", "model_version": 3})
    assert "sent 2 again\n" in tool(any_broker, "replay")
    [(headers, body)] = any_broker.take("y_pred")
    assert body == b"b" and headers["model_version"] == 3 and "reason" not in headers
    assert [body for _, body in any_broker.take("y_true")] == [b"a"]
    assert any_broker.count("dead") == 0


def test_odd_headers_are_no_hindrance(any_broker, odd_headers):
    tool(any_broker)
    any_broker.send("dead", [b"a", b"b"], LETTER | odd_headers)
    assert "2 dead letters\n" in tool(any_broker)
    assert "sent 2 again\n" in tool(any_broker, "replay")
    assert [body for _, body in any_broker.take("y_true")] == [b"a", b"b"]


@pytest.mark.parametrize("headers", [None, {}, {"queue": "elsewhere"}, {"queue": 7}])
def test_replaying_leaves_what_came_from_nowhere(any_broker, headers):
    tool(any_broker)
    any_broker.send("dead", [b"a"], headers)
    any_broker.send("dead", [b"b"], LETTER)
    assert "sent 1 again, left 1" in tool(any_broker, "replay")
    assert [body for _, body in any_broker.take("dead")] == [b"a"]


def test_a_message_that_kills_its_service_ends_in_dead_and_is_shown_and_replayed(any_broker):
    tool(any_broker)
    any_broker.send("features", [b"poison"])
    for _ in range(22):
        with any_broker.connect() as connection:  # a service that dies with the message in hand
            connection.channel().basic_get("features")
    wait_for(lambda: any_broker.count("dead") == 1, 30, "the broker to bury it")
    shown = tool(any_broker)
    assert "from    features" in shown and "delivered more than 20 times" in shown
    assert "sent 1 again" in tool(any_broker, "replay")
    assert [body for _, body in any_broker.take("features")] == [b"poison"]


def test_what_was_refused_for_a_reason_that_is_gone_is_joined_after_a_replay(any_broker, run, logs):
    metric = run("metric", any_broker)
    wait_for(lambda: "started" in metric.said(), 30, "metric")
    half = msgspec.json.encode({"id": "a", "body": 1.5})
    any_broker.send("dead", [half], LETTER)
    any_broker.send("dead", [half], LETTER | {"queue": "y_pred"})
    tool(any_broker, "replay")
    wait_for(lambda: rows_of(logs / "metric_log.csv"), 30, "the row")
    assert rows_of(logs / "metric_log.csv") == [["a", "1.5", "1.50", "0.00"]]


def test_letters_are_told_of_when_the_queue_is_busy(broker):
    tool(broker)
    broker.send("dead", [b"a", b"b"], LETTER)
    leader = "erlang:suspend_process(whereis('%2F_dead'))"
    broker.evaluate(f"spawn(fun() -> {leader}, timer:sleep(3000) end).")
    assert "2 dead letters\n" in tool(broker)


def test_another_word_gets_a_sentence(any_broker):
    assert tool(any_broker, "reply").strip() == (
        "say `dead.py` to see the dead letters, `dead.py replay` to send them"
    )
