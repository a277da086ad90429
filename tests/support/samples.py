"""Models as people upload them, good, odd and hostile: a file for each.

    python tests/support/samples.py FOLDER        # writes all of them, in about ten seconds

Tests run it as a process of its own (`write_models`), because Keras takes seconds to import and
prints many warnings. All take ten columns unless their name says otherwise, and predict one number.
"""

import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NEWER = "99.1.0"  # than any Keras there is


def write_models(folder: Path) -> Path:
    """Write every kind into `folder`, and return it."""
    from tests.support.environment import needs  # run as a program, this file has no `tests`

    needs("tensorflow")
    folder.mkdir(exist_ok=True)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_HOME": tempfile.gettempdir()}
    command = [sys.executable, "-W", "ignore", __file__, folder]
    subprocess.run(command, env=os.environ | quiet, check=True, timeout=300, capture_output=True)
    return folder


def write_job(folder: Path, rows, model: Path | None = None, **job) -> Path:
    """Write the inputs of `train.py`: `rows` has the shape (rows, columns + 1)."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "train.npy", np.asarray(rows, "float32"))
    names = [f"x{number}" for number in range(rows.shape[1] - 1)]
    usual = {"id": "7", "columns": names, "target": "y", "epochs": None, "seed": 7, "model": None}
    if model:
        usual["model"] = "model" + model.suffix
        (folder / usual["model"]).write_bytes(model.read_bytes())
    (folder / "job.json").write_text(json.dumps(usual | job))
    return folder


def changed(source: Path, **members) -> bytes:
    """Return a .keras file with other JSON in it; each member is a function of the old content."""
    made = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content, change = old.read(name), members.get(name.removesuffix(".json"))
            new.writestr(name, json.dumps(change(json.loads(content))) if change else content)
    return made.getvalue()


def with_units(config: dict, units: int) -> dict:
    """Say in the architecture that its first Dense layer has `units`."""
    dense = [layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense"]
    dense[0]["config"]["units"] = units
    return config


def zip_bomb(path: Path) -> None:
    """Two gigabytes of blanks in nine megabytes, where the architecture should be."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
        with archive.open("config.json", "w", force_zip64=True) as file:
            for _ in range(2 * 2**10):
                file.write(b" " * 2**20)


def climbing(path: Path, source: Path) -> None:
    """A good model, and beside it members that would land elsewhere if they were unpacked."""
    path.write_bytes(source.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../../../../tmp/climbed", "/tmp/climbed", "assets/../../climbed"):
            archive.writestr(name, "here")


class Harm:
    """A pickle that runs a command when it is loaded: it leaves a file."""

    def __reduce__(self):
        return os.system, ("touch /tmp/a-pickle-was-opened",)


def write_good(folder: Path) -> None:
    """Models that can be trained on, briefly fitted to y = 3 * x0 - 2 * x1 + 100."""
    import keras
    import numpy as np
    from keras import layers

    keras.utils.set_random_seed(7)
    rows = np.random.default_rng(7).normal(0, 1, (200, 10)).astype("float32")
    truth = 3 * rows[:, :1] - 2 * rows[:, 1:2] + 100

    def save(name: str, model, epochs: int = 5) -> None:
        model.compile(keras.optimizers.Adam(0.01), "mse")
        if epochs:
            model.fit(rows, truth, epochs=epochs, verbose=0)
        model.save(folder / name)

    scaling = layers.Normalization()
    scaling.adapt(rows)
    first_layers = [keras.Input((10,)), scaling]
    sequential = keras.Sequential(
        [*first_layers, layers.Dense(16, activation="relu"), layers.Dense(1)]
    )
    save("sequential.keras", sequential)
    sequential.save(folder / "sequential.h5")

    row = keras.Input((10,))
    scaled = layers.BatchNormalization()(row)
    deep = layers.Dense(8, activation="relu")(layers.Dense(8, activation="relu")(scaled))
    both = layers.Concatenate()([deep, layers.Dense(4)(row)])
    save("two_branches.keras", keras.Model(row, layers.Dense(1)(both)))
    flat = layers.Reshape(())(layers.Dense(1)(row))  # (rows,) instead of (rows, 1)
    save("flat_answer.keras", keras.Model([row], [flat]), epochs=0)
    save("named_answer.keras", keras.Model(row, {"price": layers.Dense(1)(row)}), epochs=0)
    root = keras.ops.sqrt(layers.Dense(9, activation="relu")(row))  # infinitely steep at zero
    save("runs_away.keras", keras.Model(row, layers.Dense(1)(root)), epochs=0)
    steps = [keras.Input((10,)), layers.Reshape((10, 1)), layers.LSTM(4), layers.Dense(1)]
    save("lstm.keras", keras.Sequential(steps), epochs=0)


def write_odd(folder: Path) -> None:
    """Models that Keras can write, and that are of no use here."""
    import keras
    from keras import layers

    class Own(layers.Layer):
        def call(self, rows):
            return rows

    def chain(*between, **given):
        return keras.Sequential(
            [keras.Input(**{"shape": (10,)} | given), *between, layers.Dense(1)]
        )

    row, other = keras.Input((10,)), keras.Input((10,))
    one = layers.Dense(1)(row)
    models = {
        "two_outputs": keras.Model(row, [one, layers.Dense(1)(row)]),
        "three_numbers": keras.Model(row, layers.Dense(3)(row)),
        "two_inputs": keras.Model([row, other], layers.Dense(1)(layers.Add()([row, other]))),
        "nine_columns": chain(shape=(9,)),
        "fixed_batch": chain(batch_size=32),
        "whole_numbers": chain(dtype="int32"),
        "frozen": chain(),
        "no_input": keras.Sequential([layers.Dense(1)]),
        "lambda": chain(layers.Lambda(lambda rows: rows * 2)),
        "own_layer": chain(Own()),
        "not_a_number": chain(),
    }
    models["frozen"].trainable = False
    models["not_a_number"].layers[0].kernel.assign([[float("nan")]] * 10)
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
    models["lambda"].save(folder / "lambda.h5")
    models["frozen"].save_weights(folder / "only.weights.h5")
    os.replace(folder / "only.weights.h5", folder / "only_weights.h5")


def write_forged(folder: Path) -> None:
    """Files that no Keras wrote; "sequential" has to be there."""
    import h5py

    good, good_h5 = folder / "sequential.keras", folder / "sequential.h5"
    newer = changed(good, metadata=lambda content: content | {"keras_version": NEWER})
    (folder / "newer.keras").write_bytes(newer)
    huge = changed(good, config=lambda content: with_units(content, 200_000_000))
    (folder / "huge_dense.keras").write_bytes(huge)
    (folder / "truncated.keras").write_bytes(good.read_bytes()[:-1000])
    (folder / "truncated.h5").write_bytes(good_h5.read_bytes()[:-1000])
    (folder / "h5_inside.keras").write_bytes(good_h5.read_bytes())
    (folder / "keras_inside.h5").write_bytes(good.read_bytes())
    (folder / "pickle.keras").write_bytes(pickle.dumps(Harm()))
    (folder / "empty.keras").write_bytes(b"")
    (folder / "text.h5").write_text("This is a model.")
    (folder / "newer.h5").write_bytes(good_h5.read_bytes())
    with h5py.File(folder / "newer.h5", "a") as file:
        file.attrs["keras_version"] = NEWER
    zip_bomb(folder / "zip_bomb.keras")
    climbing(folder / "climbing.keras", good)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(exist_ok=True)
    for write in (write_good, write_odd, write_forged):
        write(target)
