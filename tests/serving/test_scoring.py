"""The scoring of a job, started as the worker starts it: a script of its own in the folder IN."""

import json
import os
import shutil
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from common.artifacts import Scores
from tests.support.environment import ROOT
from tests.support.networks import ROWS, malformed, networks

pytestmark = pytest.mark.tensorflow

target = load_diabetes().target


@pytest.fixture
def fill(tmp_path):
    """Return a function that fills IN with rows of two regions, and gives the folder above it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    shutil.copy(ROOT / "retrain_worker/sandbox/score.py", tmp_path / "in")

    def fill(challenger: str, champion: str | None = None, rows=None):
        rows = np.column_stack([ROWS, target]) if rows is None else rows
        np.save(tmp_path / "in/hold_out.npy", rows.astype(np.float32))
        files = {"challenger": challenger, "champion": champion}
        for name in filter(files.get, files):
            content = (networks() / f"{files[name]}.tflite").read_bytes()
            (tmp_path / f"in/{name}.tflite").write_bytes(content)
        golden = networks() / f"{challenger}.json"
        golden = golden if golden.exists() else networks() / "first.json"
        (tmp_path / "in/golden.json").write_bytes(golden.read_bytes())
        regions = [("kostroma.csv", len(rows) // 3), ("moscow.csv", len(rows) - len(rows) // 3)]
        regions = [{"file": file, "hold_out_rows": count} for file, count in regions]
        job = {"id": "x", "target_mean": 150.0, "regions": regions, "columns": ["a"]}
        (tmp_path / "in/job.json").write_text(json.dumps(job))
        return tmp_path

    return fill


def score(folder) -> tuple[int, float, str]:
    """Run it; return its exit code, its peak of memory in MB and what it logged."""
    program = (
        "import runpy, sys, re; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    script = folder / "in/score.py"
    command = [sys.executable, "-c", program, script, folder / "in", folder / "out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, int(done.stdout) / 1024, done.stderr


def scores(folder) -> Scores:
    code, _, logged = score(folder)
    assert code == 0, logged
    return msgspec.json.decode((folder / "out/scores.json").read_bytes(), type=Scores)


def test_challenger_champion_and_mean_are_scored_on_the_same_rows_region_by_region(fill):
    found = scores(fill("first", "second"))
    files = {"challenger": "first", "champion": "second"}
    predictions = {
        name: np.load(networks() / f"{file}.npy").astype(float) for name, file in files.items()
    } | {"mean": np.full(442, 150.0)}
    parts = {"kostroma.csv": slice(0, 147), "moscow.csv": slice(147, 442)}
    regions = [(region, parts[region.file]) for region in found.regions]
    for part, where in [(found.mae, slice(0, 442)), *regions]:
        for name, predicted in predictions.items():
            expected = np.abs(predicted - target)[where].mean()
            assert getattr(part, name) == pytest.approx(expected, rel=1e-5)
    assert (found.inputs, found.outputs, found.refused) == (10, 1, None)
    assert [region.rows for region in found.regions] == [147, 295]


def test_the_names_in_scores_json_are_a_contract(fill):
    folder = fill("first", "second")
    scores(folder)
    found = json.loads((folder / "out/scores.json").read_text())
    errors = {"challenger", "champion", "mean"}
    assert set(found) == {"inputs", "outputs", "mae", "regions", "refused"}
    assert set(found["mae"]) == errors
    assert [set(region) for region in found["regions"]] == [errors | {"file", "rows"}] * 2


def test_without_a_champion_it_is_version_0(fill):
    linear = LinearRegression().fit(ROWS, target).predict(ROWS)
    expected = np.abs(linear - target).mean()
    assert scores(fill("first")).mae.champion == pytest.approx(expected, rel=1e-5)


def test_a_challenger_that_model_would_refuse_is_scored_with_the_reason(fill):
    found = scores(fill("neighbours"))
    assert "whose rows change each other's predictions" in found.refused
    folder = fill("first")
    (folder / "in/golden.json").write_bytes((networks() / "second.json").read_bytes())
    found = scores(folder)
    assert "not the network that was trained" in found.refused and found.mae.challenger > 0


@pytest.mark.parametrize("champion", [None, "first"])
def test_a_champion_that_takes_other_columns_has_no_score(champion, fill):
    rows = np.column_stack([ROWS[:, :9], target])
    found = scores(fill("nine columns", champion, rows))
    assert found.mae.champion is None and found.regions[0].champion is None
    assert found.mae.challenger > 0 and found.inputs == 9


@pytest.mark.parametrize(
    "name", ["nine columns", "two numbers", "integers", "not a number", "few numbers"]
)
def test_a_challenger_that_cannot_be_served_or_fails_on_a_row_is_refused(name, fill):
    folder = fill(name)
    assert score(folder)[0] == 2
    reason = (folder / "out/reason.txt").read_text()
    assert len(reason.splitlines()) == 1 and "Traceback" not in reason
    assert not (folder / "out/scores.json").exists()


@pytest.mark.parametrize("kind", ["empty", "truncated", "offsets that point anywhere"])
def test_a_challenger_that_is_malformed_is_refused(kind, fill):
    folder = fill("first")
    (folder / "in/challenger.tflite").write_bytes(malformed(kind))
    assert score(folder)[0] == 2 and (folder / "out/reason.txt").read_text()


def test_the_row_and_the_file_that_a_challenger_fails_on_are_named(fill):
    rows = np.column_stack([ROWS, target])
    rows[200, 0] = 99  # beyond the table
    folder = fill("table", rows=rows)
    assert score(folder)[0] == 2
    assert "row 54" in (reason := (folder / "out/reason.txt").read_text())
    assert "moscow.csv" in reason


def test_rows_of_another_job_are_a_failure_and_not_a_reason(fill):
    folder = fill("first")
    np.save(folder / "in/hold_out.npy", np.zeros((7, 11), dtype=np.float32))
    assert score(folder)[0] == 1 and not (folder / "out/reason.txt").exists()


def test_its_memory_does_not_grow_with_the_rows(fill, figure):
    few = score(fill("first", "second"))
    rows = np.tile(np.column_stack([ROWS, target]).astype(np.float32), (3000, 1))  # 58 MB
    code, peak, logged = score(fill("first", "second", rows))
    assert (few[0], code) == (0, 0), logged
    figure(f"score.py: {few[1]:.0f} MB for 442 rows, {peak:.0f} MB for {len(rows)}")
    assert peak < few[1] + 20
