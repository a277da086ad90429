"""Errors of the domain. `routes.answers` makes an HTTP answer of each: the sentence, and a code."""


class NotFoundError(LookupError):
    """The job, version or file does not exist. 404"""


class ConflictError(Exception):
    """The state of a job or a version forbids the call. 409"""


class StaleAttemptError(ConflictError):
    """The attempt has ended, or a newer one runs: the worker drops it. 409"""


class StaleComparisonError(ConflictError):
    """The result was compared with a version that is not current any more. 409"""

    def __init__(self, version: int) -> None:
        super().__init__(f"version {version} is current now: compare with it and send this again")
        self.version = version


class ForeignAttemptError(Exception):
    """The attempt belongs to another worker, whose lease holds. 423"""


class InvalidDatasetError(ValueError):
    """What is wrong in an uploaded CSV, where, and what to send instead, in one sentence. 400"""


class DiskFullError(Exception):
    """What was sent would use up the reserve of the disk. 507"""


class TooManyReplicasError(Exception):
    """More replicas of `model` report than can be listed. 400"""
