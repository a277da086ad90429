"""Predict: take rows from `features`, answer on `y_pred`.

    [features]  {"id": 1765912012.233366, "body": [10 floats]}
        └──▶ model ──▶ [y_pred]  {"id": 1765912012.233366, "body": 116.95}, header model_version: 4
    (model_updates)  any message ──▶ model asks the API which version is current

A batch is what has already arrived, and is predicted as one array. Its answers are committed
before it is acknowledged, so a crash in between repeats answers and loses none: `metric` drops the
second. What cannot be read goes to `dead` with the headers `reason` and `queue`. Whatever else
fails ends the process, and its supervisor starts it again.

Which version answers is decided between two batches: `updates.py` follows the API in a thread of
its own, `serving.py` is the model. Without an API it is version 0.

    python model/model.py        # wants a broker on localhost
"""

import faulthandler
import functools
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import pika
from updates import Updates

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "200"))  # rows predicted at once, at most
WATCHDOG_SECONDS = int(os.environ.get("WATCHDOG_SECONDS", "60"))  # a turn may take this long
ALIVE_FILE = os.environ.get("ALIVE_FILE")  # touched each turn, for the container's healthcheck
TURN_SECONDS = 5  # the longest wait in a turn
NUDGE_SECONDS = 1  # between two messages that are taken from `model_updates`

QUEUE = {  # the arguments with which every service declares a shared queue
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,  # then it kills its consumer, and belongs in `dead`
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",  # at-least-once dead letters ask for it
}
DEAD = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}  # looking is a delivery too

log = logging.getLogger("model")

LARGEST = 1e300  # beyond it the difference of two numbers may be infinite
LARGEST_BODY = 1 << 16  # bytes: a row has some 240, and a list takes 20 times its text in memory
Number = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]


class Row(msgspec.Struct):
    """A message on `features`. The id goes out as it came in."""

    id: int | float | Annotated[str, msgspec.Meta(min_length=1)]
    body: Annotated[list[Number], msgspec.Meta(min_length=10, max_length=10)]

    def __post_init__(self):
        if len(str(self.id)) > 255:
            raise ValueError("an id has at most 255 characters")


decode = msgspec.json.Decoder(Row).decode


def read(body: bytes) -> Row:
    if len(body) > LARGEST_BODY:
        raise ValueError(f"a row has at most {LARGEST_BODY} bytes, and this has {len(body)}")
    return decode(body)


def answer(model, bodies: list[bytes]) -> tuple[list[bytes], list[tuple[bytes, str]]]:
    """Predict `bodies` as one array of the shape (rows, 10).

    Return the messages for `y_pred`, and (body, reason) of what cannot be answered.
    """
    rows, refused = [], []
    for body in bodies:
        try:
            rows.append((read(body), body))
        except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
            refused.append((body, str(error)))
    answers = []
    predictions = model.predict(np.array([row.body for row, _ in rows])) if rows else []
    for (row, body), prediction in zip(rows, predictions, strict=True):
        if abs(prediction) <= LARGEST:
            answers.append(msgspec.json.encode({"id": row.id, "body": float(prediction)}))
        else:
            refused.append((body, f"the prediction for these features is {prediction}"))
    return answers, refused


def alive() -> None:
    """Begin a turn: rearm the watchdog, and touch the file that the healthcheck looks at."""
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)  # unlike SIGALRM, as PID 1 too
    if ALIVE_FILE:
        Path(ALIVE_FILE).touch()


def message(headers: dict):
    return pika.BasicProperties("application/json", headers=headers, delivery_mode=2)


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


def batches(channel, queue: str) -> Iterator[list]:
    """Yield what has arrived on `queue`, at most BATCH_SIZE at once, as (delivery tag, body).

    Yield nothing, [], when nothing came for a turn.
    """
    batch = []
    for method, _, body in channel.consume(queue, inactivity_timeout=TURN_SECONDS):
        if method:
            batch.append((method.delivery_tag, body))
        if len(batch) == BATCH_SIZE or not channel.get_waiting_message_count():
            alive()  # not for each message: it starts a thread
            yield batch
            batch = []


def subscribe(channel, nudge) -> None:
    """Call `nudge` for a message on `model_updates`. Anybody may send them: none is looked at."""

    def arrived(channel, method, properties, body):
        nudge()
        acknowledge = functools.partial(channel.basic_ack, method.delivery_tag)
        channel.connection.call_later(NUDGE_SECONDS, acknowledge)  # the next one comes after it

    channel.exchange_declare("model_updates", "fanout", durable=True)
    one = {"x-max-length": 1}  # of a flood, one waits in the broker
    queue = channel.queue_declare("", exclusive=True, arguments=one).method.queue
    channel.queue_bind(queue, "model_updates")
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, arrived)


def serve(consuming, publishing, updates) -> None:
    alive()
    publishing.add_on_return_callback(returned)
    publishing.queue_declare("dead", durable=True, arguments=DEAD)
    for queue in ("features", "y_pred"):
        publishing.queue_declare(queue, durable=True, arguments=QUEUE)
    publishing.tx_select()
    publishing.basic_publish("", "", b"")  # reaches no queue. A broker that is short of memory or
    publishing.tx_commit()  # disk stops us here, and not with rows in hand that count as delivered
    subscribe(consuming.connection.channel(), updates.nudge)
    consuming.basic_qos(prefetch_count=2 * BATCH_SIZE)
    log.info("started, version %d answers", updates.serving[1].version)
    for batch in batches(consuming, "features"):
        model, version = updates.newest()
        answers, refused = answer(model, [body for _, body in batch])
        updates.predicted(version, len(answers))
        publish(publishing, "y_pred", answers, message({"model_version": version}))
        for body, reason in refused:
            headers = message({"reason": reason, "queue": "features"})
            publishing.basic_publish("", "dead", body, headers, mandatory=True)
        publishing.tx_commit()
        publishing.connection.process_data_events(0)  # a returned message speaks up here
        if batch:
            consuming.basic_ack(batch[-1][0], multiple=True)
            log.info("answered %d, refused %d", len(answers), len(refused))
        consuming.connection.process_data_events(0)  # while rows wait, a stop and news come here
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
        Updates() as updates,
        connect("model, in") as consuming,
        connect("model, out") as publishing,
    ):
        signal.signal(signal.SIGINT, functools.partial(stop_between_batches, consuming))
        serve(consuming.channel(), publishing.channel(), updates)
    log.info("stopped")


if __name__ == "__main__":
    main()
