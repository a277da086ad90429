"""Read streams: the newest place on `errors`, and the rows of a case from `history`.

    [history] (stream)  [{"id": 1765912012.233366, "body": [10 floats], "y_true": 101.0}, …]
        └──▶ replay(case): those rows of the case that were sent since the change

Each call has a connection of its own. A lost connection is an error that ends the process.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from pika.adapters.blocking_connection import BlockingChannel

from common.connection import connect
from common.consuming import Batch, consume_batches
from common.lifecycle import check_stop
from common.messages import INVALID, MAX_HISTORY_BYTES, HistoryRow
from drift.state import DriftCase

BATCH_SIZE = 100  # messages before they are acknowledged; all of them may be large
QUIET_SECONDS = 1  # without a message: the end of a stream
REPLAY_SECONDS = 20  # limit of one reading
MARGIN = timedelta(minutes=10)  # by which a row may be on `history` before it is on `errors`

decode_rows = msgspec.json.Decoder(list[HistoryRow]).decode
decode_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
decode_row = msgspec.json.Decoder(HistoryRow).decode


def decode_history(body: bytes) -> list[HistoryRow]:
    """Return the rows in a message of `history`; anybody may write there, so some may be none."""
    if len(body) > MAX_HISTORY_BYTES:
        return []
    with suppress(*INVALID):
        return decode_rows(body)
    rows = []
    with suppress(*INVALID):
        for part in decode_parts(body):
            with suppress(*INVALID):
                rows.append(decode_row(part))
    return rows


def read_stream(channel: BlockingChannel, stream: str, start: Any) -> Iterator[Batch]:
    """Yield what arrives on a stream, and an empty batch after QUIET_SECONDS without a message.

    Raise StopRequested on a stop request: what was read until then may be a part only.
    """
    arrived = time.monotonic()
    for batch in consume_batches(channel, stream, BATCH_SIZE, offset=start):
        if batch:
            channel.basic_ack(batch.last_tag, multiple=True)  # asks for more
        elif time.monotonic() - arrived < QUIET_SECONDS:
            continue
        yield batch
        arrived = time.monotonic()
    check_stop()


def newest_offset() -> int | None:
    """Return the place of the newest message on `errors`; None if none comes in time."""
    newest, end = None, time.monotonic() + REPLAY_SECONDS
    with connect("drift, newest") as connection:
        for batch in read_stream(connection.channel(), "errors", "last"):
            if not batch or time.monotonic() > end:
                break
            newest = batch[-1].offset
    return newest


def replay(case: DriftCase) -> list[HistoryRow]:
    """Return the rows of a case, as far as `history` has them."""
    rows: list[HistoryRow] = []
    for start in (datetime.fromtimestamp(case.detected_at, UTC) - MARGIN, "first"):
        rows = rows_since(start, case)
        if len(rows) >= len(case.row_ids) // 2:
            break
    return rows


def rows_since(start: datetime | str, case: DriftCase) -> list[HistoryRow]:
    """Return the rows of a case as far as they are found on `history` in REPLAY_SECONDS.

    Rows are there in the order in which they were sent. Those before the row of the detection may
    be older than the change, however late their errors were known.
    """
    wanted, end = set(case.row_ids), time.monotonic() + REPLAY_SECONDS
    found: dict[str, HistoryRow] = {}
    with connect("drift, replay") as connection:
        for batch in read_stream(connection.channel(), "history", start):
            for row in (row for body in batch.bodies for row in decode_history(body)):
                if (row_id := str(row.id)) == case.after_id:
                    found.clear()
                elif row_id in wanted:
                    found[row_id] = row
            ended = found and not batch  # but for what is being written now
            if ended or len(found) == len(wanted) or time.monotonic() > end:
                break
    return list(found.values())
