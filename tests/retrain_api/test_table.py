"""CSVs as people have them: read alike however they are written, or refused with the place."""

import io
import os
import random
import re
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

from retrain_api import dialect, disk, table
from tests.support.environment import ROOT, SOAK, small_disk_at

PLAIN = "a,b,y\n" + "".join(f"{n},{n}.5,{n * n}\n" for n in range(30))


def prepare(folder, *files, **how):
    """Prepare files from text or bytes, shown as a.csv, b.csv, …: (about, training, held out)."""
    contents = [file.encode() if isinstance(file, str) else file for file in files]
    named = [(f"{chr(97 + n)}.csv", io.BytesIO(content)) for n, content in enumerate(contents)]
    folder.mkdir(exist_ok=True)
    about = table.prepare(named, folder, **how)
    assert sorted(os.listdir(folder)) == ["hold_out.npy", "train.npy"]
    return about, np.load(folder / "train.npy"), np.load(folder / "hold_out.npy")


def same(one, two) -> bool:
    return one[0] == two[0] and all(np.array_equal(one[n], two[n]) for n in (1, 2))


def refusal(folder, *files, **how) -> str:
    """Return the sentence with which the files are refused, after a look that nothing is left."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(table.Refused) as refused:
        prepare(folder, *files, **how)
    assert os.listdir(folder) == []
    assert "\n" not in str(refused.value)
    return str(refused.value)


def written(delimiter, point, end, quoted) -> str:
    """Return a CSV; `quoted` is which cells are: none (but where they must), names or all."""
    names = ["Возраст", "рост, см", "вес; кг", "y"]
    rows = [[f"{n % 7}", f"-{n}.5", f"{n}e-3", f"{n}.25"] for n in range(40)]

    def line(cells, always):
        return delimiter.join(f'"{c}"' if always or delimiter in c else c for c in cells) + end

    lines = [line([cell.replace(".", point) for cell in row], quoted == "all") for row in rows]
    return line(names, quoted != "none") + "".join(lines)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251"])
@pytest.mark.parametrize("quoted", ["none", "names", "all"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("marks", [",.", ";.", ";,", "\t.", "\t,"])
def test_however_it_is_written_it_is_read_alike(tmp_path, marks, end, quoted, encoding):
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


def test_the_arrays_hold_the_numbers_as_they_stand_in_the_file_and_the_dict_describes_them(
    tmp_path,
):
    about, train, held_out = prepare(tmp_path, PLAIN)
    rows = np.array([[n, n + 0.5, n * n] for n in range(30)], np.float32)
    assert train.dtype == held_out.dtype == np.float32
    assert np.array_equal(np.array(sorted([*train.tolist(), *held_out.tolist()])), rows)
    assert about == {
        "columns": ["a", "b"],
        "target": "y",
        "rows": 24,
        "hold_out_rows": 6,
        "target_mean": pytest.approx(train[:, 2].mean()),
        "regions": [{"file": "a.csv", "hold_out_rows": 6}],
    }


def test_a_target_in_the_middle_comes_last_and_ignored_columns_may_hold_anything(tmp_path):
    lines = [f'"inf; ""x""\n\n,{n}",{n},{n % 5},,я' for n in range(30)]
    text = "note,y,b,empty,name\n" + "\n".join(lines)
    about, train, _ = prepare(tmp_path, text, target="y", ignore=["note", "empty", "name"])
    assert (about["columns"], about["target"]) == (["b"], "y")
    assert (train[:, 0] == train[:, 1] % 5).all()


def test_files_are_joined_by_name_in_the_order_of_the_first_whatever_their_dialects(tmp_path):
    turned = "y;more;b;a\n" + "".join(f"{n * n};x;{n},5;{n}\n" for n in range(30, 50))
    about, train, held_out = prepare(tmp_path, PLAIN, turned.encode("utf-8-sig"), ignore=["more"])
    assert about["columns"] == ["a", "b"]
    for rows in (train, held_out):
        assert (rows[:, 1] == rows[:, 0] + 0.5).all() and (rows[:, 2] == rows[:, 0] ** 2).all()
    assert [region["hold_out_rows"] for region in about["regions"]] == [6, 4]
    assert (held_out[:6, 0] < 30).all() and (held_out[6:, 0] >= 30).all()


def test_names_are_one_whether_their_accents_are_written_apart_or_not(tmp_path):
    apart = PLAIN.replace("b,", "\u0438\u0306,")
    about, _, _ = prepare(tmp_path, PLAIN.replace("b,", "\u0439,"), apart, target="y")
    assert about["columns"] == ["a", "\u0439"]


@pytest.mark.parametrize("block", [100, 101, 102, 103, 137, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_it_does_not_matter_where_a_block_ends(tmp_path, monkeypatch, block, end):
    lines = [f'{n},"{n}.5","яя\n""{n}""\n",{n * n}' for n in range(90)]
    content = "\n".join(["a,b,note,y", *lines, *(f"{n},1,2,3" for n in range(50))])
    content = content.replace("\n", end).encode()
    expected = prepare(tmp_path / "one", content, ignore=["note"])
    monkeypatch.setattr(dialect, "BLOCK", block)
    assert same(prepare(tmp_path / "other", content, ignore=["note"]), expected)


def rows_of(count: int, seed: int, spread: int = 10**6) -> str:
    numbers = random.Random(seed)
    rows = (f"{numbers.randrange(spread)},{numbers.randrange(spread)}" for _ in range(count))
    return "a,y\n" + "\n".join(rows)


@pytest.mark.parametrize("counts", [[20], [300], [5000, 40], [10, 10, 10], [4000, 3000, 7, 1]])
def test_each_region_has_its_share_of_the_hold_out(tmp_path, counts):
    files = [rows_of(count, seed) for seed, count in enumerate(counts)]
    about, train, held_out = prepare(tmp_path, *files)
    for region, count in zip(about["regions"], counts, strict=True):
        share = max(1, round(0.2 * count))
        assert share <= region["hold_out_rows"] <= share + 0.03 * count
    assert len(train) + len(held_out) == sum(counts)


def test_equal_rows_are_on_the_same_side_also_across_files(tmp_path):
    files = [rows_of(3000, seed, spread=40) for seed in range(3)]
    about, train, held_out = prepare(tmp_path, *files)
    assert not set(map(tuple, train)) & set(map(tuple, held_out))
    assert 0.19 < about["hold_out_rows"] / 9000 < 0.3


def test_a_row_that_is_there_over_and_over_does_not_take_the_others_with_it(tmp_path):
    text = rows_of(100, 1) + "\n7,7" * 900
    about, train, held_out = prepare(tmp_path, text)
    assert about["hold_out_rows"] == 50 and 7 not in held_out
    assert len(train) == 950


def test_the_same_upload_is_split_the_same_way_in_any_process(tmp_path):
    (tmp_path / "a.csv").write_text(rows_of(1000, 1))
    command = "import sys; from retrain_api.table import prepare;"
    command += "prepare([('a.csv', open(sys.argv[1], 'rb'))], sys.argv[2])"
    (tmp_path / "other").mkdir()
    arguments = [sys.executable, "-c", command, tmp_path / "a.csv", tmp_path / "other"]
    subprocess.run(arguments, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"}, check=True)
    prepare(tmp_path / "one", rows_of(1000, 1))
    for name in ("train.npy", "hold_out.npy"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def plain(old: str, new: str) -> str:
    assert old in PLAIN
    return PLAIN.replace(old, new, 1)


NO_NUMBERS = {
    **{"nan": "finite", "NaN": "finite", "inf": "finite", "-Infinity": "finite", "+inf": "finite"},
    **{"1e39": "beyond float32", "-3.5e38": "beyond float32", "1e999": "beyond float32"},
    **{"9" * 400: "beyond float32", "": "empty", "  ": "empty", '""': "empty"},
    **dict.fromkeys(
        ["male", "NA", "null", "-", "1_000", "0x10", "٣", "１", "1 000"], "not a number"
    ),
    **dict.fromkeys(["1.2.3", "1e", "e5", "--1", "2026-01-01", "TRUE", "5%"], "not a number"),
    **dict.fromkeys(["1d5", "1\u00a0000", "−5", "+6e 2", "'5'", "1j", "я"], "not a number"),
    '"1,5"': "decimal comma",
}


@pytest.mark.parametrize("cell", NO_NUMBERS, ids=lambda cell: cell[:10] or "nothing")
def test_a_cell_that_is_no_number_is_refused_with_line_and_column(tmp_path, cell):
    said = refusal(tmp_path, PLAIN, plain("7,7.5,", f"7,{cell},"))
    assert said.startswith("b.csv, line 9, column 'b': ")
    assert NO_NUMBERS[cell] in said and re.search("; (send|fill|write)", said)


WIDE = ",".join(f"x{n}" for n in range(1001))
REFUSED = {  # what is sent, and what is said about it
    "nothing": (b"", "a.csv: .*empty; send"),
    "blank lines": (b"\n\r\n  \n", "a.csv: .*empty; send"),
    "only a BOM": (b"\xef\xbb\xbf", "a.csv: .*empty; send"),
    "only a header": (b"a,b,y\n", "a.csv: a header and no rows; send"),
    "no header": (PLAIN[6:], "a.csv, line 1: no header, only numbers; send"),
    "no header, decimal commas": ("1,5;2,5\n" * 30, "line 1: no header"),
    "a name that is empty": (plain("b", ""), "a.csv, line 1, column 2: no name; name"),
    "a name that is blank": (plain("b", '" "'), "line 1, column 2: no name"),
    "a comma too many in all lines": (PLAIN.replace("\n", ",\n"), "line 1, column 4: no name"),
    "a name twice": (plain("b", "a"), "a.csv, line 1, column 'a': the columns 1 and 2 .*; give"),
    "a name twice but for spaces": (plain("b", '" a"'), "line 1, column 'a': the columns 1 and 2"),
    "a very long name": (plain("b", "b" * 201), "line 1, column 'bbb.*a name of 201 char.*send"),
    "one column": ("y\n" + "1\n" * 30, "a.csv, line 1: only one column, 'y'; separate"),
    "another delimiter": (PLAIN.replace(",", "|"), r"line 1: only one column, 'a\|b\|y'; sep"),
    "too many columns": (f"{WIDE}\n{WIDE}", "line 1: 1001 columns; send at most 1000"),
    "a short row": (plain("7,7.5", "7"), "line 9: 2 cells, but 3 columns; send"),
    "a long row": (plain("7.5", "7,5"), "line 9: 4 cells, but 3 columns; send .* quote"),
    "a short and a long row": (plain("7.5,49\n8", "7\n7,8"), "line 9: 2 cells"),
    "a first row that is short": (plain("0,0.5", "0"), "line 2: 2 cells, but 3 columns"),
    "a row of blank cells": (plain("7,7.5,49", ",,"), "line 9, column 'a': the cell is empty"),
    "a NUL byte": (plain("7.5", "7\0"), "a.csv, line 9: a NUL byte; send"),
    "a NUL byte in the header": (plain("b", "b\0"), "line 1: a NUL byte"),
    "UTF-16": (PLAIN.encode("utf-16"), "a.csv: this is UTF-16; save it as .*UTF-8"),
    "UTF-16, big end first": ("\ufeffa,b".encode("utf-16-be"), "UTF-16; save it"),
    "UTF-16 without a BOM": (PLAIN.encode("utf-16-le"), "line 1: a NUL byte; send text"),
    "an Excel workbook": (b"PK\3\4" + bytes(99), "Excel workbook .*save the sheet as CSV"),
    "no encoding we know": (PLAIN.encode() + b"1,2,\x98", "line 32: neither UTF-8 nor cp1251; s"),
    "a BOM and no UTF-8": (b"\xef\xbb\xbf" + PLAIN.encode() + b"\xff,1,2", "line 32: neither"),
    "an open quote": (plain("7.5", '"7.5'), "line 9: a quote is opened and never closed; close"),
    "an open quote in the header": (plain("b", '"b'), "line 1: a quote is opened and never"),
    "text behind a quote": (plain("7.5", '"7".5'), "line 9: text behind a closing quote; dou"),
    "text behind a quoted name": (plain("b", '"b"b'), "line 1: text behind a closing quote"),
    "an endless line": (PLAIN + "1" * 2 * 10**6, "line 32: a row of over 256 KiB; end"),
    "an endless header": ("a,b," * 10**6, "line 1: a row of over 256 KiB; end"),
    "an endless cell": (PLAIN + '5,"' + "1\n" * 10**6, "line 32: a row of over 256 KiB"),
    "an endless row": (PLAIN + '5,"' + '","\n' * 10**6, "line 32: a row of over 256 KiB"),
    "19 rows": ("\n".join(PLAIN.split("\n")[:20]), "19 rows in all; send at least 20"),
    "a constant target": (re.sub(r"\d+\n", "5\n", PLAIN), "target: 'y' has the same .*; send"),
    "constant but for what is held out": (
        "a,y\n" + "1,1\n" * 99 + "2,2",
        "that is not held out, .*; send",
    ),
    "equal rows": ("a,y\n" + "1,1\n" * 99, "target: 'y' has the same value in each row"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_table_of_numbers_is_refused_with_a_sentence(tmp_path, kind):
    content, said = REFUSED[kind]
    assert re.search(said, refusal(tmp_path, content))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"target": "z"}, "target: there is no column 'z'; choose of 'a', 'b', 'y'"),
        ({"target": "Y"}, "target: there is no column 'Y'; choose"),
        ({"target": ""}, "target: there is no column ''; choose"),
        ({"ignore": ["z"]}, "ignore: there is no column 'z'; choose of 'a', 'b', 'y'"),
        ({"ignore": ["y"]}, "ignore: 'y' is the target.*; send another"),
        ({"target": "a", "ignore": ["a"]}, "ignore: 'a' is the target"),
        ({"ignore": ["a", "b"]}, "no column is left beside the target 'y'; ignore fewer"),
    ],
)
def test_columns_that_cannot_be_chosen_are_refused(tmp_path, how, said):
    assert re.search(said, refusal(tmp_path, PLAIN, **how))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("a,c,y", "b.csv, line 1: no column 'b', and a.csv has no column 'c'; send the same"),
        ("a,B,y", "b.csv, line 1: no column 'b', and a.csv has no column 'B'; send the same"),
        ("a,b", "b.csv, line 1: no column 'y'; send the same"),
        ("a,b,c,y", "b.csv, line 1: a.csv has no column 'c'; send the same .* ignore"),
    ],
)
def test_files_whose_columns_differ_are_refused_and_the_columns_named(tmp_path, header, said):
    assert re.search(said, refusal(tmp_path, PLAIN, PLAIN.replace("a,b,y", header)))


def test_one_file_without_rows_no_file_too_many_files_and_too_few_rows_to_split_are_refused(
    tmp_path,
):
    assert "b.csv: a header and no rows" in refusal(tmp_path, PLAIN, "a,b,y\n")
    assert "0 files; send" in refusal(tmp_path)
    assert "101 files; send" in refusal(tmp_path, *[PLAIN] * 101)
    assert "send more rows" in refusal(tmp_path, *[f"a,y\n{n},{n}" for n in range(30)])


def test_the_line_of_a_cell_is_the_one_in_the_file_whatever_is_quoted_above(tmp_path):
    lines = [f'{n},"one\r\ntwo\rthree\n\n",{n}' for n in range(30)] + ['1,"\n\n",x']
    said = refusal(tmp_path, "a,note,y\r\n" + "\r\n".join(lines), ignore=["note"])
    assert said.startswith("a.csv, line 154, column 'y': 'x' is not a number")


def test_both_ways_to_read_a_number_take_and_refuse_the_same(tmp_path):
    numbers = random.Random(3)
    for _ in range(150 * SOAK):
        token = "".join(numbers.choices("0123456789.+-eE5", k=numbers.randint(1, 9)))
        outcomes = []
        for cell in (token, f'"{token}"'):  # with a quote in it a block is not given to pandas
            with suppress(FileNotFoundError):
                os.remove(tmp_path / "train.npy")
            try:
                outcomes.append(prepare(tmp_path, plain("7.5", cell))[1].tolist())
            except table.Refused as refused:
                outcomes.append(str(refused))
        assert outcomes[0] == outcomes[1], token


def test_many_quoted_numbers_are_read_as_bare_ones_are(tmp_path):
    bare = rows_of(3000, 1)
    quoted = '"' + bare.replace(",", '","').replace("\n", '"\n"') + '"'
    assert same(prepare(tmp_path / "quoted", quoted), prepare(tmp_path / "bare", bare))
    said = refusal(tmp_path / "refused", quoted + '\n"5",""')
    assert said.startswith("a.csv, line 3002, column 'y': the cell is empty")


SEEDS = [
    PLAIN.encode(),
    written(";", ",", "\r\n", "all").encode("cp1251"),
    written("\t", ".", "\n", "names").encode("utf-8-sig"),
]


def test_whatever_is_sent_it_is_read_or_refused(tmp_path):
    numbers, refused = random.Random(5), 0
    for number in range(600 * SOAK):
        content = bytearray(SEEDS[number % 3])
        for _ in range(numbers.randint(1, 4)):
            at, size = numbers.randrange(len(content)), numbers.choice([0, 1, 1, 5])
            new = numbers.choice([b'"', b",", b";", b"\n", b"\r", b"\0", b"9e99", b"\xd0", b" -"])
            content[at : at + size] = new * numbers.choice([0, 1, 1, 2])
        try:
            prepare(tmp_path, bytes(content), target=numbers.choice([None, "y"]))
        except table.Refused as error:
            refused += 1
            assert os.listdir(tmp_path) == [] and re.search("; |: ", str(error))
        for name in os.listdir(tmp_path):
            os.remove(tmp_path / name)
    assert 0 < refused < 600 * SOAK


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "KEEP_FREE_BYTES", 0)
    with small_disk_at(tmp_path, "1m"):
        for rows in (100_000, 200_000):  # full while it is dealt out, full while it is read
            with pytest.raises((disk.Full, OSError), match="No space left|bytes free"):
                prepare(tmp_path, rows_of(rows, 1))
            assert os.listdir(tmp_path) == []


# A file of so many MB, made while it is read: `first`, then `again` over and over.
READ_A_LOT = """
import io, sys, time
from retrain_api.table import Refused, prepare

