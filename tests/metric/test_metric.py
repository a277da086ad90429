"""The joining, and the store: what a crash leaves, and what the next life makes of it."""

import csv
import errno
import io
from contextlib import closing

import msgspec
import pandas
import pytest

from tests.support.bodies import ODD_IDS, bad_bodies
from tests.support.environment import load

store = load("metric/store.py")
metric = load("metric/metric.py")


def half(id, value) -> bytes:
    return msgspec.json.encode({"id": id, "body": value})


def halves(*ids):
    """Both halves of each id, as `metric` reads them: what is true first."""
    messages = [(q, 0, half(id, v)) for id in ids for q, v in (("y_true", 100.0), ("y_pred", 98.5))]
    return metric.read(messages)[0]


def put(opened, *ids, now=1000.0) -> None:
    """Bring a batch of whole rows all the way."""
    metric.keep(opened, halves(*ids), now)
    opened.write_csv()
    opened.settle()


@pytest.fixture
def opened(logs):
    with closing(store.Store(logs)) as opened:
        yield opened


@pytest.fixture
def again(opened, logs):
    """Return a function that opens the store anew, as the next life does."""
    lives = []

    def open_again():
        opened.close()
        lives.append(store.Store(logs))
        return lives[-1]

    yield open_again
    for life in lives:
        life.close()


def text(logs) -> str:
    return (logs / "metric_log.csv").read_text()


HEADER = "id,y_true,y_pred,absolute_error\n"


@pytest.mark.parametrize("queue", ["y_true", "y_pred"])
@pytest.mark.parametrize("kind", bad_bodies("y_true"))
def test_a_body_that_cannot_be_used_is_refused_with_a_reason(queue, kind):
    bad = bad_bodies(queue)[kind]
    read, refused = metric.read([(queue, 0, half(1, 1.0)), (queue, 0, bad), (queue, 0, half(2, 1))])
    assert [half.id for _, _, half in read] == [1, 2]
    [(headers, body)] = refused
    assert body == bad and headers["reason"] and headers["queue"] == queue


def test_halves_join_in_whatever_order_they_come():
    read, _ = metric.read(
        [
            ("y_pred", 3, half("b", 1.5)),
            ("y_true", None, half("a", 2)),
            ("y_true", None, half("b", 4)),
            ("y_pred", 4, half("a", 2.25)),
        ]
    )
    joined, changed, repeated = metric.join({}, read)
    assert [(row.id, row.absolute_error, row.model_version) for row in joined] == [
        ("b", 2.5, 3),
        ("a", 0.25, 4),
    ]
    assert changed == {"a", "b"} and not repeated


def test_the_first_of_two_equal_halves_counts():
    read, _ = metric.read([("y_true", None, half(1, value)) for value in (5, 6)])
    rows = {}
    joined, _, repeated = metric.join(rows, read)
    assert (rows, joined, repeated) == ({"1": [5.0, None, None]}, [], 1)


def test_a_record_looks_as_the_specification_shows_it():
    row = metric.Joined(1765912012.233366, 101.0, 116.9499, 15.9499, 0)
    assert row.record() == b"1765912012.233366,101.0,116.95,15.95\n"


@pytest.mark.parametrize("id", ODD_IDS, ids=lambda id: ascii(id)[:30])
def test_an_odd_id_stays_one_cell_for_csv_and_for_pandas(id):
    row = metric.Joined(id, 101.0, 116.95, 15.95, 0)
    file = HEADER + row.record().decode() + "next,1.0,2.00,1.00\n"
    assert list(csv.reader(io.StringIO(file, newline="")))[1][0] == str(id)
    frame = pandas.read_csv(io.StringIO(file, newline=""), dtype=str, keep_default_na=False)
    assert frame.id.tolist() == [str(id), "next"]
    assert frame.absolute_error.tolist() == ["15.95", "1.00"]


