"""What `drift` makes of errors, one by one, without a broker; the errors are drawn at random."""

import random
import time

import msgspec
import pytest

from tests.support.environment import load

drift = load("drift/drift.py")
watching = drift.Watch.__init__.__globals__  # of its module, which load() does not return
heal = drift.Healer.__init__.__globals__
Event, Labelled = watching["Event"], heal["Labelled"]
ROWS, JUDGED = watching["DRIFT_MIN_ROWS"], watching["DRIFT_JUDGE_ROWS"]


def errors(mean: float, count: int, seed: int = 0) -> list[float]:
    """Return absolute errors that are spread as those of the diabetes data are."""
    draw = random.Random(f"{mean} {count} {seed}")
    return [abs(draw.gauss(0, mean / 0.8)) for _ in range(count)]


class Stream:
    """Rows with new ids for a Watch."""

    def __init__(self, state=None):
        self.watch, self.next = drift.Watch(state or drift.State()), 0

    def send(self, values: list[float], version: int | None = 0) -> None:
        for value in values:
            self.watch.see(drift.Row(self.next, value, version))
            self.next += 1

    def take_over(self, version: int, promised: float | None = None) -> None:
        self.watch.take_over(version, promised)

    @property
    def state(self):
        return self.watch.state

    def said(self) -> list[str]:
        return [event.event for event in self.state.events]


@pytest.mark.parametrize("seed", range(20))
def test_a_world_that_stays_raises_no_alarm(seed):
    stream = Stream()
    stream.send(errors(43, 20_000, seed))
    assert not stream.state.alarms and not stream.said()


@pytest.mark.parametrize("before", [100, 300, 2000, 20_000])
def test_a_risen_error_is_an_alarm_within_a_hundred_rows(before, figure):
    stream = Stream()
    stream.send(errors(43, before))
    rows = 0
    while not stream.state.alarms and rows < 100:
        stream.send(errors(90, 1, rows))
        rows += 1
    figure(f"after {before} rows at 43, an error of 90 was an alarm after {rows} rows")
    assert stream.said() == ["drift"]


def test_a_fallen_error_is_none():
    stream = Stream()
    stream.send(errors(90, 500) + errors(43, 1000))
    assert not stream.state.alarms and len(stream.state.errors) <= 1000


@pytest.mark.parametrize("absurd", [1e6, 1e300])
def test_an_absurd_error_does_not_blind_it(absurd):
    stream = Stream()
    stream.send(errors(43, 500) + [absurd] + errors(43, 500))
    stream.state.alarms.clear()  # of one such row it may make an alarm
    stream.send(errors(90, 100))
    assert stream.state.alarms


@pytest.mark.parametrize("absurd", [1e6, 1e200, 1.7e308])
def test_absurd_errors_do_not_hide_that_a_version_is_worse(absurd):
    stream = Stream()
    stream.send(errors(43, 500))
    stream.take_over(1, promised=45)
    stream.send([absurd] * 2 + errors(90, JUDGED), version=1)
    assert (stream.state.back.version, stream.state.back.to) == (1, 0)


def test_nor_do_they_make_a_good_version_look_worse():
    stream = Stream()
    stream.send(errors(43, 500))
    stream.take_over(1, promised=45)
    stream.send([*errors(43, JUDGED - 2), 1.7e308, 1.7e308], version=1)
    assert stream.state.back is None and "confirmed" in stream.said()


@pytest.mark.parametrize("error", [b"-1", b"1e999", b"null", b'"1"'])
def test_an_error_that_cannot_be_is_no_row(error):
    with pytest.raises(ValueError):
        drift.decode_row(b'{"id": 1, "absolute_error": %s, "model_version": 0}' % error)


@pytest.mark.parametrize("id", [b'""', b'"%s"' % (b"x" * 256), b"1" * 256])
def test_an_id_that_metric_would_refuse_is_none(id):
    with pytest.raises(ValueError):
        drift.decode_row(b'{"id": %s, "absolute_error": 1.0, "model_version": 0}' % id)


def test_what_an_alarm_collects_came_after_the_change():
    stream = Stream()
    stream.send(errors(43, 2000))
    stream.send(errors(90, ROWS + 200))
    [alarm] = stream.state.alarms
    assert len(alarm.rows) > ROWS and min(map(int, alarm.rows)) >= 2000


def test_a_world_that_changes_again_while_rows_are_collected_begins_the_collection_anew():
    stream = Stream()
    stream.send(errors(43, 500) + errors(90, 200) + errors(300, ROWS))
    [alarm] = stream.state.alarms
    assert min(map(int, alarm.rows)) >= 700 and stream.said() == ["drift"]


