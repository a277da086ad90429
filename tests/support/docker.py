"""Docker from the tests: one command, and the image that ours are built on."""

import functools
import os
import shutil
import subprocess

from tests.support.environment import ROOT, lacking, needs


def docker(*arguments: str) -> str:
    needs("docker")
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def has_docker() -> bool:
    return bool(shutil.which("docker")) and not subprocess.call(
        ["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60
    )


@functools.cache
def python_image() -> str:
    """Return what our images are built on: the official image, or its stand-in."""
    if not has_docker():
        lacking("a Docker engine")
    official, standin = "python:3.11-slim", "monitoring-standin/python:3.11"
    for image in (os.environ.get("PYTHON_IMAGE"), official):
        if image and image != standin and docker("images", "-q", image):
            return image
    pull = ["docker", "pull", "-q", official]
    if not docker("images", "-q", standin) and not subprocess.call(pull, stderr=subprocess.DEVNULL):
        return official
    subprocess.run([ROOT / "deploy/standin/build", "python"], check=True)  # again if it is old
    return standin
