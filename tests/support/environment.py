"""Where the project is, how long the tests may take, and what a machine lacks."""

import importlib.util
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).parents[2]
IN_CI = os.environ.get("CI") == "true"
SOAK = 10 if os.environ.get("SOAK") else 1  # `make soak`: tests go on for longer


def lacking(what: str):
    """Fail in CI, where everything has to be there; skip elsewhere."""
    (pytest.fail if IN_CI else pytest.skip)(f"needs {what}")


class RunningTest:
    """The test that runs now, as conftest.py sets it. Between tests it is None."""

    markers: ClassVar[set[str] | None] = None


def needs(marker: str) -> None:
    """Fail if the running test uses what its markers do not say: `make check` would choose it."""
    markers = RunningTest.markers
    if markers is not None and marker not in markers:
        pytest.fail(
            f"This test needs {marker}: add it to FIXTURES in conftest.py, or mark the test."
        )


def load(path: str):
    """Import a service's file as a module; its folder is where it finds its neighbours."""
    file = ROOT / path
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_project(folder: Path) -> None:
    """Copy what a clone would have, as it is on disk now, without what running leaves behind."""
    left = [".git", ".venv", ".venv-check", ".run", "logs", "sample", "__pycache__", ".*_cache"]
    left += [".hypothesis", ".schemathesis"]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left))
    (folder / "logs").mkdir()
    (folder / "sample").mkdir()


@contextmanager
def small_disk_at(folder: Path, size: str):
    """Let `folder` be a file system of its own, of a `size` such as 40m."""
    needs("root")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        lacking("root, to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
