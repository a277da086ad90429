"""What workers, replicas of `model` and retrain_api say to each other over HTTP.

POST /worker/jobs/ID/claim            ClaimRequest ──▶ Assignment
POST /worker/jobs/ID/ATTEMPT/adopt    ClaimRequest ──▶ Assignment
PUT  /worker/jobs/ID/ATTEMPT/progress ProgressReport
POST /worker/jobs/ID/ATTEMPT/failed   FailureReport
POST /worker/jobs/ID/ATTEMPT/result   ResultReport in the field `report`, and files
PUT  /models/current/replicas/NAME    ReplicaStatus ──▶ ServedVersion
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from common.artifacts import Epoch, Scores, Sha256, Training
from common.messages import Text

VersionNumber = Annotated[int, Meta(ge=0, le=2**31 - 1)]
ContainerId = Annotated[str, Meta(max_length=200)]


class ClaimRequest(msgspec.Struct, forbid_unknown_fields=True):
    worker: Annotated[str, Meta(min_length=1, max_length=100)]


class Assignment(msgspec.Struct):
    """One attempt at one job; `job` is job.json, `inputs` the size of each input in bytes."""

    attempt: int
    job: dict[str, Any]
    inputs: dict[str, int]

    @property
    def id(self) -> str:
        return str(self.job["id"])


class Containers(msgspec.Struct, omit_defaults=True):
    """What the steps of an attempt run in."""

    training: ContainerId | None = None
    scoring: ContainerId | None = None


class ProgressReport(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """News of an attempt, which also renews its lease. `epochs` are those since the last report."""

    epochs: Annotated[list[Epoch], Meta(max_length=1000)] = []
    containers: Containers | None = None
    log: str | None = None


class FailureReport(msgspec.Struct, forbid_unknown_fields=True):
    """With `retry`, only this attempt has failed, and the job is queued again."""

    reason: Text
    retry: bool = False


class ResultReport(msgspec.Struct):
    """`compared_with` is the version that the scores compare with."""

    scores: Scores | None
    compared_with: VersionNumber
    training: Training
    containers: Containers


class Refusal(msgspec.Struct):
    """Why a replica does not serve a version."""

    version: VersionNumber
    reason: Text


class ReplicaStatus(msgspec.Struct):
    serves: VersionNumber
    refused: Refusal | None = None


class ServedVersion(msgspec.Struct, frozen=True):
    """A version and the hash of its model.tflite; version 0 is built in and has none."""

    version: VersionNumber
    sha256: Sha256 | None = None
