"""A file is tried in a child process: a good one passes, a bad one is refused with a sentence."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from serving.network import UnservableError, load
from serving.trial import run_trial
from tests.support.environment import ROOT, SOAK
from tests.support.networks import MALFORMED, malformed, networks

pytestmark = pytest.mark.tensorflow


def tflite(name: str):
    return networks() / f"{name}.tflite"


def golden(name: str):
    return networks() / f"{name}.json"


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_file_that_is_no_network_is_refused_with_a_sentence(kind, tmp_path):
    (tmp_path / "model.tflite").write_bytes(malformed(kind))
    for attempt in (load, run_trial):
        with pytest.raises(UnservableError, match=r"cannot be served|ended a process"):
            attempt(tmp_path / "model.tflite")


def test_whatever_bytes_change_in_a_file_it_is_refused_or_served_and_nothing_else(tmp_path, figure):
    chance, file, refused = random.Random(1), tmp_path / "model.tflite", []
    whole = tflite("first").read_bytes()
    for _ in range(25 * SOAK):
        changed = bytearray(whole)
        for _ in range(chance.choice([1, 4, 30])):
            changed[chance.randrange(3000)] = chance.randrange(256)
        file.write_bytes(changed)
        try:
            run_trial(file, golden("first"))
        except UnservableError as error:
            refused.append(str(error))
    figure(f"{25 * SOAK} corrupt .tflite files: {len(refused)} refused, the others answer right")
    assert refused and all(refused)


def test_a_network_that_needs_too_much_memory_is_refused_by_the_child():
    with pytest.raises(UnservableError):
        run_trial(tflite("huge"))


def test_a_network_that_does_not_end_is_refused_by_the_child(tmp_path):
    rows = np.full((2, 10), 1e6)
    content = {"rows": rows.tolist(), "predictions": [1, 1]}
    (tmp_path / "golden.json").write_text(json.dumps(content))
    with pytest.raises(UnservableError, match=r"SIGKILL|SIGXCPU"):
        run_trial(tflite("endless"), tmp_path / "golden.json")


@pytest.mark.parametrize("name", ["first", "convolution", "vector", "table"])
def test_a_network_that_predicts_its_golden_rows_passes(name):
    run_trial(tflite(name), golden(name))


@pytest.mark.parametrize("name", ["neighbours", "not a number", "nine columns", "few numbers"])
def test_a_network_that_does_not_fit_the_stream_is_refused_by_the_child(name):
    file = golden("first" if name == "nine columns" else name)
    with pytest.raises(UnservableError, match=r"each other|malformed|9 columns|64 numbers"):
        run_trial(tflite(name), file)


ROW = [0.0] * 10
GOLDEN = {
    "another network's": lambda: golden("second").read_bytes(),
    "nine columns": lambda: json.dumps({"rows": [ROW[:9]], "predictions": [1]}).encode(),
    "rows of two widths": lambda: json.dumps(
        {"rows": [ROW, ROW[:9]], "predictions": [1, 2]}
    ).encode(),
    "no rows": lambda: b'{"rows": [], "predictions": []}',
    "a prediction too many": lambda: json.dumps({"rows": [ROW], "predictions": [1, 2]}).encode(),
    "not a number": lambda: json.dumps({"rows": [ROW], "predictions": [float("nan")]}).encode(),
    "infinite": lambda: json.dumps({"rows": [ROW], "predictions": [1e999]}).encode(),
    "text": lambda: b"hello",
    "nothing": lambda: b"",
    "too deep": lambda: b'{"x":' + b"[" * 100_000,
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_rows_that_are_wrong_refuse_the_version(kind, tmp_path):
    (tmp_path / "golden.json").write_bytes(GOLDEN[kind]())
    with pytest.raises(UnservableError) as refused:
        run_trial(tflite("first"), tmp_path / "golden.json")
    assert "Traceback" not in str(refused.value) and len(str(refused.value)) > 20


def test_the_script_needs_no_path_and_no_setting(tmp_path):
    """It is what the child runs: with an empty environment, from any folder."""
    command = [sys.executable, ROOT / "serving/trial.py", tflite("first"), golden("second")]
    environment = {"PATH": os.defpath}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "not the network that was trained" in done.stdout
    done = subprocess.run(command[:3], cwd=tmp_path, env=environment, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_child_loads_no_library_that_it_does_not_need():
    program = "import sys, serving.trial; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"numpy", "msgspec"} <= loaded
    assert not loaded & {"pika", "tenacity", "requests", "sklearn", "scipy"}
