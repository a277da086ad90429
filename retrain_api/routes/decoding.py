"""Decode and check what comes from outside; ValueError has a sentence.

A worker's part of it comes from a program of an unseen model: every text is made printable, every
struct bounds its numbers, and of a model file only the size and the first bytes are read.
"""

import json
from typing import IO, Any, TypeVar

import msgspec

from common.artifacts import MAX_JSON_BYTES, Golden
from common.messages import INVALID, MAX_NUMBER
from retrain_api.storage.disk import size_of

MAX_MODEL_BYTES = 500 * 10**6  # of each file of a model
MAGIC = {  # (offset, bytes)
    "model.keras": (0, b"PK\x03\x04"),
    "model.h5": (0, b"\x89HDF\r\n\x1a\n"),
    "model.tflite": (4, b"TFL3"),
}

T = TypeVar("T")


def printable(text: str) -> str:
    """Return a text whose control characters, but line ends and tabs, are replaced by U+FFFD."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    controls = [c for c in set(text) - {"\n", "\t"} if not c.isprintable()]
    return text.translate({ord(c): "\N{REPLACEMENT CHARACTER}" for c in controls})


def one_line(text: str, max_length: int = 100) -> str:
    """Return the beginning of a text as one printable line."""
    return printable(text[:max_length]).replace("\n", " ").replace("\t", " ")


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


def check_golden(file: IO[bytes], columns: int) -> None:
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


def check_model_file(name: str, file: IO[bytes]) -> None:
    """Raise ValueError with a sentence if a file is not of the kind that its name says."""
    size = size_of(file)
    offset, magic = MAGIC[name]
    if size > MAX_MODEL_BYTES:
        raise ValueError(f"{name} has {size:,} bytes, and at most {MAX_MODEL_BYTES:,} are allowed")
    if file.read(offset + len(magic))[offset:] != magic:
        raise ValueError(f"{name} does not begin as such a file does")
    file.seek(0)
