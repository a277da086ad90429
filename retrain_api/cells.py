"""What is a number in a CSV, and what is to be said of a cell that is none.

    ["1", "-2.5", "3e2", …] ──▶ floats ──▶ float32 array, or ValueError, or OverflowError

A number has ASCII digits, and may have a sign, a decimal mark, an exponent and blanks around it.
Python's float() alone would take 1_000, infinity and the digits of any alphabet; pandas would take
`inf`, TRUE and "+6e 2". So both see only what cannot have them.
"""

import io
from contextlib import suppress

import numpy as np
import pandas

PLAIN = b"0123456789+-.eE"  # all that a number consists of
MANY = 1000  # cells from which on pandas is faster
NOT_FINITE = "nan", "inf", "infinity"


class Refused(ValueError):
    """What is wrong, where, and what to send instead, in one sentence."""


def shown(text: str) -> str:
    """Return a name or a cell, quoted, as it can stand in a sentence."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


def as_float32(numbers: np.ndarray) -> np.ndarray:
    """Return `numbers` as float32 without -0.0; raise OverflowError if one is beyond that."""
    with np.errstate(over="ignore"):
        numbers = numbers.astype("<f4", order="C")
    if not np.isfinite(numbers).all():
        raise OverflowError("beyond float32")
    return numbers + np.float32(0)


def many(data: bytes, delimiter: str = ",") -> np.ndarray:
    """Return a table of PLAIN cells as floats, far faster than float() does if there are many.

    Raise ValueError if a cell is no number or a row longer than the first; a short row may pass.
    """
    cells = pandas.read_csv(
        io.BytesIO(data),
        sep=delimiter,
        header=None,
        dtype=float,
        na_filter=False,
        skip_blank_lines=False,
        low_memory=False,  # or it would work on parts of what is a part already
    )
    return cells.to_numpy()


def floats(cells: list[str], comma: bool) -> np.ndarray:
    """Return cells as float32; with `comma`, a comma is a decimal mark as well as a point.

    Raise ValueError if one is no plain number, OverflowError if one is beyond float32.
    """
    data = "\0".join(cells).encode()  # no cell has a NUL
    data = data.replace(b",", b".") if comma else data
    others = data.translate(None, PLAIN + b"\0")
    if others.strip(b" "):
        raise ValueError("not plain decimal numbers")
    if others or len(cells) < MANY:
        return as_float32(np.array(list(map(float, data.split(b"\0")))))
    return as_float32(many(data.replace(b"\0", b"\n") + b"\n").ravel())


def is_number(cell: str, comma: bool) -> bool:
    """Tell of one cell what `floats` would, but quickly, and without the bound of float32."""
    cell = cell.replace(",", ".") if comma else cell
    with suppress(ValueError):
        return not cell.encode().translate(None, PLAIN + b" ") and float(cell) is not None
    return False


def why_not(cell: str, comma: bool) -> str | None:
    """Say why `floats` does not take a cell, and what to send instead; None if it does."""
    try:
        floats([cell], comma)
        return None
    except OverflowError:
        return f"{shown(cell)} is beyond float32; send numbers between -3.4e38 and 3.4e38"
    except ValueError:
        if not cell.strip():
            return "the cell is empty; fill it, or leave out its row or, with ignore, its column"
        if is_number(cell, comma=True):
            return f"{shown(cell)} has a decimal comma; write a point, or separate by semicolons"
        if cell.strip(" +-").lower() in NOT_FINITE:
            return f"{shown(cell)} is not finite; send a number, or leave out its row"
        return f"{shown(cell)} is not a number; send numbers, or leave the column out with ignore"
