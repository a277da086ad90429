"""Inputs as a tar stream, which the engine unpacks into a volume."""

from collections.abc import Iterator
from tarfile import GNU_FORMAT, TarInfo

from retrain_worker.runners.protocol import Inputs, StepFailedError

BLOCK_BYTES = 512  # of a tar


def tar(inputs: Inputs) -> Iterator[bytes]:
    """Yield a tar of `inputs` in their order, never a whole file at once.

    Raise StepFailedError if an input is shorter or longer than announced.
    """
    for name, open_input in inputs.items():
        file = open_input()
        header = TarInfo(name)
        header.size, header.mode, left = file.size, 0o444, file.size
        yield header.tobuf(GNU_FORMAT)  # this format has no limit of 8 GiB
        try:
            for chunk in file.chunks:
                yield chunk
                left -= len(chunk)
        finally:
            file.close()
        if left:
            raise StepFailedError(f"The input {name} ended {left} bytes early.", retry=True)
        yield bytes(-header.size % BLOCK_BYTES)
    yield bytes(2 * BLOCK_BYTES)
