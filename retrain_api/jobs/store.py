"""Jobs and their files: created whole, kept until they have ended, purged some days later.

    uploaded CSVs, a model ──▶ data/jobs/<id>/ train.npy, hold_out.npy, model.keras, log.txt
                           └─▶ a row in the table `jobs`: job.json, the state

A job is accepted when its files are synced and in place and its row is committed. Files that a kill
leaves have no row, and the next start removes them. `leases` has what happens to a job while it
runs. Nothing here knows HTTP or RabbitMQ.
"""

import secrets
import sqlite3
import threading
import time
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from common.artifacts import Epoch
from common.files import replace_file
from retrain_api import settings
from retrain_api.errors import ConflictError, NotFoundError
from retrain_api.ingest.dataset import Upload, prepare
from retrain_api.jobs import records
from retrain_api.jobs.records import Deploy, JobDescription, JobRecord, State, record_of
from retrain_api.storage import disk
from retrain_api.storage.database import Database

SEED = 1  # the same upload trains the same model
MAX_LOG_CHARACTERS = 1 << 20  # the end of a log is kept
PURGED_AT_ONCE = 100  # jobs
INPUT_SUFFIXES = (".npy", ".keras", ".h5")


class JobForm(NamedTuple):
    """What a client sends for a new job; `model` is (file name, binary file)."""

    files: list[Upload]
    model: tuple[str, IO[bytes]] | None
    target: str | None
    ignore: list[str]
    epochs: int | None
    deploy: Deploy


class JobStore:
    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.incoming, self.database = folder / "jobs", folder / "incoming", database
        self.reading = threading.Semaphore(2)  # CSVs being read; each takes some 20 MB
        self.writing_log = threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.incoming.mkdir(exist_ok=True)

    def recover(self) -> None:
        """Remove incomplete files of a process before; no other may be at work here."""
        rows = self.database.rows("SELECT id FROM jobs WHERE NOT purged")
        known = {row["id"] for row in rows}
        for path in self.incoming.iterdir():
            disk.remove(path)
        for path in self.folder.iterdir():
            if path.name not in known:
                disk.remove(path)

    def create(self, form: JobForm, key: str | None) -> str:
        """Store a job and return its id; if its key came before, the id of the first job.

        Raise InvalidDatasetError with what is wrong with the files.
        """
        now = time.time()
        job_id = time.strftime("%y%m%d-%H%M%S-", time.gmtime(now)) + secrets.token_hex(3)
        folder = self.incoming / job_id
        folder.mkdir()
        try:
            job = self.write_files(job_id, folder, form)
            disk.move_into_place(folder, self.folder / job_id)
            return self.insert(job, key, now)
        finally:
            disk.remove(folder)

    def write_files(self, job_id: str, folder: Path, form: JobForm) -> JobDescription:
        with self.reading:
            dataset = prepare(form.files, folder, form.target, form.ignore)
        if form.model:
            name, file = form.model
            disk.check_room(folder, disk.size_of(file), settings.MIN_FREE_BYTES)
            disk.copy(file, folder / name)
        return JobDescription(
            **msgspec.structs.asdict(dataset),
            id=job_id,
            seed=SEED,
            epochs=form.epochs,
            model=form.model and form.model[0],
            deploy=form.deploy,
        )

    def insert(self, job: JobDescription, key: str | None, now: float) -> str:
        try:
            with self.database.transaction() as db:
                records.insert(db, job, key, now)
            return job.id
        except BaseException as error:
            disk.remove(self.folder / job.id)
            if isinstance(error, sqlite3.IntegrityError) and (first := self.id_of_key(key)):
                return first  # a concurrent request with the same key was faster
            raise

    def id_of_key(self, key: str | None) -> str | None:
        """Return the id of the job that came with this Idempotency-Key."""
        rows = self.database.rows("SELECT id FROM jobs WHERE key = ?", key)
        return rows[0]["id"] if rows else None

    def get(self, job_id: str) -> JobRecord:
        """Return a job; raise NotFoundError."""
        with self.database.reading() as db:
            return records.find(db, job_id)

    def newest(self, limit: int) -> list[JobRecord]:
        query = "SELECT * FROM jobs ORDER BY created DESC LIMIT ?"
        return [record_of(row) for row in self.database.rows(query, limit)]

    def count(self, state: State) -> int:
        [row] = self.database.rows("SELECT count(*) FROM jobs WHERE state = ?", state)
        return int(row[0])

    def inputs(self, job_id: str) -> dict[str, Path]:
        """Return the files that a worker needs, by name."""
        paths = sorted((self.folder / job_id).glob("*"))
        return {path.name: path for path in paths if path.suffix in INPUT_SUFFIXES}

    def epochs_after(self, job_id: str, epoch: int) -> list[Epoch]:
        """Return the epochs of the last attempt that come after `epoch`."""
        query = "SELECT epoch, epochs, loss, val_loss FROM epochs WHERE job = ? AND epoch > ?"
        return [Epoch(*row) for row in self.database.rows(f"{query} ORDER BY epoch", job_id, epoch)]

    def cancel(self, job_id: str) -> None:
        """End a job; raise NotFoundError, or ConflictError if it has ended already."""
        with self.database.transaction() as db:
            job = records.find(db, job_id)
            if not job.active:
                raise ConflictError(f"job {job_id} has {job.state} already; it cannot be cancelled")
            records.finish(db, job_id, "cancelled", "cancelled on request")

    def write_log(self, job_id: str, text: str) -> None:
        """Keep the end of a training log."""
        content = text[-MAX_LOG_CHARACTERS:].encode("utf-8", errors="replace")
        with self.writing_log:
            replace_file(self.folder / job_id / "log.txt", content)

    def log(self, job_id: str) -> str:
        """Return the end of a training log; raise NotFoundError."""
        if self.get(job_id).purged:
            seconds = f"{settings.UPLOAD_RETENTION_SECONDS:g} s"
            raise NotFoundError(f"the files of job {job_id} were removed {seconds} after its end")
        path = self.folder / job_id / "log.txt"
        return path.read_text("utf-8") if path.exists() else ""

    def queued(self, published: bool) -> list[str]:
        """Return the ids of queued jobs, the oldest first."""
        query = "SELECT id FROM jobs WHERE state = 'queued' AND published = ? ORDER BY created"
        return [row["id"] for row in self.database.rows(query, published)]

    def mark_published(self, job_ids: list[str]) -> None:
        with self.database.transaction() as db:
            records.mark_published(db, job_ids)

    def purge(self) -> list[str]:
        """Remove the files of jobs that ended long ago; return their ids."""
        before = time.time() - settings.UPLOAD_RETENTION_SECONDS
        query = "SELECT id FROM jobs WHERE NOT purged AND finished < ? LIMIT ?"
        job_ids = [row["id"] for row in self.database.rows(query, before, PURGED_AT_ONCE)]
        if job_ids:
            with self.database.transaction() as db:
                records.mark_purged(db, job_ids)
        for job_id in job_ids:
            disk.remove(self.folder / job_id)
        return job_ids
