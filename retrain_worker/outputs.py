"""What a job left behind, which a stranger's program may have written: taken with tongs.

    a tar stream of one file ──▶ its size and bytes, if it is a regular file of a bearable size
    JSON files ──▶ checked structs ──▶ JSON that is written again
    how it ended ──▶ one sentence that a student understands

Nothing is unpacked to a disk or unpickled. What is refused raises `Unusable` with a sentence.
"""

import io
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Annotated, NamedTuple

import msgspec

CHUNK = 1 << 16  # bytes
JSON_BYTES = 4 << 20  # the largest JSON file that is read
REASON_BYTES = 4096
LOG_BYTES = 1 << 16  # the end of a log that is kept

LARGEST = 1e300
Number = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Error = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]


class Unusable(Exception):
    """An output that is not taken; its text says why."""


class Golden(msgspec.Struct):
    """golden.json: some rows, and what Keras predicts for them."""

    rows: Annotated[list[list[Number]], msgspec.Meta(min_length=1, max_length=32)]
    predictions: Annotated[list[Number], msgspec.Meta(min_length=1, max_length=32)]

    def __post_init__(self):
        if len(self.rows) != len(self.predictions):
            raise ValueError("there must be one prediction for each row")


class Training(msgspec.Struct):
    """training.json: how the training went."""

    started_from: Text
    epochs_run: Count
    seconds: Error
    parameters: Count
    keras: Text
    tensorflow: Text
    why_no_tflite: Text | None = None


class Errors(msgspec.Struct):
    """Mean absolute errors on the same rows; None where there are none, or a model takes others."""

    challenger: Error | None
    champion: Error | None
    mean: Error | None


class Region(Errors):
    file: Text
    rows: Count


class Scores(msgspec.Struct):
    """scores.json"""

    inputs: Count
    outputs: Count
    mae: Errors
    regions: Annotated[list[Region], msgspec.Meta(max_length=1000)]
    refused: Text | None = None  # why `model` would not take it


class Progress(msgspec.Struct, omit_defaults=True):
    """progress.json: a loss that is no number yet may be null."""

    epoch: Count | None = None
    epochs: Count | None = None
    loss: Number | None = None
    val_loss: Number | None = None


class File(NamedTuple):
    """One file: its size, and its bytes, to be read once or closed. While one of a container is
    open the engine answers nothing else about that container."""

    size: int
    chunks: Iterable[bytes]
    close: Callable[[], None] = lambda: None


class Chunks(io.RawIOBase):
    """Let `tarfile` read from a stream of chunks, no more than it asks for."""

    def __init__(self, chunks: Iterable[bytes]):
        self.chunks, self.rest = iter(chunks), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self.rest = self.rest or next(self.chunks, b"")
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def only_file(stream: Generator[bytes], name: str, most: int) -> File:
    """Return the one file in a tar stream; raise Unusable unless it is regular and not too large.

    Its bytes are counted against what the header says, so a file that changes while it is read
    never passes for a whole one.
    """
    try:
        tar = tarfile.open(fileobj=Chunks(stream), mode="r|", bufsize=CHUNK)  # noqa: SIM115
        member = regular(tar.next(), name, most)
        tar.members = []  # each of them knows the tar: the stream would stay open
        file = tar.extractfile(member)
    except (tarfile.TarError, EOFError) as error:
        stream.close()
        raise Unusable(f"{name} cannot be read: {error}") from error
    except Unusable:
        stream.close()
        raise
    return File(member.size, whole(file, name, member.size), stream.close)


def regular(member: tarfile.TarInfo | None, name: str, most: int) -> tarfile.TarInfo:
    if member is None or member.name != name:
        raise Unusable(f"{name} cannot be read")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise Unusable(f"{name} is not a regular file")
    check_size(name, member.size, most)
    return member


def check_size(name: str, size: int, most: int) -> None:
    if size > most:
        raise Unusable(f"{name} has {size} bytes, and {most} are allowed")


def whole(file, name: str, size: int) -> Iterator[bytes]:
    """Yield the `size` bytes of an open file; raise Unusable if there are fewer."""
    with file:
        while size:
            try:
                chunk = file.read(min(CHUNK, size))
            except tarfile.TarError:
                chunk = b""
            if not chunk:
                raise Unusable(f"{name} became shorter while it was read")
            size -= len(chunk)
            yield chunk


def parse(kind: type, name: str, file: File | None):
    """Return a JSON file as a struct of `kind`; raise Unusable with what is wrong with it."""
    if file is None:
        raise Unusable(f"{name} is missing")
    try:
        return msgspec.json.decode(b"".join(file.chunks), type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise Unusable(f"{name} is not what it has to be: {plain(str(error), 200)}") from error


def plain(text: str | bytes, most: int) -> str:
    """Return `text` as printable words on one line, so that no terminal obeys it."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    words = "".join(c if c.isprintable() else " " for c in text[: 4 * most]).split()
    line = " ".join(words)
    return line if len(line) <= most else line[: most - 1] + "…"


def log_text(raw: bytes) -> str:
    """Return the end of a log, printable, with a progress bar's returns as new lines."""
    text = raw[-LOG_BYTES:].decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return plain(lines[-1], 300) if lines else ""
