"""The store of `metric`: what a kill leaves, and what the next process makes of it."""

import errno
import sqlite3
from contextlib import closing

import msgspec
import pytest

from common import lifecycle
from common.consuming import Message
from common.messages import MetricCounts
from metric import metric
from metric.csv_file import CsvFile
from metric.database import FORMAT, Database, Row
from metric.store import Store
from tests.support import archive
from tests.support.bodies import ODD_IDS
from tests.support.csv_files import rows_of
from tests.support.rows import message

HEADER = "id,y_true,y_pred,absolute_error\n"
BALLAST_BYTES = 4096


@pytest.fixture(autouse=True)
def no_watchdog(monkeypatch):
    monkeypatch.setattr(lifecycle, "report_liveness", lambda: None)  # it would end the tests


def open_store(folder) -> Store:
    return Store(folder, BALLAST_BYTES)


def values_of(*ids, queues=("y_true", "y_pred")) -> list[metric.Value]:
    """Return both values of each id, the true one first."""
    bodies = {"y_true": 100.0, "y_pred": 98.5}
    messages = [
        Message(1, queue, {"model_version": 0}, message(row_id, bodies[queue]))
        for row_id in ids
        for queue in queues
    ]
    return metric.parse(messages)[0]


def put(store, *ids, now=1000.0) -> None:
    """Store whole rows as one batch, and mark it published."""
    metric.store_values(store, values_of(*ids), now)
    store.mark_published()


def commit(store, *ids) -> None:
    """Commit whole rows as one batch, which is not in the CSV."""
    write_csv, store.write_csv = store.write_csv, lambda: None
    metric.store_values(store, values_of(*ids), 0.0)
    store.write_csv = write_csv


def put_pending(store, *ids, now=0.0) -> None:
    metric.store_values(store, values_of(*ids, queues=["y_true"]), now)


@pytest.fixture
def store(logs):
    with closing(open_store(logs)) as store:
        yield store


@pytest.fixture
def reopen(store, logs):
    """Return a function that closes the store and opens it again, as the next process does."""
    opened = [store]

    def close_and_open() -> Store:
        opened[-1].close()
        opened.append(open_store(logs))
        return opened[-1]

    yield close_and_open
    opened[-1].close()


def text(logs) -> str:
    return (logs / "metric_log.csv").read_text()


def test_the_csv_has_its_header_before_any_row(store, logs):
    store.create_csv()
    assert text(logs) == HEADER


# After a kill


def test_a_batch_that_was_committed_and_not_written_is_written_by_the_next_process(
    store, reopen, logs
):
    put(store, 1)
    commit(store, 2)
    assert text(logs) == HEADER + "1,100.0,98.50,1.50\n"
    reopen().write_csv()
    assert text(logs) == HEADER + "1,100.0,98.50,1.50\n2,100.0,98.50,1.50\n"


@pytest.mark.parametrize("written", range(1, 19))
def test_a_batch_that_was_written_in_part_is_completed(store, logs, written):
    put(store, 1)
    commit(store, 2)
    with (logs / "metric_log.csv").open("a") as file:
        file.write("2,100.0,98.50,1.50\n"[:written])
    store.write_csv()
    assert text(logs) == HEADER + "1,100.0,98.50,1.50\n2,100.0,98.50,1.50\n"


def test_the_next_process_publishes_the_errors_of_a_batch_until_it_is_marked_published(
    store, reopen
):
    metric.store_values(store, values_of("a"), 0.0)
    store = reopen()
    [error] = store.unpublished_errors()
    assert msgspec.json.decode(error) == {
        "id": "a",
        "y_true": 100.0,
        "y_pred": 98.5,
        "absolute_error": 1.5,
        "model_version": 0,
    }
    store.mark_published()
    assert reopen().unpublished_errors() == []


# Files that others change


def test_bytes_that_others_appended_stay(store, logs):
    put(store, 1)
    commit(store, 2)
    with (logs / "metric_log.csv").open("a") as file:
        file.write("a note")
    store.write_csv()
    put(store, 3)
    assert text(logs).splitlines()[1:] == [
        "1,100.0,98.50,1.50",
        "a note",
        "2,100.0,98.50,1.50",
        "3,100.0,98.50,1.50",
    ]


