"""A trained network, loaded from its .tflite file and run by LiteRT.

    load(path) ──▶ Network ──▶ predict(rows)

Any file that cannot be served is an UnservableError. A malformed file may also crash the process:
`serving.trial` loads it in a child process first.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter

MAX_REASON_CHARACTERS = 500  # LiteRT quotes names out of the file


class UnservableError(ValueError):
    """A version cannot be served, and a second attempt would not help. It has one sentence."""


class Predictor(Protocol):
    """A loaded version. It takes `inputs` columns and gives `outputs` numbers for a row, 1."""

    inputs: int
    outputs: int

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return the predictions for `rows`, (rows, inputs), as float64 of the shape (rows,)."""


class Network:
    """A .tflite file that takes float32 of the shape (rows, inputs) and gives one number a row."""

    outputs = 1

    def __init__(self, path: Path) -> None:
        self._interpreter = Interpreter(str(path), num_threads=1)
        source, target = _tensors(self._interpreter)
        self.inputs = int(source["shape_signature"][1])
        self._source, self._target = source["index"], target["index"]
        self._allocated_rows = 0

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predict `rows`, (rows, inputs) of any dtype, as float64 of the shape (rows,).

        A row on which the network fails gives nan.
        """
        if not len(rows):
            return np.empty(0)
        with np.errstate(over="ignore"):  # what float32 cannot hold is inf, as is its prediction
            rows = np.ascontiguousarray(rows, dtype=np.float32)
        self._allocate(rows)
        self._interpreter.set_tensor(self._source, rows)
        try:
            self._interpreter.invoke()
        except RuntimeError:  # such as an index beyond a table
            if len(rows) == 1:
                return np.array([np.nan])
            return np.concatenate([self.predict(row[None]) for row in rows])
        answers: np.ndarray = self._interpreter.get_tensor(self._target)
        return answers.astype(np.float64).reshape(-1)

    def _allocate(self, rows: np.ndarray) -> None:
        """Allocate the tensors for so many rows. It takes 0.1 ms."""
        if len(rows) != self._allocated_rows:  # most batches under load have the same size
            self._interpreter.resize_tensor_input(self._source, rows.shape)
            self._interpreter.allocate_tensors()
            self._allocated_rows = len(rows)


def _tensors(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the details of the input and of the output; raise UnservableError if they do not fit.

    The input has to be float32 of the shape (rows, columns), and the output float32.
    """
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if (len(inputs), len(outputs)) != (1, 1):
        raise UnservableError(
            f"it has {len(inputs)} inputs and {len(outputs)} outputs, not 1 and 1"
        )
    for tensor in (*inputs, *outputs):
        if tensor["dtype"] is not np.float32:
            raise UnservableError(f"it works with {tensor['dtype'].__name__}, not with float32")
    sizes = inputs[0]["shape_signature"]
    if len(sizes) != 2 or sizes[1] < 1:
        raise UnservableError(f"it takes {_shape(sizes)}, not (rows, columns)")
    return inputs[0], outputs[0]


def _shape(sizes: Iterable[int]) -> str:
    return "(" + ", ".join("rows" if size == -1 else str(size) for size in sizes) + ")"


def load(path: Path) -> Network:
    """Load a .tflite file; raise UnservableError if it cannot be served."""
    try:
        network = Network(path)
        for rows in (3, 1):
            answers = network.predict(np.zeros((rows, network.inputs)))
            if len(answers) != rows:
                raise UnservableError(
                    f"it gives {len(answers)} numbers for {rows} rows, not one a row"
                )
    except (ValueError, RuntimeError) as error:  # LiteRT raises both
        reason = (str(error).strip() or "no reason given; often memory").splitlines()[0]
        reason = reason[:MAX_REASON_CHARACTERS]
        raise UnservableError(f"this .tflite file cannot be served: {reason}") from None
    return network
