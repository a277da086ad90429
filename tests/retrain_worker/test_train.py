"""The training script as the worker runs it: a process, files in, files out, an exit code."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from retrain_worker.progress import read_log
from retrain_worker.sandbox.dataset import Dataset
from tests.support.environment import ROOT
from tests.support.samples import NEWER, write_job, write_models

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

TRAINED = {"model.keras", "model.tflite", "golden.json", "training.json"}


def train(folder: Path, rows, model: Path | None = None, **job) -> SimpleNamespace:
    """Run train.py on `rows`, (rows, columns + 1), and return how it ended and what it left."""
    given, out = write_job(folder / "in", rows, model, **job), folder / "out"
    out.mkdir()
    command = [sys.executable, ROOT / "retrain_worker/sandbox/train.py", given, out]
    with (folder / "log").open("w") as log, (folder / "errors").open("w") as errors:
        process = subprocess.Popen(command, stdout=log, stderr=errors, cwd=folder)
    peak = watch(process)
    lines, said = (folder / "log").read_text().splitlines(), (folder / "errors").read_text()
    files = {file.name: file for file in out.iterdir()}
    assert process.returncode in (0, 2), said
    content = {name: json.loads(files[name].read_text()) for name in files if ".json" in name}
    done = {"code": process.returncode, "log": lines, "errors": said, "peak": peak}
    return SimpleNamespace(**done, files=files, content=content)


def epochs_of(done: SimpleNamespace) -> list:
    """Return the epochs that a training printed, as the worker reads them."""
    return read_log("\n".join(done.log).encode()).epochs


def watch(process: subprocess.Popen) -> float:
    """Wait for the end; return the most memory that it had, in MB."""
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        sizes = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        peak = max([peak, *(int(size.split()[1]) / 1024 for size in sizes)])
        time.sleep(0.1)
    return peak


def lite(path: Path, rows) -> np.ndarray:
    """Return what LiteRT answers to `rows`, (rows, columns): (rows,)."""
    interpreter = Interpreter(str(path), num_threads=1)
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(taken["index"], rows.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], np.asarray(rows, "float32"))
    interpreter.invoke()
    return interpreter.get_tensor(given["index"]).reshape(-1)


def mean_error(path: Path, rows) -> float:
    return float(np.abs(lite(path, rows[:, :-1]) - rows[:, -1]).mean())


def linear(count: int, seed: int = 0):
    """Return rows of ten columns with the target 3 * x0 - 2 * x1 + 100, nearly."""
    draw = np.random.default_rng(seed)
    x = draw.normal(0, 1, (count, 10))
    return np.c_[x, 3 * x[:, 0] - 2 * x[:, 1] + 100 + draw.normal(0, 0.1, count)]


def layers(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))["config"]
    return [layer["class_name"] for layer in config["layers"]]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def diabetes():
    """Return the rows in random order; the last 88 are held out."""
    rows = np.column_stack(load_diabetes(return_X_y=True))
    return np.random.default_rng(1).permutation(rows)


@pytest.fixture(scope="session")
def scratch(diabetes, tmp_path_factory):
    return train(tmp_path_factory.mktemp("scratch"), diabetes[:-88])


def test_from_scratch_everything_is_there_and_says_how_it_came_about(scratch):
    training = scratch.content["training.json"]
    assert scratch.code == 0 and set(scratch.files) == TRAINED
    assert training["started_from"] == "scratch" and training["why_no_tflite"] is None
    assert 0 < training["epochs_run"] <= 200 and training["parameters"] > 0
    assert training["keras"].startswith("3.") and training["tensorflow"].startswith("2.")


def test_from_scratch_it_beats_the_mean_by_far_and_is_close_to_linear_regression(
    scratch, diabetes, figure
):
    known, held_out = diabetes[:-88], diabetes[-88:]
    line = LinearRegression().fit(known[:, :-1], known[:, -1])
    error = mean_error(scratch.files["model.tflite"], held_out)
    mean = np.abs(held_out[:, -1] - known[:, -1].mean()).mean()
    straight = np.abs(held_out[:, -1] - line.predict(held_out[:, :-1])).mean()
    figure(f"error held out: network {error:.2f}, line {straight:.2f}, mean {mean:.2f}")
    assert error < 0.8 * mean and error < 1.05 * straight


def test_progress_tells_of_each_epoch_in_the_units_of_the_target(scratch):
    epochs, epochs_run = epochs_of(scratch), scratch.content["training.json"]["epochs_run"]
    assert [epoch.epoch for epoch in epochs] == list(range(1, epochs_run + 1))
    last = epochs[-1]
    assert last.epochs == 200 and 20 < last.loss < 80 and 20 < last.val_loss < 80


def test_the_same_seed_makes_the_same_model_to_the_last_bit(scratch, diabetes, tmp_path):
    again = train(tmp_path, diabetes[:-88])
    for name in ("golden.json", "model.tflite"):
        assert again.files[name].read_bytes() == scratch.files[name].read_bytes()


def test_golden_rows_are_rows_of_the_training_data(scratch, diabetes):
    golden = np.array(scratch.content["golden.json"]["rows"], "float32")
    known = set(map(bytes, diabetes[:-88, :-1].astype("float32")))
    assert len(golden) == 32 and set(map(bytes, golden)) <= known


@pytest.mark.parametrize("count", [1, 7, 32])
def test_litert_answers_as_keras_does_in_batches_of_any_size(scratch, count):
    golden = scratch.content["golden.json"]
    answers = lite(scratch.files["model.tflite"], np.array(golden["rows"][:count]))
    assert answers == pytest.approx(golden["predictions"][:count], rel=1e-5)


def test_a_prediction_in_a_batch_of_100_costs_at_most_5_microseconds(scratch, figure):
    interpreter = Interpreter(str(scratch.files["model.tflite"]), num_threads=1)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (100, 10))
    interpreter.allocate_tensors()
    took = []
    for _ in range(500):
        began = time.perf_counter()
        interpreter.invoke()
        took.append((time.perf_counter() - began) / 100 * 1e6)
    figure(f"LiteRT, batches of 100: {np.median(took):.2f} µs a row")
    assert np.median(took) <= 5


def test_columns_that_are_huge_tiny_shifted_or_constant_are_all_learned_from(tmp_path):
    draw = np.random.default_rng(2)
    x = draw.normal(0, 1, (400, 4))
    target = 1e9 * (x @ [1, 2, -1, 1])
    columns = 1e9 * x[:, 0], 1e-12 * x[:, 1], 2000 + x[:, 2], 1e-3 * x[:, 3] - 5
    rows = np.column_stack([*columns, np.full(400, 3.3), np.zeros(400), target])
    done = train(tmp_path, rows, epochs=60)
    mean = np.abs(target - target.mean()).mean()
    assert done.code == 0 and mean_error(done.files["model.tflite"], rows) < 0.1 * mean


@pytest.mark.parametrize("shape", [(16, 1), (120, 300)], ids=["16 by 1", "120 by 300"])
def test_few_rows_one_column_and_hundreds_of_columns_work(shape, tmp_path):
    rows = np.random.default_rng(3).normal(50, 9, (shape[0], shape[1] + 1))
    done = train(tmp_path, rows, epochs=1000)
    assert done.code == 0 and set(done.files) == TRAINED
    assert len(done.log) < 210  # though 1000 epochs were allowed
    assert epochs_of(done)[-1].epoch == done.content["training.json"]["epochs_run"]


@pytest.mark.parametrize("name", ["sequential.keras", "two_branches.keras", "sequential.h5"])
def test_an_uploaded_model_is_trained_further_as_it_is(models, name, tmp_path):
    done = train(tmp_path, linear(400), models / name, epochs=30)
    start = float(done.log[0].split()[-1])
    same = "sequential.keras" if name.endswith(".h5") else name
    assert done.content["training.json"]["started_from"] == "model" + Path(name).suffix
    assert layers(done.files["model.keras"]) == layers(models / same)
    assert mean_error(done.files["model.tflite"], linear(100, seed=1)) < 0.5 * start


def test_the_first_weights_stay_if_training_makes_it_only_worse(models, tmp_path):
    rows = linear(400)
    write_job(tmp_path / "look", rows)
    learned = Dataset(tmp_path / "look/train.npy", 7).training
    rows[learned, -1] -= 1000  # what is learned from is wrong, what is measured on is right
    done = train(tmp_path / "run", rows, models / "sequential.keras", epochs=3)
    assert "no epoch was better than the weights before: they stay" in done.log
    assert done.code == 0


def test_a_model_that_litert_cannot_do_is_kept_and_says_why(models, tmp_path):
    done = train(tmp_path, linear(60), models / "lstm.keras", epochs=1)
    assert done.code == 0 and set(done.files) == TRAINED - {"model.tflite"}
    assert "TensorListReserve" in done.content["training.json"]["why_no_tflite"]


REFUSED = {
    "two_outputs.keras": "answers with (None, 1), (None, 1)",
    "three_numbers.keras": "answers with (None, 3)",
    "two_inputs.keras": "has 2 inputs",
    "no_input.keras": "keras.Input((10,))",
    "nine_columns.keras": "takes (None, 9) of float32, and the data have 10 columns",
    "fixed_batch.keras": "takes (32, 10)",
    "whole_numbers.keras": "of int32",
    "frozen.keras": "no weights that can be trained",
    "lambda.keras": "has a Lambda layer",
    "lambda.h5": "has a Lambda layer",
    "own_layer.keras": "needs Own, which is not a part of Keras",
    "newer.keras": f"saved by Keras {NEWER}, and this is Keras 3.",
    "newer.h5": f"saved by Keras {NEWER}, and this is Keras 3.",
    "only_weights.h5": "has weights but no model",
    "truncated.keras": "is no complete .keras file",
    "truncated.h5": "is no complete .h5 file",
    "h5_inside.keras": "is no complete .keras file",
    "keras_inside.h5": "is no complete .h5 file",
    "pickle.keras": "is no complete .keras file",
    "empty.keras": "is no complete .keras file",
    "text.h5": "is no complete .h5 file",
    "zip_bomb.keras": "unpacks to 2,147,483,6",
}
ASK = """
import json, pathlib, sys, uploaded_model
answers = {}
for file in pathlib.Path(sys.argv[1]).glob("*.*"):
    if file.stem != "huge_dense":
        try:
            uploaded_model.open_model(file, 10)
            answers[file.name] = None
        except uploaded_model.InvalidJobError as error:
            answers[file.name] = str(error)
