"""The database of the version before is migrated; one of a newer release is refused."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from retrain_api.storage.database import FORMAT, Database
from tests.support import archive
from tests.support.api import Api, csv_text, epoch
from tests.support.environment import ROOT


def user_version(path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


@pytest.fixture
def archived(tmp_path):
    """A folder as the version before left it."""
    archive.unpack(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_data_of_the_version_before_are_read_and_continued(archived):
    database = archived / "data/api.sqlite"
    assert user_version(database) == 1
    with closing(sqlite3.connect(database)) as db:
        jobs = dict(db.execute("SELECT id, state FROM jobs").fetchall())
        versions = [row[0] for row in db.execute("SELECT version FROM versions WHERE NOT deleted")]
        [current] = db.execute("SELECT current FROM state").fetchone()
    with Api(archived) as api:
        assert user_version(database) == FORMAT == 2
        assert {
            job["id"]: job["state"] for job in api.get("/jobs?limit=999").json()["jobs"]
        } == jobs
        assert all(api.get(f"/jobs/{job_id}").ok for job_id in jobs)
        models = api.get("/models").json()
        assert [model["version"] for model in models["models"]] == [0, *versions]
        assert models["current"] == current
        for version in versions:
            assert api.get(f"/models/{version}/model.keras").ok
        job_id = api.new_job()
        api.claim(job_id)
        assert api.progress(job_id, 1, epochs=[epoch(1)]).ok
        assert api.result(job_id, 1, compared_with=current).json()["version"] > max(versions)


def test_a_migration_that_is_interrupted_leaves_the_old_format(archived, monkeypatch):
    path = archived / "data/api.sqlite"
    monkeypatch.setattr("retrain_api.storage.database.TABLES", "CREATE TABLE epochs (job); fail;")
    with pytest.raises(sqlite3.OperationalError):
        Database(path)
    assert user_version(path) == 1
    with closing(sqlite3.connect(path)) as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    assert "jobs" in tables and "epochs" not in tables


@pytest.mark.slow
def test_a_database_of_a_newer_release_is_refused_with_a_sentence(tmp_path, monkeypatch):
    with Api(tmp_path) as api:
        assert api.upload(files={"data": ("a.csv", csv_text())}).ok
    with closing(sqlite3.connect(api.data / "api.sqlite")) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    monkeypatch.setenv("DATA_DIR", str(api.data))
    command = [sys.executable, "-m", "retrain_api"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.strip().endswith("or set DATA_DIR to another folder")
    assert f"has format {FORMAT + 1}" in ended.stderr


@pytest.mark.slow
def test_a_setting_with_an_old_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KEEP_UPLOADS_SECONDS", "5")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    command = [sys.executable, "-m", "retrain_api"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "UPLOAD_RETENTION_SECONDS" in ended.stderr
