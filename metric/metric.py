"""Join true and predicted values by id, and append the absolute error to one CSV.

    [y_true]  {"id": 1765912012.233366, "body": 101.0}   ──┐
    [y_pred]  {"id": 1765912012.233366, "body": 116.95}  ──┴▶ metric ─┬─▶ logs/metric_log.csv
              header model_version: 0                                 ├─▶ [errors] (stream)
                                                                      └─▶ (metric_counts)

The two values of a row come in any order, hours apart, and some come twice; `store.py` keeps the
pending rows. A batch is committed there, written to the CSV, synced, published to `errors`, and
only then acknowledged. A kill in between repeats it: the same bytes at the same place in the CSV,
and the same messages on `errors`, whose readers go by the id.

A message that cannot be decoded goes to `dead` with the headers `reason` and `queue`. A full disk
is waited for without a connection. Any other failure ends the process, and the supervisor starts
it again.

    python metric/metric.py        # needs a broker on localhost
"""

import logging
import os
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import asdict
from pika.adapters.blocking_connection import BlockingChannel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` is
from common import lifecycle
from common.connection import connect
from common.consuming import Message, consume_batches
from common.messages import (
    INVALID,
    JoinedRow,
    MetricCounts,
    decode_target_value,
    encode,
    model_version,
)
from common.publishing import commit, dead_letter, properties, publish_batch, require_routing
from common.queues import declare
from metric.csv_file import format_record
from metric.database import Row, Rows
from metric.store import Store

LOGS_DIR = Path(os.environ.get("LOGS_DIR", "logs"))
CSV_DECIMALS = int(os.environ.get("CSV_DECIMALS", "2"))  # of y_pred and absolute_error
BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "400"))  # messages, at most
METRIC_RETENTION_SECONDS = float(os.environ.get("METRIC_RETENTION_SECONDS", "604800"))  # of an id
METRIC_BALLAST_BYTES = int(os.environ.get("METRIC_BALLAST_BYTES", "8388608"))  # for a full disk
COUNTS_SECONDS = 5  # between two messages on metric_counts when nothing arrives

log = logging.getLogger("metric")


class Value(NamedTuple):
    """A message on `y_true` or `y_pred`. Two ids are equal if the CSV shows them alike: `key`."""

    key: str
    id: int | float | str
    queue: str
    body: float
    version: int | str | None


def parse(messages: list[Message]) -> tuple[list[Value], list[tuple[Message, str]]]:
    """Return the values, and the messages that are not valid, each with the reason."""
    values, rejected = [], []
    for message in messages:
        try:
            target = decode_target_value(message.body)
        except INVALID as error:
            rejected.append((message, str(error)))
            continue
        version = model_version(message.headers)
        values.append(Value(str(target.id), target.id, message.queue, target.body, version))
    return values, rejected


def join(rows: Rows, values: list[Value]) -> tuple[list[JoinedRow], Rows, int]:
    """Put values into `rows`, which holds the rows of all ids that are known.

    Return the rows that are complete now, the rows that changed, and the number of repeated
    values, which change nothing.
    """
    joined, changed, repeated = [], {}, 0
    for key, row_id, queue, body, version in values:
        row = rows.setdefault(key, Row())
        if getattr(row, queue) is not None:  # the fields are called as the queues are
            repeated += 1
            continue
        setattr(row, queue, body)
        if queue == "y_pred":
            row.model_version = version
        changed[key] = row
        if row.y_true is not None and row.y_pred is not None:
            error = abs(row.y_true - row.y_pred)
            joined.append(JoinedRow(row_id, row.y_true, row.y_pred, error, row.model_version))
    return joined, changed, repeated


def store_values(store: Store, values: list[Value], now: float) -> None:
    """Join values with the rows in the store, commit the outcome, and write it into the CSV."""
    rows = store.database.rows({value.key for value in values})
    known = len(rows)
    joined, changed, repeated = join(rows, values)
    records = b"".join(format_record(row, CSV_DECIMALS) for row in joined)
    pending = len(rows) - known - len(joined)
    added = MetricCounts(joined=len(joined), pending=pending, repeated=repeated, expired=0)
    store.commit(changed, records, [encode(row) for row in joined], added, now)
    store.write_csv()


def describe(counts: MetricCounts) -> str:
    return ", ".join(f"{name} {count}" for name, count in asdict(counts).items())


def recover(publishing: BlockingChannel, store: Store) -> None:
    """Publish the batch that the last process did not, and see that broker and CSV are there."""
    store.write_csv()
    publish_batch(publishing, "errors", store.unpublished_errors())
    publishing.basic_publish("", "", b"")  # reaches no queue. A broker that is short of memory or
    commit(publishing)  # disk stops us here, and not after messages were delivered to us
    store.create_csv()


def serve(consuming: BlockingChannel, publishing: BlockingChannel, store: Store) -> None:
    """Join what arrives, until a stop is requested."""
    lifecycle.report_liveness()
    declare(publishing, "dead", "y_true", "y_pred", "errors", "metric_counts")
    require_routing(publishing)
    publishing.tx_select()
    recover(publishing, store)
    log.info("started")
    counts_due = time.monotonic()
    for batch in consume_batches(consuming, ("y_true", "y_pred"), BATCH_SIZE):
        store.check_database()
        store.expire(time.time() - METRIC_RETENTION_SECONDS)
        if batch:
            values, rejected = parse(batch)
            store_values(store, values, time.time())
            publish_batch(publishing, "errors", store.unpublished_errors())
            for message, reason in rejected:
                version = model_version(message.headers)
                dead_letter(publishing, message.queue, message.body, reason, model_version=version)
        if batch or time.monotonic() > counts_due:
            counts, counts_due = store.database.counts(), time.monotonic() + COUNTS_SECONDS
            publishing.basic_publish("metric_counts", "", encode(counts), properties())
            commit(publishing)
        if batch:
            store.check_database()  # nothing is acknowledged that went into a deleted database
            consuming.basic_ack(batch.last_tag, multiple=True)
            store.mark_published()
            log.info("%d messages; %s", len(batch), describe(counts))
        publishing.connection.process_data_events(0)  # answers heartbeats
        store.check_ballast()


def main() -> None:
    lifecycle.start()
    with (  # two connections: on one, a commit is answered after all that is being delivered
        suppress(lifecycle.StopRequested),
        closing(Store(LOGS_DIR, METRIC_BALLAST_BYTES)) as store,
        connect("metric, in") as consuming,
        connect("metric, out") as publishing,
    ):
        serve(consuming.channel(), publishing.channel(), store)
    log.info("stopped")


if __name__ == "__main__":
    main()
