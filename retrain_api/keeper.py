"""The one loop of the API: what was promised is published, leases end, old files go.

It publishes what is queued, at once. What was published and still waits is published again when
the broker has nothing for the workers any more: it lost it, or a worker died between taking and
claiming. One too many does no harm, since only one can claim the job. A broker that is away is
expected, and so is a full disk; anything else ends the process, and its supervisor starts it again.
"""

import faulthandler
import logging
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from retrain_api import broker, disk
from retrain_api.attempts import Attempts
from retrain_api.store import Store
from retrain_api.versions import Versions

WATCHDOG_SECONDS = int(os.environ.get("WATCHDOG_SECONDS", "60"))  # a turn may take this long
ALIVE_FILE = os.environ.get("ALIVE_FILE")  # touched each turn, for the container's healthcheck
TURN_SECONDS = 1
AWAY_SECONDS = 2  # pause after the broker was away
TELL_SECONDS = 20  # a broker that takes no message for longer is away: a queue may have no leader
FULL_SECONDS = 10  # pause after the disk was full
AGAIN_SECONDS = 10  # between two looks at whether what was published has got lost

log = logging.getLogger("retrain_api")


class Keeper(threading.Thread):
    def __init__(self, store: Store, attempts: Attempts, versions: Versions):
        super().__init__(name="keeper", daemon=True)
        self.store, self.attempts, self.versions = store, attempts, versions
        self.wake = threading.Event()  # set it when there may be something to publish
        self.nudged = None  # the version that was last told to `model`
        self.looked = time.monotonic()
        self.away_until = 0.0  # it was away; do not try before
        self.teller, self.telling = ThreadPoolExecutor(1, "teller"), None

    def run(self) -> None:
        try:
            while True:
                try:
                    self.turn()
                except (OSError, sqlite3.Error) as error:
                    self.pause(error)
                self.wake.wait(TURN_SECONDS)
                self.wake.clear()
        except BaseException:
            log.exception("unexpected: ending, to be started again")
            logging.shutdown()
            os._exit(1)

    def pause(self, error: Exception) -> None:
        """Wait for room, if it is that; raise the error if not."""
        if not disk.is_full(error):
            raise error
        log.warning("the disk is full (%s): what is to be noted waits", error)
        time.sleep(FULL_SECONDS)

    def turn(self) -> None:
        faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)
        if ALIVE_FILE:
            Path(ALIVE_FILE).touch()
        for id in self.attempts.expire():
            log.warning("job %s: its worker was silent, the lease is over", id)
        for id in self.store.purge():
            log.info("job %s: its files are old, and removed", id)
        if time.monotonic() >= self.away_until:
            self.publish()

    def publish(self) -> None:
        """Tell the broker what it does not know; nothing is done when there is nothing to tell."""
        new, version = self.store.queued(published=False), self.versions.current()
        old = []
        if time.monotonic() - self.looked >= AGAIN_SECONDS:
            old, self.looked = self.store.queued(published=True), time.monotonic()
        if not (new or old or version != self.nudged):
            return
        if not self.telling or self.telling.done():
            self.telling = self.teller.submit(self.tell, new, old, version)
        try:
            self.telling.result(TELL_SECONDS)
        except broker.AWAY as error:  # among them the TimeoutError
            if not self.away_until:
                log.warning("the broker is away (%r); jobs wait here", error)
            self.away_until = time.monotonic() + AWAY_SECONDS
        else:
            self.away_until = 0

    def tell(self, new: list[str], old: list[str], version: int) -> None:
        with broker.connect("retrain_api") as connection:
            channel = connection.channel()
            waiting = broker.declare(channel)
            jobs = new if waiting else old + new
            for id in jobs:
                broker.publish_job(channel, id)
                log.info("job %s: published", id)
            self.store.was_published(jobs)
            if jobs:
                self.looked = time.monotonic()
            if version != self.nudged:
                broker.nudge(channel, version)
                self.nudged = version
