"""A version in the hands of `model` and of `score.py`: right answers, quick, and no bad file."""

import json
import random
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from tests.support.environment import ROOT, SOAK, load
from tests.support.networks import ROWS, networks

serving = load("model/serving.py")
target = load_diabetes().target


def network(name: str):
    return serving.load(networks() / f"{name}.tflite")


def golden(name: str):
    return networks() / f"{name}.json"


@pytest.mark.parametrize("name", ["first", "second", "convolution", "vector", "table"])
@pytest.mark.parametrize("size", [1, 7, 100, 442])
def test_it_predicts_what_was_predicted_where_the_network_was_made(name, size):
    model = network(name)
    batches = [model.predict(ROWS[n : n + size]) for n in range(0, len(ROWS), size)]
    expected = np.load(networks() / f"{name}.npy")
    assert np.concatenate(batches) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert (model.inputs, model.outputs, batches[0].dtype) == (10, 1, np.float64)


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", ">f8"])
def test_it_takes_numbers_of_any_kind(kind):
    rows = np.arange(-10, 10).reshape(2, 10)
    assert (network("first").predict(rows.astype(kind)) == network("first").predict(rows)).all()


def test_it_takes_rows_that_are_not_contiguous_and_none_at_all():
    model, wide = network("first"), np.hstack([ROWS, ROWS])
    assert (model.predict(wide[:, :10]) == model.predict(ROWS)).all()
    assert model.predict(np.empty((0, 10))).shape == (0,)


def test_a_row_on_which_the_network_fails_gives_nan_and_the_others_are_predicted():
    rows = np.zeros((4, 10))
    rows[:, 0] = 1, 99, 3, -1
    assert str(network("table").predict(rows).tolist()) == "[1.0, nan, 3.0, nan]"


def test_a_number_that_is_too_large_for_it_does_not_raise():
    assert network("first").predict(np.full((2, 10), 1e300)).shape == (2,)


def microseconds(predict, batches) -> float:
    """Return the median time of a row over many batches."""
    took = []
    for rows in batches * 200:
        begin = time.perf_counter()
        predict(rows)
        took.append((time.perf_counter() - begin) / len(rows))
    return float(np.median(took) * 1e6)


def test_a_row_takes_at_most_5_microseconds_in_batches_of_100(figure):
    model, builtin = network("first"), serving.builtin()
    same, changing = [ROWS[:100]] * 2, [ROWS[:100], ROWS[:99]]
    took = microseconds(model.predict, same), microseconds(model.predict, changing)
    figure(
        f"a row in batches of 100: network of 64 and 64 units {took[0]:.2f} µs, {took[1]:.2f} µs"
        f" while the size changes; version 0 {microseconds(builtin.predict, same):.2f} µs"
    )
    assert max(took) < 5


def test_version_0_is_the_linear_model_of_the_diabetes_data():
    model = serving.builtin()
    assert (model.inputs, model.outputs) == (10, 1)
    assert np.mean(np.abs(model.predict(ROWS) - target)) == pytest.approx(43.2774, abs=1e-4)


BAD = {
    "two inputs": "it has 2 inputs and 1 outputs",
    "two outputs": "it has 1 inputs and 2 outputs",
    "integers": "it works with int32, not with float32",
    "pictures": "it takes (rows, 10, 5), not (rows, columns)",
    "two numbers": "it gives 6 numbers for 3 rows",
}


@pytest.mark.parametrize("name", BAD)
def test_a_network_that_does_not_give_one_number_a_row_is_refused_with_a_sentence(name):
    with pytest.raises(ValueError) as refused:
        network(name)
    assert BAD[name] in str(refused.value)


def broken(kind: str) -> bytes:
    whole = (networks() / "first.tflite").read_bytes()
    return {
        "empty": b"",
        "one byte": whole[:1],
        "truncated": whole[: len(whole) // 2],
        "zeros": bytes(len(whole)),
        "text": b"hello, world " * 100,
        "a zip file": b"PK\x03\x04" + bytes(1000),
        "its head alone": whole[:8] + bytes(100),
        "offsets that point anywhere": whole[:8] + b"\xff" * 200 + whole[208:],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "one byte", "truncated", "zeros", "text", "a zip file",
                                  "its head alone", "offsets that point anywhere"])  # fmt: skip
def test_a_file_that_is_no_network_is_refused_with_a_sentence(kind, tmp_path):
    (tmp_path / "model.tflite").write_bytes(broken(kind))
    for attempt in (serving.load, serving.try_out):
        with pytest.raises(ValueError, match="cannot be served|ended a process"):
            attempt(tmp_path / "model.tflite")


def test_whatever_bytes_change_in_a_file_it_is_refused_or_served_and_nothing_else(tmp_path, figure):
    chance, file, refused = random.Random(1), tmp_path / "model.tflite", []
    whole = (networks() / "first.tflite").read_bytes()
    for _ in range(25 * SOAK):
        changed = bytearray(whole)
        for _ in range(chance.choice([1, 4, 30])):
            changed[chance.randrange(3000)] = chance.randrange(256)
        file.write_bytes(changed)
        try:
            serving.try_out(file, golden("first"))
        except ValueError as error:
            refused.append(str(error))
    figure(f"{25 * SOAK} corrupt .tflite files: {len(refused)} refused, the others answer right")
    assert refused and all(refused)


def test_a_network_that_needs_too_much_memory_is_refused_by_the_child():
    with pytest.raises(ValueError):
        serving.try_out(networks() / "huge.tflite")


def test_a_network_that_does_not_end_is_refused_by_the_child(tmp_path):
    rows = np.full((2, 10), 1e6)
    (tmp_path / "golden.json").write_text(
        json.dumps({"rows": rows.tolist(), "predictions": [1, 1]})
    )
    with pytest.raises(ValueError, match="SIGKILL|SIGXCPU"):
        serving.try_out(networks() / "endless.tflite", tmp_path / "golden.json")


