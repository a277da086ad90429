"""One connection of the page's thread: what it reads, and what it publishes each second.

    [errors] (stream)  ──┐ from some rows back
    [drift] (stream)   ──┼▶ LiveReader ──▶ numbers, charts
    (metric_counts)    ──┤
    queues, each second ─┘

It ends when there are no viewers any more, when something that it reads is deleted, and when the
stream is too far ahead: the next one starts near the end again.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import AMQPError, ChannelClosedByBroker

from common.connection import connect
from common.consuming import Message, subscribe
from common.messages import (
    INVALID,
    DriftEvent,
    MetricCounts,
    decode_counts,
    decode_event,
    decode_joined_row,
)
from common.queues import WORK_QUEUES, declare, message_count
from retrain_api.live.statistics import RowStatistics
from retrain_api.settings import BROKER_SECONDS

ROWS_BACK = 20_000  # rows before now with which the page starts
PREFETCH = 2000
TURN_SECONDS = 0.2
PUBLISH_SECONDS = 1
EMPTY_SECONDS = 2  # a stream that delivers nothing for so long is empty
MAX_BEHIND = 5 * ROWS_BACK  # rows
MAX_EVENTS = 100  # of `drift`, that are shown
SHOWN_QUEUES = (*WORK_QUEUES, "dead")

log = logging.getLogger("retrain_api")


class LiveReader:
    """What one connection has read."""

    def __init__(self, connection: BlockingConnection, asking: BlockingConnection) -> None:
        """Read on `connection`, ask on `asking`: an answer waits behind all that is delivered, and
        until then all of it is kept in memory."""
        self.connection, self.asking = connection, asking
        self.channel = connection.channel()
        self.question: BlockingChannel | None = None
        self.statistics = RowStatistics()
        self.counts: MetricCounts | None = None
        self.events: deque[DriftEvent] = deque(maxlen=MAX_EVENTS)
        self.event_count, self.drawn = 0, -1
        self.arrived: deque[Message] = deque()
        self.cancelled = False
        self.channel.add_on_cancel_callback(self.cancel)
        declare(self.channel, "errors", "drift", "metric_counts")
        self.newest, self.length = newest_offset(), self.messages("errors")
        if self.newest < 0 and self.length:  # or all of it would count as arriving now
            raise AMQPError("`errors` has rows, and delivers none")
        self.offset, self.end = self.newest, self.newest
        self.subscribe()

    def subscribe(self) -> None:
        self.channel.basic_qos(prefetch_count=PREFETCH)  # of each; a stream requires it
        counts = str(self.channel.queue_declare("", exclusive=True).method.queue)
        self.channel.queue_bind(counts, "metric_counts")
        subscribe(self.channel, counts, self.arrived)
        for stream, offset in (("drift", "first"), ("errors", max(0, self.newest - ROWS_BACK))):
            arguments = {"x-stream-offset": offset}  # `errors` last: answers wait behind its rows
            subscribe(self.channel, stream, self.arrived, arguments=arguments)

    def cancel(self, method: Any) -> None:
        """Note that the broker deleted what we read."""
        self.cancelled = True

    def run(self, is_watched: Callable[[], bool], publish: Callable[..., None]) -> None:
        """Read and publish while there are viewers, and the end of the stream is near."""
        published = time.monotonic()
        while is_watched() and not self.cancelled:
            self.connection.process_data_events(TURN_SECONDS)
            self.read()
            if time.monotonic() - published < PUBLISH_SECONDS:
                continue
            published = time.monotonic()
            publish(**self.collect())  # together, so that no number is newer than the chart
            if self.behind() > MAX_BEHIND:
                log.info("the page is too far behind: reading from near the end again")
                return

    def behind(self) -> int:
        """Return how many rows `errors` is ahead, as far as its length shows."""
        before, self.length = self.length, self.messages("errors")
        self.end += max(0, (self.length or 0) - (before or 0))  # old rows expire: it gets shorter
        return self.end - self.offset

    def read(self) -> None:
        """Read and acknowledge what has arrived; invalid messages are not ours to report."""
        tag, now = None, time.time()
        while self.arrived:
            message = self.arrived.popleft()
            tag = message.tag
            with suppress(*INVALID):
                self.read_message(message, now)
        if tag:
            self.channel.basic_ack(tag, multiple=True)

    def read_message(self, message: Message, now: float) -> None:
        if message.queue == "errors":
            self.offset = message.offset
            self.statistics.add(decode_joined_row(message.body), now, self.offset <= self.newest)
        elif message.queue == "drift":
            self.events.append(decode_event(message.body))
            self.event_count += 1
        else:
            self.counts = decode_counts(message.body)

    def collect(self) -> dict[str, Any]:
        """Return the numbers, and the charts if there is anything new to draw."""
        numbers = self.statistics.numbers(time.time()) | {"counts": self.counts, "problem": None}
        queues = {queue: self.messages(queue) for queue in SHOWN_QUEUES}
        events: dict[str, Any] = {"numbers": numbers | {"queues": queues}}
        state = self.statistics.count + self.event_count
        if state != self.drawn:
            self.drawn = state
            events["charts"] = self.statistics.charts() | {"news": list(self.events)}
        return events

    def messages(self, queue: str) -> int | None:
        """Return how many messages are ready in a queue; None if it does not exist."""
        if not self.question or not self.question.is_open:  # a missing queue closes the channel
            self.question = self.asking.channel()
        try:
            return message_count(self.question, queue)
        except ChannelClosedByBroker:
            return None


def newest_offset() -> int:
    """Return the offset where `errors` ends, or a little before that; -1 while it is empty."""
    arrived: deque[Message] = deque()
    with connect("retrain_api, page, where errors ends", BROKER_SECONDS) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        subscribe(channel, "errors", arrived, arguments={"x-stream-offset": "last"})
        end = time.monotonic() + EMPTY_SECONDS
        while not arrived and time.monotonic() < end:
            connection.process_data_events(TURN_SECONDS)
    return arrived[0].offset if arrived else -1
