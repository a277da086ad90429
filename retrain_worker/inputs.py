"""The inputs of the two steps. No row of the hold-out is among those of the training."""

from functools import partial
from pathlib import Path

from common.worker_api import Assignment
from retrain_worker.api_client import ApiClient
from retrain_worker.multipart import Part
from retrain_worker.parts import bytes_part, json_part
from retrain_worker.runners.protocol import Inputs

SANDBOX = Path(__file__).parent / "sandbox"  # read as data, never imported
TRAINING_PROGRAM = ("train.py", "libraries.py", "dataset.py", "export.py", "uploaded_model.py")
MODELS = ("model.keras", "model.h5")


def training_inputs(api: ApiClient, assignment: Assignment) -> Inputs:
    names = [name for name in ("train.npy", *MODELS) if name in assignment.inputs]
    inputs: Inputs = {name: partial(api.input_file, assignment, name) for name in names}
    return inputs | program(*TRAINING_PROGRAM) | job_json(assignment)


def scoring_inputs(
    api: ApiClient, assignment: Assignment, version: int, files: dict[str, Part]
) -> Inputs:
    """Return the inputs of the comparison with `version`, the champion."""
    inputs: Inputs = {
        "hold_out.npy": partial(api.input_file, assignment, "hold_out.npy"),
        "challenger.tflite": files["model.tflite"].open,
        "golden.json": files["golden.json"].open,
    }
    if version:  # version 0 is built into the scoring itself
        inputs["champion.tflite"] = partial(api.version_file, assignment, version)
    return inputs | program("score.py") | job_json(assignment)


def program(*names: str) -> Inputs:
    return {name: bytes_part((SANDBOX / name).read_bytes()).open for name in names}


def job_json(assignment: Assignment) -> Inputs:
    return {"job.json": json_part(assignment.job).open}
