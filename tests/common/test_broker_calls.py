"""Declare, publish and consume on real brokers, old and new."""

import msgspec
import pytest

from common import connection, consuming
from common.connection import connect
from common.consuming import consume_batches
from common.publishing import commit, dead_letter, publish_batch, require_routing
from common.queues import ARGUMENTS, EXCHANGES, declare, message_count
from tests.support.waiting import wait_for


@pytest.fixture
def channel(any_broker, monkeypatch):
    """A channel in transactions; whatever is consumed does not arm the watchdog of the tests."""
    monkeypatch.setattr(connection, "AMQP_URL", any_broker.url)
    monkeypatch.setattr(consuming, "report_liveness", lambda: None)
    with connect("test") as connected:
        channel = connected.channel()
        declare(channel, "dead", "features", "y_true")
        require_routing(channel)
        channel.tx_select()
        yield channel


def other_channel(channel):
    return channel.connection.channel()


def test_everything_can_be_declared_again(channel):
    for _ in range(2):
        declare(other_channel(channel), *ARGUMENTS, *EXCHANGES)


def test_what_dead_letters_go_to_is_declared_first():
    declared = []

    class Channel:
        def queue_declare(self, name, **arguments):
            declared.append(name)

    declare(Channel(), "features", "dead", "y_true")
    assert declared[0] == "dead"


def test_a_batch_is_one_write_and_each_body_one_message(channel, monkeypatch):
    writes = []
    connected = channel.connection._impl
    send = connected._output_marshaled_frames
    monkeypatch.setattr(
        connected, "_output_marshaled_frames", lambda frames: (writes.append(frames), send(frames))
    )
    bodies = [b"%d" % number for number in range(500)]
    publish_batch(channel, "features", bodies, {"model_version": 3})
    publish_batch(channel, "features", [])
    assert len(writes) == 1
    commit(channel)
    arrived = []
    for batch in consume_batches(other_channel(channel), "features", 500):
        arrived += batch
        if len(arrived) >= 500:
            break
    assert [message.body for message in arrived] == bodies
    assert {message.headers["model_version"] for message in arrived} == {3}


def test_nothing_is_published_before_the_commit(channel):
    publish_batch(channel, "features", [b"x"])
    channel.connection.process_data_events(0.2)
    assert message_count(other_channel(channel), "features") == 0
    commit(channel)
    wait_for(lambda: message_count(other_channel(channel), "features") == 1, 10, "the message")


def test_a_batch_has_at_most_its_size(channel):
    publish_batch(channel, "features", [b"x"] * 250)
    commit(channel)
    reading = other_channel(channel)
    batches = consume_batches(reading, "features", 100, prefetch=200)
    sizes = []
    while sum(sizes) < 250:
        if batch := next(batches):
            sizes.append(len(batch))
            reading.basic_ack(batch.last_tag, multiple=True)
    assert max(sizes) <= 100


def test_an_empty_batch_comes_when_no_message_does(channel):
    batch = next(consume_batches(other_channel(channel), "features", 100))
    assert batch == []
    with pytest.raises(IndexError):
        _ = batch.last_tag


def test_one_iterator_consumes_several_queues(channel):
    publish_batch(channel, "features", [b"f"])
    publish_batch(channel, "y_true", [b"t"])
    commit(channel)
    found = set()
    for batch in consume_batches(other_channel(channel), ("features", "y_true"), 10):
        found |= {(message.queue, message.body) for message in batch}
        if len(found) == 2:
            break
    assert found == {("features", b"f"), ("y_true", b"t")}


def test_batches_end_on_a_stop_request(channel, monkeypatch):
    batches = consume_batches(other_channel(channel), "features", 10)
    next(batches)
    monkeypatch.setattr(consuming, "stop_requested", lambda: True)
    assert list(batches) == []


def test_a_subscription_that_the_broker_cancels_ends_the_process(channel):
    batches = consume_batches(other_channel(channel), "features", 10)
    next(batches)
    other_channel(channel).queue_delete("features")
    with pytest.raises(SystemExit, match="cancelled"):
        wait_for(lambda: next(batches), 10, "the cancellation")


def test_a_message_for_a_queue_that_is_gone_ends_the_process(channel):
    other_channel(channel).queue_delete("features")
    publish_batch(channel, "features", [b"x"])
    with pytest.raises(SystemExit, match="no queue 'features'"):
        commit(channel)


def test_a_dead_letter_has_its_reason_its_queue_and_its_body_of_any_size(channel):
    body = b"\xff" * 300_000
    dead_letter(channel, "y_pred", body, "no number", model_version=4)
    commit(channel)
    reading = other_channel(channel)
    _, properties, found = wait_for(
        lambda: (got := reading.basic_get("dead", auto_ack=True))[0] and got, 10, "the letter"
    )
    assert found == body
    described = {"reason": "no number", "queue": "y_pred", "model_version": 4}
    assert described.items() <= properties.headers.items()
    assert properties.content_type == "application/json"


def test_a_stream_is_read_from_an_offset(channel):
    reading = other_channel(channel)
    declare(reading, "errors")
    publish_batch(channel, "errors", [msgspec.json.encode(number) for number in range(20)])
    commit(channel)
    found = []
    for batch in consume_batches(reading, "errors", 10, offset=5):
        found += [(message.offset, message.body) for message in batch]
        if batch:
            reading.basic_ack(batch.last_tag, multiple=True)
        if len(found) >= 15:
            break
    assert found == [(number, b"%d" % number) for number in range(5, 20)]
