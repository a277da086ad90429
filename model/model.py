"""Predict rows: read them from `features`, answer on `y_pred`.

    [features]  {"id": 1765912012.233366, "body": [10 floats]}
        └──▶ model ──▶ [y_pred]  {"id": 1765912012.233366, "body": 116.95}, header model_version: 4
    (model_updates)  any message ──▶ model asks the API which version is current

A batch is what has already arrived, and is predicted as one array. Its answers are committed
before it is acknowledged, so a crash in between repeats answers and loses none: `metric` drops the
second. An invalid body goes to `dead` with the headers `reason` and `queue`. Any other failure ends
the process, and the supervisor starts it again.

The active version changes between two batches: `releases.py` follows the API in a thread of its
own, and `serving` is how a version is loaded. Without an API version 0 is active.

    python model/model.py        # needs a broker on localhost
"""

import functools
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pika.adapters.blocking_connection import BlockingChannel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` and `serving` are
from common import lifecycle
from common.connection import connect
from common.consuming import consume_batches
from common.messages import INVALID, MAX_NUMBER, FeatureRow, decode_feature_row, encode
from common.publishing import commit, dead_letter, publish_batch, require_routing
from common.queues import declare
from model.releases import Releases
from model.updates import follow_api
from serving.builtin import Builtin
from serving.network import Predictor

BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "200"))  # rows predicted at once, at most
API_URL = os.environ.get("API_URL", "").rstrip("/")  # empty: version 0 stays active
API_TOKEN = os.environ.get("API_TOKEN", "")
MODEL_CACHE = Path(os.environ.get("MODEL_CACHE", ".run/model"))  # folder for the last good version
REPLICA_NAME = os.environ.get("REPLICA_NAME", "") or socket.gethostname()
UPDATE_SECONDS = 1  # between two messages from `model_updates`

Rejected = list[tuple[bytes, str]]  # body, reason

log = logging.getLogger("model")


def decode(bodies: list[bytes]) -> tuple[list[tuple[FeatureRow, bytes]], Rejected]:
    """Return the rows with their bodies, and the bodies that are no rows with the reason."""
    rows, rejected = [], []
    for body in bodies:
        try:
            rows.append((decode_feature_row(body), body))
        except INVALID as error:
            rejected.append((body, str(error)))
    return rows, rejected


def predict(model: Predictor, bodies: list[bytes]) -> tuple[list[bytes], Rejected]:
    """Predict `bodies` as one array of the shape (rows, 10).

    Return the messages for `y_pred`, and (body, reason) for each body without an answer.
    """
    rows, rejected = decode(bodies)
    answers = []
    predictions = model.predict(np.array([row.body for row, _ in rows])) if rows else np.empty(0)
    for (row, body), prediction in zip(rows, predictions, strict=True):
        if abs(prediction) <= MAX_NUMBER:
            # A TargetValue would check the id again, which takes 0.6 µs of each row.
            answers.append(encode({"id": row.id, "body": float(prediction)}))
        else:
            rejected.append((body, f"the prediction for these features is {prediction}"))
    return answers, rejected


def subscribe_to_updates(channel: BlockingChannel, wake: Callable[[], None]) -> None:
    """Call `wake` for a message on `model_updates`, at most once in UPDATE_SECONDS.

    Any client may send one, so its content is not read. Of a flood one waits in the broker.
    """

    def on_update(channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        wake()
        acknowledge = functools.partial(channel.basic_ack, method.delivery_tag)
        channel.connection.call_later(UPDATE_SECONDS, acknowledge)  # the next one comes after it

    declare(channel, "model_updates")
    queue = channel.queue_declare("", exclusive=True, arguments={"x-max-length": 1}).method.queue
    channel.queue_bind(queue, "model_updates")
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, on_update)


def serve(
    consuming: BlockingChannel,
    publishing: BlockingChannel,
    releases: Releases,
    wake: Callable[[], None],
) -> None:
    """Answer rows until a stop is requested. `wake` is called for each message with news."""
    lifecycle.report_liveness()
    declare(publishing, "dead", "features", "y_pred")
    require_routing(publishing)
    publishing.tx_select()
    publishing.basic_publish("", "", b"")  # reaches no queue. A broker that is short of memory or
    publishing.tx_commit()  # disk stops us here, and not with rows in hand that count as delivered
    subscribe_to_updates(consuming.connection.channel(), wake)
    log.info("started with version %d", releases.release.version.version)
    for batch in consume_batches(consuming, "features", BATCH_SIZE, prefetch=2 * BATCH_SIZE):
        if not batch:
            publishing.connection.process_data_events(0)  # heartbeats
            continue
        model, version = releases.active()
        answers, rejected = predict(model, batch.bodies)
        releases.finish(version, len(answers))
        publish_batch(publishing, "y_pred", answers, headers={"model_version": version})
        for body, reason in rejected:
            dead_letter(publishing, "features", body, reason)
        commit(publishing)
        consuming.basic_ack(batch.last_tag, multiple=True)
        log.info("answered %d, rejected %d", len(answers), len(rejected))


def main() -> None:
    lifecycle.start()
    releases = Releases(Builtin())
    with (  # two connections: on one, the answer to a commit waits behind all that is delivered
        suppress(lifecycle.StopRequested),
        follow_api(releases, API_URL, API_TOKEN, REPLICA_NAME, MODEL_CACHE) as wake,
        connect("model, in") as consuming,
        connect("model, out") as publishing,
    ):
        serve(consuming.channel(), publishing.channel(), releases, wake)
    log.info("stopped")


if __name__ == "__main__":
    main()
