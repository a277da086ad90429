"""Two workarounds for pika 1.4.4. Nothing else in the project touches pika's private names, but
`publishing.publish_batch`, which writes a whole batch at once.
"""

import pika
from pika.adapters.blocking_connection import BlockingConnection


def tolerate_unknown_dates() -> None:
    """Decode a date in a header that Python cannot represent as None.

    pika lets the ValueError end the connection, and the broker delivers the message again and
    again: https://github.com/pika/pika/issues/1698, fixed upstream after 1.4.4. Remove this
    with the first release after it.
    """

    def decode_value(encoded: bytes, offset: int, decode=pika.data.decode_value) -> tuple:  # type: ignore[no-untyped-def,type-arg]
        try:
            return decode(encoded, offset)  # type: ignore[no-any-return]
        except (ValueError, OverflowError, OSError):
            return None, offset + 9  # one byte for the type, and 64 bits

    if pika.data.decode_value.__module__ != __name__:
        pika.data.decode_value = decode_value


def close_connection(connection: BlockingConnection) -> None:
    """Close a connection without rejecting the deliveries in flight.

    pika's own `close` sends basic.nack for them, which a stream refuses with an error:
    https://github.com/pika/pika/issues/1389, open. The broker requeues them in any case.
    """
    connection._impl.close(200, "done")
    connection._flush_output(connection._closed_result.is_ready)
