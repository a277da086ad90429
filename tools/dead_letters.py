"""Show the dead letters, or send them again.

    [dead]  any body, headers reason and queue ──▶ show: read, printed, left where they are
                                               └─▶ replay: back to the queue they came from

`replay` sends what is in `dead` when it starts; a message that is rejected again comes back with
its reason. An original is removed after the commit of its copy, so a kill may send one twice and
loses none. A failure ends the process; what it has read and not removed stays in `dead`.

    python tools/dead_letters.py            # show; needs a broker on localhost
    python tools/dead_letters.py replay
"""

import os
import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` is
from common import lifecycle
from common.connection import connect
from common.publishing import Headers, commit, properties, require_routing
from common.queues import WORK_QUEUES, declare

MAX_SHOWN_LETTERS = int(os.environ.get("MAX_SHOWN_LETTERS", "100"))
MAX_SHOWN_BYTES = 160  # of a body
# Messages in a transaction. RabbitMQ holds acknowledgements back while 32 of one channel are on
# their way to a quorum queue, and drops those when the channel is closed. (Those of messages from
# `basic_get` count one by one, and the next `basic_get` waits for all of them.)
BATCH_SIZE = 30


class Letter(NamedTuple):
    left: int  # letters, from this one on
    tag: int
    headers: Headers
    body: bytes

    @property
    def origin(self) -> str:
        """The queue that a dead letter came from; "" if its headers do not say it."""
        return str(self.headers.get("queue") or self.headers.get("x-first-death-queue") or "")

    @property
    def reason(self) -> str:
        """The reason that the service or the broker gave."""
        broker_reason = self.headers.get("x-first-death-reason")
        if broker_reason == "delivery_limit":
            return "its consumer ended each time: delivered more than 20 times"
        return str(self.headers.get("reason") or broker_reason or "unknown")

    @property
    def original_headers(self) -> Headers:
        """The headers without those that the service, and with x- the broker, added."""
        return {
            name: value
            for name, value in self.headers.items()
            if name not in ("reason", "queue") and not str(name).startswith("x-")
        }


def read_letters(channel: BlockingChannel) -> Iterator[Letter]:
    """Yield the letters that are in `dead` now, without acknowledging them.

    End on a stop request. The number of letters comes with the first one: a declaration would say
    it as well, but says 0 when the queue is busy for 250 ms.
    """
    left = sys.maxsize
    while left and not lifecycle.stop_requested():
        lifecycle.report_liveness()
        method, described, body = channel.basic_get("dead")
        if method is None:
            return
        left = min(left, method.message_count + 1)
        yield Letter(left, method.delivery_tag, described.headers or {}, body)
        left -= 1


def show(connection: BlockingConnection) -> None:
    """Print the letters in `dead`; they are requeued when the connection closes."""
    letters = read_letters(connection.channel())
    first = next(letters, None)
    count = first.left if first else 0
    print(f"{count} dead letter{'' if count == 1 else 's'}")
    for letter in islice(chain([first] if first else [], letters), MAX_SHOWN_LETTERS):
        text = letter.body[:MAX_SHOWN_BYTES].decode(errors="backslashreplace")
        size = len(letter.body)
        more = f" … {size} bytes in all" if size > MAX_SHOWN_BYTES else ""
        print(f"\n  from    {letter.origin or 'unknown'}\n  reason  {letter.reason}")
        print(f"  body    {text!r}{more}")
    if count > MAX_SHOWN_LETTERS:
        more = f"{count - MAX_SHOWN_LETTERS} more: MAX_SHOWN_LETTERS={count} shows them all"
        print(f"\n… and {more}")


def replay(connection: BlockingConnection) -> None:
    """Send each letter to the queue it came from; leave those of an unknown origin."""
    reading, publishing = connection.channel(), connection.channel()
    require_routing(publishing)
    publishing.tx_select()
    sent, unknown, tags = 0, 0, []
    for letter in read_letters(reading):
        if letter.origin not in WORK_QUEUES:
            unknown += 1
            continue
        described = properties(letter.original_headers)
        publishing.basic_publish("", letter.origin, letter.body, described, mandatory=True)
        tags.append(letter.tag)
        if len(tags) == BATCH_SIZE:
            sent += acknowledge(reading, publishing, tags)
    sent += acknowledge(reading, publishing, tags)
    print(f"sent {sent} again" + (f", left {unknown} of unknown origin" if unknown else ""))


def acknowledge(reading: BlockingChannel, publishing: BlockingChannel, tags: list[int]) -> int:
    """Commit the copies, acknowledge the originals, empty `tags`; return how many there were."""
    commit(publishing)
    for tag in tags:
        reading.basic_ack(tag)
    count = len(tags)
    tags.clear()
    return count


COMMANDS: dict[str, Callable[[BlockingConnection], None]] = {"show": show, "replay": replay}


def main() -> None:
    lifecycle.start()
    command = COMMANDS.get(" ".join(sys.argv[1:]) or "show")
    if not command:
        raise SystemExit("Use `dead_letters.py show` to see dead letters, `replay` to send them.")
    with connect("dead letters") as connection:
        declare(connection.channel(), "dead", *WORK_QUEUES)
        command(connection)


if __name__ == "__main__":
    main()
