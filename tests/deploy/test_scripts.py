"""The scripts of deploy/ that need nothing but a shell."""

import os
import subprocess

import pytest

from common.lifecycle import RENAMED_SETTINGS
from tests.support.environment import ROOT, copy_project


@pytest.fixture
def folder(tmp_path):
    copy_project(tmp_path / "clone")
    return tmp_path / "clone"


def run(folder, script: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [f"deploy/{script}"], cwd=folder, env=environment | {"PATH": os.environ["PATH"]},
        text=True, capture_output=True, timeout=30,
    )  # fmt: skip


@pytest.mark.parametrize(("old", "new"), RENAMED_SETTINGS.items())
def test_an_old_name_of_a_setting_is_refused_with_the_sentence_of_the_services(old, new):
    done = run(ROOT, "renamed", **{old: "1"})
    assert done.returncode == 1
    assert done.stderr == f"The setting {old} is called {new} now: set {new} instead.\n"


def test_an_old_name_in_env_is_refused_and_one_without_a_value_is_not(folder):
    (folder / ".env").write_text("KEEP_SECONDS=\nPYTHON_IMAGE=own\n")
    assert run(folder, "renamed").returncode == 0
    (folder / ".env").write_text("PYTHON_IMAGE=own\r\nKEEP_SECONDS=60\r\n")
    assert "KEEP_SECONDS is called METRIC_RETENTION_SECONDS" in run(folder, "renamed").stderr


def test_uv_is_given_what_pip_is_set_to_by_its_files_and_by_the_environment(tmp_path):
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://one.example/simple\ntrusted-host=two.example\n"
    )
    home = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    said = run(ROOT, "pip-settings", **home).stdout.splitlines()
    assert {"UV_DEFAULT_INDEX=https://one.example/simple", "UV_INSECURE_HOST=two.example"} <= {
        *said
    }
    said = run(ROOT, "pip-settings", **home, PIP_INDEX_URL="https://three.example").stdout
    assert "UV_DEFAULT_INDEX=https://three.example\n" in said
