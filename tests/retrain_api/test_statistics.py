"""The statistics of the page, and the rows that count in them."""

import time
import tracemalloc

import msgspec
import pytest

from common.messages import INVALID, JoinedRow, decode_joined_row
from retrain_api.live.statistics import MAX_POINTS, RowStatistics
from tests.support.environment import SOAK


@pytest.mark.parametrize(
    "wrong",
    [
        {"absolute_error": -1},
        {"absolute_error": 1e301},
        {"y_true": -1e301},
        {"y_pred": 1e301},
        {"id": "x" * 256},
        {"model_version": "x" * 256},
    ],
)
def test_a_row_out_of_bounds_does_not_count(wrong):
    row = JoinedRow(1, 100.0, 140.0, 40.0, 0)
    assert decode_joined_row(msgspec.json.encode(row)) == row
    with pytest.raises(INVALID):
        decode_joined_row(msgspec.json.encode(msgspec.to_builtins(row) | wrong))


@pytest.mark.slow
def test_memory_is_the_same_after_many_rows_as_after_some():
    rows, sizes = RowStatistics(), []
    tracemalloc.start()
    for number in range(150_000 * SOAK):
        rows.add(JoinedRow(number, 1.0, 2.0, 1.0, number // 1000), 1e9 + number / 100, False)
        if number % 100 == 0:
            rows.numbers(1e9 + number / 100)  # each second
        if number in (30_000, 150_000 * SOAK - 1):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] < sizes[0] * 1.1
    assert len(rows.charts()["error"]) <= MAX_POINTS and rows.count == 150_000 * SOAK


def test_a_version_gets_a_mark_when_it_starts_to_answer_and_two_in_turns_get_one_each():
    rows = RowStatistics()
    for second, version in enumerate([0] * 20 + [0, 1] * 20 + [1] * 20 + [0] * 5):
        rows.add(JoinedRow(second, 1.0, 2.0, 10.0 + version, version), 1e9 + second, False)
    marks = [(mark.version, mark.rows, mark.error) for mark in rows.marks]
    assert marks == [(0, 40, 10.0), (1, 40, 11.0), (0, 5, 10.0)]


def test_a_repeated_row_counts_once_and_an_id_may_be_its_time():
    rows, now = RowStatistics(), time.time()
    for row_id in (now - 3600, now - 3600, now - 1800, "no time", 10.5):
        rows.add(JoinedRow(row_id, 1.0, 4.0, 3.0), now, True)
    assert rows.count == 4 and rows.error() == 3
    times = [at for at, _ in rows.charts()["error"]]
    assert times[0] < now - 3500 and now - 60 < times[-1] <= now


def test_the_largest_numbers_have_finite_statistics():
    rows = RowStatistics()
    for row_id in range(500):
        rows.add(JoinedRow(row_id, -1e300, 1e300, 2e300), 1e9 + row_id, False)
    encoded = msgspec.json.encode(rows.charts() | rows.numbers(1e9))
    assert b"null" not in encoded.replace(b'"version":null', b"")
