"""What retrain_api answers if it does not do what the worker asks for, as exceptions."""

from typing import Any

import requests


class ApiUnavailableError(Exception):
    """The API does not answer, or not now."""


class StaleAttemptError(Exception):
    """This attempt is over: the job is cancelled, done, unknown or in another attempt."""


class ForeignAttemptError(Exception):
    """Another worker, which is alive, runs this attempt."""


class RejectedError(Exception):
    """The API rejects a call for good. With `retry`, another attempt may succeed."""

    def __init__(self, reason: str, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


def field_of(answer: requests.Response, name: str) -> Any:
    """Return a field of the answer's JSON object; None if it has no such field."""
    try:
        return answer.json().get(name)
    except (ValueError, AttributeError):
        return None


def error_of(answer: requests.Response) -> str:
    """Return the sentence in which the API says what is wrong."""
    return str(field_of(answer, "error") or f"the API answers {answer.status_code}")[:500]


def accept(answer: requests.Response) -> requests.Response:
    """Return an answer that is none of an error; raise StaleAttemptError or RejectedError."""
    if answer.status_code in (404, 409):
        raise StaleAttemptError(error_of(answer))
    if not answer.ok:
        raise RejectedError(error_of(answer))
    return answer
