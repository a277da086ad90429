"""The registry: every version in a folder of its own, and the number of the current one.

    data/versions/<n>/ model.keras, model.tflite (if there could be one), golden.json, report.json

A folder is never rewritten and a number never used again. Version 0 is built into `model`: it has
no folder and stays. A version exists when its row is committed; `results` does that in one
transaction with the end of its job. A folder that a kill leaves without a row is removed by the
next start. No other module writes the tables `versions` and `state`.
"""

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from retrain_api.errors import ConflictError, NotFoundError
from retrain_api.registry.report import BUILT_IN, VersionReport, decode_report
from retrain_api.storage import disk
from retrain_api.storage.database import Database


class Versions:
    """`lock` is held while the current version is changed or relied on."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database = folder / "versions", database
        self.lock = threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)

    def recover(self) -> None:
        """Remove folders without a row; beside a new database, adopt the complete ones first."""
        if self.database.is_new:
            self.adopt()
            self.database.mark_complete()
        known = {str(row["version"]) for row in self.rows()}
        for path in self.folder.iterdir():
            if path.name not in known:
                disk.remove(path)

    def adopt(self) -> None:
        known = {row["version"] for row in self.rows()}  # of a start that was killed
        for path in self.folder.glob("[1-9]*/report.json"):
            report = decode_report(path.read_bytes())
            if report.version not in known:
                with self.database.transaction() as db:
                    insert(db, report)

    def rows(self) -> list[sqlite3.Row]:
        with self.database.reading() as db:
            query = "SELECT * FROM versions WHERE NOT deleted ORDER BY version"
            return db.execute(query).fetchall()

    def row(self, version: int) -> sqlite3.Row:
        """Return the row of a version that has files; raise NotFoundError."""
        with self.database.reading() as db:
            query = "SELECT * FROM versions WHERE version = ? AND NOT deleted"
            row: sqlite3.Row | None = db.execute(query, (version,)).fetchone()
        if row is None:
            raise unknown(version)
        return row

    def current(self) -> int:
        with self.database.reading() as db:
            return int(db.execute("SELECT current FROM state").fetchone()["current"])

    def next_number(self) -> int:
        with self.database.reading() as db:
            return 1 + (db.execute("SELECT max(version) FROM versions").fetchone()[0] or 0)

    def was_deployed(self, version: int) -> bool:
        """Return whether a version was deployed when it was stored; it may be deleted by now."""
        with self.database.reading() as db:
            query = "SELECT deployed FROM versions WHERE version = ?"
            return bool(db.execute(query, (version,)).fetchone()["deployed"])

    def sha256(self, version: int) -> str | None:
        """Return the hash of the file that `model` is to serve; None for the built-in one."""
        return self.row(version)["sha256"] if version else None

    def report(self, version: int) -> VersionReport:
        """Return report.json; raise NotFoundError."""
        if version == 0:
            return BUILT_IN
        self.row(version)
        try:
            return decode_report((self.folder / str(version) / "report.json").read_bytes())
        except FileNotFoundError:  # it is being deleted
            raise unknown(version) from None

    def reports(self) -> list[VersionReport]:
        """Return the reports of all versions; one that is deleted meanwhile is left out."""
        found = [BUILT_IN]
        for row in self.rows():
            with suppress(NotFoundError):
                found.append(self.report(row["version"]))
        return found

    def file(self, version: int, name: str) -> Path:
        """Return the path of a file of a version; raise NotFoundError."""
        if version == 0:
            raise NotFoundError("version 0 is built into `model` and has no files")
        self.row(version)
        path = self.folder / str(version) / name
        if not path.exists():
            raise NotFoundError(f"version {version} has no {name}: {self.report(version).why}")
        return path

    def deploy(self, version: int) -> None:
        """Make a version current, whatever its error; raise ConflictError if it does not fit."""
        with self.lock:
            if version and not self.row(version)["fits_stream"]:
                why = self.report(version).why.removeprefix("kept, not deployed: ")
                raise ConflictError(f"version {version} does not fit the stream: {why}")
            with self.database.transaction() as db:
                make_current(db, version)

    def delete(self, version: int) -> None:
        """Remove a version; raise NotFoundError, or ConflictError if it is built in or current."""
        with self.lock:
            if version == 0:
                raise ConflictError("version 0 is built into `model` and stays")
            self.row(version)
            if version == self.current():
                raise ConflictError(f"version {version} is current: deploy another one first")
            with self.database.transaction() as db:
                db.execute("UPDATE versions SET deleted = 1 WHERE version = ?", (version,))
            disk.remove(self.folder / str(version))


def insert(db: sqlite3.Connection, report: VersionReport) -> None:
    """Insert the row of a version whose folder is in place."""
    sha256 = report.sha256.get("model.tflite") if report.sha256 else None
    row = (report.version, report.fits_stream, report.deployed, sha256)
    db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, 0)", row)


def make_current(db: sqlite3.Connection, version: int) -> None:
    db.execute("UPDATE state SET current = ?", (version,))


def unknown(version: int) -> NotFoundError:
    return NotFoundError(f"there is no version {version}; GET /models lists them")
