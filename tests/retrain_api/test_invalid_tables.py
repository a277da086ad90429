"""CSVs that are no tables of numbers: refused with file, line, column and what to send instead."""

import os
import random
import re
from contextlib import suppress

import pytest

from retrain_api.errors import InvalidDatasetError
from tests.support.environment import SOAK
from tests.support.tables import PLAIN, changed, prepare, refusal, written

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
    sentence = refusal(tmp_path, PLAIN, changed("7,7.5,", f"7,{cell},"))
    assert sentence.startswith("b.csv, line 9, column 'b': ")
    assert NO_NUMBERS[cell] in sentence and re.search("; (send|fill|write)", sentence)


WIDE = ",".join(f"x{n}" for n in range(1001))


REFUSED = {  # what is sent, and a pattern of the sentence
    "nothing": (b"", "a.csv: .*empty; send"),
    "blank lines": (b"\n\r\n  \n", "a.csv: .*empty; send"),
    "only a BOM": (b"\xef\xbb\xbf", "a.csv: .*empty; send"),
    "only a header": (b"a,b,y\n", "a.csv: a header and no rows; send"),
    "no header": (PLAIN[6:], "a.csv, line 1: no header, only numbers; send"),
    "no header, decimal commas": ("1,5;2,5\n" * 30, "line 1: no header"),
    "a name that is empty": (changed("b", ""), "a.csv, line 1, column 2: no name; name"),
    "a name that is blank": (changed("b", '" "'), "line 1, column 2: no name"),
    "a comma too many in all lines": (PLAIN.replace("\n", ",\n"), "line 1, column 4: no name"),
    "a name twice": (changed("b", "a"), "a.csv, line 1, column 'a': the columns 1 and 2 .*; give"),
    "a name twice but for spaces": (
        changed("b", '" a"'),
        "line 1, column 'a': the columns 1 and 2",
    ),
    "a very long name": (changed("b", "b" * 201), "line 1, column 'bbb.*a name of 201 char.*send"),
    "one column": ("y\n" + "1\n" * 30, "a.csv, line 1: only one column, 'y'; separate"),
    "another delimiter": (PLAIN.replace(",", "|"), r"line 1: only one column, 'a\|b\|y'; sep"),
    "too many columns": (f"{WIDE}\n{WIDE}", "line 1: 1001 columns; send at most 1000"),
    "a short row": (changed("7,7.5", "7"), "line 9: 2 cells, but 3 columns; send"),
    "a long row": (changed("7.5", "7,5"), "line 9: 4 cells, but 3 columns; send .* quote"),
    "a short and a long row": (changed("7.5,49\n8", "7\n7,8"), "line 9: 2 cells"),
    "a first row that is short": (changed("0,0.5", "0"), "line 2: 2 cells, but 3 columns"),
    "a row of blank cells": (changed("7,7.5,49", ",,"), "line 9, column 'a': the cell is empty"),
    "a NUL byte": (changed("7.5", "7\0"), "a.csv, line 9: a NUL byte; send"),
    "a NUL byte in the header": (changed("b", "b\0"), "line 1: a NUL byte"),
    "UTF-16": (PLAIN.encode("utf-16"), "a.csv: this is UTF-16; save it as .*UTF-8"),
    "UTF-16, big end first": ("\ufeffa,b".encode("utf-16-be"), "UTF-16; save it"),
    "UTF-16 without a BOM": (PLAIN.encode("utf-16-le"), "line 1: a NUL byte; send text"),
    "an Excel workbook": (b"PK\3\4" + bytes(99), "Excel workbook .*save the sheet as CSV"),
    "no encoding we know": (PLAIN.encode() + b"1,2,\x98", "line 32: neither UTF-8 nor cp1251; s"),
    "a BOM and no UTF-8": (b"\xef\xbb\xbf" + PLAIN.encode() + b"\xff,1,2", "line 32: neither"),
    "an open quote": (changed("7.5", '"7.5'), "line 9: a quote is opened and never closed; close"),
    "an open quote in the header": (changed("b", '"b'), "line 1: a quote is opened and never"),
    "text behind a quote": (changed("7.5", '"7".5'), "line 9: text behind a closing quote; dou"),
    "text behind a quoted name": (changed("b", '"b"b'), "line 1: text behind a closing quote"),
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
def test_a_file_that_is_no_table_of_numbers_is_refused_with_a_sentence(tmp_path, kind):
    content, pattern = REFUSED[kind]
    assert re.search(pattern, refusal(tmp_path, content))


@pytest.mark.parametrize(
    ("options", "pattern"),
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
def test_columns_that_cannot_be_chosen_are_refused(tmp_path, options, pattern):
    assert re.search(pattern, refusal(tmp_path, PLAIN, **options))


@pytest.mark.parametrize(
    ("header", "pattern"),
    [
        ("a,c,y", "b.csv, line 1: no column 'b', and a.csv has no column 'c'; send the same"),
        ("a,B,y", "b.csv, line 1: no column 'b', and a.csv has no column 'B'; send the same"),
        ("a,b", "b.csv, line 1: no column 'y'; send the same"),
        ("a,b,c,y", "b.csv, line 1: a.csv has no column 'c'; send the same .* ignore"),
    ],
)
def test_files_whose_columns_differ_are_refused_and_the_columns_named(tmp_path, header, pattern):
    assert re.search(pattern, refusal(tmp_path, PLAIN, PLAIN.replace("a,b,y", header)))


def test_one_file_without_rows_no_file_too_many_files_and_too_few_rows_to_split_are_refused(
    tmp_path,
):
    assert "b.csv: a header and no rows" in refusal(tmp_path, PLAIN, "a,b,y\n")
    assert "0 files; send" in refusal(tmp_path)
    assert "101 files; send" in refusal(tmp_path, *[PLAIN] * 101)
    assert "send more rows" in refusal(tmp_path, *[f"a,y\n{n},{n}" for n in range(30)])


def test_the_line_of_a_cell_is_that_of_the_file_whatever_is_quoted_above(tmp_path):
    lines = [f'{n},"one\r\ntwo\rthree\n\n",{n}' for n in range(30)] + ['1,"\n\n",x']
    sentence = refusal(tmp_path, "a,note,y\r\n" + "\r\n".join(lines), ignore=["note"])
    assert sentence.startswith("a.csv, line 154, column 'y': 'x' is not a number")


def test_both_parsers_accept_and_refuse_the_same_numbers(tmp_path):
    numbers = random.Random(3)
    for _ in range(150 * SOAK):
        token = "".join(numbers.choices("0123456789.+-eE5", k=numbers.randint(1, 9)))
        outcomes = []
        for cell in (token, f'"{token}"'):  # with a quote in it a block is not given to pandas
            with suppress(FileNotFoundError):
                os.remove(tmp_path / "train.npy")
            try:
                outcomes.append(prepare(tmp_path, changed("7.5", cell))[1].tolist())
            except InvalidDatasetError as refused:
                outcomes.append(str(refused))
        assert outcomes[0] == outcomes[1], token


SEEDS = [
    PLAIN.encode(),
    written(";", ",", "\r\n", "all").encode("cp1251"),
    written("\t", ".", "\n", "names").encode("utf-8-sig"),
]


def test_random_changes_of_a_file_are_read_or_refused(tmp_path):
    numbers, sentences = random.Random(5), []
    for number in range(600 * SOAK):
        content = bytearray(SEEDS[number % 3])
        for _ in range(numbers.randint(1, 4)):
            at, size = numbers.randrange(len(content)), numbers.choice([0, 1, 1, 5])
            new = numbers.choice([b'"', b",", b";", b"\n", b"\r", b"\0", b"9e99", b"\xd0", b" -"])
            content[at : at + size] = new * numbers.choice([0, 1, 1, 2])
        try:
            prepare(tmp_path, bytes(content), target=numbers.choice([None, "y"]))
        except InvalidDatasetError as error:
            sentences.append(str(error))
            assert os.listdir(tmp_path) == []
        for name in os.listdir(tmp_path):
            os.remove(tmp_path / name)
    assert 0 < len(sentences) < 600 * SOAK
    assert all(re.search("; |: ", sentence) for sentence in sentences)
