"""Join what is true with what was predicted, by id, and append the error to one CSV.

    [y_true]  {"id": 1765912012.233366, "body": 101.0}   ──┐
    [y_pred]  {"id": 1765912012.233366, "body": 116.95}  ──┴▶ metric ─┬─▶ logs/metric_log.csv
              header model_version: 0                                 ├─▶ [errors] (stream)
                                                                      └─▶ (metric_counts)

The halves of a row come in any order, hours apart, and some come twice; `store.py` keeps those
that wait. A batch is committed there, written to the CSV, synced, published to `errors`, and only
then acknowledged. A kill in between repeats it: the same bytes at the same place in the CSV, and
the same messages on `errors`, whose readers go by the id. With each batch, or else every few
seconds, `metric_counts` is told how many rows are joined and how many halves wait.

What cannot be read goes to `dead` with the headers `reason` and `queue`. A full disk is waited for
without a connection. Whatever else fails ends the process, and its supervisor starts it again.

    python metric/metric.py        # wants a broker on localhost
"""

import faulthandler
import functools
import logging
import os
import signal
import time
from collections import deque
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import msgspec
import pika
from store import Store

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
LOGS_DIR = Path(os.environ.get("LOGS_DIR", "logs"))
CSV_DECIMALS = int(os.environ.get("CSV_DECIMALS", "2"))  # of y_pred and absolute_error
BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "400"))  # messages, at most
WATCHDOG_SECONDS = int(os.environ.get("WATCHDOG_SECONDS", "60"))  # a turn may take this long
ALIVE_FILE = os.environ.get("ALIVE_FILE")  # touched each turn, for the container's healthcheck
TURN_SECONDS = 5  # the longest wait in a turn

QUEUE = {  # the arguments with which every service declares a shared queue
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,  # then it kills its consumer, and belongs in `dead`
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",  # at-least-once dead letters ask for it
}
DEAD = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}  # looking is a delivery too
ERRORS = {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 2_000_000_000}

log = logging.getLogger("metric")

COUNTS = "joined, waiting, repeated, orphans"
LARGEST = 1e300  # beyond it the difference of two numbers may be infinite


class Half(msgspec.Struct):
    """A message on `y_true` or `y_pred`. Two ids are one when the CSV would show them alike."""

    id: int | float | Annotated[str, msgspec.Meta(min_length=1)]
    body: Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]

    def __post_init__(self):
        if len(str(self.id)) > 255:
            raise ValueError("an id has at most 255 characters")


class Joined(msgspec.Struct):
    """A message on `errors` and, with fewer decimals, a record of the CSV."""

    id: int | float | str
    y_true: float
    y_pred: float
    absolute_error: float
    model_version: int | str | None

    def record(self) -> bytes:
        id = str(self.id)
        if any(character in id for character in ',"\r\n'):  # csv.writer would forget the \r
            id = '"' + id.replace('"', '""') + '"'
        y_pred, error = (f"{x:.{CSV_DECIMALS}f}" for x in (self.y_pred, self.absolute_error))
        return f"{id},{self.y_true},{y_pred},{error}\n".encode()


decode = msgspec.json.Decoder(Half).decode


def read(messages: list[tuple]) -> tuple[list[tuple], list[tuple]]:
    """Split (queue, model version, body) into (queue, version, half) and (headers, body)."""
    halves, refused = [], []
    for queue, version, body in messages:
        try:
            halves.append((queue, version, decode(body)))
        except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
            headers = {"reason": str(error), "queue": queue, "model_version": version}
            refused.append((headers, body))
    return halves, refused


def join(rows: dict[str, list], halves: list[tuple]) -> tuple[list[Joined], set[str], int]:
    """Put `halves` into `rows`, which holds [y_true, y_pred, model version] of every known id.

    Return what is joined now, the ids whose row changed, and how many halves came again.
    """
    joined, changed, repeated = [], set(), 0
    for queue, version, half in halves:
        row = rows.setdefault(str(half.id), [None, None, None])
        side = ("y_true", "y_pred").index(queue)
        if row[side] is not None:
            repeated += 1
            continue
        row[side] = half.body
        if queue == "y_pred":
            row[2] = version
        changed.add(str(half.id))
        if None not in row[:2]:
            y_true, y_pred, version = row
            joined.append(Joined(half.id, y_true, y_pred, abs(y_true - y_pred), version))
    return joined, changed, repeated


def keep(store: Store, halves: list[tuple], now: float) -> None:
    """Join `halves` with those that wait, and commit what came of it."""
    rows = store.rows(list({str(half.id) for _, _, half in halves}))
    known = len(rows)
    joined, changed, repeated = join(rows, halves)
    records = b"".join(row.record() for row in joined)
    errors = b"\n".join(map(msgspec.json.encode, joined))
    counts = (len(joined), len(rows) - known - len(joined), repeated)
    store.commit({id: rows[id] for id in changed}, records, errors, now, counts)


def alive() -> None:
    """Begin a turn: rearm the watchdog, and touch the file that the healthcheck looks at."""
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)  # unlike SIGALRM, as PID 1 too
    if ALIVE_FILE:
        Path(ALIVE_FILE).touch()


def message(headers: dict | None = None):
    return pika.BasicProperties("application/json", headers=headers, delivery_mode=2)


def returned(channel, method, properties, body) -> None:
    raise SystemExit(f"the broker has no queue {method.routing_key!r} any more")


def cancelled(method) -> None:
    raise SystemExit("the broker cancelled our subscription")


