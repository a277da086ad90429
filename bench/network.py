"""The network: what a prediction costs in `model`, and what training on a file costs.

PYTHONPATH=retrain_worker/sandbox python -m bench.network predict|fit FOLDER

That is with TensorFlow, in a process of its own. It prints the seconds for a prediction, or
nothing, as a training is timed from outside.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

from bench.figure import Figure, at_least, at_most
from serving.network import load
from tests.support.environment import ROOT
from tests.support.samples import write_job

BATCH = 100
ROWS, COLUMNS, EPOCHS = 1_000_000, 10, 5


def run(command: list, **environment: str) -> str:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def train(folder: Path) -> float:
    """Train as a job does; return the seconds that the whole process took."""
    (folder / "out").mkdir()
    start = time.monotonic()
    run([sys.executable, ROOT / "retrain_worker/sandbox/train.py", folder / "in", folder / "out"])
    return time.monotonic() - start


def aside(what: str, folder: Path) -> str:
    """Measure in a process of its own; return what it printed."""
    program = [sys.executable, "-m", "bench.network"]
    return run([*program, what, folder], PYTHONPATH=str(ROOT / "retrain_worker/sandbox"))


def median_seconds(predict, rows: np.ndarray, times: int) -> float:
    took = []
    for _ in range(times):
        start = time.perf_counter()
        predict(rows)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def predict(folder: Path) -> None:
    """Print the median seconds that Keras takes for BATCH rows."""
    import keras

    model = keras.models.load_model(folder / "out/model.keras", compile=False)
    rows = load_diabetes().data[:BATCH].astype("float32")
    model.predict(rows, verbose=0)  # traced once
    print(median_seconds(lambda rows: model.predict(rows, verbose=0), rows, 50))


def prediction(folder: Path):
    data, target = load_diabetes(return_X_y=True)
    write_job(folder / "in", np.column_stack([data, target]))
    train(folder)
    served = load(folder / "out/model.tflite")
    ours = median_seconds(served.predict, data[:BATCH], 2000)
    keras = float(aside("predict", folder).split()[-1])
    note = f"{1e6 * ours / BATCH:.2f} µs a row; Keras {1e6 * keras / BATCH:.0f}"
    yield Figure("prediction, Keras / model", keras / ours, at_least(50), note)


def fit(folder: Path) -> None:
    """Train the same network on the same rows, which are all in memory."""
    import keras
    import train

    rows = np.load(folder / "in/train.npy")
    model = train.build(rows.mean(axis=0), rows.std(axis=0), len(rows))
    train.compile_model(model, train.LEARNING_RATE, float(rows[:, -1].std()))
    keras.utils.set_random_seed(7)
    held = int(len(rows) * 0.15)
    known, true = rows[held:, :-1], rows[held:, -1:]
    validation = rows[:held][:, :-1], rows[:held][:, -1:]
    plan = {"batch_size": 1024, "epochs": EPOCHS, "validation_data": validation, "verbose": 0}
    model.fit(known, true, validation_batch_size=1024, **plan)


def training(folder: Path):
    import pandas  # not above: the other process is timed with its imports

    from retrain_api.ingest.dataset import prepare

    draw = np.random.default_rng(7)
    rows = draw.normal(size=(ROWS, COLUMNS + 1)).astype("float32")
    rows[:, -1] = rows[:, 0] * 3 + rows[:, 1] ** 2 + rows[:, -1]
    csv = folder / "rows.csv"
    csv.parent.mkdir(exist_ok=True)
    names = [*(f"x{number}" for number in range(COLUMNS)), "y"]
    pandas.DataFrame(rows, columns=names).to_csv(csv, index=False, float_format="%.6f")
    write_job(folder / "in", rows[:10], epochs=EPOCHS)
    start = time.monotonic()
    with csv.open("rb") as file:
        about = prepare([("rows.csv", file)], folder / "in")
    parsed = time.monotonic() - start
    ours = train(folder)
    start = time.monotonic()
    aside("fit", folder)
    memory = time.monotonic() - start
    note = f"{parsed:.1f} s to read {about.rows:,} rows, {ours:.1f} s to train; {memory:.1f} s"
    yield Figure("training, CSV / memory", (parsed + ours) / memory, at_most(1.3), note)


def figures(folder: Path):
    yield from prediction(folder / "small")
    yield from training(folder / "large")


if __name__ == "__main__":
    {"predict": predict, "fit": fit}[sys.argv[1]](Path(sys.argv[2]))
