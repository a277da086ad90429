"""Publish batches in one transaction, and dead letters with their reason.

require_routing(channel); channel.tx_select()
publish_batch(channel, …); dead_letter(channel, …)
commit(channel)                     on disk now, or the process ends
"""

from collections.abc import Iterable
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

Headers = dict[str, Any]


def properties(headers: Headers | None = None) -> pika.BasicProperties:
    """Return the properties of a persistent JSON message."""
    return pika.BasicProperties("application/json", headers=headers, delivery_mode=2)


def require_routing(channel: BlockingChannel) -> None:
    """End the process in the next `commit` after a message that no queue took."""
    channel.add_on_return_callback(_unroutable)


def _unroutable(channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
    raise SystemExit(f"the broker has no queue {method.routing_key!r} any more")


def publish_batch(
    channel: BlockingChannel, queue: str, bodies: Iterable[bytes], headers: Headers | None = None
) -> None:
    """Publish bodies with one write to the socket, which the next commit sends.

    Each body is smaller than a frame (128 KiB). pika's `basic_publish` takes six system calls for
    each message; nothing but this and `connection` touches its private names.
    """
    number = channel.channel_number
    method = pika.spec.Basic.Publish(routing_key=queue, mandatory=True)
    start, described = pika.frame.Method(number, method).marshal(), properties(headers)
    frames = b"".join(
        start
        + pika.frame.Header(number, len(body), described).marshal()
        + pika.frame.Body(number, body).marshal()
        for body in bodies
    )
    if frames:
        channel.connection._impl._output_marshaled_frames([frames])


def dead_letter(
    channel: BlockingChannel, queue: str, body: bytes, reason: str, **headers: Any
) -> None:
    """Publish a message of `queue` that cannot be used to `dead`, of any size."""
    described = properties({"reason": reason, "queue": queue, **headers})
    channel.basic_publish("", "dead", body, described, mandatory=True)


def commit(channel: BlockingChannel) -> None:
    """Commit the transaction; raise SystemExit if a message in it found no queue."""
    channel.tx_commit()
    channel.connection.process_data_events(0)  # dispatches returned messages
