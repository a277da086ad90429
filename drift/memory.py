"""What `drift` remembers and tells, as files in LOGS_DIR.

    drift.json       the State, replaced in one step
    drift_log.csv    at,event,id,version,job,text: a line for each event, appended once

A state that is gone, or cannot be read, is begun anew; a log is appended to, whatever it holds.
"""

import csv
import io
import logging
import os
from pathlib import Path

import msgspec
from watch import Event, State

log = logging.getLogger("drift")


def load(file: Path) -> State:
    """Return the state that the last life left, or a new one."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except (ValueError, RecursionError) as error:
        log.warning("%s is not to be read, beginning anew: %s", file, error)
        return State()


def save(state: State, file: Path) -> None:
    """Write down what is remembered, in one step, unless it is there already."""
    body, fresh = msgspec.json.encode(state), file.with_suffix(".new")
    if file.exists() and file.read_bytes() == body:
        return
    with fresh.open("wb") as out:
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    os.replace(fresh, file)


def line(cells) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def record(event: Event, file: Path) -> None:
    """Append an event to the CSV, unless an earlier life did; the others may be any bytes."""
    told = file.read_bytes() if file.exists() else line(Event.__struct_fields__)
    new = line(msgspec.structs.astuple(event))
    if new in told:
        return
    fresh = file.with_suffix(".new")
    fresh.write_bytes(told + new)
    os.replace(fresh, file)
