"""The records of the CSV, and writes that are repeated or find other bytes than ours."""

import csv
import io

import pandas
import pytest

from common.messages import JoinedRow
from metric.csv_file import HEADER, CsvFile, format_record
from tests.support.bodies import ODD_IDS

RECORD = b"1,100.0,98.50,1.50\n"


@pytest.fixture
def file(tmp_path):
    return CsvFile(tmp_path / "metric_log.csv")


def test_a_record_looks_as_the_specification_shows_it():
    row = JoinedRow(1765912012.233366, 101.0, 116.9499, 15.9499, 0)
    assert format_record(row, decimals=2) == b"1765912012.233366,101.0,116.95,15.95\n"
    assert format_record(row, decimals=3) == b"1765912012.233366,101.0,116.950,15.950\n"


@pytest.mark.parametrize("row_id", ODD_IDS, ids=lambda row_id: ascii(row_id)[:30])
def test_an_odd_id_stays_one_cell_for_csv_and_for_pandas(row_id):
    row = JoinedRow(row_id, 101.0, 116.95, 15.95, 0)
    text = (HEADER + format_record(row, 2)).decode() + "next,1.0,2.00,1.00\n"
    assert list(csv.reader(io.StringIO(text, newline="")))[1][0] == str(row_id)
    frame = pandas.read_csv(io.StringIO(text, newline=""), dtype=str, keep_default_na=False)
    assert frame.id.tolist() == [str(row_id), "next"]
    assert frame.absolute_error.tolist() == ["15.95", "1.00"]


def test_a_new_file_starts_with_the_header(file):
    assert file.end(expected=0) == (0, HEADER)


def test_a_record_is_written_on_a_line_of_its_own_behind_a_note_without_an_end(file):
    file.path.write_bytes(HEADER + b"a note")
    assert file.end(expected=len(HEADER)) == (len(HEADER) + 6, b"\n")


@pytest.mark.parametrize("written", range(len(RECORD) + 1))
def test_a_record_that_is_written_in_part_can_be_completed(file, written):
    file.path.write_bytes(HEADER + RECORD[:written])
    assert file.can_take(len(HEADER), RECORD)
    file.write(len(HEADER), RECORD)
    assert file.path.read_bytes() == HEADER + RECORD


def test_other_bytes_at_the_place_of_a_record_are_noticed(file):
    file.path.write_bytes(HEADER + b"2,")
    assert not file.can_take(len(HEADER), RECORD)


def test_no_hole_is_written_where_a_file_was_deleted(file):
    assert not file.can_take(len(HEADER), RECORD)
    with pytest.raises(FileNotFoundError):
        file.write(len(HEADER), RECORD)


def test_a_stray_quote_spans_a_page_at_most(file):
    rows = [f"{n},100.0,98.50,1.50\n" for n in range(2000)]
    file.path.write_text(HEADER.decode() + '"stray\n' + "".join(rows))
    found = {record.cells[0] for record in file.records() if record.is_row}
    assert found >= {str(n) for n in range(1000, 2000)}