@pytest.mark.parametrize("seed", range(10))
def test_a_change_that_passes_before_there_is_a_job_is_over(seed):
    stream = Stream()
    stream.send(errors(43, 500, seed) + errors(90, 150, seed) + errors(43, 300, seed))
    assert not stream.state.alarms and stream.said() == ["drift", "over"]


def test_a_world_that_changes_while_a_job_runs_is_an_alarm_of_its_own():
    stream = Stream()
    stream.send(errors(43, 500) + errors(90, ROWS))
    stream.state.alarms[0].job = "running"
    stream.send(errors(300, ROWS))
    first, second = stream.state.alarms
    assert first.key != second.key and min(map(int, second.rows)) >= 500 + ROWS


@pytest.mark.parametrize("seed", range(5))
def test_a_change_that_passes_while_a_job_runs_costs_that_job_s_version_its_place(seed):
    stream = Stream()
    stream.send(errors(43, 500, seed) + errors(120, ROWS + 100, seed))
    stream.state.alarms[0].job = "j"
    stream.send(errors(43, 300, seed + 1))  # of the version that knew the old world
    assert [alarm.job for alarm in stream.state.alarms] == ["j"] and "over" not in stream.said()
    stream.take_over(1, promised=45.0)
    stream.send(errors(120, JUDGED, seed), 1)
    assert stream.state.back.version == 1 and stream.state.back.to == 0


def test_a_row_that_comes_twice_counts_once():
    once, twice = Stream(), Stream()
    values = errors(43, 800)
    once.send(values)
    for begin in range(0, 800, 400):  # as `metric` repeats its last batch
        for _ in range(2):
            twice.next = begin
            twice.send(values[begin : begin + 400])
    assert once.state.errors == twice.state.errors


def test_rows_of_another_version_are_not_mixed_with_those_of_the_watched_one():
    stream = Stream()
    stream.send(errors(43, 300))
    for number in range(300):  # another replica
        stream.send(errors(43, 1, number))
        stream.send(errors(900, 1, number), version=7)
    stream.send(errors(900, 100), version=None)
    assert stream.watch.stranger == 7  # the API is to be asked about it
    assert not stream.state.alarms and len(stream.state.errors) == 600


@pytest.mark.parametrize(("after", "verdict"), [(43, "confirmed"), (30, "confirmed"), (90, None)])
def test_a_version_that_takes_over_stays_unless_it_is_worse(after, verdict):
    stream = Stream()
    stream.send(errors(43, 500))
    stream.take_over(1)
    stream.send(errors(after, JUDGED), version=1)
    assert stream.said() == ["deployed", *([verdict] if verdict else [])]
    back = stream.state.back
    assert (back and (back.version, back.to)) == (None if verdict else (1, 0))


def test_under_drift_it_is_measured_by_what_its_predecessor_did_after_the_change():
    stream = Stream()
    stream.send(errors(43, 2000) + errors(120, ROWS + 100))
    stream.take_over(1, promised=45)
    stream.send(errors(60, JUDGED), version=1)  # worse than ever before, and better than now
    assert stream.said() == ["drift", "deployed", "confirmed"]


def test_of_two_that_take_over_quickly_the_second_is_measured_by_the_first_predecessor():
    stream = Stream()
    stream.send(errors(43, 500))
    stream.take_over(1)
    stream.send(errors(90, 10), version=1)
    stream.take_over(2)
    stream.send(errors(90, JUDGED), version=2)
    assert (stream.state.back.version, stream.state.back.to) == (2, 0)


@pytest.mark.parametrize(("before", "verdict"), [(0, "unjudged"), (4, "unjudged"), (5, None)])
def test_a_version_with_hardly_a_predecessor_is_compared_with_what_there_is(before, verdict):
    stream = Stream()
    stream.send(errors(43, max(before, 1)))
    stream.state.errors = stream.state.errors[:before]
    stream.take_over(1)
    stream.send(errors(300, JUDGED, 1), version=1)
    assert stream.said() == ["deployed", *([verdict] if verdict else [])]
    assert bool(stream.state.back) == (verdict is None)


@pytest.mark.parametrize("seed", range(3))
def test_a_change_while_rows_are_collected_is_no_measure_of_the_version_on_trial(seed):
    stream = Stream()
    stream.send(errors(43, 600, seed))
    stream.send(errors(100, 60, seed))
    assert stream.said() == ["drift"]
    stream.take_over(1)
    stream.send(errors(60, 60, seed), version=1)
    stream.send(errors(240, 200, seed), version=1)
    assert stream.state.back is None and "back" not in stream.said()


