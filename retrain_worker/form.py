"""A form with files, as a browser sends it, without ever holding a file in memory."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from outputs import File

BOUNDARY = secrets.token_hex(16)  # between the parts; no file can know it


class Part(NamedTuple):
    """One file of a form, opened when its turn comes."""

    size: int
    open: Callable[[], File]


class Multipart:
    """A form of files, sent while they are read; `requests` wants its length beforehand."""

    content_type = f"multipart/form-data; boundary={BOUNDARY}"

    def __init__(self, parts: Mapping[str, Part], beat: Callable[[], None]):
        self.parts, self.beat = [(part_head(name), part) for name, part in parts.items()], beat

    def __len__(self) -> int:
        return sum(len(head) + part.size + 2 for head, part in self.parts) + len(BOUNDARY) + 6

    def __iter__(self) -> Iterator[bytes]:
        for head, part in self.parts:
            yield head
            for chunk in part.open().chunks:
                self.beat()
                yield chunk
            yield b"\r\n"
        yield f"--{BOUNDARY}--\r\n".encode()


def part_head(name: str) -> bytes:
    file = f'; filename="{name}"' if "." in name else ""
    kind = "Content-Disposition: form-data; " + f'name="{name}"{file}'
    return f"--{BOUNDARY}\r\n{kind}\r\n\r\n".encode()
