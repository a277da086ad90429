"""Score a trained model on rows that it has never seen, as `model` would serve it.

    python score.py IN OUT     # with `common` and `serving` on PYTHONPATH, in the image of `model`

    IN/hold_out.npy        float32 (rows, columns + 1), the target last, one region after another
    IN/job.json            "regions": [{"file", "hold_out_rows"}], "target_mean" of the training
    IN/challenger.tflite   the trained model
    IN/golden.json         some rows, and the predictions of the trained model as the training
                           reported them
    IN/champion.tflite     the version that serves; absent if that is version 0
    OUT/scores.json        common.artifacts.Scores: mean absolute errors of both and of always
                           predicting `target_mean`, and why `model` would refuse the challenger

Exit code 0; or 2 and a sentence in OUT/reason.txt if the challenger cannot be served, or fails on a
row. The champion's error is null if it takes other columns. Any other exit code is a failure of
ours. It runs in a container without network, because a .tflite file comes from an unseen model.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from common.artifacts import MeanErrors, Region, Scores
from common.messages import STREAM_COLUMNS, encode
from serving.builtin import Builtin
from serving.network import Network, Predictor, UnservableError, load
from serving.trial import run_trial

CHUNK_ROWS = 4096  # in memory
UNSERVABLE = 2  # exit code


class JobRegion(msgspec.Struct):
    """What job.json says of one table: its rows in hold_out.npy."""

    file: str
    hold_out_rows: int


class Job(msgspec.Struct):
    """The part of job.json that scoring needs."""

    regions: list[JobRegion]
    target_mean: float


def chunks(path: Path, start: int, end: int) -> Iterator[np.ndarray]:
    """Yield the rows from `start` to `end`, CHUNK_ROWS at a time.

    The file is mapped anew for each chunk, so that the memory of earlier ones is free again.
    """
    for first in range(start, end, CHUNK_ROWS):
        yield np.array(np.load(path, mmap_mode="r")[first : min(first + CHUNK_ROWS, end)])


def absolute_errors(predictor: Predictor, rows: np.ndarray) -> np.ndarray:
    """Return the absolute error of each row of (rows, columns + 1), in float64.

    Raise UnservableError if there is not one prediction for each row.
    """
    predictions, truth = predictor.predict(rows[:, :-1]), rows[:, -1].astype(np.float64)
    if len(predictions) != len(truth):
        raise UnservableError(f"it gives {len(predictions)} numbers for {len(truth)} rows")
    return np.abs(predictions - truth)


def challenger_errors(challenger: Predictor, rows: np.ndarray, first: int, file: str) -> np.ndarray:
    """Return the challenger's absolute errors; raise UnservableError if one is not finite.

    `first` is the number of the first row among those held out from `file`.
    """
    errors = absolute_errors(challenger, rows)
    if not np.isfinite(errors).all():
        row = first + int(np.argmin(np.isfinite(errors)))
        raise UnservableError(
            f"the trained model gives no finite number for row {row} of those that were held"
            f" out from {file}: its training diverged, or it cannot take such values"
        )
    return errors


def summed_errors(
    path: Path,
    region: JobRegion,
    start: int,
    challenger: Predictor,
    champion: Predictor | None,
    mean: float,
) -> np.ndarray:
    """Return one region's sums of absolute errors, (3,): challenger, champion and mean.

    Without a champion its sum is nan. Raise UnservableError if the challenger fails on a row.
    """
    total, first = np.zeros(3), 1
    for rows in chunks(path, start, start + region.hold_out_rows):
        errors = challenger_errors(challenger, rows, first, region.file)
        other = absolute_errors(champion, rows).sum() if champion else np.nan
        total += errors.sum(), other, np.abs(rows[:, -1].astype(np.float64) - mean).sum()
        first += len(rows)
    return total


def mean_errors(total: np.ndarray, rows: int) -> MeanErrors:
    """Return the means of three sums; None where there is no number, or are no rows."""
    means = total / rows if rows else np.full(3, np.nan)
    challenger, champion, mean = (float(value) if np.isfinite(value) else None for value in means)
    return MeanErrors(challenger=challenger, champion=champion, mean=mean)


def score(
    path: Path, job: Job, challenger: Network, champion: Predictor, refused: str | None
) -> Scores:
    """Score both on the rows of `path`; raise UnservableError if the challenger fails."""
    rows, columns = np.load(path, mmap_mode="r").shape
    columns -= 1
    if rows != sum(region.hold_out_rows for region in job.regions):
        raise AssertionError("hold_out.npy has the rows of another job")
    if challenger.inputs != columns:
        raise UnservableError(
            f"the trained model takes {challenger.inputs} columns, the data have {columns}"
        )
    comparable = champion if champion.inputs == columns else None
    start, total, regions = 0, np.zeros(3), []
    for region in job.regions:
        part = summed_errors(path, region, start, challenger, comparable, job.target_mean)
        errors = msgspec.structs.asdict(mean_errors(part, region.hold_out_rows))
        regions.append(Region(file=region.file, rows=region.hold_out_rows, **errors))
        start, total = start + region.hold_out_rows, total + part
    means = mean_errors(total, start)
    return Scores(challenger.inputs, challenger.outputs, means, regions, refused)


def refusal(challenger: Path, golden: Path, columns: int) -> str | None:
    """Return why `model` would refuse the challenger, None if it would serve it.

    Raise UnservableError if the challenger cannot be used at all.
    """
    if columns != STREAM_COLUMNS:  # it is never offered to `model`
        run_trial(challenger)
        return None
    try:
        run_trial(challenger, golden)
    except UnservableError as error:
        run_trial(challenger)
        return str(error)
    return None


def main() -> None:
    source, out = map(Path, sys.argv[1:])
    job = msgspec.json.decode((source / "job.json").read_bytes(), type=Job)
    served, trained = source / "champion.tflite", source / "challenger.tflite"
    champion: Predictor = load(served) if served.exists() else Builtin()
    try:
        columns = np.load(source / "hold_out.npy", mmap_mode="r").shape[1] - 1
        refused = refusal(trained, source / "golden.json", columns)
        scores = score(source / "hold_out.npy", job, load(trained), champion, refused)
    except UnservableError as error:
        (out / "reason.txt").write_text(f"{error}\n")
        raise SystemExit(UNSERVABLE) from None
    (out / "scores.json").write_bytes(encode(scores))


if __name__ == "__main__":
    main()
