"""Where the project is, how long the tests may take, and what a machine lacks."""

import importlib.util
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


IN_CI = os.environ.get("CI") == "true"


SOAK = 10 if os.environ.get("SOAK") else 1  # `make soak`: tests go on for longer


def lacking(what: str):
    """Fail in CI, where everything has to be there; skip elsewhere."""
    (pytest.fail if IN_CI else pytest.skip)(f"needs {what}")


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
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        lacking("root, to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
