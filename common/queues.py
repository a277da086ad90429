"""Every queue, stream and exchange of the system, with the arguments it is declared with.

The broker refuses a queue that two services declare differently, so all of them declare here.
"""

from typing import Any

from pika.adapters.blocking_connection import BlockingChannel

WORK_QUEUE: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,  # a message that was delivered more often kills its consumer
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",  # at-least-once dead letters require it
}


def _stream(max_age: str, max_bytes: int) -> dict[str, Any]:
    return {"x-queue-type": "stream", "x-max-age": max_age, "x-max-length-bytes": max_bytes}


ARGUMENTS: dict[str, dict[str, Any]] = {
    # Reading a dead letter is a delivery, too.
    "dead": {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000},
    "features": WORK_QUEUE,
    "y_true": WORK_QUEUE,
    "y_pred": WORK_QUEUE,
    "retrain_jobs": WORK_QUEUE,
    "errors": _stream("7D", 2_000_000_000),
    "history": _stream("7D", 2_000_000_000),
    "drift": _stream("30D", 10_000_000),
}
WORK_QUEUES = tuple(name for name, arguments in ARGUMENTS.items() if arguments is WORK_QUEUE)
EXCHANGES = ("model_updates", "metric_counts")


def declare(channel: BlockingChannel, *names: str) -> None:
    """Declare queues, streams and exchanges by name."""
    for name in sorted(names, key=lambda name: name != "dead"):  # others dead-letter into it
        if name in EXCHANGES:
            channel.exchange_declare(name, "fanout", durable=True)
        else:
            channel.queue_declare(name, durable=True, arguments=ARGUMENTS[name])


def message_count(channel: BlockingChannel, queue: str) -> int:
    """Return the messages that are ready in a queue; 0, too, if its leader is busy for 250 ms."""
    return int(channel.queue_declare(queue, passive=True).method.message_count)
