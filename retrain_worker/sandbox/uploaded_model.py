"""Open an uploaded model, and check that training can go on from it.

A file comes in, a Keras model goes out that takes the columns of the data and predicts one number
for each row; or InvalidJobError with a sentence for the sender of the file. Loading runs what the
file contains, and Keras's safe mode does not prevent that: the sandbox does.
"""

import json
import re
import zipfile
from pathlib import Path

import h5py
import keras
import tensorflow as tf

MAX_UNPACKED_BYTES = 2**30  # Keras itself allows four times that
MAX_KERAS_CHARACTERS = 200  # of a message of Keras for which we have no words of our own


class InvalidJobError(Exception):
    """The job cannot be done; the message is for its sender."""


def open_model(path: Path, columns: int) -> keras.Model:
    """Return the model in `path`, not compiled. Raise InvalidJobError if it cannot be used."""
    version = read_keras_version(path)
    if version_numbers(version) > version_numbers(keras.__version__):
        raise InvalidJobError(
            f"The model was saved by Keras {version}, and this is Keras {keras.__version__}, which "
            "does not read newer files: save it with this version or an older one."
        )
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises errors of many types for a file that is wrong
        raise InvalidJobError(explain_load_error(error)) from error
    check_shape(model, columns)
    return model


def read_keras_version(path: Path) -> str:
    """Return the version of the Keras that wrote the file, as the file has it."""
    try:
        return (_h5_version if path.suffix == ".h5" else _zip_version)(path)[:40]
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InvalidJobError(
            f"The model is no complete {path.suffix} file of Keras: save it with "
            f"model.save('model{path.suffix}') and send that file as it is."
        ) from error


def _h5_version(path: Path) -> str:
    with h5py.File(path) as file:
        if "model_config" not in file.attrs:
            raise InvalidJobError(
                "The file has weights but no model: save it with model.save('model.h5')."
            )
        return str(file.attrs.get("keras_version", "0"))


def _zip_version(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise InvalidJobError(
                f"The model unpacks to {unpacked:,} bytes, and at most "
                f"{MAX_UNPACKED_BYTES:,} may be."
            )
        with archive.open("metadata.json") as file:
            return str(json.loads(file.read(10_000))["keras_version"])


def version_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def explain_load_error(error: Exception) -> str:
    """Return for the sender why Keras does not read the model."""
    text = " ".join(str(error).split())
    if "lambda" in text.lower():
        return (
            "The model has a Lambda layer. That is code, and code of others is not run here: "
            "say the same with the layers of Keras."
        )
    unknown = re.search(r"(?:Could not locate \w+|Unknown layer:) '([^']+)'", text)
    if unknown:
        return f"The model needs {unknown[1]}, which is not a part of Keras."
    if isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)):
        return "The model needs more memory than a job may use."
    shown = text[:MAX_KERAS_CHARACTERS]
    return f"Keras {keras.__version__} cannot read the model. It says: {shown}"


def check_shape(model: keras.Model, columns: int) -> None:
    """Raise InvalidJobError unless the model takes `columns` numbers and predicts one."""
    inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    if len(inputs) != 1:
        raise InvalidJobError(
            f"The model has {len(inputs)} inputs that are known, and has to have one: "
            f"keras.Input(({columns},))."
        )
    [row], predictions = inputs, [tuple(output.shape) for output in outputs]
    if tuple(row.shape) != (None, columns) or row.dtype != "float32":
        raise InvalidJobError(
            f"The model takes {tuple(row.shape)} of {row.dtype}, and the data have {columns} "
            f"columns beside the target: it has to take {(None, columns)} of float32."
        )
    if predictions not in ([(None, 1)], [(None,)]):
        raise InvalidJobError(
            f"The model answers with {', '.join(map(str, predictions))}, and has to answer with "
            "one number for each row: (None, 1)."
        )
    if not model.trainable_weights:
        raise InvalidJobError(
            "The model has no weights that can be trained: all are frozen, or none."
        )
