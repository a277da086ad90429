"""Read what a job left. A program that is not trusted may have written it.

    a tar stream of one file ──▶ FileStream, if it is a regular file of an allowed size
    a JSON file ──▶ a checked struct

Nothing is unpacked to a disk or unpickled. InvalidOutputError says in a sentence what is wrong.
"""

import io
import tarfile
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import msgspec

from common.messages import INVALID
from retrain_worker.runners.printable import printable_line
from retrain_worker.runners.protocol import FileStream

CHUNK_BYTES = 1 << 16

T = TypeVar("T")


class InvalidOutputError(Exception):
    """An output that is not accepted; the text says why."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *error: Any) -> Any: ...


class ChunkReader(io.RawIOBase):
    """Let `tarfile` read from a stream of chunks, no more than it asks for."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks, self.rest = iter(chunks), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.rest = self.rest or next(self.chunks, b"")
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def single_file(stream: Generator[bytes], name: str, max_bytes: int) -> FileStream:
    """Return the one file in a tar stream.

    Raise InvalidOutputError unless it is regular and has at most `max_bytes`. Its bytes are
    counted against the header, so a file that changes while it is read never passes for a whole
    one.
    """
    try:
        tar = tarfile.open(fileobj=ChunkReader(stream), mode="r|", bufsize=CHUNK_BYTES)  # noqa: SIM115
        member = _regular(tar.next(), name, max_bytes)
        tar.members = []  # type: ignore[attr-defined]  # they refer to the tar: it would stay open
        content = tar.extractfile(member)
        assert content is not None, "a regular file has content"
    except (tarfile.TarError, EOFError) as error:
        stream.close()
        raise InvalidOutputError(f"{name} cannot be read: {error}") from error
    except InvalidOutputError:
        stream.close()
        raise
    return FileStream(member.size, read_exactly(content, name, member.size), stream.close)


def _regular(member: tarfile.TarInfo | None, name: str, max_bytes: int) -> tarfile.TarInfo:
    if member is None or member.name != name:
        raise InvalidOutputError(f"{name} cannot be read")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise InvalidOutputError(f"{name} is not a regular file")
    check_size(name, member.size, max_bytes)
    return member


def check_size(name: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InvalidOutputError(f"{name} has {size} bytes, and {max_bytes} are allowed")


def read_exactly(file: Readable, name: str, size: int) -> Iterator[bytes]:
    """Yield the `size` bytes of an open file; raise InvalidOutputError if there are fewer."""
    with file:
        while size:
            try:
                chunk = file.read(min(CHUNK_BYTES, size))
            except tarfile.TarError:
                chunk = b""
            if not chunk:
                raise InvalidOutputError(f"{name} became shorter while it was read")
            size -= len(chunk)
            yield chunk


def parse_json(kind: type[T], name: str, file: FileStream | None) -> T:
    """Return a JSON file as a struct of `kind`."""
    if file is None:
        raise InvalidOutputError(f"{name} is missing")
    try:
        return msgspec.json.decode(b"".join(file.chunks), type=kind)
    except INVALID as error:
        reason = printable_line(str(error), 200)
        raise InvalidOutputError(f"{name} is not what it has to be: {reason}") from error
