"""The progress of a training: its log, and the epochs in it, for the API.

{"epoch": 3, "epochs": 20, "loss": 45.1, "val_loss": 50.2}   a line, printed by train.py
    ──▶ Epoch, for the page
    ──▶ `epoch 3/20  loss 45.1  val_loss 50.2`, for the log that people read

A program that is not trusted may have written the log.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from common.artifacts import Epoch
from common.messages import INVALID
from common.worker_api import Containers, ProgressReport
from retrain_worker.runners.outputs import LOG_BYTES, printable_log

MAX_LINE_BYTES = 300  # a longer line is no epoch
MAX_EPOCHS = 400  # in one reading of a log, the newest; train.py prints some 200 in all

Send = Callable[[ProgressReport], bool]  # whether the report arrived

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


class ProgressReporter:
    """Send what is new since the last report that arrived; each report renews the lease.

    `read` returns the log. Epochs are sent once in the life of a worker. The next life sends them
    again, as far as they are in the log, and the API ignores those that it has.
    """

    def __init__(self, read: Callable[[], bytes], send: Send, containers: Containers) -> None:
        self.read, self.send = read, send
        self.containers: Containers | None = containers  # None once they are reported
        self.text, self.last_epoch = "", 0

    def report(self) -> None:
        text, all_epochs = read_log(self.read())
        epochs = epochs_after(self.last_epoch, all_epochs)
        changed_text = text if text != self.text else None
        if self.send(ProgressReport(epochs, self.containers, changed_text)):
            self.containers, self.text = None, text
            self.last_epoch = epochs[-1].epoch if epochs else self.last_epoch
