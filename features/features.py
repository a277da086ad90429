"""Send rows of the diabetes data: what is known to `features`, what is true to `y_true`.

    features ──┬──▶ [features]  {"id": 1765912012.233366, "body": [10 floats]}
               ├──▶ [y_true]    {"id": 1765912012.233366, "body": 101.0}
               └──▶ [history]   [{"id": 1765912012.233366, "body": [10 floats], "y_true": 101.0}, …]

Both halves of a row go out under one id and in one transaction, and the whole row to a stream that
can be replayed. The id counts as sent when the commit has returned, and only then it is logged,
unless a stop comes between the two: a row that is not logged may be with the broker, in part or
whole, and nobody may count on it. Whatever else fails ends the process, and its supervisor starts
it again.

FEATURES_DRIFT_AFTER=300 changes the world after 300 rows: from then on the target is mirrored, so
whatever made it rise makes it fall. With 300,2000 it changes a second time, and lies higher.

    python features/features.py        # wants a broker on localhost
"""

import faulthandler
import functools
import itertools
import logging
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pika
from sklearn.datasets import load_diabetes

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
FEATURES_DELAY_SECONDS = float(os.environ.get("FEATURES_DELAY_SECONDS", "10"))  # 0: at full speed
FEATURES_COUNT = int(os.environ.get("FEATURES_COUNT", "0"))  # rows to send, 0: without end
FEATURES_SEED = os.environ.get("FEATURES_SEED") or None  # the same seed draws the same rows
FEATURES_DRIFT_AFTER = os.environ.get("FEATURES_DRIFT_AFTER", "")  # rows since the start: 300,2000
BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "200"))  # rows in a transaction at full speed
QUEUED_AT_MOST = 100_000  # messages; while more wait, nobody takes them, and more would do harm
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
HISTORY = {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 2_000_000_000}
PERSISTENT = pika.BasicProperties(content_type="application/json", delivery_mode=2)

HISTORY_ROWS = 100  # in a message, which has to be smaller than a frame
MIRROR = 371.0  # the least and the most of the diabetes target, 25 and 346, change places

log = logging.getLogger("features")


def next_id(now: float, last: float) -> float:
    """Return the id after `last`: a Unix time in seconds with six decimals, above `last`.

    A clock that stands still or steps back never repeats one. The last decimal is never 0, so
    that all six are there wherever the number is printed.
    """
    microseconds = max(round(now * 1e6), round(last * 1e6) + 1)
    return (microseconds + (microseconds % 10 == 0)) / 1e6


def mirrored(truth: float, times: int) -> float:
    """Return what is true after the world has changed so many times; MIRROR - truth after one.

    Mirroring turns the sign of each coefficient of a linear model and keeps what it can explain.
    """
    for change in range(1, times + 1):
        truth = change * MIRROR - truth
    return truth


def rows(
    data, target, seed: str | None, changes: tuple[int, ...] = ()
) -> Iterator[tuple[float, list[float], float]]:
    """Yield (id, features, true value) without end, drawn at random from `data` and `target`.

    `data` has the shape (rows, features), `target` (rows,). The world changes after as many rows
    as `changes` say.
    """
    draw = random.Random(seed)
    last = 0.0
    for number in itertools.count():
        row = draw.randrange(len(target))
        last = next_id(time.time(), last)
        truth = mirrored(float(target[row]), sum(number >= change for change in changes))
        yield last, data[row].tolist(), truth


def whole(batch: list[tuple]) -> list[bytes]:
    """Return the messages for `history`, fewer than rows: each costs the broker time."""
    rows = [{"id": id, "body": row, "y_true": truth} for id, row, truth in batch]
    parts = range(0, len(rows), HISTORY_ROWS)
    return [msgspec.json.encode(rows[begin : begin + HISTORY_ROWS]) for begin in parts]


def alive() -> None:
    """Begin a turn: rearm the watchdog, and touch the file that the healthcheck looks at."""
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)  # unlike SIGALRM, as PID 1 too
    if ALIVE_FILE:
        Path(ALIVE_FILE).touch()


def wait(connection, seconds: float) -> None:
    """Stay connected for `seconds`, a turn at a time."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        alive()
        connection.sleep(min(left, TURN_SECONDS))


def returned(channel, method, properties, body) -> None:
    raise SystemExit(f"the broker has no queue {method.routing_key!r} any more")


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


def queued(channel) -> int:
    """Return how many messages wait in the fuller queue. A full broker would block us all."""
    declared = [channel.queue_declare(queue, passive=True) for queue in ("features", "y_true")]
    return max(queue.method.message_count for queue in declared)


def serve(connection, stream: Iterator, count: int) -> None:
    alive()
    channel = connection.channel()
    channel.add_on_return_callback(returned)
    channel.queue_declare("dead", durable=True, arguments=DEAD)
    for queue in ("features", "y_true"):
        channel.queue_declare(queue, durable=True, arguments=QUEUE)
    channel.queue_declare("history", durable=True, arguments=HISTORY)
    channel.tx_select()
    size = 1 if FEATURES_DELAY_SECONDS else BATCH_SIZE
    sent = 0
    while not count or sent < count:
        alive()
        batch = [next(stream) for _ in range(min(size, count - sent) if count else size)]
        known = [msgspec.json.encode({"id": id, "body": row}) for id, row, _ in batch]
        true = [msgspec.json.encode({"id": id, "body": truth}) for id, _, truth in batch]
        publish(channel, "features", known, PERSISTENT)
        publish(channel, "y_true", true, PERSISTENT)
        publish(channel, "history", whole(batch), PERSISTENT)
        channel.tx_commit()
        connection.process_data_events(0)  # a returned message speaks up here
        sent += len(batch)
        log.info("sent %d: %s", len(batch), " ".join(f"{id:.6f}" for id, _, _ in batch))
        if sent != count:
            wait(connection, FEATURES_DELAY_SECONDS)
        while sent != count and queued(channel) > QUEUED_AT_MOST:
            log.info("more than %d messages wait to be taken; waiting too", QUEUED_AT_MOST)
            wait(connection, TURN_SECONDS)


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
    data, target = load_diabetes(return_X_y=True)
    changes = tuple(int(rows) for rows in FEATURES_DRIFT_AFTER.split(",") if rows.strip())
    parameters = pika.URLParameters(AMQP_URL)
    parameters.client_properties = {"connection_name": "features"}
    try:
        with pika.BlockingConnection(parameters) as connection:
            signal.signal(signal.SIGINT, functools.partial(stop_between_batches, connection))
            log.info("started, one row every %g s", FEATURES_DELAY_SECONDS)
            serve(connection, rows(data, target, FEATURES_SEED, changes), FEATURES_COUNT)
    except KeyboardInterrupt:
        log.info("stopped before the last row")
        raise SystemExit(130) from None  # with a 0 Docker would leave it down after a reboot
    log.info("done")


if __name__ == "__main__":
    main()
