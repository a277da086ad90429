"""A start after a stop, a kill, or a loss of the database."""

import signal

import pytest

from tests.support.api import KERAS, Api
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def own(tmp_path):
    """An API that may be killed."""
    with Api(tmp_path) as api:
        yield api


def test_incomplete_folders_are_removed_at_the_next_start(own):
    job_id = own.new_job()
    own.process.kill()
    for name in ("jobs/half", "incoming/half", "versions/7"):
        (own.data / name).mkdir()
        (own.data / name / "train.npy").write_bytes(b"torn")
    own.start_again()
    assert [path.name for path in (own.data / "jobs").iterdir()] == [job_id]
    assert not list((own.data / "incoming").iterdir()) + list((own.data / "versions").iterdir())


def test_a_restart_keeps_jobs_versions_and_the_current_one(own):
    version = own.version()
    job_id = own.new_job()
    jobs, models = own.get("/jobs").json(), own.get("/models").json()
    assert own.process.stop() == 0
    own.start_again()
    assert (own.get("/jobs").json(), own.get("/models").json()) == (jobs, models)
    assert own.get("/models/current").json()["version"] == version
    assert own.job(job_id)["state"] == "queued"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_code_0(own, number):
    own.process.process.send_signal(number)
    assert own.process.process.wait(15) == 0


def test_a_deleted_database_ends_the_process_and_the_next_start_adopts_the_folders(own):
    version = own.version()
    for path in own.data.glob("api.sqlite*"):
        path.unlink()
    wait_for(lambda: own.process.said().count("started, http") == 2, 20, "the next start")
    assert own.get(f"/models/{version}/model.keras").content == KERAS
    assert own.get("/models/current").json()["version"] == 0
    assert own.call("POST", f"/models/{version}/deploy").json()["version"] == version


def test_files_of_finished_jobs_are_removed_and_their_rows_stay(tmp_path):
    with Api(tmp_path, UPLOAD_RETENTION_SECONDS=1) as api:
        done, waiting = api.new_job(), api.new_job()
        api.call("DELETE", f"/jobs/{done}")
        wait_for(lambda: not (api.data / "jobs" / done).exists(), 30, "the removal")
        assert (api.data / "jobs" / waiting / "train.npy").exists()
        assert api.job(done)["state"] == "cancelled"
        assert api.get(f"/jobs/{done}/log").status_code == 404
