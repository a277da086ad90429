"""Disk space that is held back in a file, so that a batch can be finished when the disk is full.

hold()      at the start: wait until there is room for the file, and as much again beside it
retry(step) run a step; on a full disk delete the file, and run the step once more
"""

import logging
from collections.abc import Callable
from pathlib import Path

from common import lifecycle
from common.files import free_bytes, is_full

RETRY_SECONDS = 5  # between two looks at a full disk

log = logging.getLogger("metric")


class Ballast:
    def __init__(self, path: Path, size: int) -> None:
        """Hold `size` bytes in the file `path`, far more than a batch writes."""
        self.path, self.size = path, size

    def hold(self) -> None:
        """Write the file, and wait for room as long as the disk is full.

        Raise StopRequested on a stop request. No connection may be open meanwhile: the broker
        would close it.
        """
        while not self._write():
            log.warning("%s: the disk is full; waiting for room, unsubscribed", self.path.parent)
            lifecycle.wait(RETRY_SECONDS)
            lifecycle.check_stop()

    def _write(self) -> bool:
        try:
            if not self.is_held():
                self.path.write_bytes(bytes(self.size))
        except OSError as error:
            if not is_full(error):
                raise
            self.path.unlink(missing_ok=True)
            return False
        return free_bytes(self.path.parent) >= self.size

    def is_held(self) -> bool:
        return self.path.exists() and self.path.stat().st_size == self.size

    def retry(self, step: Callable[[], None]) -> None:
        """Run a step; if the disk is full, run it once more without the file.

        Raise what the second run raises, and each error that is not a full disk.
        """
        try:
            step()
        except Exception as error:
            if not is_full(error):
                raise
            log.warning("%s: %s; releasing the ballast to finish", self.path.parent, error)
            self.path.unlink(missing_ok=True)
            step()
