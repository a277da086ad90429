"""Restore the system of tests/data/v1: files into a folder, messages into an empty broker.

    data.tar.gz    ──▶ unpack(folder)       folder/logs, folder/data, folder/cache, folder/.env
    broker.json.gz ──▶ publish(connection)  exchanges, queues and streams with their messages
    expected.json  ──▶ expected()           facts about the archive, for assertions

A broker that holds a queue of the same name with other arguments closes the channel: pika raises
ChannelClosedByBroker. A file that is missing or damaged raises OSError.
"""

import base64
import gzip
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

ARCHIVE = Path(__file__).parent.parent / "data/v1"
BATCH_SIZE = 500  # messages in a transaction


def unpack(folder: Path) -> None:
    """Extract the archived files: `folder`/logs, `folder`/data, `folder`/cache and `folder`/.env.

    Version 1 reads them through LOGS_DIR, DATA_DIR, MODEL_CACHE and, for data/worker_secret,
    WORKER_SECRET_FILE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(ARCHIVE / "data.tar.gz") as archive:
        archive.extractall(folder, filter="data")


def expected() -> dict[str, Any]:
    """Return the facts about the archive, and about a system that was started on it."""
    return json.loads((ARCHIVE / "expected.json").read_text("utf-8"))


def broker() -> dict[str, list[dict[str, Any]]]:
    """Return the archived exchanges and queues, as the broker described and delivered them."""
    return json.loads(gzip.decompress((ARCHIVE / "broker.json.gz").read_bytes()))


def publish(connection: pika.BlockingConnection) -> None:
    """Declare the archived exchanges, queues and streams, and publish their messages in order.

    The broker must not have them yet: the first message of a new stream has the offset 0, and only
    then do the offsets in logs/drift.json point to the messages that they pointed to.
    """
    archived = broker()
    channel = connection.channel()
    for exchange in archived["exchanges"]:
        channel.exchange_declare(
            exchange["name"],
            exchange["type"],
            durable=exchange["durable"],
            auto_delete=exchange["auto_delete"],
            arguments=exchange["arguments"],
        )
    for queue in archived["queues"]:
        channel.queue_declare(queue["name"], durable=queue["durable"], arguments=queue["arguments"])
    channel.tx_select()
    for queue in archived["queues"]:
        publish_messages(channel, queue["name"], queue["messages"])
    channel.close()


def publish_messages(channel: BlockingChannel, queue: str, messages: list[dict[str, Any]]) -> None:
    """Publish `messages` to `queue`; return after the broker has committed all of them."""
    for number, message in enumerate(messages, 1):
        channel.basic_publish(
            "", queue, body(message), properties(message["properties"]), mandatory=True
        )
        if number % BATCH_SIZE == 0 or number == len(messages):
            channel.tx_commit()


def body(message: dict[str, Any]) -> bytes:
    """Return the body of an archived message: UTF-8 is archived as text, other bytes as base64."""
    if "base64" in message:
        return base64.b64decode(message["base64"])
    return message["body"].encode()


def properties(archived: dict[str, Any]) -> pika.BasicProperties:
    """Return the AMQP properties of an archived message."""
    return pika.BasicProperties(**{name: value(content) for name, content in archived.items()})


def value(archived: Any) -> Any:
    """Return a property or header as pika encodes it; {"timestamp": seconds} is a datetime."""
    if isinstance(archived, list):
        return [value(item) for item in archived]
    if not isinstance(archived, dict):
        return archived
    if set(archived) == {"timestamp"}:
        return datetime.fromtimestamp(archived["timestamp"], UTC)
    return {name: value(item) for name, item in archived.items()}