def test_what_was_gone_back_to_is_not_on_trial_and_goes_on_where_it_was():
    stream = Stream()
    stream.send(errors(43, 500))
    stream.take_over(1)
    stream.send(errors(200, JUDGED), version=1)
    stream.state.restored = stream.state.back
    stream.take_over(0)
    assert stream.state.trial is None and stream.state.version == 0
    stream.send(errors(90, 100))  # the world changed just then
    assert stream.said() == ["deployed", "deployed", "drift"]


def test_a_version_of_ours_that_breaks_its_promise_is_an_alarm():
    """The world changed while it was trained: it is no worse than the old one, and no good."""
    stream = Stream()
    stream.send(errors(120, 500))
    stream.take_over(1, promised=45)
    stream.send(errors(110, JUDGED), version=1)
    assert stream.said() == ["deployed", "drift"] and len(stream.state.alarms) == 1


@pytest.mark.parametrize("every", [1, 7, 100])
def test_a_life_that_ends_anywhere_is_gone_on_from(every):
    stream = Stream()
    values = errors(43, 500) + errors(90, ROWS + 100)
    for begin in range(0, len(values), every):
        stream.send(values[begin : begin + every])
        written = msgspec.json.encode(stream.state)
        next_life = Stream(msgspec.json.decode(written, type=drift.State))
        next_life.next, stream = stream.next, next_life
    [alarm] = stream.state.alarms
    assert stream.said() == ["drift"] and min(map(int, alarm.rows)) >= 500


@pytest.mark.parametrize("left", [b"", b"{", b'{"ids": 7}', b"\xff", b"[" * 5000])
def test_a_state_that_cannot_be_read_is_begun_anew(left, tmp_path):
    (tmp_path / "drift.json").write_bytes(left)
    assert drift.load(tmp_path / "drift.json") == drift.State()


def test_an_event_is_recorded_once(tmp_path):
    event = Event("2026-11-25T12:00:00+00:00", "drift", 1.5, 0, None, 'a "sentence", it is')
    for _ in range(2):
        drift.record(event, tmp_path / "log.csv")
    header, line = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "at,event,id,version,job,text"
    assert line == '2026-11-25T12:00:00+00:00,drift,1.5,0,,"a ""sentence"", it is"'


def test_an_event_is_recorded_beside_bytes_that_are_no_text(tmp_path):
    file, event = tmp_path / "log.csv", Event("now", "drift", 1, 0, None, "é")
    file.write_bytes(b"at,event\n\xff\n")
    drift.record(event, file)
    assert file.read_bytes() == b"at,event\n\xff\nnow,drift,1,0,,\xc3\xa9\n"


class Answers:
    """An API that gives prepared answers."""

    def __init__(self, **job):
        report = heal["Report"]("j", {"challenger": 45.0})
        self.answers = {"/jobs/j": heal["Job"]("j", **job)}
        self.answers["/models/current"] = heal["Current"](1, report)

    def call(self, kind, method, path, **what):
        return self.answers[path]

    def post(self, key, table):
        return heal["Job"]("j", "queued")


def test_an_alarm_is_kept_until_rows_come_from_the_version_of_its_job():
    stream, healer = alarmed(state="succeeded", version=1, report={"deployed": True})
    for _ in range(3):
        healer.turn()
    assert len(stream.state.alarms) == 1 and not stream.said()
    stream.send(errors(45, 1), 1)
    healer.turn()
    assert not stream.state.alarms and stream.said() == ["deployed"]


@pytest.mark.parametrize("refused", [1, 0])
def test_a_version_that_no_replica_can_serve_has_not_healed_anything(refused):
    stream, healer = alarmed(state="succeeded", version=1, report={"deployed": True})
    refusal = heal["Replica"](heal["Refusal"](refused, "it cannot be loaded"))
    healer.api.answers["/models/current"].replicas = {"a": heal["Replica"](), "b": refusal}
    healer.turn()
    [alarm] = stream.state.alarms  # a refusal of another version is old news
    assert (alarm.job, stream.said()) == ((None, ["failed"]) if refused == 1 else ("j", []))


def test_somebody_else_s_version_ends_the_wait_for_ours():
    stream, healer = alarmed(state="succeeded", version=1, report={"deployed": True})
    healer.api.answers["/models/current"].version = 2
    healer.turn()
    assert not stream.state.alarms


def alarmed(**job) -> tuple:
    """Return a stream with an alarm whose job has ended so, and its healer."""
    stream = Stream()
    stream.send(errors(43, 500) + errors(120, ROWS + 100))
    rows = [Labelled(number, [0.5] * 10, 1.0) for number in range(ROWS)]
    healer = drift.Healer(stream.watch, lambda alarm: rows)
    healer.api = Answers(**job)
    healer.turn()
    stream.state.events.clear()
    return stream, healer


