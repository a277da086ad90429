"""What the API tells RabbitMQ: which jobs are to be done, and that another version serves.

    [retrain_jobs]  {"id": "251122-104159-3fa2b1"}   a job; its data are fetched over HTTP
    (model_updates) {"version": 3}                   a nudge to every `model`, which asks the API

Each call has a connection of its own, which gives up after a few seconds: the API goes on without
a broker, and what was not confirmed is published later. Whatever goes wrong is AWAY.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pika

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
PATIENCE_SECONDS = 5  # for a connection; with heartbeats of as much, a broker that hangs is found

QUEUE = {  # the arguments with which every service declares a shared queue
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,  # then it kills its consumer, and belongs in `dead`
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",  # at-least-once dead letters ask for it
}
DEAD = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}  # looking is a delivery too
PERSISTENT = pika.BasicProperties(content_type="application/json", delivery_mode=2)
AWAY = (pika.exceptions.AMQPError, OSError)  # an unknown host is an OSError, a nack an AMQPError


def decode_value(encoded: bytes, offset: int, decode=pika.data.decode_value) -> tuple:
    """Decode a value of a header as pika does, but a date that Python does not know as None.

    It would end the connection, and the message would come again and again.
    """
    try:
        return decode(encoded, offset)
    except (ValueError, OverflowError, OSError):
        return None, offset + 9  # its kind, and 64 bits: often milliseconds, where AMQP has seconds


pika.data.decode_value = decode_value


@contextmanager
def connect(name: str) -> Iterator:
    """Yield a connection that the RabbitMQ page shows under this name."""
    parameters = pika.URLParameters(AMQP_URL)
    parameters.client_properties = {"connection_name": name}
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.stack_timeout = PATIENCE_SECONDS
    parameters.blocked_connection_timeout = parameters.heartbeat = PATIENCE_SECONDS
    connection = pika.BlockingConnection(parameters)
    try:
        yield connection
    finally:
        if connection.is_open:
            connection.close()


def answers() -> bool:
    """Tell whether the broker takes a connection now."""
    try:
        with connect("retrain_api, healthz"):
            return True
    except AWAY:
        return False


def declare(channel) -> int:
    """Declare all that is used; return how many jobs wait in the broker for a worker."""
    channel.queue_declare("dead", durable=True, arguments=DEAD)
    channel.exchange_declare("model_updates", "fanout", durable=True)
    declared = channel.queue_declare("retrain_jobs", durable=True, arguments=QUEUE)
    channel.confirm_delivery()
    return declared.method.message_count


def publish_job(channel, id: str) -> None:
    """Return when the broker has it on disk; raise one of AWAY otherwise."""
    channel.basic_publish(
        "", "retrain_jobs", msgspec.json.encode({"id": id}), PERSISTENT, mandatory=True
    )


def nudge(channel, version: int) -> None:
    body = msgspec.json.encode({"version": version})
    channel.basic_publish("model_updates", "", body, PERSISTENT)  # nobody need listen
