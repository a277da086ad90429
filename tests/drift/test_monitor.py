"""What the monitor decides from errors, one by one; the errors are drawn at random."""

import pytest

from drift.monitor import (
    Confirmed,
    ErrorFell,
    ErrorRose,
    HoldOutErrorExceeded,
    Inconclusive,
    Monitor,
    UnseenVersion,
)
from drift.settings import DRIFT_MIN_ROWS, DRIFT_TRIAL_ROWS
from drift.state import MonitorState, Rollback
from tests.support.drift import MonitoredRows, errors, rows

VERDICTS = (Confirmed, Inconclusive, Rollback)


@pytest.fixture
def stream():
    return MonitoredRows()


@pytest.mark.parametrize("seed", range(20))
def test_unchanged_data_raise_no_false_alarm(stream, seed):
    stream.send(errors(43, 20_000, seed))
    assert not stream.decisions


@pytest.mark.parametrize("before", [100, 300, 2000, 20_000])
def test_a_rise_of_the_error_is_detected_within_a_hundred_rows(stream, before, figure):
    stream.send(errors(43, before))
    count = 0
    while not stream.found(ErrorRose) and count < 100:
        stream.send(errors(90, 1, count))
        count += 1
    figure(f"after {before} rows at 43, an error of 90 was detected after {count} rows")
    [rise] = stream.decisions
    assert isinstance(rise, ErrorRose) and before <= rise.row_id < before + 100


def test_a_fall_of_the_error_is_not_a_rise(stream):
    stream.send(errors(90, 500) + errors(43, 1000))
    assert stream.found(ErrorFell) == stream.decisions
    assert len(stream.monitor.state.errors) <= 1000


@pytest.mark.parametrize("outlier", [1e6, 1e300])
def test_an_outlier_does_not_blind_the_detector(stream, outlier):
    stream.send([*errors(43, 500), outlier, *errors(43, 500)])
    stream.decisions.clear()  # one such row may count as a change
    stream.send(errors(90, 100))
    assert stream.found(ErrorRose)


@pytest.mark.parametrize("outlier", [1e6, 1e200, 1.7e308])
def test_outliers_do_not_hide_that_a_version_is_worse(stream, outlier):
    stream.send(errors(43, 500))
    stream.switch_version(1, hold_out_error=45)
    stream.send([outlier] * 2 + errors(90, DRIFT_TRIAL_ROWS), version=1)
    [rollback] = stream.found(*VERDICTS)
    assert (rollback.version, rollback.to_version) == (1, 0)


def test_rollback_is_not_triggered_by_two_outliers(stream):
    stream.send(errors(43, 500))
    stream.switch_version(1, hold_out_error=45)
    stream.send([*errors(43, DRIFT_TRIAL_ROWS - 2), 1.7e308, 1.7e308], version=1)
    [verdict] = stream.found(*VERDICTS)
    assert isinstance(verdict, Confirmed)


def test_rows_of_another_version_are_not_mixed_with_those_of_the_monitored_one(stream):
    stream.send(errors(43, 300))
    for number in range(300):  # another replica
        stream.send(errors(43, 1, number))
        stream.send(errors(900, 1, number), version=7)
    stream.send(errors(900, 100), version=None)
    assert stream.decisions == [UnseenVersion(7)] * 300
    assert len(stream.monitor.state.errors) == 600


@pytest.mark.parametrize(("after", "verdict"), [(43, Confirmed), (30, Confirmed), (90, Rollback)])
def test_a_new_version_stays_unless_it_is_worse(stream, after, verdict):
    stream.send(errors(43, 500))
    stream.switch_version(1)
    stream.send(errors(after, DRIFT_TRIAL_ROWS), version=1)
    [decision] = stream.found(*VERDICTS)
    assert isinstance(decision, verdict)
    if verdict is Rollback:
        assert (decision.version, decision.to_version) == (1, 0)


def test_after_a_change_a_version_is_compared_with_its_predecessor_s_errors_since_then(stream):
    stream.send(errors(43, 2000) + errors(120, DRIFT_MIN_ROWS + 100))
    stream.switch_version(1, hold_out_error=45)
    stream.send(errors(60, DRIFT_TRIAL_ROWS), version=1)  # worse than ever before, better than now
    assert [type(each) for each in stream.decisions] == [ErrorRose, Confirmed]


def test_after_two_quick_switches_the_first_predecessor_is_compared_with(stream):
    stream.send(errors(43, 500))
    stream.switch_version(1)
    stream.send(errors(90, 10), version=1)
    stream.switch_version(2)
    stream.send(errors(90, DRIFT_TRIAL_ROWS), version=2)
    [rollback] = stream.found(*VERDICTS)
    assert (rollback.version, rollback.to_version) == (2, 0)


@pytest.mark.parametrize(
    ("before", "verdict"), [(0, Inconclusive), (4, Inconclusive), (5, Rollback)]
)
def test_a_predecessor_with_few_rows_is_compared_with_only_if_it_has_five(stream, before, verdict):
    stream.send(errors(43, max(before, 1)))
    stream.monitor.state.errors = stream.monitor.state.errors[:before]
    stream.switch_version(1)
    stream.send(errors(300, DRIFT_TRIAL_ROWS, 1), version=1)
    assert [type(each) for each in stream.decisions] == [verdict]


@pytest.mark.parametrize("seed", range(3))
def test_a_change_ends_a_trial_whose_comparison_is_out_of_date(stream, seed):
    stream.send(errors(43, 600, seed))
    stream.send(errors(100, 60, seed))
    assert [type(each) for each in stream.decisions] == [ErrorRose]
    stream.switch_version(1)
    stream.send(errors(60, 60, seed), version=1)
    stream.send(errors(240, 200, seed), version=1)
    assert len(stream.found(ErrorRose)) == 2 and not stream.found(Rollback)


def test_a_version_whose_error_is_far_above_its_hold_out_error_is_reported(stream):
    """The data changed while it was trained: it is no worse than the old version, and no good."""
    stream.send(errors(120, 500))
    stream.switch_version(1, hold_out_error=45)
    stream.send(errors(110, DRIFT_TRIAL_ROWS), version=1)
    [decision] = stream.decisions
    assert isinstance(decision, HoldOutErrorExceeded) and decision.hold_out_error == 45


def test_a_trial_continues_from_a_saved_state(stream):
    stream.send(errors(43, 500))
    stream.switch_version(1)
    stream.send(errors(90, 20), version=1)
    loaded = Monitor(MonitorState(1, stream.monitor.state.errors, stream.monitor.state.trial))
    assert loaded.restart(loaded.state.errors) == []
    found = [each for row in rows(errors(90, 100), 1, 520) for each in loaded.observe(row)]
    assert [type(each) for each in found] == [Rollback]
