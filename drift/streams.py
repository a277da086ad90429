"""Read streams: the errors from where one likes, and the rows of an alarm from `history`.

    [history] (stream)  [{"id": 1765912012.233366, "body": [10 floats], "y_true": 101.0}, …]
        └──▶ replay(alarm): those of them that came since the change

A lost connection is an error that ends the process.
"""

import faulthandler
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pika
from heal import Labelled
from watch import Alarm

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
WATCHDOG_SECONDS = int(os.environ.get("WATCHDOG_SECONDS", "60"))  # a turn may take this long
ALIVE_FILE = os.environ.get("ALIVE_FILE")  # touched each turn, for the container's healthcheck
TURN_SECONDS = 1  # between two looks at what is to be done
BATCH_SIZE = 100  # messages before they are acknowledged; all of them may be large
SLACK = timedelta(minutes=10)  # by which a row may be on `history` before it is on `errors`
REPLAY_SECONDS = 20

ERRORS = {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 2_000_000_000}
HISTORY = {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 2_000_000_000}
DRIFT = {"x-queue-type": "stream", "x-max-age": "30D", "x-max-length-bytes": 10_000_000}
LARGEST_BODY = 1 << 20  # bytes: 100 rows have some 25,000, and take 20 times that in memory

decode_rows = msgspec.json.Decoder(list[Labelled]).decode
decode_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
decode_labelled = msgspec.json.Decoder(Labelled).decode


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
    """Yield a connection that the RabbitMQ page shows under this name.

    It is closed below pika's own way, which rejects what is still coming: streams do not know that.
    A stop may come in the middle of pika, where a goodbye fails, or hangs: then we end without.
    """
    parameters = pika.URLParameters(AMQP_URL)
    parameters.client_properties = {"connection_name": name}
    connection = pika.BlockingConnection(parameters)
    yield connection
    connection._impl.close(200, "done")
    connection._flush_output(connection._closed_result.is_ready)


def alive() -> None:
    """Begin a turn: rearm the watchdog, and touch the file that the healthcheck looks at."""
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)  # unlike SIGALRM, as PID 1 too
    if ALIVE_FILE:
        Path(ALIVE_FILE).touch()


def declare(channel) -> None:
    streams = {"errors": ERRORS, "history": HISTORY, "drift": DRIFT}
    for stream, arguments in streams.items():
        channel.queue_declare(stream, durable=True, arguments=arguments)


def batches(channel, stream: str, offset) -> Iterator[list[tuple[int, bytes]]]:
    """Yield what has arrived on `stream`, beginning at `offset`, as (offset, body).

    Yield nothing, [], when nothing came for a turn.
    """
    channel.basic_qos(prefetch_count=BATCH_SIZE)
    batch, start = [], {"x-stream-offset": offset}
    for method, properties, body in channel.consume(
        stream, arguments=start, inactivity_timeout=TURN_SECONDS
    ):
        if method:
            batch.append((int(properties.headers["x-stream-offset"]), body))
        if len(batch) == BATCH_SIZE or not channel.get_waiting_message_count():
            if method:
                channel.basic_ack(method.delivery_tag, multiple=True)  # asks for more
            alive()
            yield batch
            batch = []


def newest() -> int | None:
    """Return the offset of the newest message on `errors`; None if no message comes in a turn."""
    last, end = None, time.monotonic() + REPLAY_SECONDS
    with connect("drift, newest") as connection:
        for batch in batches(connection.channel(), "errors", "last"):
            if not batch or time.monotonic() > end:
                return last
            last = batch[-1][0]


def replay(alarm: Alarm) -> list[Labelled]:
    """Return the rows of an alarm, as far as `history` has them."""
    for start in (datetime.fromtimestamp(alarm.noticed, UTC) - SLACK, "first"):
        rows = rows_since(start, alarm)
        if len(rows) >= len(alarm.rows) // 2:
            break
    return rows


def rows_since(start, alarm: Alarm) -> list[Labelled]:
    """Return the alarm's rows as far as they are found on `history` in time.

    They are there in the order in which they were sent: what comes before the row that raised the
    alarm may be of the old world, however late its error was known.
    """
    wanted, found, end = set(alarm.rows), {}, time.monotonic() + REPLAY_SECONDS
    with connect("drift, replay") as connection:
        for batch in batches(connection.channel(), "history", start):
            for row in (row for _, body in batch for row in read(body)):
                if (id := str(row.id)) == alarm.since:
                    found.clear()
                elif id in wanted:
                    found[id] = row
            over = found and not batch  # the end of the stream, but for what is written just now
            if over or len(found) == len(wanted) or time.monotonic() > end:
                break
    return list(found.values())


def read(body: bytes) -> list[Labelled]:
    """Return the rows in a message on `history`; anybody may write there, so some may be none."""
    if len(body) > LARGEST_BODY:
        return []
    with suppress(ValueError, RecursionError):
        return decode_rows(body)
    rows = []
    with suppress(ValueError, RecursionError):
        for part in decode_parts(body):
            with suppress(ValueError, RecursionError):
                rows.append(decode_labelled(part))
    return rows
