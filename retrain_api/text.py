"""Text from outside, made safe for a terminal."""


def printable(text: str) -> str:
    """Return a text whose control characters, but line ends and tabs, are replaced by U+FFFD."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line if line.isprintable() else _replace(line) for line in lines)


def one_line(text: str, max_length: int = 100) -> str:
    """Return the beginning of a text as one printable line."""
    return printable(text[:max_length]).replace("\n", " ").replace("\t", " ")


def _replace(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)
