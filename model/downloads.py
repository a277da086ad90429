"""Bring a version's file into the cache: download it, compare its hash, and try it in a child.

    model.tflite ──▶ 0/new.tflite ──(sha256, golden.json, serving.trial)──▶ 0/<sha256>.tflite

OSError if an attempt failed that may be repeated, UnservableError if the version is bad.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from common.artifacts import MAX_SERVED_BYTES
from common.worker_api import ServedVersion
from model.api_client import ApiClient
from model.cache import Cache
from serving.network import UnservableError
from serving.trial import run_trial

MAX_GOLDEN_BYTES = 1 << 20


def download_version(api: ApiClient, cache: Cache, version: ServedVersion) -> None:
    """Download the file of `version` into the cache if it can be served."""
    tflite, golden = cache.folder / "new.tflite", cache.folder / "golden.json"
    sha256 = _write(tflite, api.file(version.version, "model.tflite", MAX_SERVED_BYTES))
    if sha256 != version.sha256:
        raise UnservableError(f"its model.tflite has the sha256 {sha256}, not {version.sha256}")
    _write(golden, api.file(version.version, "golden.json", MAX_GOLDEN_BYTES))
    run_trial(tflite, golden)
    tflite.replace(cache.path(version))


def _write(path: Path, chunks: Iterable[bytes]) -> str:
    """Write chunks to a file, and to the disk; return the hash."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
