"""Train a network on the rows of one job: from scratch, or on from a model that was uploaded.

    IN   train.npy              float32, (rows, columns + 1); the last column is the target
         job.json               uses "columns", "epochs" (null: as many as help), "seed", "model"
         model.keras, model.h5  what to go on from, if "model" names one of them
    OUT  progress.json          {"epoch", "epochs", "loss", "val_loss"}, replaced after each epoch
         model.keras            the trained model; it takes rows just as the CSV has them
         model.tflite           the same for LiteRT, if it can be converted
         golden.json            some training rows, and what Keras answers to them
         training.json          what was done, and why there is no model.tflite if there is none

Losses are mean absolute errors in the target's units. Exit code 0: all of this is there. 2: this
job cannot be done, and OUT/reason.txt says why in a sentence. Anything else is a crash, with its
traceback on stderr. An uploaded model is a program: run this where programs can do no harm.

    python train.py IN OUT
"""

import json
import math
import os
import re
import sys
import time
from pathlib import Path

from libraries import Interpreter, keras, layers, np, tf
from rows import Rows
from uploaded import Refused, open_model

# the network
UNITS = (64, 32)  # with few rows only the first layer: more would learn them by heart
FEW_ROWS = 500
DROPOUT = 0.5  # for that few; with more rows less of it

# fitting
EPOCHS = 200  # at most, if the job does not say
PATIENCE = 20  # epochs without a better validation loss, then it stops
FIRST_EPOCHS = 20  # from scratch these do not count: few rows may praise what knows nothing yet
STEPS = 20_000  # at most in all epochs, and
STEPS_PER_EPOCH = 2000  # in one: with many rows an epoch is a sample of them
LEARNING_RATE = 1e-3  # from scratch, where all is scaled
RATES = (1e-4, 1e-3, 1e-2)  # to go on: small steps for what is nearly right, larger if far off
TRIAL_STEPS = 50  # with each of them
QUIET = {"shuffle": False, "verbose": 0}  # the rows come shuffled
AT_ONCE = 1024  # rows, where nothing is learned from them

# leaving
GOLDEN_ROWS = 32
TOLERANCE = 1e-5  # between Keras and LiteRT, of the largest answer; both count in float32
LINES = 200  # of log for the epochs


def build(mean: np.ndarray, spread: np.ndarray, rows: int) -> keras.Model:
    """Return a network that takes raw rows and answers in the target's units.

    A linear path and a small network beside it, which begin at zero: so the first answer to
    everything is the mean, and each step away from it has to be earned.
    """
    few = rows <= FEW_ROWS
    row = keras.Input((len(mean) - 1,))
    # Two layers, as Normalization alone divides by 1e-7 at least, and a column may be finer. And it
    # subtracts: an offset that is added goes into the next bias in LiteRT, where digits get lost.
    constant = spread[:-1] <= 1e-7 * np.abs(mean[:-1])  # float32 cannot tell such values apart
    scale = np.where(constant, 0, 1 / np.where(constant, 1, spread[:-1]))
    centre = layers.Normalization(mean=mean[:-1] * scale, variance=np.ones(len(scale)))
    scaled = hidden = centre(layers.Rescaling(scale.tolist())(row))
    for units in UNITS[:1] if few else UNITS:
        hidden = layers.Dense(units, activation="relu")(hidden)
        hidden = layers.Dropout(DROPOUT * min(1, FEW_ROWS / rows))(hidden)
    linear = layers.Dense(1, kernel_initializer="zeros", use_bias=False)(scaled)
    curved = layers.Dense(1, kernel_initializer="zeros")(hidden)
    answer = layers.Rescaling(float(spread[-1]), offset=float(mean[-1]))(linear + curved)
    return keras.Model(row, answer)


class Progress(keras.callbacks.Callback):
    """Tell after each epoch how far it is, in a line of log and in a file."""

    def __init__(self, file: Path, epochs: int):
        super().__init__()
        self.file, self.epochs = file, epochs

    def on_epoch_end(self, epoch, logs=None):
        epoch, loss, val_loss = epoch + 1, logs["mae"], logs["val_mae"]
        if not (math.isfinite(loss) and math.isfinite(val_loss)):
            raise Refused(
                f"The loss was no number any more after epoch {epoch}: the model ran away from "
                "the data. Values far larger than all others may cause this."
            )
        write(self.file, epoch=epoch, epochs=self.epochs, loss=loss, val_loss=val_loss)
        if epoch % math.ceil(self.epochs / LINES) == 0:
            print(
                f"epoch {epoch}/{self.epochs}  loss {loss:.6g}  val_loss {val_loss:.6g}", flush=True
            )


