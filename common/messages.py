"""The messages on RabbitMQ, each declared once for who sends it and who reads it.

A decoder raises ValueError or RecursionError (together INVALID) with the reason, which becomes the
header `reason` of a dead letter. Ids are numbers or non-empty texts and stay as they came.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_NUMBER = 1e300  # beyond it the difference of two numbers may be infinite
MAX_ID_CHARACTERS = 255
MAX_TEXT_CHARACTERS = 2000
MAX_ROW_BYTES = 1 << 16  # a row of ten numbers has 240; a list takes 20 times its text in memory
MAX_HISTORY_BYTES = 1 << 20  # 100 rows have some 25,000
STREAM_COLUMNS = 10  # in the body of a row

INVALID = (ValueError, RecursionError)  # msgspec's own errors are ValueErrors

Id = int | float | Annotated[str, Meta(min_length=1)]
Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Error = Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
Float32 = Annotated[float, Meta(ge=-3e38, le=3e38)]
Name = Annotated[str, Meta(max_length=200)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]
Version = int | Annotated[str, Meta(max_length=255)] | None


class Identified(msgspec.Struct):
    """A message about one row."""

    id: Id

    def __post_init__(self) -> None:
        if len(str(self.id)) > MAX_ID_CHARACTERS:
            raise ValueError(f"an id has at most {MAX_ID_CHARACTERS} characters")


class FeatureRow(Identified):
    """On `features`: what is known of a row."""

    body: Annotated[list[Number], Meta(min_length=STREAM_COLUMNS, max_length=STREAM_COLUMNS)]


class TargetValue(Identified):
    """On `y_true` the true value of a row, on `y_pred` the predicted one."""

    body: Number


class JoinedRow(Identified):
    """On `errors`: a row whose two values are known, at full precision."""

    y_true: Number
    y_pred: Number
    absolute_error: Annotated[float, Meta(ge=0, le=2 * MAX_NUMBER)]  # of two numbers at the limits
    model_version: Version = None


class HistoryRow(Identified):
    """On `history`, whose messages are lists of these: a whole row, to train on."""

    body: list[Float32]
    y_true: Float32


class DriftEvent(msgspec.Struct):
    """On `drift`, and a record of logs/drift_log.csv: what was seen or done, in a sentence."""

    at: Name
    event: Name
    id: Id | None
    version: int | None
    job: Name | None
    text: Text


class JobMessage(msgspec.Struct):
    """On `retrain_jobs`. The id becomes part of URLs and of container names."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]


class MetricCounts(msgspec.Struct):
    """On `metric_counts`: what `metric` has counted since its database was created."""

    joined: int
    pending: int
    repeated: int
    expired: int


class VersionNotice(msgspec.Struct):
    """On `model_updates`: another version is current. `model` asks the API which one."""

    version: int


RENAMED_EVENTS = {  # messages on `drift` from before, which stay there for 30 days
    "drift": "drift_detected",
    "job": "job_submitted",
    "kept": "not_promoted",
    "given up": "abandoned",
    "over": "recovered",
    "unjudged": "inconclusive",
    "rolled back": "rolled_back",
}

encode = msgspec.json.encode
decode_target_value = msgspec.json.Decoder(TargetValue).decode
decode_joined_row = msgspec.json.Decoder(JoinedRow).decode
decode_job = msgspec.json.Decoder(JobMessage).decode
decode_counts = msgspec.json.Decoder(MetricCounts).decode
_decode_feature_row = msgspec.json.Decoder(FeatureRow).decode
_decode_event = msgspec.json.Decoder(DriftEvent).decode


def decode_feature_row(body: bytes) -> FeatureRow:
    if len(body) > MAX_ROW_BYTES:
        raise ValueError(f"a row has at most {MAX_ROW_BYTES} bytes, and this has {len(body)}")
    return _decode_feature_row(body)


def decode_event(body: bytes) -> DriftEvent:
    """Return an event under its present name."""
    event = _decode_event(body)
    event.event = RENAMED_EVENTS.get(event.event, event.event)
    return event


def model_version(headers: dict[str, object]) -> int | str | None:
    """Return the header `model_version` of a prediction as far as it is one, else None."""
    version = headers.get("model_version")
    if isinstance(version, int):
        return int(version)  # pika has a subclass of int for some integers
    return version[:MAX_ID_CHARACTERS] if isinstance(version, str) else None
