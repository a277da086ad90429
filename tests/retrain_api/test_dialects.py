"""CSVs as people write them: read alike in every dialect."""

import numpy as np
import pytest

from retrain_api.ingest import dialect
from tests.support.tables import PLAIN, prepare, refusal, rows_of, same, written


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251"])
@pytest.mark.parametrize("quoted", ["none", "names", "all"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("marks", [",.", ";.", ";,", "\t.", "\t,"])
def test_every_dialect_is_read_alike(tmp_path, marks, end, quoted, encoding):
    expected = prepare(tmp_path / "plain", written(",", ".", "\n", "none"))
    content = written(*marks, end, quoted).encode(encoding)
    assert same(prepare(tmp_path / "other", content), expected)
    assert expected[0]["columns"] == ["Возраст", "рост, см", "вес; кг"]


HABITS = {
    "no line end at the end": PLAIN[:-1],
    "blank lines": "\n \n" + PLAIN.replace("\n", "\n\n") + "\n  \n\n",
    "spaces behind commas": PLAIN.replace(",", ", "),
    "spaces before commas": PLAIN.replace(",", " ,"),
    "spaces before quotes": PLAIN.replace("a,b", 'a, "b"'),
    "exponents": PLAIN.replace("2.5,", "25e-1,").replace("\n3,3.5,", "\n3,+.35E1,"),
    "plus signs": PLAIN.replace(",", ",+").replace("+b,+y", "b,y"),
    "points without digits behind": PLAIN.replace("4,", "4.,"),
    "many line ends": PLAIN.replace("\n", "\r\n", 7).replace("9,9.5,81\n", "9,9.5,81\r"),
    "a quoted number": PLAIN.replace("\n7,7.5", '\n7,"7.5"'),
    "zero with a sign": PLAIN.replace("\n0,0.5,0", "\n-0,0.5,-0.0"),
}


@pytest.mark.parametrize("habit", HABITS)
def test_small_habits_change_nothing(tmp_path, habit):
    expected = prepare(tmp_path / "plain", PLAIN)
    assert same(prepare(tmp_path / "other", HABITS[habit]), expected)
    assert not np.signbit(expected[1]).any()


@pytest.mark.parametrize("block", [100, 101, 102, 103, 137, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_the_end_of_a_block_makes_no_difference(tmp_path, monkeypatch, block, end):
    lines = [f'{n},"{n}.5","яя\n""{n}""\n",{n * n}' for n in range(90)]
    content = "\n".join(["a,b,note,y", *lines, *(f"{n},1,2,3" for n in range(50))])
    content = content.replace("\n", end).encode()
    expected = prepare(tmp_path / "one", content, ignore=["note"])
    monkeypatch.setattr(dialect, "BLOCK_BYTES", block)
    assert same(prepare(tmp_path / "other", content, ignore=["note"]), expected)


def test_many_quoted_numbers_are_read_as_bare_ones_are(tmp_path):
    bare = rows_of(3000, 1)
    quoted = '"' + bare.replace(",", '","').replace("\n", '"\n"') + '"'
    assert same(prepare(tmp_path / "quoted", quoted), prepare(tmp_path / "bare", bare))
    sentence = refusal(tmp_path / "refused", quoted + '\n"5",""')
    assert sentence.startswith("a.csv, line 3002, column 'y': the cell is empty")
