"""python -m tools, which is the command of the image, too."""

import subprocess
import sys

import pytest

from tests.support.environment import ROOT


def run(*command: str) -> subprocess.CompletedProcess:
    program = [sys.executable, "-m", "tools", *command]
    return subprocess.run(program, cwd=ROOT, text=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("command", [[], ["samples"]])
def test_without_a_known_command_all_commands_are_listed(command):
    done = run(*command)
    assert done.returncode == 1
    assert all(f"\n{name} " in done.stderr for name in ("sample", "dead", "replay", "demo"))


@pytest.mark.slow
def test_a_command_is_given_what_follows_it(tmp_path):
    done = run("sample", str(tmp_path / "here"))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "here").iterdir())) == 5 == len(done.stdout.splitlines())
