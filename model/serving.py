"""How a version is served: the one home of that rule, for `model.py` and for `score.py`.

    builtin()    version 0, a linear model of the diabetes data
    load(path)   a version that was trained here, from its .tflite file

Both give an object with `inputs` (columns), `outputs` (1) and `predict`, which takes an array of
the shape (rows, inputs) and returns float64 of the shape (rows,). Whatever is no usable file is a
ValueError with a sentence.

A corrupt file can crash native code, so `try_out` lets a child process load it first, with limits
of its own on memory and time: what kills the child is one more sentence. The child is this file:

    python model/serving.py model.tflite [golden.json]        # code 2, and the sentence, if refused
"""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from ai_edge_litert.interpreter import Interpreter

STREAM_COLUMNS = 10  # what a row on `features` has
TRIED_ROWS = 400  # in one batch; more than `model` answers at once
CHILD_BYTES = 256 * 2**20  # beside `model`, in the 512 MB of its container
CHILD_CPU_SECONDS = 10
CHILD_SECONDS = 60  # on a busy machine

Some = msgspec.Meta(min_length=1)
Row = Annotated[list[float], msgspec.Meta(min_length=STREAM_COLUMNS, max_length=STREAM_COLUMNS)]


class Golden(msgspec.Struct):
    """golden.json: rows, and what the network predicted for them where it was trained."""

    rows: Annotated[list[Row], Some]
    predictions: Annotated[list[float], Some]


def builtin():
    """Return version 0. It was fitted on all 442 rows of the diabetes data."""
    from sklearn.datasets import load_diabetes  # 3 s and 130 MB, which a child and most scorings
    from sklearn.linear_model import LinearRegression  # do without

    model = LinearRegression().fit(*load_diabetes(return_X_y=True))
    model.inputs, model.outputs = model.n_features_in_, 1
    return model


def shape(sizes) -> str:
    return "(" + ", ".join("rows" if size == -1 else str(size) for size in sizes) + ")"


class Network:
    """A .tflite file that takes float32 of the shape (rows, inputs) and gives one number a row."""

    outputs = 1

    def __init__(self, path: Path):
        self.interpreter = Interpreter(str(path), num_threads=1)
        inputs = self.interpreter.get_input_details()
        outputs = self.interpreter.get_output_details()
        if (len(inputs), len(outputs)) != (1, 1):
            raise ValueError(f"it has {len(inputs)} inputs and {len(outputs)} outputs, not 1 and 1")
        [given], [taken] = inputs, outputs
        for tensor in (given, taken):
            if tensor["dtype"] is not np.float32:
                raise ValueError(f"it works with {tensor['dtype'].__name__}, not with float32")
        sizes = given["shape_signature"]
        if len(sizes) != 2 or sizes[1] < 1:
            raise ValueError(f"it takes {shape(sizes)}, not (rows, columns)")
        self.inputs = int(sizes[1])
        self.given, self.taken, self.rows = given["index"], taken["index"], 0

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predict (rows, inputs) of any dtype. A row on which the network fails gives nan."""
        if not len(rows):
            return np.empty(0)
        with np.errstate(over="ignore"):  # what float32 cannot hold is inf, and shows in the answer
            rows = np.ascontiguousarray(rows, dtype=np.float32)
        if len(rows) != self.rows:  # 0.1 ms; most batches under load have the same size
            self.interpreter.resize_tensor_input(self.given, rows.shape)
            self.interpreter.allocate_tensors()
            self.rows = len(rows)
        self.interpreter.set_tensor(self.given, rows)
        try:
            self.interpreter.invoke()
        except RuntimeError:  # such as an index beyond a table: one bad row must not stop the rest
            alone = len(rows) == 1
            return np.concatenate([[np.nan] if alone else self.predict(row[None]) for row in rows])
        return self.interpreter.get_tensor(self.taken).astype(np.float64).reshape(-1)


def load(path: Path) -> Network:
    """Load a .tflite file; raise ValueError with a sentence if it cannot be served."""
    try:
        network = Network(path)
        for rows in (3, 1):
            answers = network.predict(np.zeros((rows, network.inputs)))
            if len(answers) != rows:
                raise ValueError(f"it gives {len(answers)} numbers for {rows} rows, not one a row")
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip() or "no reason given; often memory").splitlines()[0]
        raise ValueError(f"this .tflite file cannot be served: {reason}") from None
    return network


def read(golden: Path) -> Golden:
    try:
        return msgspec.json.decode(golden.read_bytes(), type=Golden)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise ValueError(f"its golden.json is of no use: {error}") from None


def check(network: Network, golden: Golden) -> None:
    """Raise ValueError if `network` does not fit the stream, or answers `golden` differently.

    Alone, together, or many at once, a row has the same answer, to 1e-5 of its size; near zero, of
    the largest one's size, because float32 rounds the terms of a sum and not the sum.
    """
    if network.inputs != STREAM_COLUMNS:
        raise ValueError(f"it takes {network.inputs} columns; the stream has {STREAM_COLUMNS}")
    if len(golden.rows) != len(golden.predictions):
        raise ValueError("its golden.json does not have one prediction for each row")
    rows, expected = np.array(golden.rows), np.array(golden.predictions)
    alone = np.concatenate([network.predict(row[None]) for row in rows])
    many = network.predict(np.resize(rows, (TRIED_ROWS, STREAM_COLUMNS)))
    allowed = 1e-5 * np.abs(expected).max()
    for answers in (network.predict(rows), alone, many):
        wanted = np.resize(expected, len(answers))
        if not np.allclose(answers, wanted, rtol=1e-5, atol=allowed):
            worst = np.nanargmax(np.abs(answers - wanted)) if np.isfinite(answers).any() else 0
            raise ValueError(
                f"it predicts {answers[worst]} where golden.json has {wanted[worst]}:"
                " not the network that was trained, or one whose rows change each other's answers"
            )


def try_out(path: Path, golden: Path | None = None) -> None:
    """Load `path` in a child process, and check it against `golden`; ValueError if refused."""
    files = [str(file) for file in (path, golden) if file]
    command = ["nice", "-n5", sys.executable, "-B", __file__, *files]  # from its first import on
    # No password of ours is for the child's eyes; each thread takes 40 MB of the limit.
    environment = {"PATH": os.getenv("PATH", os.defpath), "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=CHILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"trying it out took longer than {CHILD_SECONDS} s") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ValueError(f"trying it out ended a process with {name}")
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        raise ValueError(said or f"trying it out ended with code {done.returncode}")


def limit() -> None:
    """Limit this process, a child, so that `model` does not notice what a file does to it."""
    for kind, most in (
        (resource.RLIMIT_DATA, CHILD_BYTES),
        (resource.RLIMIT_CPU, CHILD_CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)  # somebody may have set it lower already
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def main() -> None:
    limit()
    path, *golden = map(Path, sys.argv[1:])
    try:
        network = load(path)
        if golden:
            check(network, read(golden[0]))
    except ValueError as error:
        print(error)
        raise SystemExit(2) from None
    except MemoryError:
        print(f"trying it out needs more than {CHILD_BYTES // 2**20} MiB")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
