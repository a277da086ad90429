"""Networks for the tests, made by TensorFlow in a process of its own: it takes seconds to import.

    python tests/support/networks.py FOLDER

For each NAME.tflite there is NAME.json, the golden rows, and NAME.npy, the predictions of the place
where the network was made for each row of the diabetes data.
"""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

ROWS = load_diabetes().data


@functools.cache
def networks() -> Path:
    """Return the folder with all of them, which is made once in a test run."""
    from tests.support.environment import needs  # run as a program, this file has no `tests`

    needs("tensorflow")
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    done = subprocess.run([sys.executable, __file__, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


MALFORMED = ["empty", "one byte", "truncated", "zeros", "text", "a zip file",
             "its header alone", "offsets that point anywhere"]  # fmt: skip


def malformed(kind: str) -> bytes:
    """Return a file that is no network."""
    whole = (networks() / "first.tflite").read_bytes()
    return {
        "empty": b"",
        "one byte": whole[:1],
        "truncated": whole[: len(whole) // 2],
        "zeros": bytes(len(whole)),
        "text": b"hello, world " * 100,
        "a zip file": b"PK\x03\x04" + bytes(1000),
        "its header alone": whole[:8] + bytes(100),
        "offsets that point anywhere": whole[:8] + b"\xff" * 200 + whole[208:],
    }[kind]


def save_golden(folder: Path, name: str, predict) -> None:
    """Write the golden rows of a network; `predict` takes (rows, 10)."""
    rows = ROWS[:32].astype("float32")
    golden = {
        "rows": ROWS[:32].tolist(),
        "predictions": predict(rows).reshape(32, -1)[:, 0].tolist(),
    }
    (folder / f"{name}.json").write_text(json.dumps(golden))


def save(folder: Path, name: str, predict) -> None:
    """Write the golden rows and all predictions of a network; `predict` takes (rows, 10)."""
    rows = ROWS.astype("float32")
    np.save(folder / f"{name}.npy", predict(rows).reshape(len(rows), -1)[:, 0])
    save_golden(folder, name, predict)


def make_keras(folder: Path) -> None:
    """Write networks that Keras made, good ones and others of the wrong shape or type."""
    import keras
    from keras import layers

    def export(name, model):
        model.export(folder / f"{name}.tflite", format="litert", verbose=False)
        save(folder, name, lambda rows: model.predict(rows, verbose=0))

    for seed, name in enumerate(("first", "second")):
        keras.utils.set_random_seed(seed)
        scale = layers.Normalization()
        scale.adapt(ROWS)
        hidden = [layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(1)]
        export(
            name, keras.Sequential([keras.Input((10,)), scale, *hidden, layers.Rescaling(77, 152)])
        )
    one, other = keras.Input((10,)), keras.Input((10,))
    x = layers.Conv1D(8, 3)(layers.Reshape((10, 1))(one))
    export("convolution", keras.Model(one, layers.Dense(1)(layers.GlobalAveragePooling1D()(x))))
    export("vector", keras.Sequential([keras.Input((10,)), layers.Dense(1), layers.Reshape(())]))
    export("two numbers", keras.Sequential([keras.Input((10,)), layers.Dense(2)]))
    export("not a number", keras.Model(one, keras.ops.log(layers.Dense(1)(one) - 1e9)))
    for name, model in {
        "nine columns": keras.Sequential([keras.Input((9,)), layers.Dense(1)]),
        "pictures": keras.Sequential([keras.Input((10, 5)), layers.Flatten(), layers.Dense(1)]),
        "integers": keras.Sequential([keras.Input((10,), dtype="int32"), layers.Dense(1)]),
        "two inputs": keras.Model([one, other], layers.Dense(1)(one + other)),
        "two outputs": keras.Model(one, [layers.Dense(1)(one), layers.Dense(1)(one)]),
    }.items():
        model.export(folder / f"{name}.tflite", format="litert", verbose=False)


def make_odd(folder: Path) -> None:
    """Write networks that work on the golden rows, and fail on others or in a large batch."""
    import tensorflow as tf

    table = tf.constant(np.arange(5, dtype="float32"))
    endless = [lambda y: tf.reduce_sum(y) > 1e6, lambda y: [y + 1e7]]
    for name, function in {
        "table": lambda x: tf.gather(table, tf.cast(x[:, 0], tf.int32)),
        "endless": lambda x: tf.while_loop(*endless, [tf.reduce_sum(x, 1)])[0],
        "neighbours": lambda x: tf.reduce_sum(x, 1) - tf.reduce_mean(x),
        "few numbers": lambda x: tf.reduce_sum(x[:64], 1),
        "huge": lambda x: tf.reduce_sum(tf.tile(x, (1, 10_000_000)), 1),
    }.items():
        signature = [tf.TensorSpec((None, 10), tf.float32)]
        traced = tf.function(function, input_signature=signature).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
        (folder / f"{name}.tflite").write_bytes(converter.convert())
        if name != "huge":
            write = save_golden if name == "few numbers" else save
            write(folder, name, lambda rows, traced=traced: traced(tf.constant(rows)).numpy())


if __name__ == "__main__":
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    make_keras(Path(sys.argv[1]))
    make_odd(Path(sys.argv[1]))
