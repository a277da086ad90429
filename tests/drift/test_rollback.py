"""When a version is rolled back, and how: before and after a kill, and while the API is down."""

import time

import pytest

from drift.settings import DRIFT_MIN_ROWS, DRIFT_TRIAL_ROWS
from drift.state import Training
from tests.support.drift import ControlledRows, errors


@pytest.fixture
def stream():
    return ControlledRows()


@pytest.mark.parametrize("seed", range(5))
def test_a_change_that_passes_while_a_job_trains_leads_to_a_rollback_of_its_version(stream, seed):
    stream.send(errors(43, 500, seed) + errors(120, DRIFT_MIN_ROWS + 100, seed))
    stream.act()
    [case] = stream.state.cases
    assert isinstance(case.phase, Training)
    job = case.phase.job
    stream.send(errors(43, 300, seed + 1))  # of the version that has learned the old data
    assert (
        stream.state.cases == [case]
        and case.phase == Training(job)
        and "recovered" not in stream.events()
    )
    stream.api.finish(job, error=45.0)
    stream.send(errors(120, 1, seed), 1)
    stream.act()
    stream.send(errors(120, DRIFT_TRIAL_ROWS, seed), 1)
    rollback = stream.state.rollback
    assert (rollback.version, rollback.to_version, rollback.state) == (1, 0, "pending")


def test_a_version_that_is_worse_is_rolled_back_and_the_other_one_continues_without_a_trial(stream):
    stream.send(errors(43, 500))
    stream.api.reports[1] = stream.api.reports[0]
    stream.api.deploy(1)
    stream.send(errors(200, 1), version=1)
    stream.act()
    stream.send(errors(200, DRIFT_TRIAL_ROWS), version=1)
    stream.act()
    assert stream.api.version == 0 and stream.state.rollback.state == "awaiting_rows"
    stream.send(errors(43, 1), version=0)
    stream.act()
    assert stream.state.rollback is None and stream.state.monitor.trial is None
    assert stream.state.monitor.version == 0
    stream.send(errors(90, 100))  # the data changed just then
    assert stream.events() == ["deployed", "rolled_back", "deployed", "drift_detected"]


def pending_rollback(stream: ControlledRows) -> None:
    stream.send(errors(43, 500))
    stream.api.reports |= {1: stream.api.reports[0], 2: stream.api.reports[0]}
    stream.api.deploy(1)
    stream.send(errors(200, 1), version=1)
    stream.act()
    stream.send(errors(200, DRIFT_TRIAL_ROWS), version=1)
    stream.controller.events_published()
    assert stream.state.rollback.state == "pending"


def test_a_rollback_that_was_done_before_a_kill_is_reported(stream):
    pending_rollback(stream)
    stream.api.deploy(0)
    stream.act()
    assert stream.events() == ["rolled_back"] and stream.state.rollback.state == "awaiting_rows"


@pytest.mark.parametrize("case", ["another version is current", "the predecessor is deleted"])
def test_a_rollback_that_is_out_of_date_is_dropped(stream, case):
    pending_rollback(stream)
    if case == "another version is current":
        stream.api.deploy(2)
    else:
        del stream.api.reports[0]
    stream.act()
    assert stream.state.rollback is None and not stream.events()


def test_a_rollback_waits_for_an_api_that_is_down(stream, monkeypatch):
    pending_rollback(stream)
    stream.api.is_down = True
    stream.act()
    stream.api.is_down = False
    stream.act()  # too early
    assert stream.state.rollback.state == "pending" and stream.api.version == 1
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    stream.act()
    assert stream.state.rollback.state == "awaiting_rows" and stream.api.version == 0
