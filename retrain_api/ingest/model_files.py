"""Check model files by size and first bytes, without opening them: they are programs."""

from typing import BinaryIO

from retrain_api.storage.disk import size_of

MAX_MODEL_BYTES = 500 * 10**6  # of each file of a model
MAGIC = {  # (offset, bytes)
    "model.keras": (0, b"PK\x03\x04"),
    "model.h5": (0, b"\x89HDF\r\n\x1a\n"),
    "model.tflite": (4, b"TFL3"),
}


def check_model_file(name: str, file: BinaryIO) -> None:
    """Raise ValueError with a sentence if a file is not of the kind that its name says."""
    size = size_of(file)
    offset, magic = MAGIC[name]
    if size > MAX_MODEL_BYTES:
        raise ValueError(f"{name} has {size:,} bytes, and at most {MAX_MODEL_BYTES:,} are allowed")
    if file.read(offset + len(magic))[offset:] != magic:
        raise ValueError(f"{name} does not begin as such a file does")
    file.seek(0)