def test_the_csv_begins_with_its_header_before_any_row(opened, logs):
    metric.keep(opened, [], 0.0)
    opened.write_csv()
    assert text(logs) == HEADER


def test_a_batch_that_was_committed_and_not_written_is_written_by_the_next_life(
    opened, again, logs
):
    put(opened, 1)
    metric.keep(opened, halves(2), 0.0)
    opened = again()
    assert not opened.state("settled")[0]
    opened.write_csv()
    assert text(logs) == HEADER + "1,100.0,98.50,1.50\n2,100.0,98.50,1.50\n"


@pytest.mark.parametrize("written", range(1, 19))
def test_a_batch_that_was_written_in_part_is_completed(opened, logs, written):
    put(opened, 1)
    metric.keep(opened, halves(2), 0.0)
    with (logs / "metric_log.csv").open("a") as file:
        file.write("2,100.0,98.50,1.50\n"[:written])
    opened.write_csv()
    assert text(logs) == HEADER + "1,100.0,98.50,1.50\n2,100.0,98.50,1.50\n"


def test_the_errors_of_an_unsettled_batch_are_still_there_for_the_next_life(opened, again):
    metric.keep(opened, halves("a"), 0.0)
    opened = again()
    assert msgspec.json.decode(opened.state("errors")[0]) == {
        "id": "a",
        "y_true": 100.0,
        "y_pred": 98.5,
        "absolute_error": 1.5,
        "model_version": 0,
    }


def test_what_somebody_else_wrote_behind_our_end_stays(opened, logs):
    put(opened, 1)
    metric.keep(opened, halves(2), 0.0)
    with (logs / "metric_log.csv").open("a") as file:
        file.write("a note")
    opened.write_csv()
    put(opened, 3)
    assert text(logs).splitlines()[1:] == [
        "1,100.0,98.50,1.50",
        "a note",
        "2,100.0,98.50,1.50",
        "3,100.0,98.50,1.50",
    ]


def test_a_csv_that_was_deleted_is_begun_anew(opened, logs):
    put(opened, 1)
    (logs / "metric_log.csv").unlink()
    put(opened, 1, 2)
    assert text(logs) == HEADER + "2,100.0,98.50,1.50\n"


def test_a_csv_that_is_deleted_between_commit_and_write_loses_no_row(opened, logs):
    put(opened, 1)
    metric.keep(opened, halves(2), 0.0)
    (logs / "metric_log.csv").unlink()
    opened.write_csv()
    assert text(logs) == HEADER + "2,100.0,98.50,1.50\n"


def test_a_csv_that_was_cut_is_put_aside_and_begun_anew(opened, logs):
    put(opened, 1)
    (logs / "metric_log.csv").write_text(HEADER + "1,10")
    put(opened, 2)
    assert text(logs) == HEADER + "2,100.0,98.50,1.50\n"
    [aside] = logs.glob("metric_log.cut-*.csv")
    assert aside.read_text() == HEADER + "1,10"


@pytest.mark.parametrize("id", ODD_IDS, ids=lambda id: ascii(id)[:30])
def test_without_its_database_it_takes_the_ids_in_the_csv_as_finished(opened, logs, id):
    put(opened, id, "last")
    before = text(logs)
    opened.close()
    (logs / "metric.sqlite3").unlink()
    opened = store.Store(logs)
    put(opened, id, "new")
    assert text(logs) == before + "new,100.0,98.50,1.50\n"
    assert opened.state("repeated") == (2,)
    opened.close()


@pytest.mark.parametrize("tail", ["2,10", "2,100.0,98.50,1.50", '"2\n', '"2,\n3,4,5,6\n7'])
def test_without_its_database_it_goes_on_after_the_last_full_record(logs, tail):
    (logs / "metric_log.csv").write_text(HEADER + "1,100.0,98.50,1.50\n" + tail)
    opened = store.Store(logs)
    put(opened, 1, 2)
    assert text(logs) == HEADER + "1,100.0,98.50,1.50\n2,100.0,98.50,1.50\n"
    [aside] = logs.glob("metric_log.cut-*.csv")
    assert aside.read_text() == tail
    opened.close()


