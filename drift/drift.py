"""Detect that the data has changed, have a new model trained, and roll back one that is worse.

    [errors] (stream)  {"id": 1765912012.233366, "absolute_error": 25.9, "model_version": 0, …}
        └──▶ drift ──▶ [drift] (stream), logs/drift_log.csv
               │         {"at", "event": "drift_detected", "id", "version", "job", "text"}
               │
               └──HTTP──▶ retrain_api: a job with the rows of [history] (stream) since the change
                              [{"id": 1765912012.233366, "body": [10 floats], "y_true": 101.0}, …]

`monitor.py` decides from the errors, `controller.py` acts on its decisions. The state goes to
logs/drift.json once a second, before anything is acted upon. After a crash `drift` continues from
there: it reads the same rows again, and repeats what it may have done under the same
Idempotency-Key. Any failure ends the process, and the supervisor starts it again.

    python drift/drift.py        # needs a broker and retrain_api on localhost
"""

import logging
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` is
from common import lifecycle
from common.connection import connect
from common.consuming import consume_batches
from common.messages import encode
from common.publishing import properties
from common.queues import declare
from drift.api_client import ApiClient
from drift.controller import Controller
from drift.settings import API_TOKEN, API_URL, LOGS_DIR, check_settings
from drift.state_store import StateStore
from drift.streams import BATCH_SIZE, newest_offset, replay

TURN_SECONDS = 1  # between two savings of the state
FIRST_START = timedelta(hours=1)  # how far back the first start begins
NEW_STREAM_SECONDS = 10  # without the row that was seen last: the stream may be a new one

log = logging.getLogger("drift")


def start_offset(offset: int | None) -> int | datetime:
    """Return where to start on `errors`: at the last row seen, which shows that it is there.

    A stream that was deleted starts at 0 again, and the broker waits for what is beyond its end.
    """
    return datetime.now(UTC) - FIRST_START if offset is None else max(0, offset - 1)


def is_new_stream(offset: int) -> bool:
    """Return whether `errors` ends before the last row that was seen.

    A stream from which nothing comes may be new, or unavailable for a while, so the answer is no.
    """
    newest = newest_offset()
    return newest is not None and newest < offset - 1


def take_turn(channel: BlockingChannel, controller: Controller, store: StateStore) -> None:
    """Save the state, act on it, and publish the events."""
    store.save(controller.state)
    controller.act()
    if not controller.state.events:
        return
    store.save(controller.state)
    for event in controller.state.events:
        channel.basic_publish("", "drift", encode(event), properties(), mandatory=True)
        store.append_event(event)
    controller.events_published()
    store.save(controller.state)


def serve(connection: BlockingConnection, controller: Controller, store: StateStore) -> None:
    """Process the rows of `errors` until a stop is requested."""
    lifecycle.report_liveness()  # a queue without a leader would hold up what follows
    publishing, consuming = connection.channel(), connection.channel()
    declare(publishing, "errors", "history", "drift")
    publishing.confirm_delivery()
    start = start_offset(controller.state.offset)
    log.info("started, at %s of `errors`", start)
    next_turn, silent_until = 0.0, time.monotonic() + NEW_STREAM_SECONDS
    for batch in consume_batches(consuming, "errors", BATCH_SIZE, offset=start):
        for message in batch:
            controller.process(message.offset, message.body)
        if batch:
            consuming.basic_ack(batch.last_tag, multiple=True)
            silent_until = float("inf")
        if controller.state.offset and time.monotonic() > silent_until:
            silent_until = time.monotonic() + NEW_STREAM_SECONDS
            if is_new_stream(controller.state.offset):
                controller.reset_stream()
                store.save(controller.state)
                raise SystemExit("`errors` is a new stream: starting with its first row")
        if time.monotonic() >= next_turn:
            take_turn(publishing, controller, store)
            next_turn = time.monotonic() + TURN_SECONDS


def main() -> None:
    lifecycle.start()
    check_settings()
    LOGS_DIR.mkdir(parents=True, exist_ok=True)
    store = StateStore(LOGS_DIR)
    controller = Controller(store.load(), ApiClient(API_URL, API_TOKEN), replay)
    with suppress(lifecycle.StopRequested), connect("drift") as connection:
        serve(connection, controller, store)
    log.info("stopped")


if __name__ == "__main__":
    main()
