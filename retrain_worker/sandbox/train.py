"""Train a network on the rows of one job: from scratch, or on from a model that was uploaded.

    IN      train.npy              float32, (rows, columns + 1); the last column is the target
            job.json               uses "columns", "epochs" (null: as many as help), "seed", "model"
            model.keras, model.h5  the model to go on from, if "model" names one of them
    OUT     model.keras            the trained model; it takes rows exactly as the CSV has them
            model.tflite           the same for LiteRT, if it can be converted
            golden.json            some training rows, and what Keras predicts for them
            training.json          how it went, and why there is no model.tflite if there is none
    stdout  {"epoch": 3, "epochs": 20, "loss": 45.1, "val_loss": 50.2}, some 200 such lines at most

Losses are mean absolute errors in the target's units. Exit code 0: all of this is there. 2: this
job cannot be done, and OUT/reason.txt says why in a sentence. Any other code is a crash, with its
traceback on stderr. An uploaded model is a program: run this in a sandbox.

    python train.py IN OUT
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from dataset import Dataset
from export import export, write_json
from libraries import keras, layers, np, tf
from uploaded_model import InvalidJobError, open_model

# the network
UNITS = (64, 32)  # with few rows only the first layer: more would learn them by heart
FEW_ROWS = 500
DROPOUT = 0.5  # for FEW_ROWS; with more rows less of it

# fitting
EPOCHS = 200  # at most, if the job does not say
PATIENCE = 20  # epochs without a better validation loss, then it stops
FIRST_EPOCHS = 20  # from scratch these do not count: few rows may favour an untrained network
MAX_STEPS = 20_000  # in all epochs
STEPS_PER_EPOCH = 2000  # at most; with many rows an epoch is a sample of them
LEARNING_RATE = 1e-3  # from scratch, where all columns are scaled
LEARNING_RATES = (1e-4, 1e-3, 1e-2)  # to go on: small for a model that is nearly right
TRIAL_STEPS = 50  # with each of LEARNING_RATES
QUIET = {"shuffle": False, "verbose": 0}  # the rows come shuffled
PREDICT_ROWS = 1024  # in one batch, where nothing is learned

# what it leaves
GOLDEN_ROWS = 32
MAX_REPORTS = 200  # of epochs

Validation = tuple[np.ndarray, np.ndarray]  # (rows, columns) and (rows, 1)


def build(mean: np.ndarray, deviation: np.ndarray, rows: int) -> keras.Model:
    """Return a network that takes raw rows and predicts in the target's units.

    `mean` and `deviation` have the shape (columns + 1,). A linear path and a small network beside
    it both start at zero: the first prediction for every row is the mean.
    """
    few = rows <= FEW_ROWS
    row = keras.Input((len(mean) - 1,))
    # Two layers, as Normalization alone divides by 1e-7 at least, and a column may be finer. And it
    # subtracts: LiteRT would merge an added offset into the next bias, where digits get lost.
    constant = deviation[:-1] <= 1e-7 * np.abs(mean[:-1])  # equal in float32
    scale = np.where(constant, 0, 1 / np.where(constant, 1, deviation[:-1]))
    centre = layers.Normalization(mean=mean[:-1] * scale, variance=np.ones(len(scale)))
    scaled = hidden = centre(layers.Rescaling(scale.tolist())(row))
    for units in UNITS[:1] if few else UNITS:
        hidden = layers.Dense(units, activation="relu")(hidden)
        hidden = layers.Dropout(DROPOUT * min(1, FEW_ROWS / rows))(hidden)
    linear = layers.Dense(1, kernel_initializer="zeros", use_bias=False)(scaled)
    curved = layers.Dense(1, kernel_initializer="zeros")(hidden)
    target = layers.Rescaling(float(deviation[-1]), offset=float(mean[-1]))(linear + curved)
    return keras.Model(row, target)


class ProgressReport(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Print a line of JSON after an epoch; with many epochs, after some of them and the last."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs, self.unreported = epochs, ""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        number, loss, val_loss = epoch + 1, logs["mae"], logs["val_mae"]
        if not (math.isfinite(loss) and math.isfinite(val_loss)):
            raise InvalidJobError(
                f"The loss was no number any more after epoch {number}: the model ran away from "
                "the data. Values far larger than all others may cause this."
            )
        progress = {"epoch": number, "epochs": self.epochs, "loss": loss, "val_loss": val_loss}
        self.unreported = json.dumps(progress)
        if number % math.ceil(self.epochs / MAX_REPORTS) == 0:
            self.report()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.report()

    def report(self) -> None:
        if self.unreported:
            print(self.unreported, flush=True)
            self.unreported = ""


def fit(model: keras.Model, dataset: Dataset, deviation: float, job: dict[str, Any]) -> int:
    """Fit in place and keep the best weights, be they the first ones; return the epochs run."""
    compile_model(model, LEARNING_RATE, deviation)
    rows = dataset.read(dataset.validation)
    validation = rows[:, :-1], rows[:, -1:]
    first_weights, (first_loss, first_mae) = model.get_weights(), evaluate(model, validation)
    if not math.isfinite(first_loss):
        raise InvalidJobError(
            "The model does not answer with numbers to these rows, before any training."
        )
    print(f"before epoch 1  val_loss {first_mae:.6g}", flush=True)
    if job["model"]:
        rate = find_learning_rate(model, dataset, validation, deviation)
        compile_model(model, rate, deviation)
    epochs_run, best_loss = run_epochs(model, dataset, validation, job)
    if best_loss >= first_loss:
        print("no epoch was better than the weights before: they stay", flush=True)
        model.set_weights(first_weights)
    return epochs_run


def run_epochs(
    model: keras.Model, dataset: Dataset, validation: Validation, job: dict[str, Any]
) -> tuple[int, float]:
    """Fit until the validation loss stops falling; return the epochs run and the best loss."""
    batch = batch_size(dataset)
    rows = len(dataset.training) * dataset.run_length
    steps = min(math.ceil(rows / batch), STEPS_PER_EPOCH)
    epochs = job["epochs"] or min(EPOCHS, MAX_STEPS // steps)
    stopping = keras.callbacks.EarlyStopping(
        patience=PATIENCE,
        start_from_epoch=0 if job["model"] else min(FIRST_EPOCHS, epochs // 4),
        restore_best_weights=True,
    )
    history = model.fit(
        dataset.batches(batch),
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=validation,
        validation_batch_size=PREDICT_ROWS,
        callbacks=[ProgressReport(epochs), stopping],
        **QUIET,
    )
    return len(history.epoch), stopping.best


def evaluate(model: keras.Model, validation: Validation) -> tuple[float, float]:
    """Return the loss, and the mean absolute error."""
    loss, error = model.evaluate(*validation, batch_size=PREDICT_ROWS, verbose=0)
    return loss, error


def batch_size(dataset: Dataset) -> int:
    return int(min(max(32, dataset.count // 100), 1024))


def compile_model(model: keras.Model, rate: float, deviation: float) -> None:
    """Compile with Huber's loss in units of `deviation`: one rate fits targets of any size."""

    def loss(true: Any, predicted: Any) -> Any:
        return keras.losses.huber(true / deviation, predicted / deviation)

    model.compile(keras.optimizers.Adam(rate), loss=loss, metrics=["mae"])