def test_a_csv_that_was_deleted_is_started_anew(store, logs):
    put(store, 1)
    (logs / "metric_log.csv").unlink()
    put(store, 1, 2)
    assert text(logs) == HEADER + "2,100.0,98.50,1.50\n"


def test_a_published_batch_is_not_written_into_a_new_csv(store, reopen, logs):
    put(store, 1)
    (logs / "metric_log.csv").unlink()
    store = reopen()
    store.write_csv()
    store.create_csv()
    assert text(logs) == HEADER


def test_a_csv_that_is_deleted_between_commit_and_write_loses_no_row(store, logs):
    put(store, 1)
    commit(store, 2)
    (logs / "metric_log.csv").unlink()
    store.write_csv()
    assert text(logs) == HEADER + "2,100.0,98.50,1.50\n"


def test_a_csv_that_was_cut_is_put_aside_and_started_anew(store, logs):
    put(store, 1)
    (logs / "metric_log.csv").write_text(HEADER + "1,10")
    put(store, 2)
    assert text(logs) == HEADER + "2,100.0,98.50,1.50\n"
    [aside] = logs.glob("metric_log.cut-*.csv")
    assert aside.read_text() == HEADER + "1,10"


def test_a_database_that_was_deleted_or_replaced_is_noticed(store, logs):
    store.check_database()
    (logs / "metric.sqlite3").rename(logs / "moved")
    with pytest.raises(SystemExit, match="was deleted"):
        store.check_database()
    (logs / "metric.sqlite3").touch()
    with pytest.raises(SystemExit, match="was deleted"):
        store.check_database()


# A CSV without a database


@pytest.mark.parametrize("row_id", ODD_IDS, ids=lambda row_id: ascii(row_id)[:30])
def test_ids_in_an_adopted_csv_are_finished(store, reopen, logs, row_id):
    put(store, row_id, "last")
    before = text(logs)
    (logs / "metric.sqlite3").unlink()
    store = reopen()
    put(store, row_id, "new")
    assert text(logs) == before + "new,100.0,98.50,1.50\n"
    assert store.database.counts().repeated == 2


@pytest.mark.parametrize("tail", ["2,10", "2,100.0,98.50,1.50", '"2\n', '"2,\n3,4,5,6\n7'])
def test_an_adopted_csv_goes_on_after_its_last_whole_record(logs, tail):
    (logs / "metric_log.csv").write_text(HEADER + "1,100.0,98.50,1.50\n" + tail)
    with closing(open_store(logs)) as store:
        put(store, 1, 2)
    assert text(logs) == HEADER + "1,100.0,98.50,1.50\n2,100.0,98.50,1.50\n"
    [aside] = logs.glob("metric_log.cut-*.csv")
    assert aside.read_text() == tail


@pytest.mark.parametrize(
    "line", ["", "a note", "1,2,3", "1,2,3,4,5", 'a "b', '"a"b', "\x00", ",,,"]
)
def test_a_foreign_line_in_an_adopted_csv_stays(logs, line):
    adopted = f"{HEADER}1,100.0,98.50,1.50\n{line}\n2,100.0,98.50,1.50\n"
    (logs / "metric_log.csv").write_text(adopted)
    with closing(open_store(logs)) as store:
        put(store, 1, 2, 3)
    assert text(logs) == adopted + "3,100.0,98.50,1.50\n"


def test_a_stop_request_ends_the_adoption_of_a_csv_and_the_next_process_repeats_it(
    logs, monkeypatch
):
    (logs / "metric_log.csv").write_text(HEADER + "1,100.0,98.50,1.50\n2,10")

    def stop():
        raise lifecycle.StopRequested

    with monkeypatch.context() as patched:
        patched.setattr(lifecycle, "check_stop", stop)
        with pytest.raises(lifecycle.StopRequested):
            open_store(logs)
    with closing(open_store(logs)) as store:
        assert store.database.rows(["1"]) == {"1": Row(100.0, 98.5, None)}


# What is kept, and for how long


