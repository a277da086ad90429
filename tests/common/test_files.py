"""Files are replaced whole, and a full disk is distinguished from other errors."""

import errno
import sqlite3

import pytest

from common.files import is_full, replace_file


def test_a_file_is_replaced(tmp_path):
    file = tmp_path / "state.json"
    for content in (b"old", b"new", b""):
        replace_file(file, content)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / "state.json.new").write_bytes(b"a longer text that was never finished")
    replace_file(tmp_path / "state.json", b"new", mode=0o444)
    assert (tmp_path / "state.json").read_bytes() == b"new"
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o444


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    file = tmp_path / "state.json"
    replace_file(file, b"old")
    (tmp_path / "state.json.new").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EACCES, "x"), False),
        (sqlite_error(sqlite3.SQLITE_FULL), True),
        (sqlite_error(sqlite3.SQLITE_IOERR_WRITE), True),
        (sqlite_error(sqlite3.SQLITE_BUSY), False),
        (ValueError(), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, full):
    assert is_full(error) == full