def publish(channel, queue: str, bodies: list[bytes], properties) -> None:
    """Publish `bodies`, none of them as large as a frame (128 KiB), in one write.

    pika's `basic_publish` takes six system calls for each.
    """
    number = channel.channel_number
    method = pika.spec.Basic.Publish(routing_key=queue, mandatory=True)
    begin = pika.frame.Method(number, method).marshal()
    frames = b"".join(
        begin
        + pika.frame.Header(number, len(body), properties).marshal()
        + pika.frame.Body(number, body).marshal()
        for body in bodies
    )
    if frames:
        channel.connection._impl._output_marshaled_frames([frames])  # sent by the next commit


def publish_counts(channel, counts: tuple[int, ...]) -> None:
    """Tell what was counted, with the next commit; nobody need listen."""
    body = msgspec.json.encode(dict(zip(COUNTS.split(", "), counts, strict=True)))
    channel.basic_publish("metric_counts", "", body, message())


def declare(channel) -> None:
    channel.exchange_declare("metric_counts", "fanout", durable=True)
    channel.queue_declare("dead", durable=True, arguments=DEAD)
    channel.queue_declare("errors", durable=True, arguments=ERRORS)
    for queue in ("y_true", "y_pred"):
        channel.queue_declare(queue, durable=True, arguments=QUEUE)


def version_in(properties) -> int | str | None:
    """Return the header model_version, as far as it is one."""
    version = (properties.headers or {}).get("model_version")
    if isinstance(version, int):
        return int(version)  # pika has a kind of int of its own
    return version[:255] if isinstance(version, str) else None


def subscribe(channel, queue: str, incoming: deque) -> None:
    """Append what arrives on `queue` to `incoming`: (delivery tag, (queue, version, body))."""

    def arrived(channel, method, properties, body):
        incoming.append((method.delivery_tag, (queue, version_in(properties), body)))

    channel.basic_consume(queue, arrived)


def finish(publishing, store: Store) -> None:
    """Bring the last batch into the CSV and to `errors`, and commit all that is published."""
    store.write_csv()
    publish(publishing, "errors", store.state("errors")[0].splitlines(), message())
    publishing.tx_commit()
    publishing.connection.process_data_events(0)  # a returned message speaks up here


def begin(publishing, store: Store) -> None:
    """Finish what the last life left, see that there is a CSV, and that the broker takes more."""
    if not store.state("settled")[0]:
        finish(publishing, store)
    keep(store, [], time.time())
    publishing.basic_publish("", "", b"")  # reaches no queue. A broker that is short of memory or
    finish(publishing, store)  # disk stops us here, not with halves in hand that count as delivered
    store.settle()


def serve(consuming, publishing, store: Store) -> None:
    alive()
    publishing.add_on_return_callback(returned)
    consuming.add_on_cancel_callback(cancelled)
    declare(publishing)
    publishing.tx_select()
    begin(publishing, store)
    incoming = deque()
    consuming.basic_qos(prefetch_count=BATCH_SIZE)  # of each queue
    for queue in ("y_true", "y_pred"):
        subscribe(consuming, queue, incoming)
    log.info("started")
    while True:
        alive()
        if not store.has_reserve():
            raise SystemExit(f"{store.reserve} is gone: the disk was full, or somebody deleted it")
        store.forget(time.time())
        publishing.connection.process_data_events(0)  # answers heartbeats
        consuming.connection.process_data_events(0 if incoming else TURN_SECONDS)
        store.check()
        batch = [incoming.popleft() for _ in range(min(len(incoming), BATCH_SIZE))]
        if not batch:
            publish_counts(publishing, store.state(COUNTS))
            publishing.tx_commit()
            continue
        halves, refused = read([delivery for _, delivery in batch])
        keep(store, halves, time.time())
        for headers, body in refused:
            publishing.basic_publish("", "dead", body, message(headers), mandatory=True)
        counts = store.state(COUNTS)
        publish_counts(publishing, counts)
        finish(publishing, store)
        store.check()  # nothing is acknowledged that went into a deleted database
        consuming.basic_ack(batch[-1][0], multiple=True)
        store.settle()
        log.info("%d messages; joined %d, waiting %d, repeated %d, orphans %d", len(batch), *counts)


def decode_value(encoded: bytes, offset: int, decode=pika.data.decode_value) -> tuple:
    """Decode a value of a header as pika does, but a date that Python does not know as None.

    It would end the connection, and the message would come again and again.
    """
    try:
        return decode(encoded, offset)
    except (ValueError, OverflowError, OSError):
        return None, offset + 9  # its kind, and 64 bits: often milliseconds, where AMQP has seconds


pika.data.decode_value = decode_value


def connect(name: str):
    """Return a connection that the RabbitMQ page shows under this name."""
    parameters = pika.URLParameters(AMQP_URL)
    parameters.client_properties = {"connection_name": name}
    return pika.BlockingConnection(parameters)


def stop_between_batches(connection, number, frame) -> None:
    """Stop in the next `process_data_events`, not in the middle of a frame; a second one, now."""
    signal.signal(number, signal.default_int_handler)
    stop = functools.partial(signal.raise_signal, number)
    if connection.is_open:
        connection.add_callback_threadsafe(stop)
    else:
        stop()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("pika").setLevel(logging.WARNING)
    with (  # two connections: on one, the answer to a commit waits behind all that is delivered
        suppress(KeyboardInterrupt),
        closing(Store(LOGS_DIR)) as store,
        connect("metric, in") as consuming,
        connect("metric, out") as publishing,
    ):
        signal.signal(signal.SIGINT, functools.partial(stop_between_batches, consuming))
        serve(consuming.channel(), publishing.channel(), store)
    log.info("stopped")


if __name__ == "__main__":
    main()
