"""The files of `drift`: drift.json in its formats, and drift_log.csv."""

import json

import msgspec
import pytest

from common.messages import DriftEvent
from drift.state import (
    FORMAT,
    Collecting,
    DriftCase,
    MonitorState,
    Rollback,
    State,
    Training,
    Trial,
)
from drift.state_store import StateStore
from tests.support import archive
from tests.support.drift import ControlledRows, errors

# as the version before wrote it
ALARM = {"key": "drift-1", "noticed": 1e9, "need": 300, "rows": ["7", "8"], "since": "6"}
ALARM |= {"usual": 43.5, "tries": 2, "job": None}
BACK = {"version": 2, "to": 1, "errors": [1.0, 2.0], "why": "it is worse"}
EVENT = {
    "at": "now",
    "event": "over",
    "id": 1.5,
    "version": 1,
    "job": None,
    "text": "it has passed",
}
OLD = {
    "offset": 9,
    "ids": ["6", "7", "8"],
    "version": 1,
    "errors": [1.0, 2.0],
    "trial": None,
    "back": None,
    "restored": None,
    "alarms": [],
    "jobs": ["j1"],
    "rested": 1e9,
    "events": [],
}


@pytest.fixture
def store(tmp_path):
    return StateStore(tmp_path)


@pytest.fixture
def load(tmp_path, store):
    """Return a function that loads what a drift.json with this content becomes."""

    def load(content: bytes | dict) -> State:
        content = json.dumps(content).encode() if isinstance(content, dict) else content
        (tmp_path / "drift.json").write_bytes(content)
        return store.load()

    return load


def migrated(**changes) -> State:
    """Return OLD as the present state; `changes` replace some fields."""
    state = State(FORMAT, 9, ["6", "7", "8"], MonitorState(1, [1.0, 2.0], None))
    state.jobs, state.cooldown_until = ["j1"], 1e9
    return msgspec.structs.replace(state, **changes)


def test_a_missing_state_is_a_new_one(store):
    assert store.load() == State()


def test_a_saved_state_is_loaded(store):
    stream = ControlledRows()
    stream.send(errors(43, 500) + errors(120, 200))
    assert stream.state.cases and stream.state.events
    store.save(stream.state)
    assert store.load() == stream.state


def test_an_unchanged_state_is_not_written_again(tmp_path, store):
    for _ in range(2):
        store.save(State(offset=7))
        (tmp_path / "drift.json").chmod(0o400)
        inode = (tmp_path / "drift.json").stat().st_ino
    assert (tmp_path / "drift.json").stat().st_ino == inode
    store.save(State(offset=8))
    assert (tmp_path / "drift.json").stat().st_ino != inode


def test_an_empty_state_of_format_1_is_a_new_one(load):
    assert load({}) == State()


def test_a_state_of_format_1_that_collects_rows_is_migrated(load):
    case = DriftCase("drift-1", 1e9, Collecting(300), ["7", "8"], "6", 43.5, 2)
    assert load(OLD | {"alarms": [ALARM]}) == migrated(cases=[case])


def test_a_state_of_format_1_with_a_job_under_way_is_migrated(load):
    second = ALARM | {"key": "drift-2", "tries": 1}
    state = load(OLD | {"alarms": [ALARM | {"job": "j1"}, second]})
    assert [case.phase for case in state.cases] == [Training("j1"), Collecting(300)]
    assert [(case.key, case.attempt) for case in state.cases] == [("drift-1", 2), ("drift-2", 1)]


def test_a_state_of_format_1_with_a_trial_is_migrated(load):
    trial = {"predecessor": 0, "before": [3.0], "promised": 41.5, "after": [1.0, 2.0]}
    monitor = MonitorState(1, [1.0, 2.0], Trial(0, [3.0], 41.5, [1.0, 2.0]))
    assert load(OLD | {"trial": trial}) == migrated(monitor=monitor)


@pytest.mark.parametrize(("field", "state"), [("back", "pending"), ("restored", "awaiting_rows")])
def test_a_state_of_format_1_with_a_rollback_is_migrated(load, field, state):
    rollback = Rollback(2, 1, [1.0, 2.0], "it is worse", state)
    assert load(OLD | {field: BACK}) == migrated(rollback=rollback)


def test_an_event_of_format_1_that_is_not_published_yet_has_its_present_name(load):
    [event] = load(OLD | {"events": [EVENT]}).events
    assert event == DriftEvent("now", "recovered", 1.5, 1, None, "it has passed")


def test_the_archived_state_is_migrated(tmp_path):
    archive.unpack(tmp_path)
    expected = archive.expected()["drift"]
    state = StateStore(tmp_path / "logs").load()
    [alarm], trial, monitor = expected["alarms"], expected["trial"], state.monitor
    assert (state.format, state.offset) == (FORMAT, expected["offset"])
    assert (monitor.version, len(monitor.errors)) == (expected["version"], expected["errors"])
    assert (len(state.recent_ids), state.jobs) == (expected["ids"], expected["jobs"])
    [case] = state.cases
    assert (case.key, case.phase) == (alarm["key"], Collecting(alarm["need"]))
    assert (case.after_id, case.baseline_error) == (alarm["since"], alarm["usual"])
    assert (len(case.row_ids), case.attempt) == (alarm["rows"], alarm["tries"])
    assert monitor.trial.predecessor == trial["predecessor"]
    assert len(monitor.trial.predecessor_errors) == trial["before"]
    assert len(monitor.trial.errors) == trial["after"]
    assert monitor.trial.hold_out_error == trial["promised"]
    assert state.rollback is None and not state.events


def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path, load):
    with pytest.raises(SystemExit, match=r"format 3, and this version of drift reads .* up to 2"):
        load({"format": 3, "offset": "another kind"})
    assert [file.name for file in tmp_path.iterdir()] == ["drift.json"]


UNREADABLE = [b"", b"{", b'{"ids": 7}', b"\xff", b"[" * 5000, b"[]"]
UNREADABLE += [b'{"format": 2, "offset": "9"}', b'{"format": 0}', b'{"format": "new"}']


@pytest.mark.parametrize("content", UNREADABLE)
def test_an_unreadable_state_is_kept_under_another_name_and_a_new_one_starts(
    tmp_path, load, content, caplog
):
    assert load(content) == State()
    [kept] = tmp_path.iterdir()
    assert kept.name.startswith("drift.json.unreadable-") and kept.read_bytes() == content
    assert kept.name in caplog.text


def test_an_event_is_recorded_once(tmp_path, store):
    event = DriftEvent("2026-11-25T12:00:00+00:00", "recovered", 1.5, 0, None, 'a "word", it is')
    for _ in range(2):
        store.append_event(event)
    header, line = (tmp_path / "drift_log.csv").read_text().splitlines()
    assert header == "at,event,id,version,job,text"
    assert line == '2026-11-25T12:00:00+00:00,recovered,1.5,0,,"a ""word"", it is"'


def test_an_event_is_appended_to_lines_of_any_bytes(tmp_path, store):
    file, event = tmp_path / "drift_log.csv", DriftEvent("now", "recovered", 1, 0, None, "é")
    file.write_bytes(b"at,event\n\xff\n")
    store.append_event(event)
    assert file.read_bytes() == b"at,event\n\xff\nnow,recovered,1,0,,\xc3\xa9\n"
