"""What happens on the broker right now, for whoever looks at the page.

    [errors] (stream)  ──┐ from some rows back
    [drift] (stream)   ──┼▶ Live ──▶ one event a second, the same for all who look
    (metric_counts)    ──┤
    queues, each second ─┘

One thread follows while somebody looks, and ends some seconds after the last has gone: a page that
nobody opened costs nothing. A broker that is away is told and tried again; one that writes faster
than this thread reads is followed from some rows back again.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pika

from retrain_api import broker
from retrain_api.rows import Row, Rows

HISTORY = 20_000  # rows before now with which the page begins
PREFETCH = 2000
TURN_SECONDS = 0.2
TELL_SECONDS = 1
AWAY_SECONDS = 2  # pause after the broker was away
LINGER_SECONDS = 5  # after the last viewer has gone: a page that is loaded again finds it running
CHECK_SECONDS = 10  # between two looks at how far behind we are
BEHIND = 5 * HISTORY  # rows; then begin again near the end
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

    at: str
    event: str
    text: str
    id: int | float | str | None = None
    version: int | None = None
    job: str | None = None


class Live:
    def __init__(self):
        self.changed = threading.Condition()
        self.viewers, self.left, self.thread = 0, 0.0, None
        self.events: dict[str, bytes] = {}  # by name, the newest of each

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count a viewer, and see that a thread follows for it."""
        with self.changed:
            self.viewers += 1
            if not self.thread:
                self.thread = threading.Thread(target=self.run, name="live", daemon=True)
                self.thread.start()
        try:
            yield
        finally:
            with self.changed:
                self.viewers -= 1
                self.left = time.monotonic()

    def wait(self, seconds: float) -> dict[str, bytes]:
        """Return the newest events as soon as there are newer ones, or after `seconds`."""
        with self.changed:
            self.changed.wait(seconds)
            return dict(self.events)

    def tell(self, **events) -> None:
        with self.changed:
            for name, told in events.items():
                self.events[name] = msgspec.json.encode(told)
            self.changed.notify_all()

    def wanted(self) -> bool:
        return self.viewers > 0 or time.monotonic() < self.left + LINGER_SECONDS

    def run(self) -> None:
        while not self.ended():
            try:
                with broker.connect("retrain_api, page") as connection:
                    Following(connection).run(self)
            except broker.AWAY as error:
                log.info("the page cannot follow the broker: %r", error)
                self.tell(numbers={"problem": "The broker does not answer; trying again."})
                time.sleep(AWAY_SECONDS)

    def ended(self) -> bool:
        """Tell whether nobody looks any more; whoever comes after that starts another thread."""
        with self.changed:
            if self.wanted():
                return False
            self.thread, self.events = None, {}
            return True


class Following:
    """One connection of the thread, and what it saw."""

    def __init__(self, connection):
        self.connection, self.channel, self.asking = connection, connection.channel(), None
        self.rows, self.news, self.counts = Rows(), deque(maxlen=NEWS), None
        self.arrived, self.offset, self.cancelled = deque(), -1, False
        self.channel.add_on_cancel_callback(self.cancel)
        self.channel.queue_declare("errors", durable=True, arguments=ERRORS)
        self.channel.queue_declare("drift", durable=True, arguments=DRIFT)
        self.newest = newest(connection)
        self.subscribe()

    def subscribe(self) -> None:
        self.channel.basic_qos(prefetch_count=PREFETCH)  # of each; a stream asks for it
        begin = {"x-stream-offset": max(0, self.newest - HISTORY)}
        self.consume("errors", self.take_row, begin)
        self.consume("drift", self.take_news, {"x-stream-offset": "first"})
        self.channel.exchange_declare("metric_counts", "fanout", durable=True)
        mine = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(mine, "metric_counts")
        self.consume(mine, self.take_counts)

    def consume(self, queue: str, take, arguments: dict | None = None) -> None:
        def arrived(channel, method, properties, body):
            self.arrived.append((method.delivery_tag, take, properties, body))

        self.channel.basic_consume(queue, arrived, arguments=arguments)

    def cancel(self, method) -> None:
        """Note that the broker deleted what we read."""
        self.cancelled = True

    def run(self, live: Live) -> None:
        """Follow while somebody looks, and there is something to follow, at no great distance."""
        told = checked = time.monotonic()
        drawn = -1
        while live.wanted() and not self.cancelled:
            self.connection.process_data_events(TURN_SECONDS)
            self.take()
            now = time.monotonic()
            if now - checked > CHECK_SECONDS:
                checked = now
                if newest(self.connection) - self.offset > BEHIND:
                    log.info("the page is too far behind: following from near the end again")
                    return
            if now - told > TELL_SECONDS:
                told = now
                drawn = self.tell(live, drawn)

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

    def take_counts(self, properties, body: bytes, now: float) -> None:
        self.counts = read_counts(body)

    def tell(self, live: Live, drawn: int) -> int:
        """Tell what is new, the charts only if there is anything to draw anew."""
        numbers = self.rows.numbers(time.time()) | {"halves": self.counts, "problem": None}
        live.tell(numbers=numbers | {"queues": self.queues()})
        state = self.rows.count + len(self.news)
        if state != drawn:
            live.tell(charts=self.rows.charts() | {"news": list(self.news)})
        return state

    def queues(self) -> dict[str, int | None]:
        """Return how many messages wait in each queue; None for one that is not there."""
        return {queue: self.waiting(queue) for queue in WAITING}

    def waiting(self, queue: str) -> int | None:
        if not self.asking or not self.asking.is_open:  # asking for none closes the channel
            self.asking = self.connection.channel()
        try:
            return self.asking.queue_declare(queue, passive=True).method.message_count
        except pika.exceptions.ChannelClosedByBroker:
            return None


read_row = msgspec.json.Decoder(Row).decode
read_news = msgspec.json.Decoder(News).decode
read_counts = msgspec.json.Decoder(Counts).decode


def newest(connection) -> int:
    """Return where `errors` ends, or a little before that; -1 while it is empty."""
    channel, offsets = connection.channel(), []

    def arrived(channel, method, properties, body):
        offsets.append(properties.headers["x-stream-offset"])

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume("errors", arrived, arguments={"x-stream-offset": "last"})
    for _ in range(10):  # an empty stream delivers nothing
        if offsets:
            break
        connection.process_data_events(TURN_SECONDS)
    channel.close()
    return offsets[0] if offsets else -1