@pytest.mark.parametrize("rows_first", [True, False])
def test_a_job_and_its_rows_may_be_heard_of_in_any_order(rows_first):
    stream, healer = alarmed(state="succeeded", version=1, report={"deployed": True})
    steps = [lambda: stream.send(errors(45, 1), 1), healer.turn]
    for step in steps if rows_first else [*reversed(steps), healer.turn]:
        step()
    assert not stream.state.alarms and stream.said() == ["deployed"]
    stream.send(errors(45, JUDGED), 1)
    assert stream.said() == ["deployed", "confirmed"]


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_what_is_not_deployed_is_tried_with_twice_the_rows_and_not_for_ever(state):
    stream, healer = alarmed(state=state, reason="so it is")
    for tries in (2, 3):
        healer.turn()
        [alarm] = stream.state.alarms
        assert (alarm.tries, alarm.need, alarm.job) == (tries, 2 * len(alarm.rows), None)
        healer.turn()
        assert alarm.job is None  # there are not so many yet
        stream.send(errors(120, len(alarm.rows)))
        stream.state.rested = 0
        healer.turn()
    healer.turn()
    assert not stream.state.alarms
    assert stream.said().count("kept" if state == "succeeded" else "failed") == 3
    assert stream.said()[-1] == "given up"


def test_a_job_that_somebody_cancelled_is_not_tried_again():
    stream, healer = alarmed(state="cancelled", reason="cancelled on request")
    healer.turn()
    assert not stream.state.alarms and stream.said() == ["cancelled"]


def refuse(key, table):
    raise heal["Refused"]("no")


def test_rows_that_the_api_refuses_are_tried_with_more_and_not_for_ever():
    stream, healer = alarmed(state="failed", reason="so it is")
    healer.api.post = refuse
    healer.turn()
    for _ in range(2):
        stream.send(errors(120, stream.state.alarms[0].need))
        stream.state.rested = 0
        healer.turn()
    assert stream.said() == ["failed", "refused", "refused", "given up"]
    assert not stream.state.alarms


def waiting(found: list) -> tuple:
    """Return a stream with an alarm that has rows enough, its healer, and how often it replayed."""
    stream, replayed = Stream(), []
    stream.send(errors(43, 500) + errors(120, ROWS + 100))
    healer = drift.Healer(stream.watch, lambda alarm: replayed.append(alarm) or found)
    healer.api = Answers(state="running")
    return stream, healer, replayed


def test_a_history_that_lacks_the_rows_is_not_replayed_again_and_again():
    stream, healer, replayed = waiting([])
    healer.turn()
    stream.send(errors(120, 10_000))
    assert len(stream.state.alarms[0].rows) >= stream.state.alarms[0].need  # never out of reach
    healer.turn()
    assert len(replayed) == 1
    healer.next_replay = 0
    healer.turn()
    assert len(replayed) == 2 and not stream.state.alarms[0].job


@pytest.mark.parametrize(("least", "most"), [(6, 5), (0, 5)])
def test_settings_with_which_an_alarm_would_wait_for_ever_are_refused(monkeypatch, least, most):
    monkeypatch.setattr(drift, "DRIFT_MIN_ROWS", least)
    monkeypatch.setattr(drift, "DRIFT_MAX_ROWS", most)
    with pytest.raises(SystemExit, match="DRIFT_MIN_ROWS is to be"):
        drift.main()


def test_a_clock_that_was_set_back_does_not_prolong_the_pause():
    stream, healer, replayed = waiting([])
    stream.state.rested = 1e12
    healer.turn()
    assert stream.state.rested <= time.time() + heal["DRIFT_COOLDOWN_SECONDS"] and not replayed


def test_a_bad_row_on_history_costs_itself_only():
    read = load("drift/streams.py").read
    good = [{"id": n, "body": [0.5] * 10, "y_true": 1.0} for n in range(3)]
    bad = [good[0] | {"y_true": 1e39}, good[0] | {"body": [None]}, 7, {}]
    for one in bad:
        body = msgspec.json.encode([good[0], one, *good[1:]])
        assert [row.id for row in read(body)] == [0, 1, 2]
    for body in (b"", b"\xff", b"{}", b"[" * 5000):
        assert read(body) == []


def test_rows_become_a_csv_whose_last_column_is_the_target():
    rows = [Labelled("another", [1.0], 7.0)]
    rows += [Labelled(n, [float(n), 0.5], 7.0) for n in range(2)]
    csv = heal["as_csv"](heal["usable"](rows)).decode().splitlines()
    assert csv == ["x1,x2,y_true", "0.0,0.5,7.0", "1.0,0.5,7.0"] and heal["usable"]([]) == []