def test_ids_expire_after_the_retention_and_pending_ones_are_counted(store):
    put(store, "whole", now=0.0)
    put_pending(store, "old", now=0.0)
    put_pending(store, "young", now=1.0)
    store.expire(before=0.5)
    assert store.database.rows(["whole", "old", "young"]) == {"young": Row(100.0, None, None)}
    assert (store.database.counts().pending, store.database.counts().expired) == (1, 1)


def test_a_repeated_value_does_not_prolong_the_retention(store):
    put_pending(store, "a", now=0.0)
    put_pending(store, "a", now=50.0)
    store.expire(before=25.0)
    assert store.database.rows(["a"]) == {}


def test_the_counts_add_up(store):
    put(store, 1, 2)
    metric.store_values(store, values_of(3)[:1] + values_of(1), 0.0)
    metric.store_values(store, values_of(3)[1:] + values_of(4)[1:], 0.0)
    assert store.database.counts() == MetricCounts(joined=3, pending=1, repeated=2, expired=0)


# One process, and a full disk


@pytest.mark.slow
def test_a_second_process_is_refused_and_leaves_the_first_one_its_ballast(store, logs):
    before = (logs / "metric.ballast").stat()
    with pytest.raises(SystemExit, match="another metric already writes to"):
        open_store(logs)
    assert (logs / "metric.ballast").stat().st_mtime_ns == before.st_mtime_ns
    put(store, 1)


