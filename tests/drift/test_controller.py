"""What the controller makes of the API's answers, without a broker."""

import time

import msgspec
import pytest

from common.messages import MAX_TEXT_CHARACTERS, decode_event, encode
from drift.settings import DRIFT_COOLDOWN_SECONDS, DRIFT_MIN_ROWS, DRIFT_TRIAL_ROWS
from drift.state import Collecting, State, Training
from tests.support.drift import ControlledRows, errors


@pytest.fixture
def stream():
    return ControlledRows()


@pytest.fixture
def drifted(stream):
    """A case of drift that has enough rows for a job."""
    stream.send(errors(43, 500) + errors(120, DRIFT_MIN_ROWS + 100))
    return stream


@pytest.fixture
def training(drifted):
    """The same with its job submitted; the events so far are published."""
    drifted.act()
    drifted.controller.events_published()
    return drifted


def job_of(stream: ControlledRows) -> str:
    [case] = stream.state.cases
    assert isinstance(case.phase, Training)
    return case.phase.job


def test_an_unseen_version_that_is_not_the_current_one_changes_nothing(stream):
    stream.send(errors(43, 300))
    stream.send(errors(43, 1), version=7)
    stream.act()
    assert stream.controller.unseen_version is None
    assert stream.state.monitor.version == 0 and not stream.events()


def test_a_version_of_ours_whose_error_is_far_above_its_hold_out_error_opens_a_case(training):
    training.api.finish(job_of(training), error=45.0)
    training.send(errors(110, 1), 1)
    training.act()
    assert not training.state.cases and training.state.monitor.trial.hold_out_error == 45
    training.send(errors(110, DRIFT_TRIAL_ROWS), version=1)
    assert training.events() == ["deployed", "drift_detected"] and len(training.state.cases) == 1


def test_a_case_stays_until_rows_come_from_the_version_of_its_job(training):
    training.api.finish(job_of(training))
    training.act(times=3)
    assert len(training.state.cases) == 1 and not training.events()
    training.send(errors(45, 1), 1)
    training.act()
    assert not training.state.cases and training.events() == ["deployed"]


@pytest.mark.parametrize("refused", [1, 0])
def test_a_version_that_a_replica_refuses_counts_as_a_failed_attempt(training, refused):
    job = job_of(training)
    training.api.finish(job)
    training.api.refuse(refused, "it cannot be loaded")
    training.act()
    [case] = training.state.cases
    if refused == 1:
        assert isinstance(case.phase, Collecting) and training.events() == ["failed"]
    else:  # of an earlier version
        assert case.phase == Training(job) and not training.events()


def test_another_version_that_a_user_deploys_ends_the_wait_for_ours(training):
    training.api.finish(job_of(training))
    training.api.reports[2] = training.api.reports[0]
    training.api.deploy(2)
    training.act()
    assert not training.state.cases


@pytest.mark.parametrize("rows_first", [True, False])
def test_the_end_of_a_job_and_its_version_s_rows_may_come_in_any_order(training, rows_first):
    training.api.finish(job_of(training), error=45.0)
    steps = [lambda: training.send(errors(45, 1), 1), training.act]
    for step in steps if rows_first else [*reversed(steps), training.act]:
        step()
    assert not training.state.cases and training.events() == ["deployed"]
    training.send(errors(45, DRIFT_TRIAL_ROWS), 1)
    assert training.events() == ["deployed", "confirmed"]


def next_attempt(stream: ControlledRows) -> None:
    """Send the rows that the next attempt needs, after its pause."""
    stream.send(errors(120, len(stream.state.cases[0].row_ids)))
    stream.state.cooldown_until = 0


@pytest.mark.parametrize("event", ["not_promoted", "failed"])
def test_an_attempt_that_fails_is_repeated_with_twice_the_rows_and_three_in_all(training, event):
    for attempt in (2, 3):
        job = job_of(training)
        if event == "failed":
            training.api.fail(job)
        else:
            training.api.finish(job, deployed=False)
        training.act()
        [case] = training.state.cases
        assert (case.attempt, case.phase) == (attempt, Collecting(2 * len(case.row_ids)))
        training.act()
        assert isinstance(case.phase, Collecting)  # there are not so many yet
        next_attempt(training)
        training.act()
    training.api.fail(job_of(training))
    training.act()
    assert not training.state.cases
    expected = [event, "job_submitted"] * 2 + ["failed", "abandoned"]
    assert training.events() == expected


def test_a_cancelled_job_is_not_repeated(training):
    training.api.cancel(job_of(training))
    training.act()
    assert not training.state.cases and training.events() == ["cancelled"]


def test_a_job_that_the_api_has_lost_counts_as_failed(training):
    training.api.jobs.clear()
    training.act()
    assert training.events() == ["failed"] and training.state.cases[0].attempt == 2


def test_a_rejected_table_is_repeated_with_more_rows_and_three_attempts_in_all(training):
    training.api.fail(job_of(training))
    training.act()
    training.api.rejects_jobs = True
    for _ in range(2):
        next_attempt(training)
        training.act()
    assert training.events() == ["failed", "refused", "refused", "abandoned"]
    assert not training.state.cases


def test_a_job_that_was_submitted_before_a_kill_is_not_submitted_again(drifted):
    saved = msgspec.json.encode(drifted.state)
    drifted.act()
    restarted = ControlledRows(msgspec.json.decode(saved, type=State), drifted.next_id)
    restarted.controller.api = drifted.api
    restarted.act()
    assert len(drifted.api.jobs) == 1 and job_of(restarted) == job_of(drifted)


def test_a_history_without_the_rows_is_not_read_again_and_again(drifted):
    drifted.history = []
    drifted.act()
    drifted.send(errors(120, 10_000))
    [case] = drifted.state.cases
    assert len(case.row_ids) >= case.phase.rows_needed  # never out of reach
    drifted.act()
    assert len(drifted.replays) == 1
    drifted.controller.next_replay = 0
    drifted.act()
    assert len(drifted.replays) == 2 and isinstance(case.phase, Collecting)


def test_a_clock_that_was_set_back_does_not_prolong_the_cooldown(drifted):
    drifted.state.cooldown_until = 1e12
    drifted.act()
    assert drifted.state.cooldown_until <= time.time() + DRIFT_COOLDOWN_SECONDS
    assert not drifted.replays


def test_a_long_reason_is_cut_so_that_the_event_can_be_read_again(training):
    job = job_of(training)
    training.api.fail(job)
    training.api.jobs[job].reason = "x" * 10_000
    training.act()
    [event] = training.state.events
    assert len(event.text) == MAX_TEXT_CHARACTERS and decode_event(encode(event)) == event