@pytest.mark.parametrize("name", ["first", "convolution", "vector", "table"])
def test_a_network_that_answers_its_golden_rows_passes(name):
    serving.try_out(networks() / f"{name}.tflite", golden(name))


@pytest.mark.parametrize("name", ["neighbours", "not a number", "nine columns"])
def test_a_network_that_does_not_fit_the_stream_is_refused_by_the_child(name):
    file = golden("first" if name == "nine columns" else name)
    with pytest.raises(ValueError, match="each other|malformed|9 columns"):
        serving.try_out(networks() / f"{name}.tflite", file)


ROW = [0.0] * 10
GOLDEN = {
    "another network's": lambda: golden("second").read_bytes(),
    "nine columns": lambda: json.dumps({"rows": [ROW[:9]], "predictions": [1]}).encode(),
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
    with pytest.raises(ValueError) as refused:
        serving.try_out(networks() / "first.tflite", tmp_path / "golden.json")
    assert "Traceback" not in str(refused.value) and len(str(refused.value)) > 20


# score.py


@pytest.fixture
def given(tmp_path):
    """Return a function that fills IN, with rows of two regions, and gives its path."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()

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


def score(folder) -> int:
    """Run it, and return its exit code, its peak of memory in MB and what it wrote."""
    program = (
        "import runpy, sys, re; sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    command = [
        sys.executable,
        "-c",
        program,
        ROOT / "model/score.py",
        folder / "in",
        folder / "out",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, int(done.stdout) / 1024, done.stderr


def scores(folder) -> dict:
    code, _, said = score(folder)
    assert code == 0, said
    return msgspec.json.decode((folder / "out/scores.json").read_bytes())


def test_challenger_champion_and_mean_are_scored_on_the_same_rows_region_by_region(given):
    said = scores(given("first", "second"))
    by = {name: np.load(networks() / f"{file}.npy").astype(float) for name, file in
          {"challenger": "first", "champion": "second"}.items()}  # fmt: skip
    by["mean"] = np.full(442, 150.0)
    regions = {"kostroma.csv": slice(0, 147), "moscow.csv": slice(147, 442)}
    for part, where in [(said["mae"], slice(0, 442))] + [
        (region, regions[region["file"]]) for region in said["regions"]
    ]:
        for name, predictions in by.items():
            expected = np.abs(predictions - target)[where].mean()
            assert part[name] == pytest.approx(expected, rel=1e-5)
    assert (said["inputs"], said["outputs"], said["refused"]) == (10, 1, None)
    assert [region["rows"] for region in said["regions"]] == [147, 295]


def test_without_a_champion_it_is_version_0(given):
    linear = LinearRegression().fit(ROWS, target).predict(ROWS)
    expected = np.abs(linear - target).mean()
    assert scores(given("first"))["mae"]["champion"] == pytest.approx(expected, rel=1e-5)


def test_what_model_would_refuse_is_scored_and_it_is_said_why(given):
    said = scores(given("neighbours"))
    assert "whose rows change each other's answers" in said["refused"]
    folder = given("first")
    (folder / "in/golden.json").write_bytes((networks() / "second.json").read_bytes())
    said = scores(folder)
    assert "not the network that was trained" in said["refused"] and said["mae"]["challenger"] > 0


@pytest.mark.parametrize("champion", [None, "first"])
def test_a_champion_that_takes_other_columns_has_no_score(champion, given):
    rows = np.column_stack([ROWS[:, :9], target])
    said = scores(given("nine columns", champion, rows))
    assert said["mae"]["champion"] is None and said["regions"][0]["champion"] is None
    assert said["mae"]["challenger"] > 0 and said["inputs"] == 9


@pytest.mark.parametrize("name", ["nine columns", "two numbers", "integers", "not a number"])
def test_a_challenger_that_cannot_be_served_or_fails_on_a_row_is_refused(name, given):
    folder = given(name)
    assert score(folder)[0] == 2
    reason = (folder / "out/reason.txt").read_text()
    assert len(reason.splitlines()) == 1 and "Traceback" not in reason
    assert not (folder / "out/scores.json").exists()


@pytest.mark.parametrize("kind", ["empty", "truncated", "offsets that point anywhere"])
def test_a_challenger_that_is_malformed_is_refused(kind, given):
    folder = given("first")
    (folder / "in/challenger.tflite").write_bytes(broken(kind))
    assert score(folder)[0] == 2 and (folder / "out/reason.txt").read_text()


def test_the_row_and_the_file_that_a_challenger_fails_on_are_named(given):
    rows = np.column_stack([ROWS, target])
    rows[200, 0] = 99  # beyond the table
    folder = given("table", rows=rows)
    assert score(folder)[0] == 2
    assert "row 54" in (reason := (folder / "out/reason.txt").read_text())
    assert "moscow.csv" in reason


def test_rows_of_another_job_are_a_crash_and_not_a_reason(given):
    folder = given("first")
    np.save(folder / "in/hold_out.npy", np.zeros((7, 11), dtype=np.float32))
    assert score(folder)[0] == 1 and not (folder / "out/reason.txt").exists()


def test_its_memory_does_not_grow_with_the_rows(given, figure):
    few = score(given("first", "second"))
    rows = np.tile(np.column_stack([ROWS, target]).astype(np.float32), (3000, 1))  # 58 MB
    code, peak, said = score(given("first", "second", rows))
    assert (few[0], code) == (0, 0), said
    figure(f"score.py: {few[1]:.0f} MB for 442 rows, {peak:.0f} MB for {len(rows)}")
    assert peak < few[1] + 20
