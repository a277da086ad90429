"""The structs that calls return. The description of the API is generated from them."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from common.worker_api import VersionNumber
from retrain_api.errors import NotFoundError
from retrain_api.ingest.dataset import HoldOutRegion
from retrain_api.jobs.records import Deploy, JobRecord, State
from retrain_api.registry.replicas import Replica
from retrain_api.registry.versions import VersionReport, Versions

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class ErrorAnswer(msgspec.Struct):
    """What is wrong, and what to send instead."""

    error: str


class JobSummary(msgspec.Struct):
    """A job in a list. `progress` is the newest epoch: epoch, epochs, loss, val_loss."""

    id: str
    state: State
    reason: str | None
    version: int | None
    attempt: int
    worker: str | None
    progress: dict[str, Any] | None
    created: Time
    started: Time | None
    finished: Time | None


class JobView(JobSummary):
    """A job, its settings, and the report of the version that came of it."""

    containers: dict[str, str] | None
    columns: list[str]
    target: str
    rows: int
    hold_out_rows: int
    target_mean: float
    regions: list[HoldOutRegion]
    seed: int
    epochs: int | None
    model: str | None
    deploy: Deploy
    report: VersionReport | None


class JobList(msgspec.Struct):
    jobs: list[JobSummary]


class ModelList(msgspec.Struct):
    current: VersionNumber
    models: list[VersionReport]


class CurrentModel(msgspec.Struct):
    """The current version, and what each replica of `model` serves."""

    version: VersionNumber
    replicas: dict[str, Replica]
    report: VersionReport


class DeletedModel(msgspec.Struct):
    deleted: VersionNumber
    current: VersionNumber


class Health(msgspec.Struct):
    """`queued` and `running` are numbers of jobs."""

    ok: bool
    broker: bool
    disk_free_bytes: int
    queued: int
    running: int


def as_json(struct: msgspec.Struct) -> dict[str, Any]:
    """Return what Flask sends as JSON."""
    fields: dict[str, Any] = msgspec.to_builtins(struct)
    return fields


def summarize(job: JobRecord) -> JobSummary:
    fields = {name: getattr(job, name) for name in JobSummary.__struct_fields__}
    times = {name: iso(fields[name]) for name in ("created", "started", "finished")}
    return JobSummary(**fields | times)


def describe(job: JobRecord, versions: Versions) -> JobView:
    settings = msgspec.structs.asdict(job.job) | msgspec.structs.asdict(summarize(job))
    report = None
    if job.version:
        with suppress(NotFoundError):  # it was deleted since
            report = versions.report(job.version)
    return JobView(**settings, containers=job.containers, report=report)


def iso(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
