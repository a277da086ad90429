"""Notice that the model rots, and have it healed.

    [errors] (stream)  {"id": 1765912012.233366, "absolute_error": 25.9, "model_version": 0, …}
        └──▶ drift ──▶ [drift] (stream), logs/drift_log.csv
               │         {"at", "event": "drift", "id", "version", "job", "text"}
               │
               └──HTTP──▶ retrain_api: a job with the rows of [history] (stream) since the change
                              [{"id": 1765912012.233366, "body": [10 floats], "y_true": 101.0}, …]

`watch.py` says what is seen in the errors, `heal.py` what is done about it; `streams.py` reads, and
`memory.py` writes down. What is remembered goes to logs/drift.json once a second, before anything
is done; a crash begins again from there, reads the same rows of the stream, and does what it did
not know to be done under the same Idempotency-Key. Whatever fails ends the process, and its
supervisor starts it again.

    python drift/drift.py        # wants a broker and retrain_api on localhost
"""

import logging
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pika
from heal import Healer
from memory import load, record, save
from streams import TURN_SECONDS, alive, batches, connect, declare, newest, replay
from watch import DRIFT_MAX_ROWS, DRIFT_MIN_ROWS, Row, State, Watch

LOGS_DIR = Path(os.environ.get("LOGS_DIR", "logs"))
FIRST_LOOK = timedelta(hours=1)  # how far back the first life of all begins
NEW_STREAM_SECONDS = 10  # without the row that was seen last: is it a new stream?
STOPS = signal.SIGINT, signal.SIGTERM, signal.SIGALRM

PERSISTENT = pika.BasicProperties(content_type="application/json", delivery_mode=2)

log = logging.getLogger("drift")

decode_row = msgspec.json.Decoder(Row).decode


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
