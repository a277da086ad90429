"""Reading the CSV: each good record is one row, whatever is around it, and in whatever pieces."""

import csv
import io
import random

import pytest

from common import lifecycle
from plot.csv_reader import CsvReader
from plot.histogram import Histogram

HEADER = "id,y_true,y_pred,absolute_error\n"
GOOD = "1765912012.233366,101.00,116.95,15.95\n"
ODD_IDS = [
    "a,b", 'a"b', '"', '""', "a\nb", "\n", "a\rb", "a\r\nb", "строка", "=1+2", "a\u2028b",
    "a\x85b", "a\0b", " ", "'", "1,2,3,4", f"x\n{GOOD}y", "я" * 255, '"' * 255, "\n" * 255, "-1",
]  # fmt: skip
FOREIGN = {
    "an empty line": b"\n",
    "a blank line": b"   \n",
    "one word": b"hello\n",
    "three fields": b"1,2,3\n",
    "five fields": b"1,2,3,1,1\n",
    "words for numbers": b"1,two,three,one\n",
    "an empty error": b"1,2,3,\n",
    "an empty truth": b"1,,3,1\n",
    "not a number": b"1,2,3,nan\n",
    "a truth that is not a number": b"1,nan,3,1\n",
    "infinity": b"1,2,3,inf\n",
    "an infinite prediction": b"1,2,-inf,1\n",
    "too large a number": b"1,2,3,1e999\n",
    "a negative error": b"1,2,3,-1\n",
    "the header again": HEADER.encode(),
    "bad UTF-8": b"\xff\xfe,2,3,1\n",
    "UTF-16": "1,2,3,1\n".encode("utf-16-le")[:-1],
    "other separators": b"1;2;3;1\n",
    "a bare carriage return": b"1,2\r,3,1\n",
    "text after a quote": b'"1"x,2,3,1\n',
    "an open quote": b'"1,2,3,1\n',
    "an open quote further on": b'1,2,"3,1\n',
    "an open quote after a closed one": b'"1",2,"3,1\n',
    "quotes that do not pair": b'"1",x","\n',
    "binary": bytes(set(range(256)) - {10}) + b"\n",
    "5,000 digits": b"1,2,3," + b"9" * 5000 + b"\n",
    "a long line": b"x" * 10_000 + b",2,3,1\n",
    "a line longer than a piece": b"x" * 1_000_000 + b",2,3,1\n",
    "a quoted line longer than a piece": b'"' + b"x," * 500_000 + b'",2,3,1\n',
    "a million quotes": b'"' * 1_000_001 + b"\n",
}


@pytest.fixture(autouse=True)
def no_watchdog(monkeypatch):
    monkeypatch.setattr(lifecycle, "report_liveness", lambda: None)  # it would end the tests


class Counted:
    """A CSV in memory, and what was read from it."""

    def __init__(self) -> None:
        self.reader, self.histogram = CsvReader(io.BytesIO()), Histogram()

    def read(self, data: bytes) -> None:
        """Read a file that consists of `data` now."""
        self.reader.file = io.BytesIO(data)
        for errors in self.reader.chunks():
            self.histogram.add(errors)

    @property
    def facts(self) -> tuple[int, int]:
        return self.histogram.rows, self.reader.foreign


def count(data: bytes, step: int | None = None) -> Counted:
    """Count `data`, which arrives at once or `step` bytes at a time."""
    counted = Counted()
    for end in range(step, len(data) + step, step) if step else [len(data)]:
        counted.read(data[:end])
    return counted


def record(row_id: str, quoting=csv.QUOTE_NONNUMERIC) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerow([row_id, 1.0, 3.5, 2.5])
    return text.getvalue().encode()


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize("quoting", [csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL])
@pytest.mark.parametrize("row_id", ODD_IDS, ids=range(len(ODD_IDS)))
def test_an_odd_id_is_one_row(row_id, quoting, step):
    counted = count(HEADER.encode() + record(row_id, quoting) + GOOD.encode(), step)
    assert counted.facts == (2, 0) and counted.histogram.total == 2.5 + 15.95


@pytest.mark.parametrize(
    "row_id", [row_id for row_id in ODD_IDS if not set(row_id) & set(',"\r\n')]
)
def test_an_odd_id_without_quotes_is_one_row(row_id):
    counted = count(f"{HEADER}{row_id},1.0,3.5,2.5\n{GOOD}".encode())
    assert counted.facts == (2, 0) and counted.histogram.total == 2.5 + 15.95


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_line_costs_no_good_row(line):
    good = (GOOD + record("a\nb").decode() + GOOD).encode()
    assert count(HEADER.encode() + good + line + good * 100).facts == (303, 1)


@pytest.mark.parametrize("line", [line for line in FOREIGN.values() if len(line) < 10_000])
def test_a_foreign_line_may_come_in_pieces(line):
    data = (HEADER + GOOD).encode() + line + GOOD.encode() * 150
    assert count(data, step=7).facts == (151, 1)


def test_a_line_without_an_end_is_not_kept():
    data = (HEADER + GOOD).encode() + b"x" * 3_000_000
    counted = count(data, step=500_000)
    assert counted.reader.offset > 2_900_000 and counted.reader.foreign == 0
    counted.read(data + b",1,2,1\n" + GOOD.encode())
    assert counted.facts == (2, 1)


@pytest.mark.parametrize("seed", range(20))
def test_the_pieces_in_which_a_file_comes_do_not_matter(seed):
    draw = random.Random(seed)
    short = [line for line in FOREIGN.values() if len(line) < 1000]
    kinds = [lambda: draw.choice(short), lambda: record(draw.choice(ODD_IDS)), GOOD.encode]
    data = b"".join(draw.choices(kinds, (1, 2, 6))[0]() for _ in range(300)) + GOOD.encode() * 200
    at_once = count(data)
    for counted in (count(data, step=1 + seed * 37), count(data, step=4096)):
        assert counted.facts == at_once.facts and counted.reader.offset == len(data)
        assert (counted.histogram.bins == at_once.histogram.bins).all()


@pytest.mark.parametrize("whole", [GOOD.encode(), record("a\nb,c"), record('"\n"')])
def test_a_torn_record_waits_for_its_rest(whole):
    for end in range(1, len(whole)):
        counted = count(HEADER.encode() + whole[:end])
        assert counted.facts == (0, 0) and counted.reader.offset == len(HEADER)
        counted.read(HEADER.encode() + whole)
        assert counted.facts == (1, 0)
