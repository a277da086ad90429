"""From `history` to the table that a job trains on, without a broker."""

import msgspec
import pytest

from common.messages import HistoryRow
from drift.api_client import equally_wide, to_csv
from drift.streams import decode_history

GOOD = [{"id": n, "body": [0.5] * 10, "y_true": 1.0} for n in range(3)]


@pytest.mark.parametrize("bad", [GOOD[0] | {"y_true": 1e39}, GOOD[0] | {"body": [None]}, 7, {}])
def test_a_bad_row_of_a_message_costs_itself_only(bad):
    body = msgspec.json.encode([GOOD[0], bad, *GOOD[1:]])
    assert [row.id for row in decode_history(body)] == [0, 1, 2]


@pytest.mark.parametrize("body", [b"", b"\xff", b"{}", b"[" * 5000, b"[%s]" % (b" " * (1 << 20))])
def test_a_message_that_is_not_a_list_of_rows_has_none(body):
    assert decode_history(body) == []


def test_rows_become_a_csv_whose_last_column_is_the_target():
    rows = [HistoryRow("another", [1.0], 7.0)]
    rows += [HistoryRow(n, [float(n), 0.5], 7.0) for n in range(2)]
    assert to_csv(equally_wide(rows)).decode().splitlines() == [
        "x1,x2,y_true",
        "0.0,0.5,7.0",
        "1.0,0.5,7.0",
    ]


def test_no_rows_have_no_width():
    assert equally_wide([]) == []
