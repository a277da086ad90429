"""Parse the cells of a CSV as numbers, and describe what is wrong with a cell that is none.

    ["1", "-2.5", "3e2", …] ──▶ floats ──▶ float32 array, or ValueError, or OverflowError

A number has ASCII digits, and may have a sign, a decimal mark, an exponent and blanks around it.
float() would accept 1_000, infinity and the digits of any alphabet; pandas would accept `inf`,
TRUE and "+6e 2". So both get only texts that cannot have them.
"""

import io
from contextlib import suppress

import numpy as np
import pandas

NUMBER_CHARACTERS = b"0123456789+-.eE"
MIN_PANDAS_CELLS = 1000  # pandas is faster from there on
NOT_FINITE = "nan", "inf", "infinity"
MAX_QUOTED_CHARACTERS = 40


def quoted(text: str) -> str:
    """Return a name or a cell, in quotes, as it can stand in a sentence."""
    short = text if len(text) <= MAX_QUOTED_CHARACTERS else text[: MAX_QUOTED_CHARACTERS - 1] + "…"
    return repr(short)


def as_float32(numbers: np.ndarray) -> np.ndarray:
    """Return `numbers` as float32 without -0.0; raise OverflowError if one is out of its range."""
    with np.errstate(over="ignore"):
        numbers = numbers.astype("<f4", order="C")
    if not np.isfinite(numbers).all():
        raise OverflowError("beyond float32")
    return numbers + np.float32(0)


def read_with_pandas(data: bytes, delimiter: str = ",") -> np.ndarray:
    """Return a table of numbers as float64 of the shape (rows, columns).

    `data` has NUMBER_CHARACTERS, delimiters and line ends only. A short row may pass. Raise
    ValueError if a cell is no number, or a row is longer than the first.
    """
    cells = pandas.read_csv(
        io.BytesIO(data),
        sep=delimiter,
        header=None,
        dtype=float,
        na_filter=False,
        skip_blank_lines=False,
        low_memory=False,  # `data` is a block of a file already
    )
    numbers: np.ndarray = cells.to_numpy()
    return numbers


def floats(cells: list[str], decimal_comma: bool) -> np.ndarray:
    """Return cells as float32 of the shape (cells,).

    With `decimal_comma`, a comma is a decimal mark as well as a point. Raise ValueError if a cell
    is no number, OverflowError if one is out of the range of float32.
    """
    data = "\0".join(cells).encode()  # no cell has a NUL
    data = data.replace(b",", b".") if decimal_comma else data
    others = data.translate(None, NUMBER_CHARACTERS + b"\0")
    if others.strip(b" "):
        raise ValueError("not decimal numbers")
    if others or len(cells) < MIN_PANDAS_CELLS:
        return as_float32(np.array(list(map(float, data.split(b"\0")))))
    return as_float32(read_with_pandas(data.replace(b"\0", b"\n") + b"\n").ravel())


def is_number(cell: str, decimal_comma: bool) -> bool:
    """Return whether `floats` accepts a cell, but quickly, and without the range of float32."""
    cell = cell.replace(",", ".") if decimal_comma else cell
    if cell.encode().translate(None, NUMBER_CHARACTERS + b" "):
        return False
    with suppress(ValueError):
        float(cell)
        return True
    return False


def describe_problem(cell: str, decimal_comma: bool) -> str | None:
    """Say why `floats` refuses a cell, and what to send instead; None if it accepts the cell."""
    try:
        floats([cell], decimal_comma)
        return None
    except OverflowError:
        return f"{quoted(cell)} is beyond float32; send numbers between -3.4e38 and 3.4e38"
    except ValueError:
        if not cell.strip():
            return "the cell is empty; fill it, or leave out its row or, with ignore, its column"
        if is_number(cell, decimal_comma=True):
            return f"{quoted(cell)} has a decimal comma; write a point, or separate by semicolons"
        if cell.strip(" +-").lower() in NOT_FINITE:
            return f"{quoted(cell)} is not finite; send a number, or leave out its row"
        return f"{quoted(cell)} is not a number; send numbers, or leave the column out with ignore"
