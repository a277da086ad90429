"""The log of a step, and the epochs in it. A program that is not trusted may have written it.

{"epoch": 3, "epochs": 20, "loss": 45.1, "val_loss": 50.2}   a line, printed by train.py
    ──▶ Epoch, for the page
    ──▶ `epoch 3/20  loss 45.1  val_loss 50.2`, for the log that people read
"""

from typing import NamedTuple

import msgspec

from common.artifacts import Epoch
from common.messages import INVALID
from retrain_worker.runners.printable import LOG_BYTES, printable_log

MAX_LINE_BYTES = 300  # a longer line is no epoch
MAX_EPOCHS = 400  # in one reading of a log, the newest; train.py prints some 200 in all

_decode = msgspec.json.Decoder(Epoch).decode


class Log(NamedTuple):
    text: str
    epochs: list[Epoch]


def read_log(raw: bytes) -> Log:
    """Return the end of a log as printable text, and the epochs in it in the order of the lines."""
    lines, epochs = [], []
    for line in raw[-LOG_BYTES:].split(b"\n"):
        epoch = _parse_epoch(line)
        if epoch:
            epochs.append(epoch)
        lines.append(_describe(epoch).encode() if epoch else line)
    return Log(printable_log(b"\n".join(lines)), epochs[-MAX_EPOCHS:])


def epochs_after(number: int, epochs: list[Epoch]) -> list[Epoch]:
    """Return the epochs above `number`, each above the one before it."""
    new: list[Epoch] = []
    for epoch in epochs:
        if epoch.epoch > number:
            new.append(epoch)
            number = epoch.epoch
    return new


def _parse_epoch(line: bytes) -> Epoch | None:
    if not line.startswith(b"{") or len(line) > MAX_LINE_BYTES:
        return None
    try:
        return _decode(line)
    except INVALID:
        return None


def _describe(epoch: Epoch) -> str:
    losses = {"loss": epoch.loss, "val_loss": epoch.val_loss}
    known = [f"  {name} {loss:.6g}" for name, loss in losses.items() if loss is not None]
    return f"epoch {epoch.epoch}/{epoch.epochs}{''.join(known)}"
