"""The rows of a case as a CSV, which the API trains on."""

import csv
import io
from collections import Counter

from common.messages import HistoryRow


def equally_wide(rows: list[HistoryRow]) -> list[HistoryRow]:
    """Return the rows that have the most frequent number of columns."""
    widths = Counter(len(row.body) for row in rows)
    if not widths:
        return []
    [(width, _)] = widths.most_common(1)
    return [row for row in rows if len(row.body) == width]


def to_csv(rows: list[HistoryRow]) -> bytes:
    """Return equally wide rows, at least one, with a header; the last column is the target."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*(f"x{number}" for number in range(1, len(rows[0].body) + 1)), "y_true"])
    writer.writerows([*row.body, row.y_true] for row in rows)
    return text.getvalue().encode()