def fit(model: keras.Model, rows: Rows, spread: float, job: dict, out: Path) -> int:
    """Fit in place; leave the weights that were best, be it the first ones. Return the epochs."""
    ready(model, LEARNING_RATE, spread)
    validation = rows.read(rows.validation)
    validation = validation[:, :-1], validation[:, -1:]
    before, (first_loss, first_mae) = model.get_weights(), measure(model, validation)
    if not math.isfinite(first_loss):
        raise Refused("The model does not answer with numbers to these rows, before any training.")
    print(f"before epoch 1  val_loss {first_mae:.6g}", flush=True)
    if job["model"]:
        ready(model, best_rate(model, rows, validation, spread), spread)
    steps = min(math.ceil(len(rows.training) * rows.run / batch_size(rows)), STEPS_PER_EPOCH)
    epochs = job["epochs"] or min(EPOCHS, STEPS // steps)
    best = keras.callbacks.EarlyStopping(
        patience=PATIENCE,
        start_from_epoch=0 if job["model"] else min(FIRST_EPOCHS, epochs // 4),
        restore_best_weights=True,
    )
    plan = {"steps_per_epoch": steps, "epochs": epochs, "validation_data": validation}
    plan["validation_batch_size"] = AT_ONCE
    callbacks = [Progress(out / "progress.json", epochs), best]
    history = model.fit(rows.batches(batch_size(rows)), **plan, callbacks=callbacks, **QUIET)
    if best.best >= first_loss:
        print("no epoch was better than the weights before: they stay", flush=True)
        model.set_weights(before)
    return len(history.epoch)


def measure(model: keras.Model, validation: tuple) -> tuple[float, float]:
    """Return the loss, and the mean absolute error."""
    return tuple(model.evaluate(*validation, batch_size=AT_ONCE, verbose=0))


def batch_size(rows: Rows) -> int:
    return min(max(32, rows.count // 100), 1024)


def ready(model: keras.Model, rate: float, spread: float) -> None:
    """Compile with Huber's loss in units of the spread: so one rate fits grams as well as tons."""

    def loss(true, answer):
        return keras.losses.huber(true / spread, answer / spread)

    model.compile(keras.optimizers.Adam(rate), loss=loss, metrics=["mae"])


def best_rate(model: keras.Model, rows: Rows, validation: tuple, spread: float) -> float:
    """Return which of RATES improves the model most in a few steps; its weights stay."""
    before, losses = model.get_weights(), {}
    for rate in RATES:
        ready(model, rate, spread)  # anew: what ran away must not spoil the next one
        model.fit(rows.batches(batch_size(rows)), steps_per_epoch=TRIAL_STEPS, **QUIET)
        losses[rate] = np.nan_to_num(measure(model, validation)[0], nan=np.inf)
        model.set_weights(before)
    return min(RATES, key=losses.get)


def export(model: keras.Model, golden: np.ndarray, out: Path) -> str | None:
    """Write model.keras, golden.json, model.tflite. Return why there is no model.tflite, if so."""
    answers = keras.tree.flatten(model.predict(golden, verbose=0))[0].reshape(-1)
    if not np.isfinite(answers).all():
        raise Refused("The model does not answer with numbers to rows that it was trained on.")
    write(out / "golden.json", rows=golden.tolist(), predictions=answers.tolist())
    model.compile("adam", "mae")  # names that Keras knows: whoever loads the file can go on fitting
    model.save(out / "model.keras")
    path = out / "model.tflite"
    try:
        plain = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}  # others need TensorFlow
        model.export(path, format="litert", verbose=False, target_spec=plain)
        off = np.abs(lite(path, golden) - answers).max()
    except Exception as error:  # whatever the converter says, the model itself is well
        path.unlink(missing_ok=True)
        lacking = ", ".join(sorted(set(re.findall(r"'tf\.(\w+)'", str(error)))))
        return (
            f"The model needs what LiteRT does not have ({lacking or type(error).__name__}), "
            "as LSTM and GRU do unless they are made with unroll=True."
        )
    if off <= TOLERANCE * np.abs(answers).max():
        return None
    path.unlink()
    return f"LiteRT and Keras differ by {off:.3g} in their answers to the same rows."


def lite(path: Path, rows: np.ndarray) -> np.ndarray:
    """Return what LiteRT answers to `rows`, (rows, columns): (rows,)."""
    interpreter = Interpreter(str(path))
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(taken["index"], rows.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], rows)
    interpreter.invoke()
    return interpreter.get_tensor(given["index"]).reshape(-1)


def write(file: Path, **content) -> None:
    """Write JSON in one step: whoever looks sees the old or the new."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(content, allow_nan=False))
    os.replace(fresh, file)


def train(given: Path, out: Path) -> None:
    began = time.monotonic()
    job = json.loads((given / "job.json").read_text())
    keras.utils.set_random_seed(job["seed"])
    tf.config.experimental.enable_op_determinism()
    rows = Rows(given / "train.npy", job["seed"])
    if job["model"]:
        model = open_model(given / job["model"], rows.width - 1)
    mean, spread = rows.moments()
    spread[-1] = spread[-1] or 1  # all equal, but for a few that fell to the validation
    if not job["model"]:
        model = build(mean, spread, rows.count)
    epochs_run = fit(model, rows, float(spread[-1]), job, out)
    golden = rows.read(rows.training[:GOLDEN_ROWS])[:GOLDEN_ROWS, :-1]
    why = export(model, golden, out)
    write(
        out / "training.json",
        started_from=job["model"] or "scratch",
        epochs_run=epochs_run,
        seconds=round(time.monotonic() - began, 1),
        parameters=model.count_params(),
        keras=keras.__version__,
        tensorflow=tf.__version__,
        why_no_tflite=why,
    )


def main() -> None:
    given, out = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        train(given, out)
    except Refused as error:
        print(error, flush=True)
        (out / "reason.txt").write_text(f"{error}\n")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
