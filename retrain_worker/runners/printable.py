"""Text out of a job, which may contain control sequences: made printable, of limited length."""

LOG_BYTES = 1 << 16  # the end of a log that is kept


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
