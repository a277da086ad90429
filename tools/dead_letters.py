"""Look at the dead letters, or send them again.

    [dead]  any body, headers reason and queue ──▶ show: read, printed, left where they are
                                               └─▶ replay: back to the queue they came from

`replay` takes what lies in `dead` when it starts; what is refused again comes back with its
reason. A message is taken out only after the commit of its copy returned, so a kill may send one
twice and loses none.

    python dead/dead.py            # show; wants a broker on localhost
    python dead/dead.py replay
"""

import logging
import os
import sys
from collections.abc import Iterator
from itertools import chain, islice

import pika

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
SHOW_AT_MOST = int(os.environ.get("SHOW_AT_MOST", "100"))  # messages
BODY_WIDTH = 160  # bytes of a body that are printed
BATCH_SIZE = 200  # messages in a transaction

QUEUE = {  # the arguments with which every service declares a shared queue
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,  # then it kills its consumer, and belongs in `dead`
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",  # at-least-once dead letters ask for it
}
DEAD = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}  # looking is a delivery too
ORIGINS = ("features", "y_true", "y_pred", "retrain_jobs")


def origin(headers: dict) -> str:
    """Return the queue that a dead letter came from; "" if its headers do not tell."""
    return str(headers.get("queue") or headers.get("x-first-death-queue") or "")


def reason(headers: dict) -> str:
    """Return why a message is dead, in the words of the service or of the broker."""
    if headers.get("x-first-death-reason") == "delivery_limit":
        return "the service that took it died each time: delivered more than 20 times"
    return str(headers.get("reason") or headers.get("x-first-death-reason") or "unknown")


def before_death(headers: dict) -> dict:
    """Return the headers without what the service, and with x- the broker, said of the death."""
    return {
        name: value
        for name, value in headers.items()
        if name not in ("reason", "queue") and not str(name).startswith("x-")
    }


def letters(channel) -> Iterator[tuple]:
    """Yield (how many there are from it on, delivery tag, headers, body) of what is there now.

    They stay unacknowledged, and what dies meanwhile is not among them. A queue that is declared
    would tell their number, too, but 0 when it is busy for 250 ms.
    """
    left = sys.maxsize
    while left:
        method, properties, body = channel.basic_get("dead")
        if method is None:
            return
        left = min(left, method.message_count + 1)
        yield left, method.delivery_tag, properties.headers or {}, body
        left -= 1


def show(connection) -> None:
    """Print what lies in `dead`; when the connection closes, it lies there again."""
    found = letters(connection.channel())
    first = next(found, None)
    count = first[0] if first else 0
    print(f"{count} dead letter{'' if count == 1 else 's'}")
    for _, _, headers, body in islice(chain([first], found), min(count, SHOW_AT_MOST)):
        text = body[:BODY_WIDTH].decode(errors="backslashreplace")
        more = f" … {len(body)} bytes in all" if len(body) > BODY_WIDTH else ""
        print(f"\n  from    {origin(headers) or 'unknown'}\n  reason  {reason(headers)}")
        print(f"  body    {text!r}{more}")
    if count > SHOW_AT_MOST:
        print(f"\n… and {count - SHOW_AT_MOST} more: SHOW_AT_MOST={count} shows them all")


def returned(channel, method, properties, body) -> None:
    raise SystemExit(f"the broker has no queue {method.routing_key!r} any more")


def replay(connection) -> None:
    taking, publishing = connection.channel(), connection.channel()
    publishing.add_on_return_callback(returned)
    publishing.tx_select()
    sent, left, tags = 0, 0, []
    for _, tag, headers, body in letters(taking):
        if origin(headers) not in ORIGINS:
            left += 1
            continue
        properties = pika.BasicProperties(
            "application/json", headers=before_death(headers), delivery_mode=2
        )
        publishing.basic_publish("", origin(headers), body, properties, mandatory=True)
        tags.append(tag)
        if len(tags) == BATCH_SIZE:
            sent += acknowledge(taking, publishing, tags)
    sent += acknowledge(taking, publishing, tags)
    unknown = f", left {left} of which nobody knows where they came from" if left else ""
    print(f"sent {sent} again{unknown}")


def acknowledge(taking, publishing, tags: list[int]) -> int:
    """Commit the copies, take the originals out, empty `tags`; return how many there were."""
    publishing.tx_commit()
    publishing.connection.process_data_events(0)  # a returned message speaks up here
    for tag in tags:
        taking.basic_ack(tag)
    count = len(tags)
    tags.clear()
    return count


def decode_value(encoded: bytes, offset: int, decode=pika.data.decode_value) -> tuple:
    """Decode a value of a header as pika does, but a date that Python does not know as None.

    It would end the connection, and the message would come again and again.
    """
    try:
        return decode(encoded, offset)
    except (ValueError, OverflowError, OSError):
        return None, offset + 9  # its kind, and 64 bits: often milliseconds, where AMQP has seconds


pika.data.decode_value = decode_value


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("pika").setLevel(logging.WARNING)
    command = {"show": show, "replay": replay}.get(" ".join(sys.argv[1:]) or "show")
    if not command:
        raise SystemExit("say `dead.py` to see the dead letters, `dead.py replay` to send them")
    parameters = pika.URLParameters(AMQP_URL)
    parameters.client_properties = {"connection_name": "dead"}
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        for queue in ORIGINS:
            channel.queue_declare(queue, durable=True, arguments=QUEUE)
        channel.queue_declare("dead", durable=True, arguments=DEAD)
        command(connection)


if __name__ == "__main__":
    main()
