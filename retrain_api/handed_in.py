"""Read what a worker hands in. It comes out of a container that ran a stranger's model.

Each function takes what came and returns it checked and cut to what is known: names, sizes, finite
numbers, printable text. ValueError says in a sentence what is wrong.
"""

import json
from typing import BinaryIO

from retrain_api import disk

GOLDEN_BYTES = 8 * 2**20
MODEL_BYTES = 500 * 10**6  # of each file of a model
TRAINING = ("started_from", "epochs_run", "seconds", "parameters", "keras", "tensorflow")
MAGIC = {  # (offset, bytes) by which a file is known
    "model.keras": (0, b"PK\x03\x04"),
    "model.h5": (0, b"\x89HDF\r\n\x1a\n"),
    "model.tflite": (4, b"TFL3"),
}


def loads(text: str | bytes) -> object:
    """Read JSON; NaN and Infinity, which JSON has not, become None."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is not JSON: {error}") from None


def number(value) -> float | int | None:
    """Return a finite number as it is, anything else as None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) <= 1e300 else None


def count(value) -> int | None:
    return value if number(value) is not None and value == int(value) >= 0 else None


def text(value, length: int = 2000) -> str | None:
    """Return a text without what could confuse a terminal, anything else as None."""
    if not isinstance(value, str):
        return None
    lines = value[:length].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line if line.isprintable() else plain(line) for line in lines)


def plain(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)


def known(value, keys, read) -> dict:
    """Return the `keys` of a dict, each through `read`; a ValueError if it is no dict."""
    if not isinstance(value, dict):
        raise ValueError(f"this is to be an object with {', '.join(keys)}")
    return {key: read(value.get(key)) for key in keys}


def scores(value) -> dict | None:
    """Return scores.json, or None where there is none."""
    if value is None:
        return None
    read = known(value, ("inputs", "outputs"), count)
    read["mae"] = known(value.get("mae"), ("challenger", "champion", "mean"), number)
    read["refused"] = text(value.get("refused"))
    regions = value.get("regions")
    if not isinstance(regions, list) or len(regions) > 1000:
        raise ValueError("scores.regions is to be a list")
    numbers = ("rows", "challenger", "champion", "mean")
    read["regions"] = [known(r, ("file",), text) | known(r, numbers, number) for r in regions]
    return read


def report(value) -> dict:
    """Return the report of a result: scores, compared_with, training, containers."""
    read = known(value, ("compared_with",), count)
    read["scores"] = scores(value.get("scores"))
    training = value.get("training")
    read["training"] = known(
        training, TRAINING, lambda v: text(v) if isinstance(v, str) else number(v)
    )
    read["training"]["why_no_tflite"] = text(training.get("why_no_tflite"))
    read["containers"] = containers(value.get("containers") or {})
    return read


def containers(value) -> dict:
    return known(value, ("training", "scoring"), lambda id: text(id, 200))


def model_file(name: str, file: BinaryIO) -> None:
    """See that a file is what its name says, as far as that is to be seen without opening it."""
    size = disk.size_of(file)
    offset, magic = MAGIC[name]
    if size > MODEL_BYTES:
        raise ValueError(f"{name} has {size:,} bytes, and at most {MODEL_BYTES:,} are taken")
    if file.read(offset + len(magic))[offset:] != magic:
        raise ValueError(f"{name} does not begin as such a file does")
    file.seek(0)


def golden(file: BinaryIO, columns: int) -> None:
    """See that golden.json has rows, and a prediction for each."""
    if disk.size_of(file) > GOLDEN_BYTES:
        raise ValueError(f"golden.json has more than {GOLDEN_BYTES:,} bytes")
    value = loads(file.read())
    file.seek(0)
    rows, predictions = (known(value, ("rows", "predictions"), lambda v: v)).values()
    if not (isinstance(rows, list) and isinstance(predictions, list) and 0 < len(rows) <= 32):
        raise ValueError("golden.json is to have lists of 1 to 32 rows and predictions")
    if len(predictions) != len(rows) or None in map(number, predictions):
        raise ValueError("golden.json is to have one finite prediction for each row")
    for row in rows:
        if not isinstance(row, list) or len(row) != columns or None in map(number, row):
            raise ValueError(f"each row of golden.json is to have {columns} finite numbers")
