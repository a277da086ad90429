"""report.json: the description of one version."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class VersionReport(msgspec.Struct):
    """A version. Version 0 has a number and a reason only.

    Reports are never rewritten, so what is read of older ones is typed loosely. `why` says why the
    version was deployed or not; `compared_with` is the version that was current then.
    """

    version: int
    why: str
    job: str | UnsetType = UNSET
    created: str | UnsetType = UNSET
    columns: list[str] | UnsetType = UNSET
    target: str | UnsetType = UNSET
    mae: dict[str, float | None] | UnsetType | None = UNSET
    regions: list[dict[str, Any]] | UnsetType = UNSET
    compared_with: int | UnsetType | None = UNSET
    fits_stream: bool | UnsetType = UNSET
    deployed: bool | UnsetType = UNSET
    training: dict[str, Any] | UnsetType = UNSET
    containers: dict[str, str | None] | UnsetType = UNSET
    sha256: dict[str, str] | UnsetType = UNSET


BUILT_IN = VersionReport(0, "built into `model`: linear regression on the diabetes data")
decode_report = msgspec.json.Decoder(VersionReport).decode
