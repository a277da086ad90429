"""What the controller makes of rows of `errors`: cases of drift, without an API."""

import msgspec
import pytest

from drift.settings import DRIFT_MIN_ROWS
from drift.state import State, Training
from tests.support.drift import ControlledRows, errors

IDS = [b'""', b'"%s"' % (b"x" * 256), b"1" * 256]


@pytest.fixture
def stream():
    return ControlledRows()


def test_unchanged_data_open_no_case(stream):
    stream.send(errors(43, 20_000))
    assert not stream.state.cases and not stream.events()


def row(row_id: bytes = b"1", error: bytes = b"1.0") -> bytes:
    number = b'"y_true": 1.0, "y_pred": 1.0, "absolute_error": %s' % error
    return b'{"id": %s, %s, "model_version": 0}' % (row_id, number)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[" * 5000,
        *(row(error=error) for error in (b"-1", b"1e999", b"null", b'"1"')),
        *(row(row_id) for row_id in IDS),
    ],
)
def test_a_message_that_is_not_a_row_is_passed_over(stream, body):
    stream.controller.process(4, row(b'"good"'))
    stream.controller.process(5, body)
    assert (stream.state.offset, stream.state.recent_ids) == (6, ["good"])
    assert stream.state.monitor.errors == [1.0]


def test_the_largest_error_of_two_valid_values_counts(stream):
    stream.controller.process(0, row(error=b"2e300"))
    assert stream.state.monitor.errors == [1e30]


def test_a_case_collects_rows_that_came_after_the_change(stream):
    stream.send(errors(43, 2000))
    stream.send(errors(90, DRIFT_MIN_ROWS + 200))
    [case] = stream.state.cases
    assert len(case.row_ids) > DRIFT_MIN_ROWS and min(map(int, case.row_ids)) >= 2000
    assert stream.events() == ["drift_detected"]


def test_a_second_change_while_rows_are_collected_starts_the_collection_again(stream):
    stream.send(errors(43, 500) + errors(90, 200) + errors(300, DRIFT_MIN_ROWS))
    [case] = stream.state.cases
    assert min(map(int, case.row_ids)) >= 700 and stream.events() == ["drift_detected"]
    assert int(case.after_id) >= 700


@pytest.mark.parametrize("seed", range(10))
def test_a_change_that_passes_before_a_job_is_submitted_closes_its_case(stream, seed):
    stream.send(errors(43, 500, seed) + errors(90, 150, seed) + errors(43, 300, seed))
    assert not stream.state.cases and stream.events() == ["drift_detected", "recovered"]


def test_a_change_while_a_job_trains_opens_another_case(stream):
    stream.send(errors(43, 500) + errors(90, DRIFT_MIN_ROWS))
    stream.state.cases[0].phase = Training("job-1")
    stream.send(errors(300, DRIFT_MIN_ROWS))
    first, second = stream.state.cases
    assert first.key != second.key and min(map(int, second.row_ids)) >= 500 + DRIFT_MIN_ROWS


def test_a_row_that_comes_twice_counts_once():
    once, twice = ControlledRows(), ControlledRows()
    values = errors(43, 800)
    once.send(values)
    for start in range(0, 800, 400):  # as `metric` repeats its last batch
        for _ in range(2):
            twice.next_id = start
            twice.send(values[start : start + 400])
    assert once.state.monitor == twice.state.monitor


@pytest.mark.parametrize("every", [1, 7, 100])
def test_a_restart_between_any_two_rows_changes_nothing(every):
    stream = ControlledRows()
    values = errors(43, 500) + errors(90, DRIFT_MIN_ROWS + 100)
    for start in range(0, len(values), every):
        stream.send(values[start : start + every])
        saved = msgspec.json.encode(stream.state)
        stream = ControlledRows(msgspec.json.decode(saved, type=State), stream.next_id)
    [case] = stream.state.cases
    assert stream.events() == ["drift_detected"] and min(map(int, case.row_ids)) >= 500
