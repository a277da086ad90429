"""Jobs: taken in whole, kept until they have ended, and cleared away after that.

    uploaded CSVs, a model ──▶ data/jobs/<id>/ train.npy, hold_out.npy, model.keras, log.txt
                           └─▶ a row in SQLite: job.json, the state, what is known of it

A job is accepted when its files are synced and moved into place and its row is committed. What a
kill leaves half-way has no row, and the next start removes it. `attempts.py` has what happens to
a job while it runs. Nothing here knows HTTP or RabbitMQ.
"""

import json
import os
import secrets
import sqlite3
import threading
import time
from pathlib import Path

from retrain_api import disk
from retrain_api.attempts import Missing, Over, end
from retrain_api.database import Database
from retrain_api.table import prepare

KEEP_UPLOADS_SECONDS = float(os.environ.get("KEEP_UPLOADS_SECONDS", "604800"))  # after the end
SEED = 1  # the same upload trains the same model
LOG_CHARACTERS = 2**20  # of a log, the last ones
AT_ONCE = threading.Semaphore(2)  # CSVs being read; each takes some 20 MB


class Store:
    def __init__(self, folder: Path, database: Database):
        self.folder, self.incoming, self.database = folder / "jobs", folder / "incoming", database
        for path in (self.folder, self.incoming):
            path.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """Remove what the last life left half-way: no other process may be at work here."""
        for path in self.incoming.iterdir():
            disk.remove(path)
        known = {row["id"] for row in self.database.rows("SELECT id FROM jobs WHERE NOT purged")}
        for path in self.folder.iterdir():
            if path.name not in known:
                disk.remove(path)

    def create(self, files: list, model: tuple | None, settings: dict, key: str | None) -> str:
        """Take in a job and return its id; if its key came before, the id of the first.

        `files` are (shown name, binary file), `model` is (file name, binary file). Refused tells
        what is wrong with the files.
        """
        now = time.time()
        id = time.strftime("%y%m%d-%H%M%S-", time.gmtime(now)) + secrets.token_hex(3)
        folder = self.incoming / id
        folder.mkdir()
        try:
            job = {"id": id} | self.fill(folder, files, model, settings)
            disk.move(folder, self.folder / id)
            return self.insert(job, key, now)
        finally:
            disk.remove(folder)

    def fill(self, folder: Path, files: list, model: tuple | None, settings: dict) -> dict:
        """Write a job's files; return its job.json, but for the id."""
        with AT_ONCE:
            about = prepare(files, folder, settings["target"], settings["ignore"])
        if model:
            disk.check_room(folder, disk.size_of(model[1]), disk.KEEP_FREE_BYTES)
            disk.copy(model[1], folder / model[0])
        job = {key: about[key] for key in ("columns", "target", "rows", "hold_out_rows")}
        job |= {"target_mean": about["target_mean"], "regions": about["regions"], "seed": SEED}
        return job | {
            "epochs": settings["epochs"],
            "model": model and model[0],
            "deploy": settings["deploy"],
        }

    def insert(self, job: dict, key: str | None, now: float) -> str:
        try:
            with self.database.transaction() as db:
                db.execute(
                    "INSERT INTO jobs (id, key, created, job, state, published)"
                    " VALUES (?, ?, ?, ?, 'queued', 0)",
                    (job["id"], key, now, json.dumps(job, ensure_ascii=False)),
                )
            return job["id"]
        except BaseException as error:
            disk.remove(self.folder / job["id"])
            if isinstance(error, sqlite3.IntegrityError) and (first := self.with_key(key)):
                return first  # its twin was faster
            raise

    def with_key(self, key: str | None) -> str | None:
        """Return the id of the job that came with this Idempotency-Key."""
        rows = self.database.rows("SELECT id FROM jobs WHERE key = ?", key)
        return rows[0]["id"] if rows else None

    def job(self, id: str) -> sqlite3.Row:
        rows = self.database.rows("SELECT * FROM jobs WHERE id = ?", id)
        if not rows:
            raise Missing(f"there is no job {id!r}; GET /jobs lists them")
        return rows[0]

    def newest(self, limit: int) -> list[sqlite3.Row]:
        return self.database.rows("SELECT * FROM jobs ORDER BY created DESC LIMIT ?", limit)

    def count(self, state: str) -> int:
        return self.database.rows("SELECT count(*) FROM jobs WHERE state = ?", state)[0][0]

    def inputs(self, id: str) -> dict[str, Path]:
        """Return the files that a worker needs, by name."""
        return {
            path.name: path
            for path in sorted((self.folder / id).glob("*"))
            if path.suffix in (".npy", ".keras", ".h5")
        }

    def cancel(self, id: str) -> None:
        with self.database.transaction() as db:
            row = db.execute("SELECT state FROM jobs WHERE id = ?", (id,)).fetchone()
            if row is None:
                raise Missing(f"there is no job {id!r}; GET /jobs lists them")
            if row["state"] not in ("queued", "running"):
                raise Over(f"job {id} has {row['state']} already; there is nothing to cancel")
            end(db, id, "cancelled", "cancelled on request")

    def write_log(self, id: str, text: str) -> None:
        """Keep the end of a training log; the last one may get lost in a power cut."""
        path = self.folder / id / "log.txt"
        new = path.with_name(f"log.{secrets.token_hex(4)}")
        try:
            new.write_text(text[-LOG_CHARACTERS:], "utf-8", errors="replace")
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)

    def log(self, id: str) -> str:
        if self.job(id)["purged"]:
            raise Missing(f"the files of job {id} were removed {KEEP_UPLOADS_SECONDS:g} s after it")
        path = self.folder / id / "log.txt"
        return path.read_text("utf-8") if path.exists() else ""

    def queued(self, published: bool) -> list[str]:
        query = "SELECT id FROM jobs WHERE state = 'queued' AND published = ? ORDER BY created"
        return [row["id"] for row in self.database.rows(query, published)]

    def was_published(self, ids: list[str]) -> None:
        with self.database.transaction() as db:
            query = "UPDATE jobs SET published = 1 WHERE id = ? AND state = 'queued'"
            db.executemany(query, [(id,) for id in ids])

    def purge(self) -> list[str]:
        """Remove the files of jobs that ended long ago; return their ids."""
        query = "SELECT id FROM jobs WHERE NOT purged AND finished < ? LIMIT 100"
        old = [r["id"] for r in self.database.rows(query, time.time() - KEEP_UPLOADS_SECONDS)]
        if old:
            with self.database.transaction() as db:
                query = "UPDATE jobs SET purged = 1 WHERE id = ?"
                db.executemany(query, [(id,) for id in old])
        for id in old:
            disk.remove(self.folder / id)
        return old
