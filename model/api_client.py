"""What `model` asks of retrain_api.

    PUT  API_URL/models/current/replicas/NAME    ReplicaStatus ──▶ ServedVersion
    GET  API_URL/models/4/model.tflite, golden.json

All errors are OSErrors, as those of requests are, and may pass; only a file that is too large is
an UnservableError.
"""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from common.http import api_session
from common.messages import INVALID
from common.worker_api import ReplicaStatus, ServedVersion
from serving.network import UnservableError

TIMEOUT_SECONDS = (3, 10)  # to connect; between two bytes
MAX_SECONDS = 120  # of a whole answer
MAX_STATUS_BYTES = 1 << 20
CHUNK_BYTES = 1 << 18


class ApiError(OSError):
    """The API's answer is invalid."""


class ApiClient:
    """The calls of one replica; used by one thread."""

    def __init__(self, url: str, token: str, replica: str) -> None:
        self._url, self._replica = url, quote(replica, safe="")
        self._session = api_session(token)
        self._session.headers["Accept-Encoding"] = "identity"

    def report(self, status: ReplicaStatus) -> ServedVersion:
        """Report what is served and refused here; return the version that is current."""
        path = f"current/replicas/{self._replica}"
        chunks = self._chunks("PUT", path, MAX_STATUS_BYTES, json=msgspec.to_builtins(status))
        try:
            return msgspec.json.decode(b"".join(chunks), type=ServedVersion)
        except INVALID as error:
            if isinstance(error, OSError):  # some errors of requests are ValueErrors, too
                raise
            raise ApiError(f"the API's answer is invalid: {error}") from None

    def file(self, version: int, name: str, max_bytes: int) -> Iterator[bytes]:
        """Yield a file of a version in chunks; raise UnservableError beyond `max_bytes`."""
        return self._chunks("GET", f"{version}/{name}", max_bytes)

    def _chunks(self, method: str, path: str, max_bytes: int, **request: Any) -> Iterator[bytes]:
        end, size = time.monotonic() + MAX_SECONDS, 0
        options: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "stream": True} | request
        with self._session.request(method, f"{self._url}/models/{path}", **options) as response:
            response.raise_for_status()
            for chunk in response.iter_content(CHUNK_BYTES):
                size += len(chunk)
                if size > max_bytes:
                    raise UnservableError(f"{path} is larger than {max_bytes} bytes")
                if time.monotonic() > end:
                    raise TimeoutError(f"{path} took longer than {MAX_SECONDS} s")
                yield chunk
