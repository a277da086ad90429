"""The tables `jobs` and `epochs`. No other module writes them.

Each function works in the transaction of its caller, so that a result, its version and the end of
its job are one transaction.
"""

import json
import sqlite3
import time
from typing import Any, Literal

import msgspec

from common.artifacts import Epoch
from common.worker_api import Containers
from retrain_api.errors import NotFoundError, StaleAttemptError
from retrain_api.ingest.dataset import DatasetDescription

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Deploy = Literal["if_better", "always", "never"]
Db = sqlite3.Connection

MAX_EPOCHS = 10_000  # stored for an attempt


class JobDescription(DatasetDescription, kw_only=True):
    """job.json: all that a worker gets to know of a job, but its files."""

    id: str
    seed: int
    epochs: int | None
    model: str | None  # model.keras or model.h5, to start from
    deploy: Deploy


class JobRecord(msgspec.Struct):
    """One row of `jobs`; see storage.database for the columns."""

    id: str
    key: str | None
    created: float
    job: JobDescription
    state: State
    published: bool
    attempt: int
    lost: int
    worker: str | None
    started: float | None
    finished: float | None
    progress: dict[str, Any] | None
    containers: dict[str, str] | None
    version: int | None
    reason: str | None
    purged: bool

    @property
    def active(self) -> bool:
        return self.state in ("queued", "running")


decode_job = msgspec.json.Decoder(JobDescription).decode


def record_of(row: sqlite3.Row) -> JobRecord:
    values = dict(row) | {"job": decode_job(row["job"])}
    for column in ("progress", "containers"):
        values[column] = row[column] and json.loads(row[column])
    for column in ("published", "purged"):
        values[column] = bool(row[column])
    return JobRecord(**values)


def insert(db: Db, job: JobDescription, key: str | None, now: float) -> None:
    """Insert a queued job; raise sqlite3.IntegrityError if its Idempotency-Key is known."""
    columns = "(id, key, created, job, state, published)"
    values = (job.id, key, now, msgspec.json.encode(job).decode(), "queued", False)
    db.execute(f"INSERT INTO jobs {columns} VALUES (?, ?, ?, ?, ?, ?)", values)


def find(db: Db, job_id: str) -> JobRecord:
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no job {job_id!r}; GET /jobs lists them")
    return record_of(row)


def find_running(db: Db, job_id: str, attempt: int) -> JobRecord:
    """Return the job whose running attempt this is; raise NotFoundError, StaleAttemptError."""
    record = find(db, job_id)
    if record.state != "running" or record.attempt != attempt:
        raise StaleAttemptError(
            f"attempt {attempt} of job {job_id} has ended: the job is {record.state}, attempt"
            f" {record.attempt}; stop it and drop it"
        )
    return record


def mark_published(db: Db, job_ids: list[str]) -> None:
    query = "UPDATE jobs SET published = 1 WHERE id = ? AND state = 'queued'"
    db.executemany(query, [(job_id,) for job_id in job_ids])


def start_attempt(db: Db, job_id: str, worker: str) -> JobRecord:
    """Start the next attempt at a queued job."""
    db.execute(
        "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker = ?,"
        " started = ?, progress = NULL, containers = NULL, reason = NULL WHERE id = ?",
        (worker, time.time(), job_id),
    )
    return find(db, job_id)


def requeue(db: Db, job_id: str, lost: int, reason: str | None) -> None:
    """Queue a running job again; its next attempt starts anew."""
    db.execute(
        "UPDATE jobs SET state = 'queued', published = 0, lost = ?, worker = NULL,"
        " progress = NULL, reason = ? WHERE id = ?",
        (lost, reason, job_id),
    )
    db.execute("DELETE FROM epochs WHERE job = ?", (job_id,))


def finish(db: Db, job_id: str, state: State, reason: str, version: int | None = None) -> None:
    query = "UPDATE jobs SET state = ?, reason = ?, finished = ?, version = ? WHERE id = ?"
    db.execute(query, (state, reason, time.time(), version, job_id))


def add_containers(db: Db, record: JobRecord, containers: Containers) -> None:
    merged = json.dumps((record.containers or {}) | msgspec.to_builtins(containers))
    db.execute("UPDATE jobs SET containers = ? WHERE id = ?", (merged, record.id))


def add_epochs(db: Db, job_id: str, epochs: list[Epoch]) -> None:
    """Store epochs of the running attempt; those not above the last known one are ignored."""
    query = "SELECT coalesce(max(epoch), -1), count(*) FROM epochs WHERE job = ?"
    last, known = db.execute(query, (job_id,)).fetchone()
    newer = []
    for epoch in epochs:
        if epoch.epoch > last:
            newer.append(epoch)
            last = epoch.epoch
    if newer:
        rows = [(job_id, e.epoch, e.epochs, e.loss, e.val_loss) for e in newer]
        query = "INSERT INTO epochs (job, epoch, epochs, loss, val_loss) VALUES (?, ?, ?, ?, ?)"
        db.executemany(query, rows[: MAX_EPOCHS - known])
        progress = msgspec.json.encode(newer[-1]).decode()
        db.execute("UPDATE jobs SET progress = ? WHERE id = ?", (progress, job_id))


def mark_purged(db: Db, job_ids: list[str]) -> None:
    """Note that the files of jobs are removed, and remove their epochs."""
    ids = [(job_id,) for job_id in job_ids]
    db.executemany("UPDATE jobs SET purged = 1 WHERE id = ?", ids)
    db.executemany("DELETE FROM epochs WHERE job = ?", ids)