def find_learning_rate(
    model: keras.Model, dataset: Dataset, validation: Validation, deviation: float
) -> float:
    """Return which of LEARNING_RATES improves the model most in a few steps; its weights stay."""
    weights, losses = model.get_weights(), {}
    for rate in LEARNING_RATES:
        compile_model(model, rate, deviation)  # a new optimizer: the last one may have diverged
        batches = dataset.batches(batch_size(dataset))
        model.fit(batches, steps_per_epoch=TRIAL_STEPS, **QUIET)
        losses[rate] = np.nan_to_num(evaluate(model, validation)[0], nan=np.inf)
        model.set_weights(weights)
    return min(LEARNING_RATES, key=lambda rate: losses[rate])


def train(inputs: Path, out: Path) -> None:
    started = time.monotonic()
    job = json.loads((inputs / "job.json").read_text())
    keras.utils.set_random_seed(job["seed"])
    tf.config.experimental.enable_op_determinism()
    dataset = Dataset(inputs / "train.npy", job["seed"])
    if job["model"]:
        model = open_model(inputs / job["model"], dataset.width - 1)
    mean, deviation = dataset.moments()
    deviation[-1] = deviation[-1] or 1  # all targets of the training rows are equal
    if not job["model"]:
        model = build(mean, deviation, dataset.count)
    epochs_run = fit(model, dataset, float(deviation[-1]), job)
    golden = dataset.read(dataset.training[:GOLDEN_ROWS])[:GOLDEN_ROWS, :-1]
    why_no_tflite = export(model, golden, out)
    write_json(
        out / "training.json",
        started_from=job["model"] or "scratch",
        epochs_run=epochs_run,
        seconds=round(time.monotonic() - started, 1),
        parameters=model.count_params(),
        keras=keras.__version__,
        tensorflow=tf.__version__,
        why_no_tflite=why_no_tflite,
    )


def main() -> None:
    inputs, out = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        train(inputs, out)
    except InvalidJobError as error:
        print(error, flush=True)
        (out / "reason.txt").write_text(f"{error}\n")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
