"""Load a .tflite file in a child process first, and compare it with its golden.json there.

A malformed file can crash native code, take all memory, or never end. The child has limits of its
own, and its end, however it comes, is one sentence for the parent. golden.json has the predictions
of Keras for some training rows.

    python serving/trial.py model.tflite [golden.json]    # code 2 and a sentence if unservable
"""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` and `serving` are
from common.artifacts import Golden
from common.messages import INVALID, STREAM_COLUMNS
from serving.network import Network, UnservableError, load

CHECKED_ROWS = 400  # in one batch; `model` predicts at most 200 at once by default
TOLERANCE = 1e-5  # of float32: Keras and LiteRT round differently
CHILD_BYTES = 256 * 2**20  # beside `model`, in the 512 MB of its container
CHILD_CPU_SECONDS = 10
CHILD_SECONDS = 60  # on a busy machine
UNSERVABLE = 2  # exit code


def run_trial(path: Path, golden: Path | None = None) -> None:
    """Load `path` in a child process, and compare it with `golden`; raise UnservableError."""
    files = [str(file) for file in (path, golden) if file]
    command = ["nice", "-n5", sys.executable, "-B", __file__, *files]  # nice from the first import
    # The child gets no password of ours. Each thread of OpenBLAS takes 40 MB of the limit.
    environment = {"PATH": os.getenv("PATH", os.defpath), "OPENBLAS_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=CHILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise UnservableError(f"its trial took longer than {CHILD_SECONDS} s") from None
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise UnservableError(f"its trial ended a process with {name}")
    if child.returncode:
        sentence = child.stdout.decode(errors="replace").strip()
        raise UnservableError(sentence or f"its trial ended with code {child.returncode}")


def limit_resources() -> None:
    """Limit this process, a child, so that `model` keeps its memory and its processor time."""
    for kind, wanted in (
        (resource.RLIMIT_DATA, CHILD_BYTES),
        (resource.RLIMIT_CPU, CHILD_CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)  # the container may have a lower one
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (limit, limit))


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


def main() -> None:
    limit_resources()
    path, *golden = map(Path, sys.argv[1:])
    try:
        network = load(path)
        if golden:
            check_golden(network, read_golden(golden[0]))
    except UnservableError as error:
        print(error)
        raise SystemExit(UNSERVABLE) from None
    except MemoryError:
        print(f"its trial needs more than {CHILD_BYTES // 2**20} MiB")
        raise SystemExit(UNSERVABLE) from None


if __name__ == "__main__":
    main()
