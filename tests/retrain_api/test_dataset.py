"""Uploaded CSVs become arrays: columns by name, and a hold-out from each region."""

import os
import subprocess
import sys

import numpy as np
import pytest

from retrain_api import settings
from retrain_api.errors import DiskFullError
from tests.support.environment import ROOT, small_disk_at
from tests.support.tables import PLAIN, prepare, rows_of


def test_the_arrays_hold_the_numbers_as_they_stand_in_the_file_and_are_described(
    tmp_path,
):
    about, train, held_out = prepare(tmp_path, PLAIN)
    rows = np.array([[n, n + 0.5, n * n] for n in range(30)], np.float32)
    assert train.dtype == held_out.dtype == np.float32
    assert np.array_equal(np.array(sorted([*train.tolist(), *held_out.tolist()])), rows)
    assert about == {
        "columns": ["a", "b"],
        "target": "y",
        "rows": 24,
        "hold_out_rows": 6,
        "target_mean": pytest.approx(train[:, 2].mean()),
        "regions": [{"file": "a.csv", "hold_out_rows": 6}],
    }


def test_a_target_in_the_middle_comes_last_and_ignored_columns_may_hold_anything(tmp_path):
    lines = [f'"inf; ""x""\n\n,{n}",{n},{n % 5},,я' for n in range(30)]
    text = "note,y,b,empty,name\n" + "\n".join(lines)
    about, train, _ = prepare(tmp_path, text, target="y", ignore=["note", "empty", "name"])
    assert (about["columns"], about["target"]) == (["b"], "y")
    assert (train[:, 0] == train[:, 1] % 5).all()


def test_files_are_joined_by_name_in_the_order_of_the_first_whatever_their_dialects(tmp_path):
    turned = "y;more;b;a\n" + "".join(f"{n * n};x;{n},5;{n}\n" for n in range(30, 50))
    about, train, held_out = prepare(tmp_path, PLAIN, turned.encode("utf-8-sig"), ignore=["more"])
    assert about["columns"] == ["a", "b"]
    for rows in (train, held_out):
        assert (rows[:, 1] == rows[:, 0] + 0.5).all() and (rows[:, 2] == rows[:, 0] ** 2).all()
    assert [region["hold_out_rows"] for region in about["regions"]] == [6, 4]
    assert (held_out[:6, 0] < 30).all() and (held_out[6:, 0] >= 30).all()


def test_names_are_equal_with_composed_and_decomposed_accents(tmp_path):
    apart = PLAIN.replace("b,", "\u0438\u0306,")
    about, _, _ = prepare(tmp_path, PLAIN.replace("b,", "\u0439,"), apart, target="y")
    assert about["columns"] == ["a", "\u0439"]


@pytest.mark.parametrize("counts", [[20], [300], [5000, 40], [10, 10, 10], [4000, 3000, 7, 1]])
def test_each_region_has_its_share_of_the_hold_out(tmp_path, counts):
    files = [rows_of(count, seed) for seed, count in enumerate(counts)]
    about, train, held_out = prepare(tmp_path, *files)
    for region, count in zip(about["regions"], counts, strict=True):
        share = max(1, round(0.2 * count))
        assert share <= region["hold_out_rows"] <= share + 0.03 * count
    assert len(train) + len(held_out) == sum(counts)


def test_equal_rows_are_on_the_same_side_also_across_files(tmp_path):
    files = [rows_of(3000, seed, spread=40) for seed in range(3)]
    about, train, held_out = prepare(tmp_path, *files)
    assert not set(map(tuple, train)) & set(map(tuple, held_out))
    assert 0.19 < about["hold_out_rows"] / 9000 < 0.3


def test_a_row_that_is_repeated_many_times_does_not_fill_the_hold_out(tmp_path):
    text = rows_of(100, 1) + "\n7,7" * 900
    about, train, held_out = prepare(tmp_path, text)
    assert about["hold_out_rows"] == 50 and 7 not in held_out
    assert len(train) == 950


def test_the_same_upload_is_split_the_same_way_in_any_process(tmp_path):
    (tmp_path / "a.csv").write_text(rows_of(1000, 1))
    command = "import sys; from retrain_api.ingest.dataset import prepare;"
    command += "prepare([('a.csv', open(sys.argv[1], 'rb'))], sys.argv[2])"
    (tmp_path / "other").mkdir()
    arguments = [sys.executable, "-c", command, tmp_path / "a.csv", tmp_path / "other"]
    subprocess.run(arguments, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"}, check=True)
    prepare(tmp_path / "one", rows_of(1000, 1))
    for name in ("train.npy", "hold_out.npy"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.root
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "MIN_FREE_BYTES", 0)
    with small_disk_at(tmp_path, "1m"):
        for rows in (100_000, 200_000):  # full while it is split, full while it is read
            with pytest.raises((DiskFullError, OSError), match=r"No space left|bytes free"):
                prepare(tmp_path, rows_of(rows, 1))
            assert os.listdir(tmp_path) == []
