"""One connection of the page's thread: what it reads, and what it tells each second.

    [errors] (stream)  ──┐ from some rows back
    [drift] (stream)   ──┼▶ Following ──▶ numbers, charts
    (metric_counts)    ──┤
    queues, each second ─┘

It ends when nobody looks any more, when something that it reads is deleted, and when the stream
has run too far ahead: the next one begins near the end again.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import msgspec
import pika
from msgspec import Meta

from retrain_api import broker
from retrain_api.rows import Name, Row, Rows

ROWS_BACK = 20_000  # rows before now with which the page begins
PREFETCH = 2000
TURN_SECONDS = 0.2
TELL_SECONDS = 1
EMPTY_SECONDS = 2  # a stream that delivers nothing for so long has nothing
BEHIND = 5 * ROWS_BACK  # rows, at most
NEWS = 100  # entries of `drift` that are shown

ERRORS = {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 2_000_000_000}
DRIFT = {"x-queue-type": "stream", "x-max-age": "30D", "x-max-length-bytes": 10_000_000}
WAITING = ("features", "y_true", "y_pred", "retrain_jobs", "dead")

log = logging.getLogger("retrain_api")


class Counts(msgspec.Struct):
    """A message on `metric_counts`: what `metric` counted since its database began."""

    joined: int
    waiting: int
    repeated: int
    orphans: int


class News(msgspec.Struct):
    """A message on `drift`: what was seen, or done about it, in a sentence."""

    at: Name
    event: Name
    text: Annotated[str, Meta(max_length=2000)]
    id: int | float | Name | None = None
    version: int | None = None
    job: Name | None = None


class Following:
    """One connection of the thread, and what it saw."""

    def __init__(self, connection, asking):
        """Read on `connection`, ask on `asking`: an answer waits behind all that is delivered, and
        until then all that is kept in memory."""
        self.connection, self.channel = connection, connection.channel()
        self.asking, self.question = asking, None
        self.rows, self.counts = Rows(), None
        self.news, self.heard = deque(maxlen=NEWS), 0
        self.arrived, self.cancelled = deque(), False
        self.channel.add_on_cancel_callback(self.cancel)
        self.channel.queue_declare("errors", durable=True, arguments=ERRORS)
        self.channel.queue_declare("drift", durable=True, arguments=DRIFT)
        self.newest, self.length = newest(), self.waiting("errors")
        if self.newest < 0 and self.length:  # or all of it would count as arriving now
            raise pika.exceptions.AMQPError("`errors` has rows, and delivers none")
        self.offset, self.end = self.newest, self.newest
        self.subscribe()

    def subscribe(self) -> None:
        self.channel.basic_qos(prefetch_count=PREFETCH)  # of each; a stream asks for it
        self.channel.exchange_declare("metric_counts", "fanout", durable=True)
        mine = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(mine, "metric_counts")
        self.consume(mine, self.take_counts)
        self.consume("drift", self.take_news, {"x-stream-offset": "first"})
        begin = {"x-stream-offset": max(0, self.newest - ROWS_BACK)}
        self.consume("errors", self.take_row, begin)  # last: an answer waits behind what it brings

    def consume(self, queue: str, take, arguments: dict | None = None) -> None:
        def arrived(channel, method, properties, body):
            self.arrived.append((method.delivery_tag, take, properties, body))

        self.channel.basic_consume(queue, arrived, arguments=arguments)

    def cancel(self, method) -> None:
        """Note that the broker deleted what we read."""
        self.cancelled = True

    def run(self, live) -> None:
        """Follow while somebody looks, and there is something to follow, at no great distance."""
        told, drawn = time.monotonic(), -1
        while live.wanted() and not self.cancelled:
            self.connection.process_data_events(TURN_SECONDS)
            self.take()
            if time.monotonic() - told < TELL_SECONDS:
                continue
            told, drawn = time.monotonic(), self.tell(live, drawn)
            if self.behind() > BEHIND:
                log.info("the page is too far behind: following from near the end again")
                return

    def behind(self) -> int:
        """Return how many rows `errors` is ahead, as far as its length tells."""
        before, self.length = self.length, self.waiting("errors") or 0
        self.end += max(0, self.length - before)  # it gets shorter, too, as old rows go
        return self.end - self.offset

    def take(self) -> None:
        tag, now = None, time.time()
        while self.arrived:
            tag, take, properties, body = self.arrived.popleft()
            try:
                take(properties, body, now)
            except (ValueError, RecursionError):  # it is not what it should be: not ours to show
                continue
        if tag:
            self.channel.basic_ack(tag, multiple=True)

    def take_row(self, properties, body: bytes, now: float) -> None:
        self.offset = properties.headers["x-stream-offset"]
        self.rows.take(read_row(body), now, self.offset <= self.newest)

    def take_news(self, properties, body: bytes, now: float) -> None:
        self.news.append(read_news(body))
        self.heard += 1

    def take_counts(self, properties, body: bytes, now: float) -> None:
        self.counts = read_counts(body)

    def tell(self, live, drawn: int) -> int:
        """Tell what is new, the charts only if there is anything to draw anew."""
        numbers = self.rows.numbers(time.time()) | {"halves": self.counts, "problem": None}
        told = {"numbers": numbers | {"queues": self.queues()}}
        state = self.rows.count + self.heard
        if state != drawn:
            told["charts"] = self.rows.charts() | {"news": list(self.news)}
        live.tell(**told)  # together, so that no number is newer than the chart
        return state

    def queues(self) -> dict[str, int | None]:
        """Return how many messages wait in each queue; None for one that is not there."""
        return {queue: self.waiting(queue) for queue in WAITING}

    def waiting(self, queue: str) -> int | None:
        if not self.question or not self.question.is_open:  # asking for none closes the channel
            self.question = self.asking.channel()
        try:
            return self.question.queue_declare(queue, passive=True).method.message_count
        except pika.exceptions.ChannelClosedByBroker:
            return None


read_row = msgspec.json.Decoder(Row).decode
read_news = msgspec.json.Decoder(News).decode
read_counts = msgspec.json.Decoder(Counts).decode


@contextmanager
def reading(name: str) -> Iterator:
    """Yield a connection that may read streams.

    It is closed below pika's own way, which rejects what is still coming: streams do not know that.
    """
    with broker.connect(name) as connection:
        try:
            yield connection
        finally:
            with suppress(*broker.AWAY):  # what went wrong before it counts
                connection._impl.close(200, "done")
                connection._flush_output(connection._closed_result.is_ready)


def newest() -> int:
    """Return where `errors` ends, or a little before that; -1 while it is empty."""
    offsets = []

    def arrived(channel, method, properties, body):
        offsets.append(properties.headers["x-stream-offset"])

    with reading("retrain_api, page, where errors ends") as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("errors", arrived, arguments={"x-stream-offset": "last"})
        end = time.monotonic() + EMPTY_SECONDS
        while not offsets and time.monotonic() < end:
            connection.process_data_events(TURN_SECONDS)
    return offsets[0] if offsets else -1
