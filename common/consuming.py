"""Consume in batches: a batch is what has arrived, and never waits for more.

for batch in consume_batches(channel, "features", 200):
    …
    channel.basic_ack(batch.last_tag, multiple=True)
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from pika.adapters.blocking_connection import BlockingChannel

from common.lifecycle import POLL_SECONDS, report_liveness, stop_requested


class Message(NamedTuple):
    tag: int
    queue: str
    headers: dict[str, Any]
    body: bytes

    @property
    def offset(self) -> int:
        """The place of a message on its stream."""
        return int(self.headers["x-stream-offset"])


class Batch(list[Message]):
    """Messages in the order of their arrival, from one queue or several."""

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self]

    @property
    def last_tag(self) -> int:
        """The delivery tag that acknowledges all of them; raise IndexError if there are none."""
        return self[-1].tag


def subscribe(channel: BlockingChannel, queue: str, arrived: deque[Message], **kwargs: Any) -> None:
    """Append what arrives on a queue to `arrived`. The consumer tag is the queue's name."""

    def append(channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        arrived.append(Message(method.delivery_tag, queue, properties.headers or {}, body))

    channel.basic_consume(queue, append, consumer_tag=queue, **kwargs)


def consume_batches(
    channel: BlockingChannel,
    queues: str | tuple[str, ...],
    size: int,
    prefetch: int | None = None,
    offset: Any = None,
) -> Iterator[Batch]:
    """Yield at most `size` messages at once; an empty batch if none came for POLL_SECONDS.

    End on a stop request. Raise SystemExit if the broker cancels the subscription, as it does when
    a queue is deleted. `prefetch` is for each queue (default: `size`); `offset` is where to start
    on a stream: "first", "last", a number or a datetime.
    """
    arrived: deque[Message] = deque()
    channel.add_on_cancel_callback(_cancelled)
    channel.basic_qos(prefetch_count=prefetch or size)
    start = {} if offset is None else {"arguments": {"x-stream-offset": offset}}
    for queue in (queues,) if isinstance(queues, str) else queues:
        subscribe(channel, queue, arrived, **start)
    while not stop_requested():
        report_liveness()
        channel.connection.process_data_events(0 if arrived else POLL_SECONDS)  # heartbeats, too
        yield Batch(arrived.popleft() for _ in range(min(len(arrived), size)))


def _cancelled(method: Any) -> None:
    raise SystemExit("the broker cancelled our subscription")
