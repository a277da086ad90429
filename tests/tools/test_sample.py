"""What `make sample` writes. That training goes on from its network is in test_train.py."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from tools import sample

ROWS = np.column_stack(load_diabetes(return_X_y=True))
REGIONS = ("kostroma", "moscow", "yaroslavl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    sample.write_samples(folder)
    return folder


def test_the_table_is_the_data_that_features_sends(folder):
    assert (np.loadtxt(folder / "diabetes.csv", delimiter=",", skiprows=1) == ROWS).all()


def test_the_regions_are_the_same_rows_each_once_under_the_same_header(folder):
    header, *rows = (folder / "diabetes.csv").read_text().splitlines()
    regions = [(folder / f"{name}.csv").read_text().splitlines() for name in REGIONS]
    assert all(region[0] == header for region in regions)
    assert sorted(row for region in regions for row in region[1:]) == sorted(rows)
    assert {len(region) - 1 for region in regions} == {147, 148}


def test_two_runs_write_the_same_bytes(folder, tmp_path):
    for path in sample.write_samples(tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_the_network_is_better_than_the_mean_and_not_as_good_as_a_linear_model(folder):
    archive = zipfile.ZipFile(folder / "diabetes.keras")
    layers = json.loads(archive.read("config.json"))["config"]["layers"]
    assert [layer["class_name"] for layer in layers] == [
        "InputLayer",
        "Normalization",
        "Dense",
        "Dense",
    ]
    with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        mean, variance = (file[f"layers/normalization/vars/{n}"][...] for n in "01")
        kernel, bias = (file[f"layers/dense/vars/{n}"][...] for n in "01")
        last_kernel, last_bias = (file[f"layers/dense_1/vars/{n}"][...] for n in "01")
    x, y = ROWS[:, :-1], ROWS[:, -1:]
    hidden = np.maximum((x - mean) / np.sqrt(variance) @ kernel + bias, 0)
    error = abs(hidden @ last_kernel + last_bias - y).mean()
    assert 44 < error < abs(y - y.mean()).mean()


def test_a_folder_that_becomes_writable_is_waited_for_and_another_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sample, "FOLDER_SECONDS", 0.1)
    with pytest.raises(SystemExit, match="cannot be written"):
        sample.wait_until_writable(tmp_path / "file/sample")
    sample.wait_until_writable(tmp_path / "new/sample")
    assert list((tmp_path / "new/sample").iterdir()) == []
