"""Score a trained model on rows that it has never seen, as `model` would serve it.

    python score.py IN OUT

    IN/hold_out.npy        float32 (rows, columns + 1), the target last, one region after another
    IN/job.json            "regions": [{"file", "hold_out_rows"}], "target_mean" of the training
    IN/challenger.tflite   the trained model
    IN/golden.json         some rows, and what the training says that the trained model predicts
    IN/champion.tflite     the version that serves; absent if that is version 0
    OUT/scores.json        mean absolute errors of both, and of always saying `target_mean`; and why
                           `model` would refuse the challenger, if it would

Code 0; or 2 and a sentence in OUT/reason.txt if the challenger cannot be served, or fails on a
row. The champion's error is null if it takes other columns. Anything else is a crash of ours. It
runs in a container without network, because a .tflite file comes from whoever sent the model.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import serving

CHUNK = 4096  # rows in memory


class Region(msgspec.Struct):
    file: str
    hold_out_rows: int


class Job(msgspec.Struct):
    regions: list[Region]
    target_mean: float


def chunks(file: Path, start: int, end: int) -> Iterator[np.ndarray]:
    """Yield the rows from `start` to `end`, some at a time. Mapped anew each time: what was read
    before does not stay in memory."""
    for begin in range(start, end, CHUNK):
        yield np.array(np.load(file, mmap_mode="r")[begin : min(begin + CHUNK, end)])


def error(model, rows: np.ndarray) -> np.ndarray:
    """Return the absolute error of each row, in float64."""
    return np.abs(model.predict(rows[:, :-1]) - rows[:, -1].astype(np.float64))


def sums(file: Path, region: Region, start: int, challenger, champion, mean: float) -> np.ndarray:
    """Return the sums of the absolute errors of challenger, champion and mean in one region.

    Raise ValueError if the challenger has no number for a row.
    """
    total, first = np.zeros(3), 1
    for rows in chunks(file, start, start + region.hold_out_rows):
        errors = error(challenger, rows)
        if not np.isfinite(errors).all():
            row = first + int(np.argmin(np.isfinite(errors)))
            raise ValueError(
                f"the trained model gives no finite number for row {row} of those that were held"
                f" out from {region.file}: its training diverged, or it cannot take such values"
            )
        other = error(champion, rows).sum() if champion else np.nan
        total += errors.sum(), other, np.abs(rows[:, -1].astype(np.float64) - mean).sum()
        first += len(rows)
    return total


def mae(total: np.ndarray, rows: int) -> dict:
    """Return the three mean absolute errors; null where there is no number, or are no rows."""
    means = total / rows if rows else np.full(3, np.nan)
    values = [float(value) if np.isfinite(value) else None for value in means]
    return dict(zip(("challenger", "champion", "mean"), values, strict=True))


def score(file: Path, job: Job, challenger, champion) -> dict:
    held_out, columns = np.load(file, mmap_mode="r").shape
    columns -= 1
    assert held_out == sum(region.hold_out_rows for region in job.regions), "rows of another job"
    if challenger.inputs != columns:
        raise ValueError(
            f"the trained model takes {challenger.inputs} columns, the data have {columns}"
        )
    champion = champion if champion.inputs == columns else None
    start, total, regions = 0, np.zeros(3), []
    for region in job.regions:
        part = sums(file, region, start, challenger, champion, job.target_mean)
        rows = region.hold_out_rows
        regions.append({"file": region.file, "rows": rows} | mae(part, rows))
        start, total = start + rows, total + part
    shape = {"inputs": challenger.inputs, "outputs": challenger.outputs}
    return shape | {"mae": mae(total, start), "regions": regions}


def why_refused(challenger: Path, golden: Path, columns: int) -> str | None:
    """Say why `model` would refuse the challenger; ValueError if it cannot be used at all."""
    if columns != serving.STREAM_COLUMNS:  # nobody will offer it to `model`
        return serving.try_out(challenger)
    try:
        return serving.try_out(challenger, golden)
    except ValueError as reason:
        serving.try_out(challenger)
        return str(reason)


def main() -> None:
    given, out = map(Path, sys.argv[1:])
    job = msgspec.json.decode((given / "job.json").read_bytes(), type=Job)
    served = given / "champion.tflite"
    champion = serving.load(served) if served.exists() else serving.builtin()
    try:
        columns = np.load(given / "hold_out.npy", mmap_mode="r").shape[1] - 1
        refused = why_refused(given / "challenger.tflite", given / "golden.json", columns)
        challenger = serving.load(given / "challenger.tflite")
        scores = score(given / "hold_out.npy", job, challenger, champion) | {"refused": refused}
    except ValueError as reason:
        (out / "reason.txt").write_text(f"{reason}\n")
        raise SystemExit(2) from None
    (out / "scores.json").write_bytes(msgspec.json.encode(scores))


if __name__ == "__main__":
    main()
