"""What `train.py` asks of an uploaded model before it goes on from it.

A file comes in, a Keras model goes out that takes the columns of the data and answers one number
for each row; or Refused, with a sentence for whoever sent the file. Loading runs what the file
says, and safe mode is no wall: this belongs where programs can do no harm, as `train.py` does.
"""

import json
import re
import zipfile
from pathlib import Path

import h5py
import keras
import tensorflow as tf

UNPACKED_BYTES = 2**30  # the file may not unpack to more; Keras itself allows four times that
SHOWN = 200  # characters of what Keras says, where we have no words of our own


class Refused(Exception):
    """The job cannot be done; the message is for whoever sent it."""


def open_model(path: Path, columns: int) -> keras.Model:
    """Return the model in `path`, not compiled. Raise Refused if it cannot be used."""
    version = version_of(path)
    if numbers(version) > numbers(keras.__version__):
        raise Refused(
            f"The model was saved by Keras {version}, and this is Keras {keras.__version__}, which "
            "does not read what is newer: save it with this version or an older one."
        )
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a file can be wrong in more ways than Keras has names for
        raise Refused(in_words(error)) from error
    check(model, columns)
    return model


def version_of(path: Path) -> str:
    """Return the version of the Keras that wrote the file, as the file has it."""
    try:
        return (h5_version if path.suffix == ".h5" else zip_version)(path)[:40]
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise Refused(
            f"The model is no complete {path.suffix} file of Keras: save it with "
            f"model.save('model{path.suffix}') and send that file as it is."
        ) from error


def h5_version(path: Path) -> str:
    with h5py.File(path) as file:
        if "model_config" not in file.attrs:
            raise Refused("The file has weights but no model: save it with model.save('model.h5').")
        return str(file.attrs.get("keras_version", "0"))


def zip_version(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > UNPACKED_BYTES:
            raise Refused(
                f"The model unpacks to {unpacked:,} bytes, and at most {UNPACKED_BYTES:,} may be."
            )
        with archive.open("metadata.json") as file:
            return str(json.loads(file.read(10_000))["keras_version"])


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def in_words(error: Exception) -> str:
    """Say for whoever sent the model why Keras does not read it."""
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
    return f"Keras {keras.__version__} cannot read the model. It says: {text[:SHOWN]}"


def check(model: keras.Model, columns: int) -> None:
    """Raise Refused unless `model` takes `columns` numbers for a row and answers with one."""
    inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    if len(inputs) != 1:
        raise Refused(
            f"The model has {len(inputs)} inputs that are known, and has to have one: "
            f"keras.Input(({columns},))."
        )
    taken, answers = inputs[0], [tuple(output.shape) for output in outputs]
    if tuple(taken.shape) != (None, columns) or taken.dtype != "float32":
        raise Refused(
            f"The model takes {tuple(taken.shape)} of {taken.dtype}, and the data have {columns} "
            f"columns beside the target: it has to take {(None, columns)} of float32."
        )
    if answers not in ([(None, 1)], [(None,)]):
        raise Refused(
            f"The model answers with {', '.join(map(str, answers))}, and has to answer with one "
            "number for each row: (None, 1)."
        )
    if not model.trainable_weights:
        raise Refused("The model has no weights that can be trained: all are frozen, or none.")