print(json.dumps(answers))
"""


@pytest.fixture(scope="session")
def answers(models):
    """Return {name: why it is refused, or None}, all from one process: Keras is slow to import."""
    command = [sys.executable, "-W", "ignore", "-c", ASK, models]
    folder = ROOT / "retrain_worker/sandbox"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_of_no_use_is_refused_with_a_sentence(answers, name):
    assert REFUSED[name] in answers[name]
    assert answers[name].endswith(".") and "Traceback" not in answers[name]


def test_every_kind_of_model_there_is_a_sample_of_was_tried(answers):
    good = {"sequential.keras", "sequential.h5", "two_branches.keras", "lstm.keras"}
    good |= {"flat_answer.keras", "named_answer.keras", "climbing.keras", "not_a_number.keras"}
    good |= {"runs_away.keras"}
    assert {name for name in answers if answers[name] is None} == good
    assert set(answers) - good == set(REFUSED)
    assert not Path("/tmp/climbed").exists() and not Path("/tmp/a-pickle-was-opened").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("truncated.keras", "no complete .keras file"),
        ("not_a_number.keras", "does not answer with numbers"),
        ("runs_away.keras", "was no number any more after epoch 1"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_a_reason_and_nothing_else(
    models, name, sentence, tmp_path
):
    done = train(tmp_path, linear(60), models / name)
    assert done.code == 2 and set(done.files) == {"reason.txt"}
    reason = done.files["reason.txt"].read_text()
    assert sentence in reason and reason.count("\n") == 1
    assert "Traceback" not in done.errors


def test_the_sample_is_the_data_that_features_sends_and_a_model_to_go_on_from(tmp_path):
    command = [sys.executable, "-m", "tools", "sample", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = np.column_stack(load_diabetes(return_X_y=True))
    assert (np.loadtxt(tmp_path / "diabetes.csv", delimiter=",", skiprows=1) == rows).all()
    regions = [
        (tmp_path / f"{name}.csv").read_text() for name in ("kostroma", "moscow", "yaroslavl")
    ]
    lines = (tmp_path / "diabetes.csv").read_text().splitlines()
    assert all(region.startswith(f"{lines[0]}\n") for region in regions)
    rows_of_regions = [row for region in regions for row in region.splitlines()[1:]]
    assert sorted(rows_of_regions) == sorted(lines[1:])
    done = train(tmp_path / "run", rows, tmp_path / "diabetes.keras", epochs=10)
    assert epochs_of(done)[-1].val_loss < float(done.log[0].split()[-1])


def test_data_larger_than_the_memory_it_takes_are_trained_on(scratch, tmp_path, figure):
    block = np.random.default_rng(4).normal(0, 1, (10_000, 22)).astype("float32")
    file = np.lib.format.open_memmap(tmp_path / "rows", "w+", "float32", (7_000_000, 22))
    for first in range(0, len(file), len(block)):
        file[first : first + len(block)] = block
    done = train(tmp_path / "run", file, epochs=1)
    figure(f"616 MB of rows take {done.peak:.0f} MB, the diabetes data {scratch.peak:.0f} MB")
    assert done.code == 0 and done.peak < scratch.peak + 150
