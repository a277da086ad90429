"""The registry: every trained version in a folder of its own, and which one is to be served.

    data/versions/<n>/ model.keras, model.tflite (if there could be one), golden.json, report.json

A folder is never rewritten and a number never used again. Version 0 is the linear model that is
built into `model`: it has no folder and stays. A version is there when its row is committed, in
one transaction with the end of its job and with its deployment; what a kill leaves before that is
removed by the next start, and the job is handed in again.
"""

import json
import secrets
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from retrain_api import disk
from retrain_api.attempts import Attempts, Missing, Over, end
from retrain_api.database import Database
from retrain_api.promotion import SERVED_BYTES, decide

BUILT_IN = {"version": 0, "why": "built into `model`: linear regression on the diabetes data"}


class Outdated(Exception):
    """Another version serves by now: compare with that one."""

    def __init__(self, version: int):
        super().__init__(f"version {version} serves by now: compare with it and send this again")
        self.version = version


class Versions:
    def __init__(self, folder: Path, database: Database, attempts: Attempts):
        self.folder, self.incoming = folder / "versions", folder / "incoming"
        self.database, self.attempts, self.lock = database, attempts, threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """Remove folders without a row; beside a new database they are all that is left: adopt."""
        if self.database.is_new:
            self.adopt()
            self.database.settle()
        known = {str(row["version"]) for row in self.all()}
        for path in self.folder.iterdir():
            if path.name not in known:
                disk.remove(path)

    def adopt(self) -> None:
        for path in self.folder.glob("[1-9]*/report.json"):
            report = json.loads(path.read_text("utf-8"))
            digest = report["sha256"].get("model.tflite")
            row = (report["version"], report["fits_stream"], report["deployed"], digest)
            with self.database.transaction() as db:
                db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?, 0)", row)

    def all(self) -> list:
        return self.database.rows("SELECT * FROM versions WHERE NOT deleted ORDER BY version")

    def current(self) -> int:
        return self.database.rows("SELECT current FROM state")[0]["current"]

    def row(self, version: int):
        """Return the row of a version that has files; raise Missing."""
        query = "SELECT * FROM versions WHERE version = ? AND NOT deleted"
        rows = self.database.rows(query, version)
        if not rows:
            raise gone(version)
        return rows[0]

    def sha256(self, version: int) -> str | None:
        """Return the hash of the file that `model` is to serve; None for the built-in one."""
        return self.row(version)["sha256"] if version else None

    def report(self, version: int) -> dict:
        if version == 0:
            return BUILT_IN
        self.row(version)
        try:
            return json.loads((self.folder / str(version) / "report.json").read_text("utf-8"))
        except FileNotFoundError:  # it is being deleted
            raise gone(version) from None

    def reports(self) -> list[dict]:
        """Return the reports of all versions; one that is deleted meanwhile is left out."""
        found = [BUILT_IN]
        for row in self.all():
            with suppress(Missing):
                found.append(self.report(row["version"]))
        return found

    def file(self, version: int, name: str) -> Path:
        if version == 0:
            raise Missing("version 0 is built into `model` and has no files")
        self.row(version)
        path = self.folder / str(version) / name
        if not path.exists():
            raise Missing(f"version {version} has no {name}: {self.report(version)['why']}")
        return path

    def deploy(self, version: int) -> None:
        """Have this version served, whatever its error, if it fits the stream; raise Over."""
        with self.lock:
            if version and not self.row(version)["fits_stream"]:
                why = self.report(version)["why"].removeprefix("kept, not deployed: ")
                raise Over(f"version {version} does not fit the stream: {why}")
            with self.database.transaction() as db:
                db.execute("UPDATE state SET current = ?", (version,))

    def delete(self, version: int) -> None:
        with self.lock:
            if version == 0:
                raise Over("version 0 is built into `model` and stays")
            self.row(version)
            if version == self.current():
                raise Over(f"version {version} is the one that serves: deploy another one first")
            with self.database.transaction() as db:
                db.execute("UPDATE versions SET deleted = 1 WHERE version = ?", (version,))
            disk.remove(self.folder / str(version))

    def answer(self, id: str, attempt: int) -> dict | None:
        """Return what this attempt was told when its result was stored; None if it was not."""
        query = (
            "SELECT version, deployed FROM jobs JOIN versions USING (version)"
            " WHERE id = ? AND attempt = ? AND state = 'succeeded'"
        )
        rows = self.database.rows(query, id, attempt)
        return {"version": rows[0][0], "deployed": bool(rows[0][1])} if rows else None

    def add(self, job: dict, attempt: int, report: dict, files: dict[str, BinaryIO]) -> dict:
        """Store a result and perhaps deploy it; return {"version", "deployed"}.

        Raise Over if the attempt is over, Outdated if it was compared with a version that does
        not serve any more. The same result again gets the same answer.
        """
        folder = self.incoming / f"{job['id']}-{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            hashes = {name: disk.copy(file, folder / name) for name, file in files.items()}
            report["sha256"] = {name: hashes[name] for name in files if name != "golden.json"}
            with self.lock:
                return self.answer(job["id"], attempt) or self.store(folder, job, attempt, report)
        finally:
            disk.remove(folder)

    def store(self, folder: Path, job: dict, attempt: int, report: dict) -> dict:
        scores, hashes = report["scores"] or {}, report["sha256"]
        why_not = why_not_served(folder / "model.tflite", report["training"])
        fits, deployed, why = decide(job["deploy"], report["scores"], len(job["columns"]), why_not)
        if fits and job["deploy"] == "if_better" and report["compared_with"] != self.current():
            raise Outdated(self.current())
        highest = self.database.rows("SELECT max(version) FROM versions")[0][0]
        version = (highest or 0) + 1
        written = {
            "version": version,
            "job": job["id"],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "columns": job["columns"],
            "target": job["target"],
            "mae": scores.get("mae"),
            "regions": scores.get("regions", []),
            "compared_with": report["compared_with"],
            "fits_stream": fits,
            "deployed": deployed,
            "why": why,
            "training": report["training"],
            "containers": report["containers"],
            "sha256": hashes,
        }
        path = folder / "report.json"
        path.write_text(json.dumps(written, ensure_ascii=False, indent=2), "utf-8")
        return self.commit(folder, version, attempt, written)

    def commit(self, folder: Path, version: int, attempt: int, report: dict) -> dict:
        place = self.folder / str(version)
        disk.move(folder, place)
        row = (version, report["fits_stream"], report["deployed"])
        try:
            with self.database.transaction() as db:
                self.attempts.running(db, report["job"], attempt)
                digest = report["sha256"].get("model.tflite")
                db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, 0)", (*row, digest))
                db.execute("UPDATE jobs SET version = ? WHERE id = ?", (version, report["job"]))
                end(db, report["job"], "succeeded", report["why"])
                if report["deployed"]:
                    db.execute("UPDATE state SET current = ?", (version,))
        except BaseException:
            disk.remove(place)
            raise
        return {"version": version, "deployed": report["deployed"]}


def gone(version: int) -> Missing:
    return Missing(f"there is no version {version}; GET /models lists them")


def why_not_served(file: Path, training: dict) -> str | None:
    """Say why `model` cannot load this file; None if it can, as far as the file tells."""
    if not file.exists():
        return training["why_no_tflite"] or "there is no model.tflite"
    if file.stat().st_size > SERVED_BYTES:
        return f"its model.tflite has more than {SERVED_BYTES:,} bytes"
    return None
