"""The files of `drift` in LOGS_DIR.

    drift.json       the State, replaced in one step
    drift_log.csv    at,event,id,version,job,text: a line for each event, appended once

A missing state is a new one, an older format is migrated, a newer one refused. A state that cannot
be read is kept under another name, and a new one starts. The log is appended to, whatever it holds.
"""

import csv
import io
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from common.files import replace_file
from common.messages import INVALID, DriftEvent
from drift.migration import migrate
from drift.state import FORMAT, State

log = logging.getLogger("drift")


class Numbered(msgspec.Struct):
    format: int = 1


def parse_state(body: bytes) -> State:
    """Return the state in a file of any format up to FORMAT.

    Raise SystemExit for a newer format, and one of INVALID for anything else.
    """
    number = msgspec.json.decode(body, type=Numbered).format
    if number > FORMAT:
        raise SystemExit(
            f"drift.json has format {number}, and this version of drift reads formats up to"
            f" {FORMAT}: start the version that wrote it, or move the file away."
        )
    if number == FORMAT:
        return msgspec.json.decode(body, type=State)
    if number == 1:
        log.info("drift.json has format 1: migrating it to format %d", FORMAT)
        return migrate(body)
    raise ValueError(f"there is no format {number}")


def csv_line(cells: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


class StateStore:
    """The state and the log of events in one folder, with one process that writes there."""

    def __init__(self, folder: Path) -> None:
        self._state_file, self._log_file = folder / "drift.json", folder / "drift_log.csv"

    def load(self) -> State:
        """Return the saved state, or a new one; raise SystemExit for a newer format."""
        try:
            return parse_state(self._state_file.read_bytes())
        except FileNotFoundError:
            return State()
        except INVALID as error:
            aside = self._state_file.with_name(f"drift.json.unreadable-{time.time_ns()}")
            os.replace(self._state_file, aside)
            log.warning("drift.json cannot be read, is %s now: %s", aside.name, error)
            return State()

    def save(self, state: State) -> None:
        """Replace the saved state in one step, unless it is the same."""
        body, file = msgspec.json.encode(state), self._state_file
        if not file.exists() or file.read_bytes() != body:
            replace_file(file, body)

    def append_event(self, event: DriftEvent) -> None:
        """Append an event to the log, unless it is there; the other bytes may be any."""
        file, line = self._log_file, csv_line(msgspec.structs.astuple(event))
        content = file.read_bytes() if file.exists() else csv_line(DriftEvent.__struct_fields__)
        if line not in content:
            replace_file(file, content + line)
