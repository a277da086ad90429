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
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from retrain_api.errors import ConflictError, NotFoundError
from retrain_api.storage import disk
from retrain_api.storage.database import Database


class VersionReport(msgspec.Struct):
    """A version. Version 0 has a number and a reason only.

    Reports are never rewritten, so what is read of older ones is typed loosely. `why` says why the
    version was deployed or not; `compared_with` is the version that was current then.
    """

    version: int
    why: str
    job: str | UnsetType = UNSET
    created: str | UnsetType = UNSET
    columns: list[str] | UnsetType = UNSET
    target: str | UnsetType = UNSET
    mae: dict[str, float | None] | UnsetType | None = UNSET
    regions: list[dict[str, Any]] | UnsetType = UNSET
    compared_with: int | UnsetType | None = UNSET
    fits_stream: bool | UnsetType = UNSET
    deployed: bool | UnsetType = UNSET
    training: dict[str, Any] | UnsetType = UNSET
    containers: dict[str, str | None] | UnsetType = UNSET
    sha256: dict[str, str] | UnsetType = UNSET


BUILT_IN = VersionReport(0, "built into `model`: linear regression on the diabetes data")
decode_report = msgspec.json.Decoder(VersionReport).decode


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
        return self.database.rows("SELECT * FROM versions WHERE NOT deleted ORDER BY version")

    def row(self, version: int) -> sqlite3.Row:
        """Return the row of a version that has files; raise NotFoundError."""
        query = "SELECT * FROM versions WHERE version = ? AND NOT deleted"
        if found := self.database.rows(query, version):
            return found[0]
        raise unknown(version)

    def current(self) -> int:
        return int(self.database.rows("SELECT current FROM state")[0]["current"])

    def next_number(self) -> int:
        return 1 + (self.database.rows("SELECT max(version) FROM versions")[0][0] or 0)

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
