"""Read what a job left. A program that is not trusted may have written it.

    a tar stream of one file ──▶ FileStream, if it is a regular file of an allowed size
    a JSON file ──▶ a checked struct
    text, which may contain control sequences ──▶ printable text of limited length

Nothing is unpacked to a disk or unpickled. InvalidOutputError says in a sentence what is wrong.
"""

import io
import tarfile
from collections.abc import Generator, Iterable, Iterator
from typing import IO, Any, TypeVar

import msgspec

from common.messages import INVALID
from retrain_worker.runners.protocol import FileStream

CHUNK_BYTES = 1 << 16
LOG_BYTES = 1 << 16  # the end of a log that is kept

T = TypeVar("T")


class InvalidOutputError(Exception):
    """An output that is not accepted; the text says why."""


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
    is_regular = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
    check_file(name, is_regular, member.size, max_bytes)
    return member


def check_file(name: str, is_regular: bool, size: int, max_bytes: int) -> None:
    if not is_regular:
        raise InvalidOutputError(f"{name} is not a regular file")
    if size > max_bytes:
        raise InvalidOutputError(f"{name} has {size} bytes, and {max_bytes} are allowed")


def read_exactly(file: IO[bytes], name: str, size: int) -> Iterator[bytes]:
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


def printable_line(text: str | bytes, max_length: int) -> str:
    """Return `text` as printable words on one line, so that no terminal obeys it."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    start = text[: 4 * max_length]
    words = "".join(char if char.isprintable() else " " for char in start).split()
    line = " ".join(words)
    return line if len(line) <= max_length else line[: max_length - 1] + "…"


def printable_log(raw: bytes) -> str:
    """Return the end of a log with each carriage return of a progress bar as a new line."""
    text = raw[-LOG_BYTES:].decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def last_line(log: str) -> str:
    """Return the last line that is not blank."""
    lines = [line for line in log.splitlines() if line.strip()]
    return printable_line(lines[-1], 300) if lines else ""
