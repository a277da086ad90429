"""Connections to the broker.

    with connect("metric, in") as connection: …      a name for the page on :15672

A broker that does not answer is tried again as often as AMQP_URL says; a stop request ends the
attempts. The connection is closed at the end of the block, but not when the process is about to
end with an error: a broker that hangs would hold it up.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pika
from pika.adapters.blocking_connection import BlockingConnection
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from common.lifecycle import check_stop, wait
from common.pika_workarounds import close_connection, tolerate_unknown_dates

AMQP_URL = os.environ.get(
    "AMQP_URL",
    "amqp://guest:guest@localhost:5672/%2F"
    "?connection_attempts=60&retry_delay=1&heartbeat=30&blocked_connection_timeout=60",
)
AMQPError = pika.exceptions.AMQPError
BROKER_ERRORS = (AMQPError, OSError)  # OSError: such as an unknown host

tolerate_unknown_dates()


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
    attempts = parameters.connection_attempts
    parameters.connection_attempts = 1
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
    if connection.is_open:
        close_connection(connection)
