"""CSVs in many dialects, and the datasets that become of them."""

import io
import os
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from retrain_api.errors import InvalidDatasetError
from retrain_api.ingest import dataset

PLAIN = "a,b,y\n" + "".join(f"{n},{n}.5,{n * n}\n" for n in range(30))


def prepare(folder: Path, *files: str | bytes, **options):
    """Prepare files, shown as a.csv, b.csv, …; return (description, train.npy, hold_out.npy)."""
    contents = [file.encode() if isinstance(file, str) else file for file in files]
    named = [(f"{chr(97 + n)}.csv", io.BytesIO(content)) for n, content in enumerate(contents)]
    folder.mkdir(exist_ok=True)
    description = dataset.prepare(named, folder, **options)
    assert sorted(os.listdir(folder)) == ["hold_out.npy", "train.npy"]
    return (
        msgspec.to_builtins(description),
        np.load(folder / "train.npy"),
        np.load(folder / "hold_out.npy"),
    )


def same(one: tuple, two: tuple) -> bool:
    return one[0] == two[0] and all(np.array_equal(one[n], two[n]) for n in (1, 2))


def refusal(folder: Path, *files: str | bytes, **options) -> str:
    """Return the sentence with which the files are refused, and check that nothing is left."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(InvalidDatasetError) as refused:
        prepare(folder, *files, **options)
    assert os.listdir(folder) == []
    assert "\n" not in str(refused.value)
    return str(refused.value)


def written(delimiter: str, point: str, end: str, quoted: str) -> str:
    """Return a CSV; `quoted` is which cells are: none (but where they must), names or all."""
    names = ["Возраст", "рост, см", "вес; кг", "y"]
    rows = [[f"{n % 7}", f"-{n}.5", f"{n}e-3", f"{n}.25"] for n in range(40)]

    def line(cells, always):
        return delimiter.join(f'"{c}"' if always or delimiter in c else c for c in cells) + end

    lines = [line([cell.replace(".", point) for cell in row], quoted == "all") for row in rows]
    return line(names, quoted != "none") + "".join(lines)


def rows_of(count: int, seed: int, spread: int = 10**6) -> str:
    numbers = random.Random(seed)
    rows = (f"{numbers.randrange(spread)},{numbers.randrange(spread)}" for _ in range(count))
    return "a,y\n" + "\n".join(rows)


def changed(old: str, new: str) -> str:
    """Return PLAIN with one change."""
    assert old in PLAIN
    return PLAIN.replace(old, new, 1)
