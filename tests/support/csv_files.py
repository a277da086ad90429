"""The CSV that `metric` writes, as tests read it."""

import csv
from pathlib import Path


def rows_of(path: Path) -> list[list[str]]:
    """Return the records of a CSV without its header; [] if there is none yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]
