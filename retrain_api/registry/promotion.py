"""The rule by which a new version is deployed or only kept.

    the job's `deploy`, the scores, the columns ──▶ (fits the stream, deployed, why)

Whatever the job asked for, a version is deployed only if it fits the stream: it has ten inputs and
gives one finite number a row. `if_better` requires a smaller error on the hold-out than that of the
current version (the champion), and than that of predicting the mean.
"""

from typing import NamedTuple

from common.artifacts import MeanErrors, Scores
from common.messages import STREAM_COLUMNS
from retrain_api.jobs.records import Deploy


class Decision(NamedTuple):
    fits_stream: bool
    deployed: bool
    why: str


def decide(
    deploy: Deploy, scores: Scores | None, columns: int, why_no_tflite: str | None
) -> Decision:
    """Decide about a version that was trained on `columns` columns."""
    if unfit := why_unfit(scores, columns, why_no_tflite):
        return Decision(False, False, f"kept, not deployed: {unfit}")
    if deploy == "never":
        return Decision(True, False, "kept, not deployed: the job said deploy=never")
    if deploy == "always":
        why = "deployed: the job said deploy=always, so nothing was compared"
        return Decision(True, True, why)
    assert scores  # else unfit
    return compare(scores.mae)


def why_unfit(scores: Scores | None, columns: int, why_no_tflite: str | None) -> str | None:
    """Return why a version cannot serve the stream; None if it can."""
    if why_no_tflite:
        return f"it cannot be served: {why_no_tflite}"
    if scores is None:
        return "it was not scored"
    if (columns, scores.inputs, scores.outputs) != (STREAM_COLUMNS, STREAM_COLUMNS, 1):
        shape = f"it takes {scores.inputs} columns and gives {scores.outputs}"
        return f"{shape}; the stream has {STREAM_COLUMNS} and 1"
    if scores.refused:
        return f"`model` would refuse it: {scores.refused}"
    if scores.mae.challenger is None:
        return "it does not give a finite number for every row of the hold-out"
    return None


def compare(mae: MeanErrors) -> Decision:
    """Decide about a version that fits the stream by its error on the hold-out."""
    challenger, champion, mean = mae.challenger, mae.champion, mae.mean
    if challenger is None or mean is None:
        return Decision(True, False, "kept, not deployed: there was no error to compare it with")
    serving = "none, as it gives no number for some row" if champion is None else f"{champion:.4g}"
    errors = (
        f"mean absolute error on the hold-out {challenger:.4g}; of the serving model"
        f" {serving}; of always predicting the mean {mean:.4g}"
    )
    if (champion is None or challenger < champion) and challenger < mean:
        return Decision(True, True, f"deployed, as it is better: {errors}")
    return Decision(True, False, f"kept, not deployed, as it is not better: {errors}")
