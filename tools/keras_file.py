"""Write a small Keras network without Keras, which does not run without TensorFlow, JAX or PyTorch.

A .keras file is a zip of two JSON texts and the weights in HDF5:
https://keras.io/guides/serialization_and_saving/. The trainer's Keras reads it as one of its own.
"""

import io
import json
import zipfile
from functools import partial

import h5py
import numpy as np

KERAS_VERSION = "3.0.0"  # each Keras that reads this form reads the file
DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can have; today's would change the bytes

LEARNING_RATE = 0.01  # with which a user goes on training

Description = dict[str, object]


def described(module: str, kind: str, name: str, **config: object) -> Description:
    """Return the description of an object; what is not in `config` is Keras' default."""
    return {
        "module": module,
        "class_name": kind,
        "config": {"name": name, **config},
        "registered_name": None,
    }


def architecture(columns: int, units: int) -> Description:
    """Return config.json: scaling, one hidden layer, one number."""
    layer = partial(described, "keras.layers")
    layers = [
        layer("InputLayer", "input_layer", batch_shape=[None, columns], dtype="float32"),
        layer("Normalization", "normalization", axis=[-1])
        | {"build_config": {"input_shape": [None, columns]}},
        layer("Dense", "dense", units=units, activation="relu"),
        layer("Dense", "dense_1", units=1, activation="linear"),
    ]
    optimizer = described("keras.optimizers", "Adam", "adam", learning_rate=LEARNING_RATE)
    model = described("keras", "Sequential", "sequential", layers=layers)
    return model | {"compile_config": {"optimizer": optimizer, "loss": "mse"}}


def weights_file(variables: dict[str, list[np.ndarray]]) -> bytes:
    """Return model.weights.h5: the variables of each part of the model by number."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for part, arrays in variables.items():
            group = file.create_group(f"{part}/vars")
            for number, array in enumerate(arrays):
                group[str(number)] = array
    return content.getvalue()


def network_file(mean: np.ndarray, variance: np.ndarray, weights: list[np.ndarray]) -> bytes:
    """Return a .keras file with float32 weights.

    `mean` and `variance` have the shape (columns,); `weights` are the kernel (columns, units) and
    bias (units,) of the hidden layer, and the kernel (units, 1) and bias (1,) of the last.
    """
    kernel, bias, last_kernel, last_bias = trained = [array.astype("float32") for array in weights]
    moments = [np.zeros_like(array) for array in trained for _ in range(2)]  # Adam's
    variables: dict[str, list[np.ndarray]] = {
        "layers/normalization": [mean.astype("float32"), variance.astype("float32"), np.array(0)],
        "layers/dense": [kernel, bias],
        "layers/dense_1": [last_kernel, last_bias],
        "optimizer": [np.array(0), np.array(LEARNING_RATE, "float32"), *moments],
    }
    files: dict[str, str | bytes] = {
        "metadata.json": json.dumps({"keras_version": KERAS_VERSION, "date_saved": "1980-01-01"}),
        "config.json": json.dumps(architecture(*kernel.shape)),
        "model.weights.h5": weights_file(variables),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, file in files.items():
            archive.writestr(zipfile.ZipInfo(name, DATE), file)
    return content.getvalue()
