"""The form in which a result is delivered: JSON of ours, and files that a step left.

It is sent while the files are read: no file is ever held in memory.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from retrain_worker.runners.protocol import FileStream, Runner, Step
from retrain_worker.settings import TRAIN_OUTPUT_BYTES

BOUNDARY = secrets.token_hex(16)  # between the parts; no file can contain it, as it is random


class Part(NamedTuple):
    """One file of a form. `open` is called when its turn comes, in each try anew."""

    size: int
    open: Callable[[], FileStream]


def bytes_part(content: bytes) -> Part:
    return Part(len(content), lambda: FileStream(len(content), [content]))


def json_part(content: object) -> Part:
    return bytes_part(msgspec.json.encode(content))


def output_part(runner: Runner, step: Step, name: str) -> Part | None:
    """Return a file that a step left, without reading it; None if there is none."""

    def reopen() -> FileStream:
        found = runner.read(step, name, TRAIN_OUTPUT_BYTES)
        if found is None:
            raise step.lost()
        return found

    file = runner.read(step, name, TRAIN_OUTPUT_BYTES)
    if file is None:
        return None
    file.close()
    return Part(file.size, reopen)


class Multipart:
    """The body of a request. Its length is known beforehand, as `requests` requires.

    `on_chunk` is called before each chunk, and may end the request by raising.
    """

    content_type = f"multipart/form-data; boundary={BOUNDARY}"

    def __init__(self, parts: Mapping[str, Part], on_chunk: Callable[[], None]) -> None:
        self.parts = [(_header(name), part) for name, part in parts.items()]
        self.on_chunk = on_chunk
        self.opened: FileStream | None = None  # the file that is sent now

    def __len__(self) -> int:
        return sum(len(header) + part.size + 2 for header, part in self.parts) + len(BOUNDARY) + 6

    def __iter__(self) -> Iterator[bytes]:
        for header, part in self.parts:
            yield header
            self.opened = part.open()
            for chunk in self.opened.chunks:
                self.on_chunk()
                yield chunk
            yield b"\r\n"
        yield f"--{BOUNDARY}--\r\n".encode()

    def close(self) -> None:
        """Close the file in which the request broke off: until then a container may be locked."""
        if self.opened:
            self.opened.close()


def _header(name: str) -> bytes:
    filename = f'; filename="{name}"' if "." in name else ""
    disposition = f'Content-Disposition: form-data; name="{name}"{filename}'
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode()
