"""Connections to a real broker: how they are made, tried again, and closed."""

import os
import signal
import subprocess
import sys

import pika
import pytest

from common import connection
from common.connection import BROKER_ERRORS, connect
from common.queues import declare
from tests.support.environment import ROOT
from tests.support.ports import free_port
from tests.support.waiting import wait_for


@pytest.fixture
def at(any_broker, monkeypatch):
    monkeypatch.setattr(connection, "AMQP_URL", any_broker.url)
    return any_broker


def test_a_broker_that_does_not_answer_is_tried_again(monkeypatch):
    url = f"amqp://127.0.0.1:{free_port()}/?connection_attempts=3&retry_delay=0.2"
    monkeypatch.setattr(connection, "AMQP_URL", url)
    waits = []
    monkeypatch.setattr(connection, "wait", waits.append)
    with pytest.raises(BROKER_ERRORS), connect("test"):
        pass
    assert waits == [0.2, 0.2]


def test_an_unknown_host_is_a_broker_error(monkeypatch):
    monkeypatch.setattr(connection, "AMQP_URL", "amqp://nobody.invalid/?connection_attempts=1")
    with pytest.raises(BROKER_ERRORS), connect("test"):
        pass


def test_with_a_timeout_there_is_one_attempt(monkeypatch):
    url = f"amqp://127.0.0.1:{free_port()}/?connection_attempts=60"
    monkeypatch.setattr(connection, "AMQP_URL", url)
    monkeypatch.setattr(connection, "wait", lambda seconds: pytest.fail("a second attempt"))
    with pytest.raises(BROKER_ERRORS), connect("test", timeout_seconds=2):
        pass


def test_a_stop_request_ends_the_attempts():
    program = "from common import lifecycle\nfrom common.connection import connect\n"
    program += "lifecycle.start()\nprint('ready', flush=True)\nwith connect('test'): pass"
    url = f"amqp://127.0.0.1:{free_port()}/?connection_attempts=1000&retry_delay=1"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT), "AMQP_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()


def test_the_broker_knows_a_connection_by_its_name(broker, monkeypatch):
    monkeypatch.setattr(connection, "AMQP_URL", broker.url)
    with connect("a test of names"):
        names = '[proplists:get_value(<<"connection_name">>, [{K, V} || {K, _, V} <- P]) || '
        names += "[{client_properties, P}] <- rabbit_networking:connection_info_all"
        names += "([client_properties])]."
        assert "a test of names" in broker.evaluate(names)


def test_a_stream_with_deliveries_in_flight_is_closed_without_an_error(at):
    with connect("test") as connected:
        channel = connected.channel()
        declare(channel, "errors")
        for _ in range(500):
            channel.basic_publish("", "errors", b"x" * 1000)
    with connect("test") as connected:
        channel = connected.channel()
        channel.basic_qos(prefetch_count=400)
        first = {"x-stream-offset": "first"}
        next(channel.consume("errors", arguments=first))
    assert connected.is_closed


def test_an_error_closes_the_connection_and_is_raised(at):
    with pytest.raises(ZeroDivisionError), connect("test") as connected:
        raise ZeroDivisionError
    assert connected.is_closed


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_a_process_that_ends_says_no_goodbye_that_may_hang(at, end):
    with pytest.raises(end), connect("test") as connected:
        raise end
    assert connected.is_open
    connected.close()


@pytest.mark.parametrize(
    "value",
    [b"T" + (1765912012233).to_bytes(8), b"T" + bytes([255] * 8)],
    ids=["a date in milliseconds", "the last date"],
)
def test_a_date_that_python_cannot_represent_is_decoded_as_none(value):
    table = b"\x01a" + value + b"\x01bA" + len(value).to_bytes(4) + value + b"\x01ct\x01"
    headers, end = pika.data.decode_table(len(table).to_bytes(4) + table, 0)
    assert headers == {"a": None, "b": [None], "c": True}
    assert end == 4 + len(table)


def test_a_message_with_such_a_date_does_not_end_the_connection(at, odd_headers):
    with connect("test") as connected:
        channel = connected.channel()
        declare(channel, "dead")
        properties = pika.BasicProperties(headers={"at": odd_headers["at"]})
        channel.basic_publish("", "dead", b"x", properties)
        wait_for(lambda: channel.basic_get("dead", auto_ack=True)[2], 10, "the message")
