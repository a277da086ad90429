"""Attempts at a job: a worker claims it, renews its lease, and ends the attempt or loses it.

    queued ──claim──▶ running ──┬─ result, failed, cancelled: the job has ended
       ▲                        │
       └── released, retry, or ─┘ the lease ran out; the third time that an attempt is lost, the
                                  job has failed

Each claim has a number of its own, and only the newest is listened to: Over tells any other, and
whoever comes after the end, to forget the job. Leases are in memory and on a clock that stands
while the machine sleeps: no worker can be blamed for a time in which the API was not there.
"""

import json
import os
import time
from collections import Counter

from retrain_api.database import Database

LEASE_SECONDS = float(os.environ.get("LEASE_SECONDS", "60"))  # without a sign of life
MOST_LOST = 3  # attempts
MOST_LIVES = 10  # of a worker that goes on with one attempt: it may be the attempt that ends them


class Missing(LookupError):
    """There is no such thing."""


class Over(Exception):
    """The state of things forbids it."""


class Taken(Exception):
    """It belongs to another worker, which is alive."""


class Attempts:
    def __init__(self, database: Database):
        self.database, self.leases, self.lives = database, {}, Counter()

    def begin(self) -> None:
        """Give every attempt a fresh lease: it was the API that was away."""
        for row in self.database.rows("SELECT id, attempt FROM jobs WHERE state = 'running'"):
            self.lease(row["id"], row["attempt"])

    def lease(self, id: str, attempt: int) -> None:
        self.leases[id, attempt] = time.monotonic() + LEASE_SECONDS

    def moving(self, id: str, attempt: int) -> None:
        """Renew the lease while bytes of this attempt move; they are a sign of life."""
        if (id, attempt) in self.leases:
            self.lease(id, attempt)

    def running(self, db, id: str, attempt: int):
        """Return the row of the job if this is its attempt now; raise Missing or Over."""
        row = db.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise Missing(f"there is no job {id!r}")
        if row["state"] != "running" or row["attempt"] != attempt:
            raise Over(
                f"attempt {attempt} of job {id} is over: the job is {row['state']}, attempt"
                f" {row['attempt']}; stop it and forget it"
            )
        return row

    def claim(self, id: str, worker: str):
        """Begin the next attempt, by `worker`; raise Missing or Over if it is not to be had."""
        with self.database.transaction() as db:
            row = db.execute("SELECT state FROM jobs WHERE id = ?", (id,)).fetchone()
            if row is None:
                raise Missing(f"there is no job {id!r}")
            if row["state"] != "queued":
                raise Over(f"job {id} is {row['state']}, not queued: forget the message")
            db.execute(
                "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker = ?,"
                " started = ?, progress = NULL, containers = NULL, reason = NULL WHERE id = ?",
                (worker, time.time(), id),
            )
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
            self.lease(id, row["attempt"])
        return row

    def adopt(self, id: str, attempt: int, worker: str):
        """Go on with an attempt of this worker; raise Taken if it is another's, or Over.

        Give it back if its worker has ended again and again.
        """
        with self.database.transaction(write=False) as db:
            row = self.running(db, id, attempt)
        if row["worker"] != worker:
            raise Taken(f"attempt {attempt} of job {id} belongs to {row['worker']!r}: leave it")
        self.lives[id, attempt] += 1
        if self.lives[id, attempt] > MOST_LIVES:
            self.give_back(id, attempt, f"its worker ended {MOST_LIVES} times in the middle of it")
            raise Over(f"attempt {attempt} of job {id} is over: its worker ended too often")
        self.lease(id, attempt)
        return row

    def progress(self, id: str, attempt: int, progress: dict, containers: dict) -> None:
        """Renew the lease, and keep what is new."""
        with self.database.transaction(write=bool(progress or containers)) as db:
            row = self.running(db, id, attempt)
            self.lease(id, attempt)  # whether or not there is room for what is new
            for column, new in (("progress", progress), ("containers", containers)):
                if new:
                    merged = json.dumps(json.loads(row[column] or "{}") | new)
                    db.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (merged, id))

    def fail(self, id: str, attempt: int, reason: str) -> None:
        with self.database.transaction() as db:
            self.running(db, id, attempt)
            end(db, id, "failed", reason)
        self.leases.pop((id, attempt), None)

    def give_back(self, id: str, attempt: int, reason: str | None) -> None:
        """Queue the job again. With a reason the attempt is lost, and may be one too many."""
        with self.database.transaction() as db:
            row = self.running(db, id, attempt)
            lost = row["lost"] + bool(reason)
            if lost >= MOST_LOST:
                end(db, id, "failed", f"given up after {MOST_LOST} attempts; the last: {reason}")
            else:
                db.execute(
                    "UPDATE jobs SET state = 'queued', published = 0, lost = ?, worker = NULL,"
                    " progress = NULL, reason = ? WHERE id = ?",
                    (lost, reason and f"attempt {attempt} was lost and is repeated: {reason}", id),
                )
        self.leases.pop((id, attempt), None)

    def expire(self) -> list[str]:
        """Take the jobs from workers whose lease ran out; return their ids."""
        now, expired = time.monotonic(), []
        for (id, attempt), until in list(self.leases.items()):
            if until < now:
                try:
                    self.give_back(id, attempt, f"its worker was silent for {LEASE_SECONDS:g} s")
                    expired.append(id)
                except Over:  # it ended otherwise
                    self.leases.pop((id, attempt), None)
        return expired


def end(db, id: str, state: str, reason: str | None) -> None:
    db.execute(
        "UPDATE jobs SET state = ?, reason = ?, finished = ? WHERE id = ?",
        (state, reason, time.time(), id),
    )
