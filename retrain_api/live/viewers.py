"""The newest numbers and charts for all viewers of the page.

One thread reads while there are viewers, and ends some seconds after the last one: a page that is
not open costs nothing. A broker that is away is reported and tried again, and so is any other
error: it must not end uploads and jobs.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from common.connection import BROKER_ERRORS, connect
from retrain_api.live.reader import LiveReader
from retrain_api.settings import BROKER_SECONDS

RETRY_SECONDS = 2  # pause after an error
LINGER_SECONDS = 5  # after the last viewer: a page that is loaded again finds the thread running

log = logging.getLogger("retrain_api")


class LiveFeed:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.viewers, self.left = 0, 0.0
        self.thread: threading.Thread | None = None
        self.events: dict[str, bytes] = {}  # by name, the newest of each

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count a viewer, and have a thread read for it."""
        with self.changed:
            self.viewers += 1
        try:
            self.start()
            yield
        finally:
            with self.changed:
                self.viewers -= 1
                self.left = time.monotonic()

    def start(self) -> None:
        with self.changed:
            if not self.thread:
                thread = threading.Thread(target=self.run, name="live", daemon=True)
                thread.start()
                self.thread = thread  # not before: starting may fail

    def wait(self, seconds: float) -> dict[str, bytes]:
        """Return the newest events as soon as there are newer ones, or after `seconds`."""
        with self.changed:
            self.changed.wait(seconds)
            return dict(self.events)

    def publish(self, **events: Any) -> None:
        """Replace the newest event of each of these names."""
        with self.changed:
            for name, content in events.items():
                self.events[name] = msgspec.json.encode(content)
            self.changed.notify_all()

    def is_watched(self) -> bool:
        return self.viewers > 0 or time.monotonic() < self.left + LINGER_SECONDS

    def run(self) -> None:
        while not self.ended():
            try:
                with (
                    connect("retrain_api, page", BROKER_SECONDS) as connection,
                    connect("retrain_api, page, queues", BROKER_SECONDS) as asking,
                ):
                    LiveReader(connection, asking).run(self.is_watched, self.publish)
            except BROKER_ERRORS as error:
                log.info("the page cannot read from the broker: %r", error)
                self.pause("The broker does not answer; trying again.")
            except Exception:
                log.exception("unexpected error in the thread of the page")
                self.pause("Something unexpected is in the log of retrain_api; trying again.")

    def pause(self, problem: str) -> None:
        self.publish(numbers={"problem": problem})
        time.sleep(RETRY_SECONDS)

    def ended(self) -> bool:
        """Return whether there are no viewers any more; the next one starts another thread."""
        with self.changed:
            if self.is_watched():
                return False
            self.thread, self.events = None, {}
            return True
