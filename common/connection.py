"""Connections to the broker.

    with connect("metric, in") as connection: …      a name for the page on :15672

A broker that does not answer is tried again as often as AMQP_URL says; a stop request ends the
attempts. The connection is closed at the end of the block, but not when the process is about to
end with an error: a broker that hangs would hold it up.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingConnection
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from common.lifecycle import check_stop, wait

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
AMQPError = pika.exceptions.AMQPError
BROKER_ERRORS = (AMQPError, OSError)  # OSError: such as an unknown host


@contextmanager
def connect(name: str, timeout_seconds: float | None = None) -> Iterator[BlockingConnection]:
    """Yield a connection with this name.

    With a timeout there is one attempt, and a broker that hangs for so many seconds is given up.
    Raise one of BROKER_ERRORS if there is no connection, StopRequested on a stop request.
    """
    parameters = pika.URLParameters(AMQP_URL)
    parameters.client_properties = {"connection_name": name}
    if timeout_seconds:
        parameters.connection_attempts = 1
        parameters.socket_timeout = parameters.stack_timeout = timeout_seconds
        parameters.blocked_connection_timeout = parameters.heartbeat = int(timeout_seconds)
    connection = _open(parameters)
    try:
        yield connection
    except Exception:
        with suppress(*BROKER_ERRORS):  # the first error counts
            _close(connection)
        raise
    _close(connection)


def _open(parameters: pika.URLParameters) -> BlockingConnection:
    attempts, parameters.connection_attempts = parameters.connection_attempts, 1
    retrying = Retrying(
        retry=retry_if_exception_type(BROKER_ERRORS),
        stop=stop_after_attempt(attempts),
        wait=wait_fixed(parameters.retry_delay),
        sleep=_pause,
        reraise=True,
    )
    return retrying(BlockingConnection, parameters)


def _pause(seconds: float) -> None:
    wait(seconds)
    check_stop()


def _close(connection: BlockingConnection) -> None:
    """Close a connection without rejecting the deliveries in flight.

    pika's own `close` sends basic.nack for them, which a stream refuses with an error:
    https://github.com/pika/pika/issues/1389, open. The broker requeues them in any case.
    """
    if connection.is_open:
        connection._impl.close(200, "done")
        connection._flush_output(connection._closed_result.is_ready)


def _tolerant(decode: Callable[[bytes, int], Any]) -> Callable[[bytes, int], Any]:
    """Return `decode` with None for a date in a header that Python cannot represent.

    pika 1.4.4 lets the ValueError end the connection, and the broker delivers the message again
    and again: https://github.com/pika/pika/issues/1698, fixed upstream. Remove this with the
    first release after 1.4.4.
    """

    def decode_value(encoded: bytes, offset: int) -> Any:
        try:
            return decode(encoded, offset)
        except (ValueError, OverflowError, OSError):
            return None, offset + 9  # one byte for the type, and 64 bits

    return decode_value


pika.data.decode_value = _tolerant(pika.data.decode_value)
