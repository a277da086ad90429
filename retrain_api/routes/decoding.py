"""Decode what workers and replicas send. A worker's part of it comes from a program of an unseen
model: every text is made printable, and every struct bounds its numbers.
"""

import json
from typing import Any, BinaryIO, TypeVar

import msgspec

from common.artifacts import MAX_JSON_BYTES, Golden
from common.messages import INVALID, MAX_NUMBER
from retrain_api.storage.disk import size_of
from retrain_api.text import printable

T = TypeVar("T")


def decode(body: bytes | str, kind: type[T]) -> T:
    """Return the JSON in `body` as a struct; raise ValueError with a sentence.

    NaN, Infinity, which JSON has not, and numbers out of range become None: a training that
    diverges has such losses.
    """
    try:
        value = json.loads(body, parse_constant=lambda name: None, parse_float=_number)
        return msgspec.convert(_printable(value), kind)
    except INVALID as error:
        raise ValueError(f"this message is invalid: {error}") from None


def _number(text: str) -> float | None:
    number = float(text)
    return number if abs(number) <= MAX_NUMBER else None


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return value


def check_golden(file: BinaryIO, columns: int) -> None:
    """Check golden.json for a model of `columns` columns; raise ValueError with a sentence."""
    if size_of(file) > MAX_JSON_BYTES:
        raise ValueError(f"golden.json has more than {MAX_JSON_BYTES:,} bytes")
    try:
        golden = msgspec.json.decode(file.read(), type=Golden)
    except INVALID as error:
        raise ValueError(f"golden.json is invalid: {error}") from None
    file.seek(0)
    if golden.columns != columns:
        raise ValueError(f"each row of golden.json must have {columns} numbers")
