"""Write data and a model that retraining can be tried with.

    scikit-learn's diabetes data ──▶ sample/diabetes.csv          the rows as `features` sends them
                                 ├─▶ sample/kostroma.csv, …       the same rows, as three regions
                                 └─▶ sample/diabetes.keras        a small network, half trained

Nothing is downloaded. Two runs on one machine write the same bytes.

    python tools/sample.py [FOLDER]
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from sklearn.datasets import load_diabetes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` is
from common.files import replace_file
from tools.keras_file import network_file

REGIONS = ("kostroma", "moscow", "yaroslavl")
HIDDEN_UNITS = 32
LEARNING_RATE = 0.001
TRAINING_STEPS = 15  # of some thousand: there is something left to learn
FOLDER_SECONDS = 10  # Compose makes the folder writable in a container of its own, meanwhile

Weights = list[np.ndarray]  # kernel and bias of the hidden layer, then of the last


def csv_lines() -> list[str]:
    """Return the diabetes data as lines of a CSV, the header first."""
    data = load_diabetes()
    rows = np.column_stack([data.data, data.target]).tolist()
    return [",".join([*data.feature_names, "target"]), *(",".join(map(str, row)) for row in rows)]


def region_lines(lines: list[str], number: int) -> list[str]:
    """Return the header and every third row; the first row is the last region's."""
    return [lines[0], *lines[1 + (number + 1) % len(REGIONS) :: len(REGIONS)]]


def half_trained(x: np.ndarray, y: np.ndarray) -> Weights:
    """Return the weights of a network with one hidden layer after some steps of gradient descent.

    `x` has the shape (rows, columns), each column with mean 0 and variance 1; `y` (rows, 1).
    """
    random = np.random.default_rng(0)
    columns = x.shape[1]
    kernel = random.normal(0, np.sqrt(2 / columns), (columns, HIDDEN_UNITS))
    bias = np.zeros(HIDDEN_UNITS)
    last_kernel = random.normal(0, np.sqrt(2 / HIDDEN_UNITS), (HIDDEN_UNITS, 1))
    last_bias = y.mean(axis=0)
    for _ in range(TRAINING_STEPS):
        hidden = np.maximum(x @ kernel + bias, 0)
        slope = 2 * (hidden @ last_kernel + last_bias - y) / len(x)  # of the mean squared error
        hidden_slope = slope @ last_kernel.T * (hidden > 0)
        kernel -= LEARNING_RATE * x.T @ hidden_slope
        bias -= LEARNING_RATE * hidden_slope.sum(axis=0)
        last_kernel -= LEARNING_RATE * hidden.T @ slope
        last_bias -= LEARNING_RATE * slope.sum(axis=0)
    return [kernel, bias, last_kernel, last_bias]


def network() -> bytes:
    """Return diabetes.keras: scaling, a hidden layer and one number."""
    data, target = load_diabetes(return_X_y=True)
    mean, variance = data.mean(axis=0), data.var(axis=0)
    weights = half_trained((data - mean) / np.sqrt(variance), target[:, None])
    return network_file(mean, variance, weights)


def write_samples(folder: Path) -> list[Path]:
    """Write all samples into `folder`, and return their paths."""
    lines = csv_lines()
    tables = {"diabetes": lines}
    tables |= {name: region_lines(lines, number) for number, name in enumerate(REGIONS)}
    contents = {f"{name}.csv": "\n".join([*rows, ""]).encode() for name, rows in tables.items()}
    contents["diabetes.keras"] = network()
    for name, content in contents.items():
        replace_file(folder / name, content)
    return [folder / name for name in contents]


def wait_until_writable(folder: Path) -> None:
    """Create `folder`, and wait until files can be created in it. Raise SystemExit if never."""
    end = time.monotonic() + FOLDER_SECONDS
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise SystemExit(f"{folder} cannot be written: {error.strerror}") from None
            time.sleep(0.2)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "sample")
    wait_until_writable(folder)
    for path in write_samples(folder):
        print(f"{path.stat().st_size:7} bytes  {path}")


if __name__ == "__main__":
    main()
