"""Files without a name, for uploads in transit: with its process, a file is gone."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from retrain_api.storage.disk import check_room

CHECK_BYTES = 1 << 20  # written between two looks at the disk


class Spool(io.BufferedRandom):
    """A file in `folder`. Writing raises DiskFullError before less than `reserve` bytes are free.

    `on_write` is called every CHECK_BYTES.
    """

    def __init__(
        self, folder: Path, reserve: int, on_write: Callable[[], None] | None = None
    ) -> None:
        unnamed = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 closed by the user
        super().__init__(unnamed)
        self.folder, self.reserve, self.on_write, self.unchecked = folder, reserve, on_write, 0

    def write(self, data) -> int:  # type: ignore[no-untyped-def]  # any buffer
        self.unchecked += len(data)
        if self.unchecked >= CHECK_BYTES:
            check_room(self.folder, self.unchecked, self.reserve)
            self.unchecked = 0
            if self.on_write:
                self.on_write()
        return super().write(data)
