"""Send rows of the diabetes data: what is known to `features`, what is true to `y_true`.

    features ──┬──▶ [features]  {"id": 1765912012.233366, "body": [10 floats]}
               ├──▶ [y_true]    {"id": 1765912012.233366, "body": 101.0}
               └──▶ [history]   [{"id": 1765912012.233366, "body": [10 floats], "y_true": 101.0}, …]

Both messages of a row have one id and go out in one transaction; the whole row goes to a stream
that can be replayed. The id is logged after the commit, so a logged row is never lost. After a stop
between the two the broker may have rows that are not logged. Any failure ends the process, and the
supervisor starts it again.

FEATURES_DRIFT_AFTER=300 mirrors the target after 300 rows: what raised it before lowers it then.
With 300,2000 it is mirrored a second time, onto a higher range.

    python features/features.py        # needs a broker on localhost
"""

import itertools
import logging
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from sklearn.datasets import load_diabetes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` is
from common import lifecycle
from common.connection import connect
from common.messages import FeatureRow, HistoryRow, TargetValue, encode
from common.publishing import commit, publish_batch, require_routing
from common.queues import declare, message_count

FEATURES_DELAY_SECONDS = float(os.environ.get("FEATURES_DELAY_SECONDS", "10"))  # 0: at full speed
FEATURES_COUNT = int(os.environ.get("FEATURES_COUNT", "0"))  # rows to send, 0: without end
FEATURES_SEED = os.environ.get("FEATURES_SEED") or None  # the same seed draws the same rows
FEATURES_DRIFT_AFTER = os.environ.get("FEATURES_DRIFT_AFTER", "")  # rows since the start: 300,2000
BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "200"))  # rows in a transaction at full speed
MAX_BACKLOG = 100_000  # messages in a queue; with more there is no consumer
BACKLOG_SECONDS = 5  # between two looks at a backlog

HISTORY_ROWS = 100  # in a message, which has to be smaller than a frame
MIRROR = 371.0  # the smallest and the largest diabetes target, 25 and 346, change places
STOPPED = 130  # exit code of a stop before the last row: with 0 Docker would not start it again

log = logging.getLogger("features")


def next_id(now: float, last: float) -> float:
    """Return the id after `last`: a Unix time in seconds with six decimals, above `last`.

    A clock that stands still or steps back repeats no id. The last decimal is never 0, so that
    all six are there wherever the number is printed.
    """
    microseconds = max(round(now * 1e6), round(last * 1e6) + 1)
    return (microseconds + (microseconds % 10 == 0)) / 1e6


def mirrored(truth: float, times: int) -> float:
    """Return the true value after so many changes; MIRROR - truth after one.

    Mirroring turns the sign of each coefficient of a linear model and keeps the variance that it
    can explain.
    """
    for change in range(1, times + 1):
        truth = change * MIRROR - truth
    return truth


def draw_rows(
    data: np.ndarray, target: np.ndarray, seed: str | None, changes: tuple[int, ...] = ()
) -> Iterator[HistoryRow]:
    """Yield rows without end, drawn at random from `data` and `target`.

    `data` has the shape (rows, features), `target` (rows,). The target is mirrored after as many
    rows as `changes` say.
    """
    generator = random.Random(seed)
    last = 0.0
    for number in itertools.count():
        index = generator.randrange(len(target))
        last = next_id(time.time(), last)
        truth = mirrored(float(target[index]), sum(number >= change for change in changes))
        yield HistoryRow(last, data[index].tolist(), truth)


def history_messages(rows: list[HistoryRow]) -> list[bytes]:
    """Return the messages for `history`, fewer than rows: each costs the broker time."""
    starts = range(0, len(rows), HISTORY_ROWS)
    return [encode(rows[start : start + HISTORY_ROWS]) for start in starts]


def backlog(channel: BlockingChannel) -> int:
    """Return the messages in the fuller queue. A full broker would block all services."""
    return max(message_count(channel, queue) for queue in ("features", "y_true"))


def serve(connection: BlockingConnection, rows: Iterator[HistoryRow], count: int) -> bool:
    """Send `count` rows, or rows without end if it is 0; return whether all of them are sent."""
    channel = connection.channel()
    declare(channel, "dead", "features", "y_true", "history")
    require_routing(channel)
    channel.tx_select()
    size = 1 if FEATURES_DELAY_SECONDS else BATCH_SIZE
    sent = 0
    while not lifecycle.stop_requested():
        lifecycle.report_liveness()
        batch = list(itertools.islice(rows, min(size, count - sent) if count else size))
        publish_batch(channel, "features", [encode(FeatureRow(row.id, row.body)) for row in batch])
        publish_batch(channel, "y_true", [encode(TargetValue(row.id, row.y_true)) for row in batch])
        publish_batch(channel, "history", history_messages(batch))
        commit(channel)
        sent += len(batch)
        log.info("sent %d: %s", len(batch), " ".join(f"{row.id:.6f}" for row in batch))
        if sent == count:
            return True
        lifecycle.wait(FEATURES_DELAY_SECONDS, connection.sleep)
        while not lifecycle.stop_requested() and backlog(channel) > MAX_BACKLOG:
            log.info("waiting, as a queue has more than %d messages", MAX_BACKLOG)
            lifecycle.wait(BACKLOG_SECONDS, connection.sleep)
    return False


def main() -> None:
    lifecycle.start()
    data, target = load_diabetes(return_X_y=True)
    changes = tuple(int(rows) for rows in FEATURES_DRIFT_AFTER.split(",") if rows.strip())
    rows = draw_rows(data, target, FEATURES_SEED, changes)
    complete = False
    with suppress(lifecycle.StopRequested), connect("features") as connection:
        log.info("started, one row every %g s", FEATURES_DELAY_SECONDS)
        complete = serve(connection, rows, FEATURES_COUNT)
    log.info("done" if complete else "stopped before the last row")
    raise SystemExit(0 if complete else STOPPED)


if __name__ == "__main__":
    main()
