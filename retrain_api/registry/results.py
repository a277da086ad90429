"""A result of a worker becomes a version, and perhaps the current one.

    report, model.keras, model.tflite, golden.json ──▶ data/versions/<n>/, a row, the job's end

The folder is in place before its row is committed, in one transaction with the end of the job and
with the deployment. After a kill in between the worker sends the result again.
"""

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from common.artifacts import MAX_SERVED_BYTES, Training
from common.worker_api import ResultReport
from retrain_api.errors import StaleComparisonError
from retrain_api.jobs import records
from retrain_api.jobs.records import JobRecord
from retrain_api.registry import versions as registry
from retrain_api.registry.promotion import Decision, decide
from retrain_api.registry.versions import VersionReport, Versions
from retrain_api.storage import disk
from retrain_api.storage.database import Database

Files = dict[str, IO[bytes]]  # by name


class StoredResult(msgspec.Struct):
    """The answer to a result."""

    version: int
    deployed: bool


class Results:
    def __init__(self, folder: Path, database: Database, versions: Versions) -> None:
        self.incoming, self.database, self.versions = folder / "incoming", database, versions

    def find(self, job_id: str, attempt: int) -> StoredResult | None:
        """Return the answer to the result of this attempt; None if it is not stored."""
        query = "SELECT version, deployed FROM jobs JOIN versions USING (version)"
        query += " WHERE id = ? AND attempt = ? AND state = 'succeeded'"
        found = self.database.rows(query, job_id, attempt)
        return StoredResult(found[0]["version"], bool(found[0]["deployed"])) if found else None

    def add(self, record: JobRecord, report: ResultReport, files: Files) -> StoredResult:
        """Store a result and perhaps deploy it. The same result again gets the same answer.

        Raise StaleAttemptError if the attempt has ended, StaleComparisonError if the result was
        compared with a version that is not current any more.
        """
        folder = self.incoming / f"{record.id}-{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            hashes = {name: disk.copy(file, folder / name) for name, file in files.items()}
            hashes.pop("golden.json", None)
            with self.versions.lock:
                stored = self.find(record.id, record.attempt)
                return stored or self.store(folder, record, report, hashes)
        finally:
            disk.remove(folder)

    def store(
        self, folder: Path, record: JobRecord, report: ResultReport, hashes: dict[str, str]
    ) -> StoredResult:
        why_not = why_not_served(folder / "model.tflite", report.training)
        decision = decide(record.job.deploy, report.scores, len(record.job.columns), why_not)
        current = self.versions.current()
        compares = decision.fits_stream and record.job.deploy == "if_better"
        if compares and report.compared_with != current:
            raise StaleComparisonError(current)
        version = describe(self.versions.next_number(), record, report, decision, hashes)
        content = msgspec.json.format(msgspec.json.encode(version), indent=2)
        (folder / "report.json").write_bytes(content)
        return self.commit(folder, record, version)

    def commit(self, folder: Path, record: JobRecord, report: VersionReport) -> StoredResult:
        place = self.versions.folder / str(report.version)
        disk.move_into_place(folder, place)
        deployed = report.deployed is True
        try:
            with self.database.transaction() as db:
                records.find_running(db, record.id, record.attempt)
                registry.insert(db, report)
                records.finish(db, record.id, "succeeded", report.why, report.version)
                if deployed:
                    registry.make_current(db, report.version)
        except BaseException:
            disk.remove(place)
            raise
        return StoredResult(report.version, deployed)


def describe(
    number: int, record: JobRecord, report: ResultReport, decision: Decision, hashes: dict[str, str]
) -> VersionReport:
    """Return report.json."""
    scores = report.scores
    return VersionReport(
        version=number,
        why=decision.why,
        job=record.id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        columns=record.job.columns,
        target=record.job.target,
        mae=msgspec.to_builtins(scores.mae) if scores else None,
        regions=msgspec.to_builtins(scores.regions) if scores else [],
        compared_with=report.compared_with,
        fits_stream=decision.fits_stream,
        deployed=decision.deployed,
        training=msgspec.to_builtins(report.training),
        containers=msgspec.structs.asdict(report.containers),
        sha256=hashes,
    )


def why_not_served(file: Path, training: Training) -> str | None:
    """Return why `model` cannot load this file; None if it can, as far as the file shows."""
    if not file.exists():
        return training.why_no_tflite or "there is no model.tflite"
    if file.stat().st_size > MAX_SERVED_BYTES:
        return f"its model.tflite has more than {MAX_SERVED_BYTES:,} bytes"
    return None