class Long(io.RawIOBase):
    def __init__(self, first, again, size):
        self.first, self.again, self.size, self.at = first, again, size, 0
    def seek(self, at): self.at = at
    def read(self, size):
        begin, self.at = self.at, min(self.at + size, self.size)
        if begin < len(self.first):
            self.at = min(self.at, len(self.first))
            return self.first[begin:self.at]
        skip = (begin - len(self.first)) % len(self.again)
        want = self.at - begin
        return (self.again[skip:] + self.again * (want // len(self.again) + 1))[:want]

first, again = eval(sys.argv[1])
begun = time.process_time()
try:
    size = len(first) + int(sys.argv[2]) * 10**6 // len(again) * len(again)
    about = prepare([("long.csv", Long(first, again, size))], sys.argv[3])
    said = about["rows"] + about["hold_out_rows"]
except Refused as refused:
    said = refused
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
print(int(peak) // 1024, round(time.process_time() - begun, 2), said, sep="|")
"""
MANY = "b','.join(b'c%d' % n for n in range(11)) + b'\\n', b''.join("
MANY += "b','.join(b'%.6f' % (n * m % 997 / 7) for n in range(11)) + b'\\n' for m in range(9999))"
LONG = {
    "rows": (MANY, 150, r"\d{7}"),
    "short rows": (r"b'a,y\n', b'1,2\n3,4\n5,61\n'", 10, r"\d{7}"),
    "short quoted rows": (r"b'a,y\n', b'1,2\n3,4\n\"5\",61\n'", 5, r"\d{6}"),
    "a line without end": ("b'a,b\\n', b'1234567890'", 300, "line 2: a row of over"),
    "a header without end": ("b'', b'a,b,c,d'", 300, "line 1: a row of over"),
    "a cell without end": ("b'a,b\\n1,\"', b'1\\n'", 300, "line 2: a row of over"),
    "cells without end": ("b'a,b\\n\"', b'\",\"\\n'", 300, "line 2: a row of over"),
    "nothing but CRs": ("b'', b'\\r'", 100, "empty"),
}


@pytest.mark.parametrize("kind", LONG)
def test_memory_does_not_grow_with_the_file(tmp_path, figure, kind):
    parts, size, expected = LONG[kind]
    command = [sys.executable, "-c", READ_A_LOT, f"({parts})", str(size * SOAK), tmp_path]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    peak, seconds, said = out.strip().split("|", 2)
    assert re.search(expected, said), said
    assert int(peak) < 150
    figure(f"CSV of {size * SOAK} MB, {kind}: {peak} MB of memory, {seconds} s: {said[:60]}")
