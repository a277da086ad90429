"""A multipart form with files, sent while they are read: no file is ever held in memory."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from retrain_worker.runners.protocol import FileStream

BOUNDARY = secrets.token_hex(16)  # between the parts; no file can contain it, as it is random


class Part(NamedTuple):
    """One file of a form. `open` is called when its turn comes."""

    size: int
    open: Callable[[], FileStream]


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
