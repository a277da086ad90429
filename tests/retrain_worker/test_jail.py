"""Hostile programs in real containers: the job fails with a sentence, nobody else notices."""

import os
import re
import tarfile
from types import SimpleNamespace

import pytest

from tests.support.docker import docker
from tests.support.environment import load
from tests.support.hostile import SCORING, TRAINING
from tests.support.waiting import wait_for
from tests.support.worker_stage import left_of, scorer_image, send, small_api, wait_for_end, workers

load("retrain_worker/retrain_worker.py")
import outputs  # noqa: E402, the worker's own modules, which `load` made known
import step as steps  # noqa: E402

PEAK = 200  # MB of memory that the worker may take
LIMITS = {
    "TRAIN_TIMEOUT_SECONDS": "6",
    "TRAIN_MEMORY": "96m",
    "TRAIN_CPUS": "1",
    "TRAIN_OUTPUT_BYTES": str(8 << 20),
}


@pytest.fixture(scope="module")
def prison(tmp_path_factory, installed_broker):
    """One worker for all of them."""
    folder = tmp_path_factory.mktemp("prison")
    with (
        scorer_image(tmp_path_factory.mktemp("scorer")) as scorer,
        small_api() as api,
        workers(folder, api, installed_broker) as start,
    ):
        worker = start(MODEL_IMAGE=scorer, WORKER_NAME="jailer", **LIMITS)
        wait_for(worker.has_started, 30, "the worker")
        yield SimpleNamespace(api=api, broker=installed_broker, worker=worker)


def imprison(prison, figure, kind: str, program: str, role: str):
    """Run a job; return it once it ended and nothing of it is left."""
    job = prison.api.add(program)
    send(prison.broker, job)
    wait_for_end(job, 60)
    wait_for(lambda: not left_of(job), 20, "the clean-up")
    prison.worker.remember_peak()
    assert prison.worker.process.poll() is None and prison.worker.peak < PEAK
    figure(f"{role}, {kind}: {job.state} in container {job.containers[role]:.12}: {job.reason}")
    return job


@pytest.mark.parametrize("kind", TRAINING)
def test_a_hostile_training_fails_with_a_sentence_and_leaves_nothing(prison, figure, kind):
    program, reason = TRAINING[kind]
    job = imprison(prison, figure, kind, program, "training")
    assert job.state == "failed" and re.search(reason, job.reason), job.reason
    assert 10 < len(job.reason) < 1100 and job.reason.isprintable()
    assert len(job.log) <= 1 << 16 and "\x1b" not in job.log


@pytest.mark.parametrize("kind", SCORING)
def test_a_hostile_model_fails_where_it_is_scored(prison, figure, kind):
    program, reason = SCORING[kind]
    job = imprison(prison, figure, kind, f"good({program.encode()!r})", "scoring")
    assert job.state == "failed" and re.search(reason, job.reason), job.reason


def test_progress_that_changes_all_the_time_disturbs_nobody(prison, figure):
    program = "end = time.time() + 4\nwhile time.time() < end: progress(1)\ngood()"
    job = imprison(prison, figure, "fast progress", program, "training")
    assert job.state == "succeeded" and job.progress["epoch"] == 1


def test_outputs_as_large_as_allowed_are_delivered_in_little_memory(prison, figure):
    program = "good()\n(OUT / 'model.keras').write_bytes(b'PK' + bytes(7 << 20))"
    job = imprison(prison, figure, "large outputs", program, "training")
    assert job.state == "succeeded" and len(job.files["model.keras"]) == 2 + (7 << 20)
    figure(f"peak memory of the worker after all of them: {prison.worker.peak:.0f} MB")


def test_the_engine_is_left_without_a_trace(prison):
    ours = ["--filter", "label=monitoring.worker=jailer"]
    assert not docker("ps", "-aq", *ours) + docker("volume", "ls", "-q", *ours)


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
def test_a_tar_with_anything_but_one_bearable_regular_file_is_refused(raw):
    with pytest.raises(outputs.Unusable, match="model.keras"):
        outputs.only_file(as_stream(raw), "model.keras", 1000)


def test_a_file_that_ends_early_is_refused_and_a_whole_one_comes_as_it_was():
    content = os.urandom(200_000)
    raw = tar_with("model.keras", content)
    file = outputs.only_file(as_stream(raw), "model.keras", 1 << 20)
    assert file.size == len(content) and b"".join(file.chunks) == content
    with pytest.raises(outputs.Unusable, match="shorter"):
        list(outputs.only_file(as_stream(raw[:150_000]), "model.keras", 1 << 20).chunks)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (outputs.Scores, b'{"inputs": 10, "outputs": 1, "mae": NaN, "regions": []}'),
        (outputs.Errors, b'{"challenger": NaN, "champion": 1, "mean": 1}'),
        (outputs.Errors, b'{"challenger": 1e999, "champion": 1, "mean": 1}'),
        (outputs.Errors, b'{"challenger": -1, "champion": 1, "mean": 1}'),
        (outputs.Errors, b'{"challenger": "0", "champion": 1, "mean": 1}'),
        (outputs.Errors, b"[]"),
        (outputs.Golden, b'{"rows": [], "predictions": []}'),
        (outputs.Golden, b'{"rows": [[1]], "predictions": [1, 2]}'),
        (outputs.Golden, b'{"rows": [[1e301]], "predictions": [1]}'),
        (outputs.Golden, b"[" * 100_000),
        (outputs.Training, b"\xff"),
    ],
)
def test_json_that_lies_is_refused(kind, raw):
    with pytest.raises(outputs.Unusable, match="x.json is not what it has to be"):
        outputs.parse(kind, "x.json", outputs.File(len(raw), [raw]))


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
def test_a_failure_is_told_in_a_sentence(state, log, reason, said, retry):
    failed = steps.why("training", steps.State(**state), log, reason)
    assert said in str(failed) and failed.retry == retry


def test_no_text_from_a_job_can_command_a_terminal():
    assert outputs.plain("a\x1b[2Jb\x00\u202ec\r\nd", 100) == "a [2Jb c d"
    assert outputs.log_text(b"\x1b]0;x\x07 10%\r20%\r\n") == "\ufffd]0;x\ufffd 10%\n20%\n"
