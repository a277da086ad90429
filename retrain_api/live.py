"""What happens on the broker right now, for whoever looks at the page.

One thread follows while somebody looks, and ends some seconds after the last has gone: a page that
nobody opened costs nothing. Each second it tells the same events to all. A broker that is away is
told and tried again, and so is whatever else goes wrong: it must not end uploads and jobs.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from retrain_api import broker
from retrain_api.following import Following, reading

AGAIN_SECONDS = 2  # pause after something went wrong
LINGER_SECONDS = 5  # after the last viewer has gone: a page that is loaded again finds it running

log = logging.getLogger("retrain_api")


class Live:
    def __init__(self):
        self.changed = threading.Condition()
        self.viewers, self.left, self.thread = 0, 0.0, None
        self.events: dict[str, bytes] = {}  # by name, the newest of each

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count a viewer, and see that a thread follows for it."""
        with self.changed:
            self.viewers += 1
        try:
            self.begin()
            yield
        finally:
            with self.changed:
                self.viewers -= 1
                self.left = time.monotonic()

    def begin(self) -> None:
        with self.changed:
            if not self.thread:
                thread = threading.Thread(target=self.run, name="live", daemon=True)
                thread.start()
                self.thread = thread  # not before: there may be no room for one

    def wait(self, seconds: float) -> dict[str, bytes]:
        """Return the newest events as soon as there are newer ones, or after `seconds`."""
        with self.changed:
            self.changed.wait(seconds)
            return dict(self.events)

    def tell(self, **events) -> None:
        with self.changed:
            for name, told in events.items():
                self.events[name] = msgspec.json.encode(told)
            self.changed.notify_all()

    def wanted(self) -> bool:
        return self.viewers > 0 or time.monotonic() < self.left + LINGER_SECONDS

    def run(self) -> None:
        while not self.ended():
            try:
                with (
                    reading("retrain_api, page") as connection,
                    broker.connect("retrain_api, page, queues") as asking,
                ):
                    Following(connection, asking).run(self)
            except broker.AWAY as error:
                log.info("the page cannot follow the broker: %r", error)
                self.pause("The broker does not answer; trying again.")
            except Exception:
                log.exception("unexpected")
                self.pause("Something unexpected is in the log of retrain_api; trying again.")

    def pause(self, problem: str) -> None:
        self.tell(numbers={"problem": problem})
        time.sleep(AGAIN_SECONDS)

    def ended(self) -> bool:
        """Tell whether nobody looks any more; whoever comes after that starts another thread."""
        with self.changed:
            if self.wanted():
                return False
            self.thread, self.events = None, {}
            return True
