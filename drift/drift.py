"""Notice that the model rots, and have it healed.

    [errors] (stream)  {"id": 1765912012.233366, "absolute_error": 25.9, "model_version": 0, …}
        └──▶ drift ──▶ [drift] (stream), logs/drift_log.csv
               │         {"at", "event": "drift", "id", "version", "job", "text"}
               │
               └──HTTP──▶ retrain_api: a job with the rows of [history] (stream) since the change
                              [{"id": 1765912012.233366, "body": [10 floats], "y_true": 101.0}, …]

`watch.py` says what is seen in the errors, `heal.py` what is done about it. What both remember is
written to logs/drift.json once a second, before anything is done; a crash begins again from there,
reads the same rows of the stream, and does what it did not know to be done under the same
Idempotency-Key. Whatever fails ends the process, and its supervisor starts it again.

    python drift/drift.py        # wants a broker and retrain_api on localhost
"""

import csv
import faulthandler
import io
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pika
from heal import Healer, Labelled
from watch import DRIFT_MAX_ROWS, DRIFT_MIN_ROWS, Alarm, Event, Row, State, Watch

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
LOGS_DIR = Path(os.environ.get("LOGS_DIR", "logs"))
WATCHDOG_SECONDS = int(os.environ.get("WATCHDOG_SECONDS", "60"))  # a turn may take this long
ALIVE_FILE = os.environ.get("ALIVE_FILE")  # touched each turn, for the container's healthcheck
TURN_SECONDS = 1  # between two looks at what is to be done
BATCH_SIZE = 100  # messages before they are acknowledged; all of them may be large
FIRST_LOOK = timedelta(hours=1)  # how far back the first life of all begins
SLACK = timedelta(minutes=10)  # by which a row may be on `history` before it is on `errors`
REPLAY_SECONDS = 20
NEW_STREAM_SECONDS = 10  # without the row that was seen last: is it a new stream?
STOPS = signal.SIGINT, signal.SIGTERM, signal.SIGALRM

ERRORS = {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 2_000_000_000}
HISTORY = {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 2_000_000_000}
DRIFT = {"x-queue-type": "stream", "x-max-age": "30D", "x-max-length-bytes": 10_000_000}
PERSISTENT = pika.BasicProperties(content_type="application/json", delivery_mode=2)

LARGEST_BODY = 1 << 20  # bytes: 100 rows have some 25,000, and take 20 times that in memory

log = logging.getLogger("drift")

decode_row = msgspec.json.Decoder(Row).decode
decode_rows = msgspec.json.Decoder(list[Labelled]).decode
decode_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
decode_labelled = msgspec.json.Decoder(Labelled).decode


def load(file: Path) -> State:
    """Return the state that the last life left, or a new one."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except (ValueError, RecursionError) as error:
        log.warning("%s is not to be read, beginning anew: %s", file, error)
        return State()


def save(state: State, file: Path) -> None:
    """Write down what is remembered, in one step, unless it is there already."""
    body, fresh = msgspec.json.encode(state), file.with_suffix(".new")
    if file.exists() and file.read_bytes() == body:
        return
    with fresh.open("wb") as out:
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    os.replace(fresh, file)


def line(cells) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def record(event: Event, file: Path) -> None:
    """Append an event to the CSV, unless an earlier life did; the others may be any bytes."""
    told = file.read_bytes() if file.exists() else line(Event.__struct_fields__)
    new = line(msgspec.structs.astuple(event))
    if new in told:
        return
    fresh = file.with_suffix(".new")
    fresh.write_bytes(told + new)
    os.replace(fresh, file)


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


def see(watch: Watch, offset: int, body: bytes) -> None:
    try:
        watch.see(decode_row(body))
    except (ValueError, RecursionError) as error:
        log.warning("offset %d of `errors` is not a row: %s", offset, error)
    watch.state.offset = offset + 1


def turn(channel, watch: Watch, healer: Healer) -> None:
    """Write down what was seen, do what is to be done, and tell it."""
    state, file = watch.state, LOGS_DIR / "drift.json"
    save(state, file)
    healer.turn()
    if not state.events:
        return
    save(state, file)
    for event in state.events:
        channel.basic_publish("", "drift", msgspec.json.encode(event), PERSISTENT, mandatory=True)
        record(event, LOGS_DIR / "drift_log.csv")
    state.events.clear()
    save(state, file)


def begin_at(state: State):
    """Return the place on `errors` of the row that was seen last: if none comes, it is not there.

    A stream that somebody deleted begins at 0 again, and the broker waits for what is beyond it.
    """
    if state.offset is None:
        return datetime.now(UTC) - FIRST_LOOK
    return max(0, state.offset - 1)


def newest() -> int | None:
    """Return the offset of the newest message on `errors`; None if no message comes in a turn."""
    last, end = None, time.monotonic() + REPLAY_SECONDS
    with connect("drift, newest") as connection:
        for batch in batches(connection.channel(), "errors", "last"):
            if not batch or time.monotonic() > end:
                return last
            last = batch[-1][0]


def is_new_stream(state: State) -> bool:
    """Tell whether `errors` ends before the row that was seen last; forget what hangs on it then.

    One from which nothing comes may be new or out of reach for a while: nobody knows yet.
    """
    last = newest()
    if last is None or last >= state.offset - 1:
        return False
    state.offset, state.errors, state.alarms = 0, [], []
    return True


def serve(connection, watch: Watch) -> None:
    alive()
    telling, state = connection.channel(), watch.state
    declare(telling)
    telling.confirm_delivery()
    healer = Healer(watch, replay)
    start = begin_at(state)
    log.info("started, at %s of `errors`", start)
    due, late = 0.0, time.monotonic() + NEW_STREAM_SECONDS
    for batch in batches(connection.channel(), "errors", start):
        for offset, body in batch:
            see(watch, offset, body)
            late = float("inf")
        if state.offset and time.monotonic() > late:
            late = time.monotonic() + NEW_STREAM_SECONDS
            if is_new_stream(state):
                save(state, LOGS_DIR / "drift.json")
                raise SystemExit("`errors` is a new stream: beginning with its first row")
        if time.monotonic() >= due:
            turn(telling, watch, healer)
            due = time.monotonic() + TURN_SECONDS
    raise SystemExit("the broker cancelled our subscription")


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


def stop(number, frame) -> None:
    """Raise KeyboardInterrupt, and again each second: where Python cleans up, it gets lost."""
    signal.alarm(1)
    raise KeyboardInterrupt


def leave_alone() -> None:
    """Let no further signal disturb the clean-up."""
    signal.alarm(0)
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("pika").setLevel(logging.WARNING)
    if not 0 < DRIFT_MIN_ROWS <= DRIFT_MAX_ROWS:
        raise SystemExit("DRIFT_MIN_ROWS is to be at least 1, and at most DRIFT_MAX_ROWS.")
    LOGS_DIR.mkdir(parents=True, exist_ok=True)
    for number in STOPS:
        signal.signal(number, stop)
    try:
        with connect("drift") as connection:
            serve(connection, Watch(load(LOGS_DIR / "drift.json")))
    except KeyboardInterrupt:
        leave_alone()
    log.info("stopped")


if __name__ == "__main__":
    main()
