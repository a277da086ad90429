"""What a first hour may meet: each error is one sentence that says what to do."""

import os
import socket
import subprocess

import pytest

from tests.support.docker import has_docker
from tests.support.environment import ROOT, copy_project, lacking

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone in which any user may read, for some of these are not root."""
    if not has_docker():
        lacking("a Docker engine")
    folder = tmp_path_factory.mktemp("newcomer") / "clone"
    copy_project(folder)
    return folder


def output_of(clone, *command: str, user: int | None = None, **environment: str) -> str:
    """Return what a command that has to fail says at last."""
    settings = {"MODE": "docker", "COMPOSE_PROJECT_NAME": f"newcomer{os.getpid()}"} | environment
    done = subprocess.run(
        command or ["make", "up"],
        cwd=clone,
        env=os.environ | settings,
        user=user,
        extra_groups=[] if user else None,
        text=True,
        timeout=60,
        capture_output=True,
    )
    assert done.returncode
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    return said[-1]


def test_a_port_that_is_taken(clone):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = output_of(clone, API_PORT=str(port))
    assert said == f"Port {port} is taken. Another is chosen so: make up API_PORT={port + 1}"


def test_an_engine_that_does_not_run(clone, tmp_path):
    said = output_of(clone, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert said.startswith(
        "The Docker engine does not run: start Docker Desktop, or sudo systemctl"
    )


@pytest.mark.root
def test_a_user_who_may_not_use_docker(clone):
    if os.geteuid():
        lacking("root, to become a user without rights")
    said = output_of(clone, ROOT / "deploy/engine", user=65534)
    assert said.startswith("You may not talk to the Docker engine: sudo usermod -aG docker nobody")


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Return a function that puts a program before all others of its name."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(name: str, program: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / name).chmod(0o755)

    return put


def test_a_compose_that_is_too_old(clone, beside):
    beside("docker-compose", "echo 1.25.0")
    assert output_of(clone).startswith(
        "docker-compose 1.25.0 is too old: it has to be 1.29 or newer."
    )


@pytest.mark.parametrize("version", ["1.29.2", "v2.26.1", "5.0.0"])
def test_a_compose_that_will_do(beside, version):
    beside("docker-compose", f"echo {version}")
    assert not subprocess.run([ROOT / "deploy/engine"], timeout=30).returncode


def test_a_disk_that_is_full(beside):
    beside("df", "echo Filesystem; echo /dev/small 90000000 88000000 2000000 98% /")
    space = [ROOT / "deploy/docker", "space"]
    said = subprocess.run(space, text=True, capture_output=True, timeout=60, check=True).stderr
    assert said.startswith("Docker has 2 GB left for its images, and these take 8: docker system")


def test_without_docker_it_says_why_and_goes_on_without(clone, tmp_path):
    settings = {"MODE": "", "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = subprocess.run(
        ["deploy/mode"], cwd=clone, env=os.environ | settings, text=True, capture_output=True
    )
    assert done.stdout == "local\n"
    assert done.stderr.endswith("sudo systemctl start docker. So it runs without Docker.\n")