@pytest.mark.parametrize(
    "line", ["", "a note", "1,2,3", "1,2,3,4,5", 'a "b', '"a"b', "\x00", ",,,"]
)
def test_a_foreign_line_in_a_csv_without_database_stays(logs, line):
    begun = f"{HEADER}1,100.0,98.50,1.50\n{line}\n2,100.0,98.50,1.50\n"
    (logs / "metric_log.csv").write_text(begun)
    opened = store.Store(logs)
    put(opened, 1, 2, 3)
    assert text(logs) == begun + "3,100.0,98.50,1.50\n"
    opened.close()


def test_a_stray_quote_in_a_csv_without_database_swallows_a_page_at_most(logs):
    rows = [f"{n},100.0,98.50,1.50\n" for n in range(2000)]
    (logs / "metric_log.csv").write_text(HEADER + '"stray\n' + "".join(rows))
    opened = store.Store(logs)
    assert len(opened.rows([str(n) for n in range(1000, 2000)])) == 1000
    opened.close()


def test_a_database_that_was_deleted_or_replaced_is_noticed(opened, logs):
    opened.check()
    (logs / "metric.sqlite3").rename(logs / "moved")
    with pytest.raises(SystemExit, match="was deleted"):
        opened.check()
    (logs / "metric.sqlite3").touch()
    with pytest.raises(SystemExit, match="was deleted"):
        opened.check()


def test_a_second_one_leaves_the_first_one_its_reserve(opened, logs):
    before = (logs / "metric.reserve").stat()
    with pytest.raises(SystemExit):
        store.Store(logs)
    assert (logs / "metric.reserve").stat().st_mtime_ns == before.st_mtime_ns


def test_what_came_longer_ago_than_it_is_kept_is_forgotten_and_orphans_are_counted(opened):
    put(opened, "whole", now=0.0)
    metric.keep(opened, halves("alone")[:1], 0.0)
    metric.keep(opened, halves("young")[:1], 1.0)
    opened.forget(store.KEEP_SECONDS + 0.5)
    assert opened.rows(["whole", "alone", "young"]) == {"young": [100.0, None, None]}
    assert opened.state("waiting, orphans") == (1, 1)


def test_a_half_that_came_again_is_not_kept_for_longer(opened):
    metric.keep(opened, halves("alone")[:1], 0.0)
    metric.keep(opened, halves("alone")[:1], 50.0)
    assert opened.database.execute("SELECT arrived FROM ids").fetchall() == [(0.0,)]


def test_the_counts_add_up(opened):
    put(opened, 1, 2)
    metric.keep(opened, halves(3)[:1] + halves(1), 0.0)
    metric.keep(opened, halves(3)[1:] + halves(4)[1:], 0.0)
    assert opened.state("joined, waiting, repeated, orphans") == (3, 1, 2, 0)


def test_two_of_them_on_one_folder_are_one_too_many(opened, logs):
    with pytest.raises(SystemExit, match="another metric already writes to"):
        store.Store(logs)


@pytest.mark.parametrize("step", ["write_csv", "commit", "settle"])
def test_a_step_that_finds_the_disk_full_gives_up_the_reserve_and_runs_once_more(
    opened, logs, step, monkeypatch
):
    put(opened, 1)
    full = [OSError(errno.ENOSPC, "No space left on device")]
    real = getattr(store.Store, step).__wrapped__

    def once(self, *arguments):
        if full:
            raise full.pop()
        return real(self, *arguments)

    monkeypatch.setattr(store.Store, step, store.with_room(once))
    put(opened, 2)
    assert text(logs).endswith("2,100.0,98.50,1.50\n")
    assert not opened.has_reserve()
