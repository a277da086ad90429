"""Compare a network with golden.json, the predictions of Keras for some training rows."""

from pathlib import Path

import msgspec
import numpy as np

from common.artifacts import Golden
from common.messages import INVALID, STREAM_COLUMNS
from serving.network import Network, UnservableError

CHECKED_ROWS = 400  # in one batch; `model` predicts at most 200 at once by default
TOLERANCE = 1e-5  # of float32: Keras and LiteRT round differently


def read_golden(path: Path) -> Golden:
    """Read a golden.json; raise UnservableError if it is invalid, OSError if there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Golden)
    except INVALID as error:
        raise UnservableError(f"its golden.json is invalid: {error}") from None


def check_golden(network: Network, golden: Golden) -> None:
    """Raise UnservableError if `network` does not fit the stream, or predicts other numbers.

    A row has the same prediction alone, together with the others, and in a large batch. The
    tolerance is relative; near zero it is that of the largest prediction, because float32 rounds
    the terms of a sum and not the sum.
    """
    if network.inputs != STREAM_COLUMNS:
        raise UnservableError(f"it takes {network.inputs} columns; the stream has {STREAM_COLUMNS}")
    if golden.columns != STREAM_COLUMNS:
        raise UnservableError(f"its golden.json has rows of {golden.columns} columns")
    rows, expected = np.array(golden.rows), np.array(golden.predictions)
    together, alone = network.predict(rows), [network.predict(row[None]) for row in rows]
    many = network.predict(np.resize(rows, (CHECKED_ROWS, STREAM_COLUMNS)))
    _compare(together, expected)
    _compare(np.concatenate(alone), expected)
    _compare(many, np.resize(expected, CHECKED_ROWS))


def _compare(predictions: np.ndarray, expected: np.ndarray) -> None:
    """Raise UnservableError if the predictions are not the expected ones."""
    if len(predictions) != len(expected):
        raise UnservableError(
            f"it gives {len(predictions)} numbers for {len(expected)} rows, not one a row"
        )
    near_zero = TOLERANCE * np.abs(expected).max()
    if not np.allclose(predictions, expected, rtol=TOLERANCE, atol=near_zero):
        finite = np.isfinite(predictions).any()
        worst = np.nanargmax(np.abs(predictions - expected)) if finite else 0
        raise UnservableError(
            f"it predicts {predictions[worst]} where golden.json has {expected[worst]}:"
            " not the network that was trained, or one whose rows change each other's predictions"
        )
