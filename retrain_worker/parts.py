"""Parts of a result: JSON of ours, and files that a step left."""

from functools import partial

import msgspec

from retrain_worker.multipart import Part
from retrain_worker.runners.protocol import FileStream, Runner, Step, lost
from retrain_worker.settings import TRAIN_OUTPUT_BYTES


def bytes_part(content: bytes) -> Part:
    return Part(len(content), lambda: FileStream(len(content), [content]))


def json_part(content: object) -> Part:
    return bytes_part(msgspec.json.encode(content))


def output_part(runner: Runner, step: Step, name: str) -> Part | None:
    """Return a file that a step left, without reading it; None if there is none."""
    file = runner.read(step, name, TRAIN_OUTPUT_BYTES)
    if file is None:
        return None
    file.close()
    return Part(file.size, partial(_open_again, runner, step, name))


def _open_again(runner: Runner, step: Step, name: str) -> FileStream:
    file = runner.read(step, name, TRAIN_OUTPUT_BYTES)
    if file is None:
        raise lost(step)
    return file
