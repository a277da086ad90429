"""The one loop of the API: queued jobs are published, leases end, old files are purged.

    [retrain_jobs]  {"id": "251122-104159-3fa2b1"}   a job; its data are fetched over HTTP
    (model_updates) {"version": 3}                   a notice to every `model`, which asks the API

Queued jobs are published at once. A published job that is still queued is published again when the
broker has no job for the workers any more: the broker lost it, or a worker died between receiving
and claiming. A repeat does no harm, since one claim alone succeeds. A broker that is away is
expected, and so is a full disk; any other error ends the process, and its supervisor starts it
again.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from common.connection import BROKER_ERRORS, connect
from common.files import is_full
from common.lifecycle import report_liveness
from common.messages import JobMessage, VersionNotice, encode
from common.publishing import properties
from common.queues import declare, message_count
from retrain_api.jobs.leases import Leases
from retrain_api.jobs.store import JobStore
from retrain_api.settings import BROKER_SECONDS

TURN_SECONDS = 1
AWAY_SECONDS = 2  # pause after an error of the broker
CONFIRM_SECONDS = 20  # a broker that confirms nothing for longer is away: a queue has no leader
FULL_SECONDS = 10  # pause after the disk was full
RECHECK_SECONDS = 10  # between two checks for published jobs that the broker lost

log = logging.getLogger("retrain_api")


class Scheduler(threading.Thread):
    def __init__(self, jobs: JobStore, leases: Leases, current_version: Callable[[], int]) -> None:
        super().__init__(name="scheduler", daemon=True)
        self.jobs, self.leases, self.current_version = jobs, leases, current_version
        self.wake = threading.Event()  # set: there may be something to publish
        self.published_version: int | None = None
        self.checked = time.monotonic()
        self.away_until = 0.0  # 0: the broker answers
        self.publisher = ThreadPoolExecutor(1, "publisher")
        self.publication: Future[None] | None = None

    def run(self) -> None:
        try:
            while True:
                try:
                    self.turn()
                except (OSError, sqlite3.Error) as error:
                    if not is_full(error):
                        raise
                    log.warning("waiting, as the disk is full (%s)", error)
                    time.sleep(FULL_SECONDS)
                self.wake.wait(TURN_SECONDS)
                self.wake.clear()
        except BaseException:
            log.exception("unexpected error: the process ends; its supervisor starts it again")
            logging.shutdown()
            os._exit(1)

    def turn(self) -> None:
        report_liveness()
        for job_id in self.leases.expire():
            log.warning("job %s: its worker was silent, the lease has ended", job_id)
        for job_id in self.jobs.purge():
            log.info("job %s: its old files are removed", job_id)
        if time.monotonic() >= self.away_until:
            self.publish()

    def publish(self) -> None:
        """Publish what the broker does not know, in a thread: it may hang."""
        new, version = self.jobs.queued(published=False), self.current_version()
        old: list[str] = []
        if time.monotonic() - self.checked >= RECHECK_SECONDS:
            old, self.checked = self.jobs.queued(published=True), time.monotonic()
        if not (new or old or version != self.published_version):
            return
        if not self.publication or self.publication.done():
            self.publication = self.publisher.submit(self.send, new, old, version)
        try:
            self.publication.result(CONFIRM_SECONDS)
        except BROKER_ERRORS as error:  # a TimeoutError, too
            if not self.away_until:
                log.warning("the broker is away (%r); jobs wait in the database", error)
            self.away_until = time.monotonic() + AWAY_SECONDS
        else:
            self.away_until = 0.0

    def send(self, new: list[str], old: list[str], version: int) -> None:
        """Publish new jobs, the old ones if the broker has none, and the current version."""
        with connect("retrain_api", BROKER_SECONDS) as connection:
            channel = connection.channel()
            declare(channel, "dead", "retrain_jobs", "model_updates")
            channel.confirm_delivery()  # each publish returns when the broker has it on disk
            job_ids = new if message_count(channel, "retrain_jobs") else old + new
            for job_id in job_ids:
                body = encode(JobMessage(job_id))
                channel.basic_publish("", "retrain_jobs", body, properties(), mandatory=True)
                log.info("job %s: published", job_id)
            self.jobs.mark_published(job_ids)
            if job_ids:
                self.checked = time.monotonic()
            if version != self.published_version:
                notice = encode(VersionNotice(version))  # there may be no `model` that receives it
                channel.basic_publish("model_updates", "", notice, properties())
                self.published_version = version
