"""Outputs of a program that is not trusted: what is accepted, and how a failure is explained."""

import os
import tarfile

import pytest

from common.artifacts import Golden, MeanErrors, Scores, Training
from retrain_worker.progress import MAX_EPOCHS, epochs_after, read_log
from retrain_worker.runners.outputs import (
    InvalidOutputError,
    parse_json,
    printable_line,
    printable_log,
    single_file,
)
from retrain_worker.runners.protocol import FileStream, StepState
from retrain_worker.steps import explain_failure


def tar_with(name: str, content: bytes = b"x", **header) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in header.items():
        setattr(member, key, value)
    return member.tobuf() + content + bytes(-len(content) % 512) + bytes(1024)


def as_stream(raw: bytes):
    yield from (raw[first : first + 700] for first in range(0, len(raw), 700))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no tar" * 500,
        bytes(2048),
        tar_with("other"),
        tar_with("../model.keras"),
        tar_with("/model.keras"),
        tar_with("model.keras", b"", type=tarfile.DIRTYPE),
        tar_with("model.keras", b"", type=tarfile.SYMTYPE, linkname="/etc/shadow"),
        tar_with("model.keras", b"", type=tarfile.LNKTYPE, linkname="../../etc/shadow"),
        tar_with("model.keras", b"", type=tarfile.FIFOTYPE),
        tar_with("model.keras", b"", type=tarfile.CHRTYPE),
        tar_with("model.keras", b"", type=tarfile.BLKTYPE),
        tar_with("model.keras", b"x" * 1024, type=tarfile.GNUTYPE_SPARSE),
        tar_with("model.keras", b"", size=100 << 30),
        tar_with("model.keras", b"x" * 1001),
    ],
)
def test_a_tar_with_anything_but_one_allowed_regular_file_is_refused(raw):
    with pytest.raises(InvalidOutputError, match=r"model\.keras"):
        single_file(as_stream(raw), "model.keras", 1000)


def test_a_file_that_ends_early_is_refused_and_a_whole_one_comes_as_it_was():
    content = os.urandom(200_000)
    raw = tar_with("model.keras", content)
    file = single_file(as_stream(raw), "model.keras", 1 << 20)
    assert file.size == len(content) and b"".join(file.chunks) == content
    with pytest.raises(InvalidOutputError, match="shorter"):
        list(single_file(as_stream(raw[:150_000]), "model.keras", 1 << 20).chunks)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (Scores, b'{"inputs": 10, "outputs": 1, "mae": NaN, "regions": []}'),
        (MeanErrors, b'{"challenger": NaN, "champion": 1, "mean": 1}'),
        (MeanErrors, b'{"challenger": 1e999, "champion": 1, "mean": 1}'),
        (MeanErrors, b'{"challenger": -1, "champion": 1, "mean": 1}'),
        (MeanErrors, b'{"challenger": "0", "champion": 1, "mean": 1}'),
        (MeanErrors, b"[]"),
        (Golden, b'{"rows": [], "predictions": []}'),
        (Golden, b'{"rows": [[1]], "predictions": [1, 2]}'),
        (Golden, b'{"rows": [[1e301]], "predictions": [1]}'),
        (Golden, b"[" * 100_000),
        (Training, b"\xff"),
    ],
)
def test_json_that_is_not_what_its_struct_says_is_refused(kind, raw):
    with pytest.raises(InvalidOutputError, match=r"x\.json is not what it has to be"):
        parse_json(kind, "x.json", FileStream(len(raw), [raw]))


@pytest.mark.parametrize(
    ("state", "log", "reason", "said", "retry"),
    [
        ({"code": 1, "seconds": 3600}, "", "", "longer than 3600 s", False),
        ({"code": 2}, "", "The columns do not fit.", "The columns do not fit.", False),
        ({"code": 2}, "usage", "", "crashed (exit code 2); the last line of its log: usage", False),
        ({"code": 137, "out_of_memory": True}, "", "", "ran out of memory", False),
        (
            {"code": 0 + 1, "out_of_memory": True},
            "x",
            "",
            "crashed (exit code 1); the last line of its log: x",
            False,
        ),
        ({"code": 1}, "a\nMemoryError\n", "", "ran out of memory", False),
        ({"code": 1}, "OSError: [Errno 28] No space left on device", "", "filled its disk", False),
        ({"code": 137}, "", "", "killed from outside", True),
        ({"code": 143}, "", "", "ended from outside", True),
        ({"code": 139}, "", "", "crashed (SIGSEGV); its log is empty", False),
        ({"code": 1}, "a\n\nValueError: \x1b[31mb\n\n", "", "ValueError: [31mb", False),
    ],
)
def test_a_failure_is_explained_in_a_sentence(state, log, reason, said, retry):
    failed = explain_failure("training", StepState(**state), log, reason)
    assert said in str(failed) and failed.retry == retry


def test_no_text_from_a_job_can_command_a_terminal():
    assert printable_line("a\x1b[2Jb\x00\u202ec\r\nd", 100) == "a [2Jb c d"
    assert printable_log(b"\x1b]0;x\x07 10%\r20%\r\n") == "\ufffd]0;x\ufffd 10%\n20%\n"


def epoch_lines(*numbers: int) -> bytes:
    line = '{{"epoch": {0}, "epochs": 20, "loss": 45.1, "val_loss": 50.25}}\n'
    return "".join(line.format(number) for number in numbers).encode()


def test_epochs_come_out_of_a_log_which_shows_them_as_people_read_them():
    log = read_log(b"training\n" + epoch_lines(3) + b"the end\n")
    assert log.text == "training\nepoch 3/20  loss 45.1  val_loss 50.25\nthe end\n"
    [epoch] = log.epochs
    assert (epoch.epoch, epoch.epochs, epoch.loss, epoch.val_loss) == (3, 20, 45.1, 50.25)


def test_an_epoch_is_reported_once_and_only_if_it_goes_on():
    [*epochs] = read_log(epoch_lines(1, 2, 2, 1, 5, 4)).epochs
    assert [epoch.epoch for epoch in epochs_after(0, epochs)] == [1, 2, 5]
    assert [epoch.epoch for epoch in epochs_after(2, epochs)] == [5]
    assert not epochs_after(5, epochs)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"epoch": 1}',
        b'{"epoch": "1", "epochs": 1}',
        b'{"epoch": -1, "epochs": 1}',
        b'{"epoch": 1e999, "epochs": 1}',
        b'{"epoch": 1, "epochs": 1, "loss": NaN}',
        b'{"epoch": 1, "epochs": 1, "loss": 1e301}',
        b'[{"epoch": 1, "epochs": 1}]',
        b'{"epoch": 1, "epochs": 1, "more": "' + b"x" * 300 + b'"}',
        b"{" * 100_000,
        b'{"epoch": \xff, "epochs": 1}',
    ],
    ids=lambda line: repr(line[:30]),
)
def test_a_line_that_is_no_epoch_stays_a_line_of_the_log(line):
    log = read_log(b"before\n" + line + b"\nafter")
    assert not log.epochs and log.text.endswith("\nafter")


def test_of_many_epochs_the_newest_are_kept():
    line = '{{"epoch":{0},"epochs":9}}\n'
    log = read_log("".join(line.format(number) for number in range(2000)).encode())
    assert len(log.epochs) == MAX_EPOCHS and log.epochs[-1].epoch == 1999
