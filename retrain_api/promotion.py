"""The rule by which a new version is deployed, or only kept.

    the job's deploy, what was measured, the columns ──▶ (fits the stream, deployed, why)

Whatever the job asked for, a version is deployed only if it fits the stream: it takes ten columns
and gives one finite number a row. `if_better` asks for a smaller error on the hold-out than that of
the serving model, and than that of always predicting the mean.
"""

STREAM_COLUMNS = 10  # what the rows of `features` have
SERVED_BYTES = 64 * 2**20  # of a .tflite, at most: `model` has little memory


def decide(deploy: str, scores: dict | None, columns: int, why_no_tflite: str | None) -> tuple:
    """Return (does it fit the stream, is it to be deployed, why); `scores` as in handed_in."""
    if unfit := why_unfit(scores, columns, why_no_tflite):
        return False, False, f"kept, not deployed: {unfit}"
    if deploy == "never":
        return True, False, "kept, not deployed: the job said deploy=never"
    if deploy == "always":
        return True, True, "deployed: the job said deploy=always, so nothing was compared"
    return True, *better(scores["mae"])


def why_unfit(scores: dict | None, columns: int, why_no_tflite: str | None) -> str | None:
    """Say why a version cannot serve the stream; None if it can."""
    if why_no_tflite:
        return f"it cannot be served: {why_no_tflite}"
    if scores is None:
        return "it was not scored"
    takes, gives = scores["inputs"], scores["outputs"]
    if (columns, takes, gives) != (STREAM_COLUMNS, STREAM_COLUMNS, 1):
        return f"it takes {takes} columns and gives {gives}; the stream has {STREAM_COLUMNS} and 1"
    if scores["refused"]:
        return f"`model` would refuse it: {scores['refused']}"
    if scores["mae"]["challenger"] is None:
        return "it does not give a finite number for every row of the hold-out"
    return None


def better(mae: dict) -> tuple[bool, str]:
    """Return (is it to be deployed, why) for a version that fits the stream."""
    challenger, champion, mean = mae["challenger"], mae["champion"], mae["mean"]
    if mean is None:
        return False, "kept, not deployed: there was no error to compare it with"
    serving = "none, as it gives no number for some row" if champion is None else f"{champion:.4g}"
    errors = (
        f"mean absolute error on the hold-out {challenger:.4g}; of the serving model"
        f" {serving}; of always predicting the mean {mean:.4g}"
    )
    if (champion is None or challenger < champion) and challenger < mean:
        return True, f"deployed, as it is better: {errors}"
    return False, f"kept, not deployed, as it is not better: {errors}"
