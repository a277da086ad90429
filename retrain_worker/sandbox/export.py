"""Write a trained model for those who use it: Keras, LiteRT, and rows to check both with."""

import json
import os
import re
from pathlib import Path
from typing import Any

from libraries import Interpreter, keras, np, tf
from uploaded_model import InvalidJobError

TOLERANCE = 1e-5  # between Keras and LiteRT, of the largest prediction; both compute in float32


def export(model: keras.Model, golden: np.ndarray, out: Path) -> str | None:
    """Write model.keras, golden.json and model.tflite.

    `golden` has the shape (rows, columns). Return why there is no model.tflite, if there is none.
    """
    predictions = keras.tree.flatten(model.predict(golden, verbose=0))[0].reshape(-1)
    if not np.isfinite(predictions).all():
        raise InvalidJobError(
            "The model does not answer with numbers to rows that it was trained on."
        )
    write_json(out / "golden.json", rows=golden.tolist(), predictions=predictions.tolist())
    model.compile("adam", "mae")  # names that Keras knows, so that a user can go on fitting
    model.save(out / "model.keras")
    return export_litert(model, golden, predictions, out / "model.tflite")


def export_litert(
    model: keras.Model, golden: np.ndarray, predictions: np.ndarray, path: Path
) -> str | None:
    """Write model.tflite, unless LiteRT cannot run the model or predicts something else."""
    options = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}  # others need TensorFlow
    try:
        model.export(path, format="litert", verbose=False, target_spec=options)
        difference = np.abs(litert_predict(path, golden) - predictions).max()
    except Exception as error:  # the converter raises errors of many types; the model is fine
        path.unlink(missing_ok=True)
        missing = ", ".join(sorted(set(re.findall(r"'tf\.(\w+)'", str(error)))))
        return (
            f"The model needs what LiteRT does not have ({missing or type(error).__name__}), "
            "as LSTM and GRU do unless they are made with unroll=True."
        )
    if difference <= TOLERANCE * np.abs(predictions).max():
        return None
    path.unlink()
    return f"LiteRT and Keras differ by {difference:.3g} in their answers to the same rows."


def litert_predict(path: Path, rows: np.ndarray) -> np.ndarray:
    """Return what LiteRT predicts for `rows`, (rows, columns): (rows,)."""
    interpreter = Interpreter(str(path))
    [row], [target] = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(row["index"], rows.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(row["index"], rows)
    interpreter.invoke()
    return interpreter.get_tensor(target["index"]).reshape(-1)


def write_json(path: Path, **content: Any) -> None:
    """Write a file in one step: a reader finds all of it or nothing."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content, allow_nan=False))
    os.replace(fresh, path)
