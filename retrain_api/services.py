"""The objects that the views work with, built once and reached through `services()`."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flask import current_app

from retrain_api.jobs.leases import Leases
from retrain_api.jobs.scheduler import Scheduler
from retrain_api.jobs.store import JobStore
from retrain_api.live.viewers import LiveFeed
from retrain_api.registry.replicas import Replicas
from retrain_api.registry.results import Results
from retrain_api.registry.versions import Versions
from retrain_api.storage.database import Database


@dataclass(frozen=True)
class Services:
    jobs: JobStore
    leases: Leases
    versions: Versions
    results: Results
    replicas: Replicas
    scheduler: Scheduler
    live: LiveFeed


def build_services(folder: Path) -> Services:
    """Open the data folder, and remove what a killed process left incomplete in it."""
    folder.mkdir(parents=True, exist_ok=True)
    database = Database(folder / "api.sqlite")
    jobs, leases = JobStore(folder, database), Leases(database)
    versions = Versions(folder, database)
    jobs.recover()
    leases.recover()
    versions.recover()
    return Services(
        jobs=jobs,
        leases=leases,
        versions=versions,
        results=Results(folder, database, versions),
        replicas=Replicas(),
        scheduler=Scheduler(jobs, leases, versions.current),
        live=LiveFeed(),
    )


def services() -> Services:
    """Return the services of the current application."""
    return cast(Services, current_app.extensions["services"])
