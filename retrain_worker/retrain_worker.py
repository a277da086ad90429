"""Train: take a job, run it in containers, hand the model to the API.

    [retrain_jobs]  {"id": "251122-104159-3fa2b1"}
        └──▶ retrain_worker ──HTTP──▶ retrain_api: claim, inputs, progress, result
                    └──▶ a container that trains, a container that scores

The message is acknowledged as soon as the job is claimed, and no broker is needed while it runs;
from then on the API's lease keeps the promise. A worker that dies leaves its containers, and its
next life goes on with them; one that is told to stop ends them and puts the job back. A message
that names no job goes to `dead`. Whatever else fails ends the process, and its supervisor starts it
again.

    python retrain_worker/retrain_worker.py   # wants a broker, retrain_api and a Docker engine
    TRAIN_IN=process python …                 # without an engine
"""

import faulthandler
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import pika
from client import WORKER_NAME, Api, Claim, Elsewhere, Over
from engine import Engine
from job import run
from process import Process
from requests import RequestException

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
TRAIN_IN = os.environ.get("TRAIN_IN", "container")  # or process
WATCHDOG_SECONDS = int(os.environ.get("WATCHDOG_SECONDS", "60"))  # a turn may take this long
ALIVE_FILE = os.environ.get("ALIVE_FILE")  # touched each turn, for the container's healthcheck
TURN_SECONDS = 5  # the longest wait in a turn
STOPS = signal.SIGINT, signal.SIGTERM, signal.SIGALRM

QUEUE = {  # the arguments with which every service declares a shared queue
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,  # then it kills its consumer, and belongs in `dead`
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",  # at-least-once dead letters ask for it
}
DEAD = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}  # looking is a delivery too

log = logging.getLogger("retrain_worker")


class Message(msgspec.Struct):
    """A message on `retrain_jobs`. The id becomes part of addresses and of containers' names."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]


decode = msgspec.json.Decoder(Message).decode


def alive() -> None:
    """Begin a turn: rearm the watchdog, and touch the file that the healthcheck looks at."""
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)  # unlike SIGALRM, as PID 1 too
    if ALIVE_FILE:
        Path(ALIVE_FILE).touch()


def sweep(place, api: Api) -> Claim | None:
    """Return an attempt that an earlier life of ours began; remove what belongs to no attempt."""
    for job, attempt in sorted(place.attempts()):
        try:
            return api.adopt(job, attempt)
        except Over as over:
            log.info("removing what is left of job %s, attempt %d: %s", job, attempt, over)
            place.remove(job, attempt)
        except Elsewhere:
            continue
    return None


def bury(channel, body: bytes, reason: str) -> None:
    log.info("to `dead`: %s", reason)
    headers = {"reason": reason, "queue": "retrain_jobs"}
    properties = pika.BasicProperties("application/json", headers=headers, delivery_mode=2)
    channel.basic_publish("", "dead", body, properties, mandatory=True)
    channel.tx_commit()
    channel.connection.process_data_events(0)  # a returned message speaks up here


def returned(channel, method, properties, body) -> None:
    raise SystemExit(f"the broker has no queue {method.routing_key!r} any more")


def take(consuming, publishing, claim: Callable, idle: Callable) -> Claim:
    """Return the next job that is ours, from the queue or from an earlier life."""
    publishing.add_on_return_callback(returned)
    publishing.queue_declare("dead", durable=True, arguments=DEAD)
    publishing.queue_declare("retrain_jobs", durable=True, arguments=QUEUE)
    publishing.tx_select()
    consuming.basic_qos(prefetch_count=1)
    log.info("waiting for a job")
    for method, _, body in consuming.consume("retrain_jobs", inactivity_timeout=TURN_SECONDS):
        alive()
        if method is None:
            if adopted := idle():
                return adopted
            continue
        claimed = None
        try:
            claimed = claim(decode(body).id)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            bury(publishing, body, str(error))
        if claimed:
            consuming.cancel()  # first, or the next job is delivered here, and counts as tried
        consuming.basic_ack(method.delivery_tag)
        if claimed:
            return claimed
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

    A stop may come in the middle of pika, where a goodbye fails, or hangs: then we end without.
    """
    parameters = pika.URLParameters(AMQP_URL)
    parameters.client_properties = {"connection_name": name}
    connection = pika.BlockingConnection(parameters)
    yield connection
    connection.close()


def idle(place, api: Api) -> Claim | None:
    """Do what is to be done between two looks at the queue."""
    place.warm_up()
    return sweep(place, api) if api.is_up() else None


def next_job(place, api: Api) -> Claim:
    if adopted := sweep(place, api):
        log.info("going on with job %s, attempt %d", adopted.id, adopted.attempt)
        return adopted
    api.wait_until_up()  # not with a message in hand, which would count as a try
    place.warm_up()
    with connect("retrain_worker") as connection:
        channels = connection.channel(), connection.channel()
        return take(*channels, api.claim, lambda: idle(place, api))


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
    for number in STOPS:
        signal.signal(number, stop)
    alive()
    api = place = None
    try:
        api = Api(alive)
        place = (Process if TRAIN_IN == "process" else Engine)(WORKER_NAME, api.name)
        log.info("started as %s, jobs run in a %s", WORKER_NAME, TRAIN_IN)
        while True:
            run(place, api, next_job(place, api))
            api.claimed = None
    except KeyboardInterrupt:
        leave_alone()
    except RequestException as error:
        raise SystemExit(f"no answer, from the engine or the API: {error}") from None
    # Only now: with the interrupt go the streams that it broke off, which hold the engine up.
    if place and (claim := api.claimed):
        place.remove(claim.id, claim.attempt)
        api.release(claim)
    if place:
        place.close()
    log.info("stopped")


if __name__ == "__main__":
    main()
