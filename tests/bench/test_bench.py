"""The benchmark, which is run by hand, can be run."""

import importlib
import subprocess
import sys

import pytest

from bench.__main__ import PARTS
from bench.figure import Figure, at_most
from tests.support.environment import ROOT

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_figures(part):
    assert callable(importlib.import_module(f"bench.{part}").figures)


def test_a_figure_is_printed_with_its_target():
    assert Figure("x", 1.234, at_most(1)).line() == "x\t1.23\t≤ 1\tshort"


def test_a_part_that_does_not_exist_is_an_error():
    done = subprocess.run([sys.executable, "-m", "bench", "none"], cwd=ROOT, capture_output=True)
    assert done.returncode == 1 and b"No module named 'bench.none'" in done.stderr
