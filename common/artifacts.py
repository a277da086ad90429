"""The files that a job leaves and a version consists of. Each is declared once.

    golden.json     rows and what Keras predicts for them     training ──▶ scoring, API, `model`
    training.json   how the training went                     training ──▶ worker, report
    scores.json     errors on the hold-out                    scoring  ──▶ worker, report

A program of an unseen model may have written them: whoever reads one decodes it as these structs,
and a decoder raises one of messages.INVALID.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from common.messages import Error, Number

MAX_JSON_BYTES = 4 << 20
MAX_GOLDEN_ROWS = 32
MAX_SERVED_BYTES = 64 << 20  # of a model.tflite: `model` has little memory, and loads a second one
MAX_REGIONS = 1000

Count = Annotated[int, Meta(ge=0, le=1 << 53)]
ShortText = Annotated[str, Meta(max_length=1000)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Golden(msgspec.Struct):
    """golden.json: training rows, (rows, columns), and the predictions of Keras, (rows,)."""

    rows: Annotated[list[list[Number]], Meta(min_length=1, max_length=MAX_GOLDEN_ROWS)]
    predictions: Annotated[list[Number], Meta(min_length=1, max_length=MAX_GOLDEN_ROWS)]

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.predictions):
            raise ValueError("golden.json must have one prediction for each row")
        if len({len(row) for row in self.rows}) > 1:
            raise ValueError("the rows of golden.json must have the same width")

    @property
    def columns(self) -> int:
        return len(self.rows[0])


class Training(msgspec.Struct):
    """training.json"""

    started_from: ShortText
    epochs_run: Count
    seconds: Error
    parameters: Count
    keras: ShortText
    tensorflow: ShortText
    why_no_tflite: ShortText | None = None


class MeanErrors(msgspec.Struct):
    """Mean absolute errors on the same rows.

    None where there are no rows, or where a version takes other columns or gives no finite number.
    """

    challenger: Error | None
    champion: Error | None
    mean: Error | None


class Region(MeanErrors):
    file: ShortText
    rows: Count


class Scores(msgspec.Struct):
    """scores.json. `refused` is the reason for which `model` would not serve the challenger."""

    inputs: Count
    outputs: Count
    mae: MeanErrors
    regions: Annotated[list[Region], Meta(max_length=MAX_REGIONS)]
    refused: ShortText | None = None


class Epoch(msgspec.Struct):
    """One line of progress of a training: losses are mean absolute errors on the target's scale."""

    epoch: Count
    epochs: Count
    loss: Number | None = None
    val_loss: Number | None = None