@pytest.mark.parametrize(
    ("owner", "step"),
    [(CsvFile, "write"), (Database, "commit_batch"), (Database, "mark_published")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_step_that_finds_the_disk_full_releases_the_ballast_and_runs_once_more(
    store, logs, owner, step, monkeypatch
):
    put(store, 1)
    errors, real = [OSError(errno.ENOSPC, "No space left on device")], getattr(owner, step)

    def fail_once(*arguments):
        if errors:
            raise errors.pop()
        return real(*arguments)

    monkeypatch.setattr(owner, step, fail_once)
    put(store, 2)
    assert text(logs).endswith("2,100.0,98.50,1.50\n")
    with pytest.raises(SystemExit, match="ballast is gone"):
        store.check_ballast()


def test_a_start_on_a_full_disk_waits_until_there_is_room_for_the_ballast_twice(logs, monkeypatch):
    free, waited = [0, BALLAST_BYTES - 1, BALLAST_BYTES], []
    monkeypatch.setattr("metric.ballast.free_bytes", lambda folder: free.pop(0))
    monkeypatch.setattr(lifecycle, "wait", waited.append)
    with closing(open_store(logs)) as store:
        store.check_ballast()
    assert len(waited) == 2 and not free


def test_a_stop_request_ends_the_wait_for_room(logs, monkeypatch):
    def stop(seconds):
        raise lifecycle.StopRequested

    monkeypatch.setattr("metric.ballast.free_bytes", lambda folder: 0)
    monkeypatch.setattr(lifecycle, "wait", stop)
    with pytest.raises(lifecycle.StopRequested):
        open_store(logs)
    assert not (logs / "metric.sqlite3").exists()


def test_an_error_that_is_not_a_full_disk_keeps_the_ballast(store, monkeypatch):
    def fail(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(CsvFile, "write", fail)
    with pytest.raises(PermissionError):
        put(store, 1)
    store.check_ballast()


def test_the_ballast_takes_over_the_file_of_the_version_before(logs):
    (logs / "metric.reserve").write_bytes(bytes(100))
    with closing(open_store(logs)):
        assert not (logs / "metric.reserve").exists()
        assert (logs / "metric.ballast").stat().st_size == BALLAST_BYTES


# Formats of the database

FORMAT_0 = """
CREATE TABLE ids (
    id TEXT PRIMARY KEY, y_true REAL, y_pred REAL, model_version, arrived REAL
) WITHOUT ROWID;
CREATE INDEX by_arrival ON ids (arrived);
CREATE TABLE state (
    offset INTEGER, csv BLOB DEFAULT x'', errors BLOB DEFAULT x'', settled INTEGER DEFAULT TRUE,
    joined INTEGER DEFAULT 0, waiting INTEGER DEFAULT 0,
    repeated INTEGER DEFAULT 0, orphans INTEGER DEFAULT 0
);
"""


def format_of(logs) -> int:
    with closing(sqlite3.connect(logs / "metric.sqlite3")) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def columns_of(logs) -> list[str]:
    with closing(sqlite3.connect(logs / "metric.sqlite3")) as connection:
        return [column[1] for column in connection.execute("PRAGMA table_info(state)")]


def write_format_0(logs, *, state: bool) -> None:
    """Write a database of format 0 with a pending row and, if asked to, an unpublished batch."""
    with closing(sqlite3.connect(logs / "metric.sqlite3")) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(FORMAT_0)
        if state:
            connection.execute("INSERT INTO ids VALUES ('late', 100.0, NULL, NULL, 1000.0)")
            records, errors = HEADER.encode() + b"1,100.0,98.50,1.50\n", b'{"id":1}\n{"id":2}'
            values = (0, records, errors, False, 7, 1, 3, 2)
            connection.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def test_a_database_of_format_0_is_migrated_with_its_unpublished_batch_and_its_counts(logs):
    write_format_0(logs, state=True)
    with closing(open_store(logs)) as store:
        assert store.database.counts() == MetricCounts(joined=7, pending=1, repeated=3, expired=2)
        assert store.database.rows(["late"]) == {"late": Row(100.0, None, None)}
        assert store.unpublished_errors() == [b'{"id":1}', b'{"id":2}']
        store.write_csv()
        store.mark_published()
        put(store, "late")
        assert store.database.counts() == MetricCounts(joined=8, pending=0, repeated=4, expired=2)
    assert text(logs) == HEADER + "1,100.0,98.50,1.50\nlate,100.0,98.50,1.50\n"
    assert format_of(logs) == FORMAT and "waiting" not in columns_of(logs)


def test_a_database_of_format_0_that_was_never_completed_adopts_the_csv(logs):
    write_format_0(logs, state=False)
    (logs / "metric_log.csv").write_text(HEADER + "1,100.0,98.50,1.50\n")
    with closing(open_store(logs)) as store:
        put(store, 1, 2)
    assert text(logs) == HEADER + "1,100.0,98.50,1.50\n2,100.0,98.50,1.50\n"


def test_a_kill_in_the_middle_of_a_migration_leaves_format_0(logs, monkeypatch):
    write_format_0(logs, state=True)
    with monkeypatch.context() as patched:
        patched.setattr("metric.database.SCHEMA", "SELECT no_such_column;")
        with pytest.raises(sqlite3.OperationalError):
            open_store(logs)
    assert format_of(logs) == 0 and "waiting" in columns_of(logs)
    with closing(open_store(logs)) as store:
        assert store.database.counts().joined == 7


def test_the_archived_system_is_migrated_and_nothing_is_lost(tmp_path):
    archive.unpack(tmp_path)
    facts = archive.expected()
    before = (tmp_path / "logs/metric_log.csv").read_bytes()
    with closing(open_store(tmp_path / "logs")) as store:
        store.write_csv()
        store.create_csv()
        known = facts["metric"]
        assert store.database.counts() == MetricCounts(
            known["joined"], known["waiting"], known["repeated"], known["orphans"]
        )
        pending = {
            row["id"]: Row(row["y_true"], row["y_pred"], row["model_version"])
            for row in known["halves"]
        }
        assert store.database.rows(list(pending)) == pending
        ids = [row[0] for row in rows_of(tmp_path / "logs/metric_log.csv")]
        finished = store.database.rows(ids)
        assert len(finished) + len(pending) == known["known_ids"]
        put(store, *finished)
        assert store.database.counts().joined == known["joined"]
    assert (tmp_path / "logs/metric_log.csv").read_bytes() == before


def test_a_database_of_a_newer_format_is_refused_with_a_sentence_and_left_as_it_is(store, logs):
    put(store, 1)
    store.close()
    with closing(sqlite3.connect(logs / "metric.sqlite3")) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(SystemExit, match=f"has format {FORMAT + 1}, and this metric knows"):
        open_store(logs)
    assert format_of(logs) == FORMAT + 1
