"""Attempts at a job: a worker claims it, renews its lease, and ends the attempt or loses it.

    queued ──claim──▶ running ──┬─ result, failed, cancelled: the job has ended
       ▲                        │
       └── released, retry, or ─┘ the lease ran out; the third time that an attempt is lost, the
                                  job has failed

Each claim has a number of its own, and only the newest counts: StaleAttemptError says to a worker
with an older one, or after the end, to drop the job. Leases are in memory, on a clock that stands
while the machine sleeps: a worker does not lose its lease while the API is away.
"""

import time
from collections import Counter

from common.worker_api import ProgressReport
from retrain_api import settings
from retrain_api.errors import ConflictError, ForeignAttemptError, StaleAttemptError
from retrain_api.jobs import records
from retrain_api.jobs.records import JobRecord
from retrain_api.storage.database import Database

MAX_LOST_ATTEMPTS = 3
MAX_ADOPTIONS = 10  # of one attempt: it may be the attempt that ends the worker

Attempt = tuple[str, int]  # the id of a job, the number of its claim


class Leases:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.ends: dict[Attempt, float] = {}
        self.adoptions: Counter[Attempt] = Counter()

    def recover(self) -> None:
        """Give each running attempt a fresh lease: the API was away, not the worker."""
        query = "SELECT id, attempt FROM jobs WHERE state = 'running'"
        for job_id, attempt in self.database.rows(query):
            self.grant(job_id, attempt)

    def grant(self, job_id: str, attempt: int) -> None:
        self.ends[job_id, attempt] = time.monotonic() + settings.LEASE_SECONDS

    def renew(self, job_id: str, attempt: int) -> None:
        """Renew a lease that holds: bytes of the attempt move."""
        if (job_id, attempt) in self.ends:
            self.grant(job_id, attempt)

    def claim(self, job_id: str, worker: str) -> JobRecord:
        """Start the next attempt; raise NotFoundError, or ConflictError if it is not queued."""
        with self.database.transaction() as db:
            state = records.find(db, job_id).state
            if state != "queued":
                raise ConflictError(f"job {job_id} is {state}, not queued: drop the message")
            job = records.start_attempt(db, job_id, worker)
            self.grant(job_id, job.attempt)
        return job

    def check(self, job_id: str, attempt: int) -> JobRecord:
        """Renew the lease of a running attempt; raise NotFoundError, StaleAttemptError."""
        with self.database.reading() as db:
            job = records.find_running(db, job_id, attempt)
        self.grant(job_id, attempt)
        return job

    def adopt(self, job_id: str, attempt: int, worker: str) -> JobRecord:
        """Continue an attempt after a restart of its worker.

        Raise ForeignAttemptError if it is another worker's, NotFoundError, StaleAttemptError. An
        attempt that was adopted too often is lost.
        """
        with self.database.reading() as db:
            job = records.find_running(db, job_id, attempt)
        if job.worker != worker:
            owner = f"belongs to {job.worker!r}"
            raise ForeignAttemptError(f"attempt {attempt} of job {job_id} {owner}: leave it")
        self.adoptions[job_id, attempt] += 1
        if self.adoptions[job_id, attempt] > MAX_ADOPTIONS:
            self.lose(job_id, attempt, f"its worker ended {MAX_ADOPTIONS} times during it")
            why = "its worker ended too often"
            raise StaleAttemptError(f"attempt {attempt} of job {job_id} has ended: {why}")
        self.grant(job_id, attempt)
        return job

    def record_progress(self, job_id: str, attempt: int, report: ProgressReport) -> None:
        """Renew the lease, and store epochs and containers; raise as `check` does."""
        if not (report.epochs or report.containers):
            self.check(job_id, attempt)
            return
        with self.database.transaction() as db:
            job = records.find_running(db, job_id, attempt)
            self.grant(job_id, attempt)  # whether or not the disk has room for the rest
            records.add_epochs(db, job_id, report.epochs)
            if report.containers:
                records.add_containers(db, job, report.containers)

    def fail(self, job_id: str, attempt: int, reason: str) -> None:
        """End the job as failed."""
        with self.database.transaction() as db:
            records.find_running(db, job_id, attempt)
            records.finish(db, job_id, "failed", reason)
        self.ends.pop((job_id, attempt), None)

    def release(self, job_id: str, attempt: int) -> None:
        """Queue the job again; the attempt does not count as lost."""
        with self.database.transaction() as db:
            job = records.find_running(db, job_id, attempt)
            records.requeue(db, job_id, job.lost, None)
        self.ends.pop((job_id, attempt), None)

    def lose(self, job_id: str, attempt: int, reason: str) -> None:
        """Queue the job again, or end it as failed after too many lost attempts."""
        with self.database.transaction() as db:
            lost = records.find_running(db, job_id, attempt).lost + 1
            if lost >= MAX_LOST_ATTEMPTS:
                last = f"failed after {MAX_LOST_ATTEMPTS} lost attempts; the last: {reason}"
                records.finish(db, job_id, "failed", last)
            else:
                again = f"attempt {attempt} was lost and is repeated: {reason}"
                records.requeue(db, job_id, lost, again)
        self.ends.pop((job_id, attempt), None)

    def expire(self) -> list[str]:
        """End leases that ran out; return the ids of their jobs."""
        now, expired = time.monotonic(), []
        reason = f"its worker was silent for {settings.LEASE_SECONDS:g} s"
        for job_id, attempt in [key for key, end in list(self.ends.items()) if end < now]:
            try:
                self.lose(job_id, attempt, reason)
                expired.append(job_id)
            except StaleAttemptError:  # it has ended otherwise
                self.ends.pop((job_id, attempt), None)
        return expired
