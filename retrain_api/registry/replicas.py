"""What the replicas of `model` serve. Each reports it every 10 s; it is in memory only."""

import threading
import time
from datetime import UTC, datetime

import msgspec

from common.worker_api import ReplicaStatus
from retrain_api.errors import TooManyReplicasError

SILENT_SECONDS = 60  # a replica that reports nothing for longer is not listed
MAX_REPLICAS = 1000


class Replica(ReplicaStatus):
    """The last report of a replica, and its time."""

    seen: str = ""


class Replicas:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reports: dict[str, tuple[float, Replica]] = {}  # by name: when, what

    def report(self, name: str, status: ReplicaStatus) -> None:
        """Store a report; raise TooManyReplicasError if there are too many replicas."""
        with self.lock:
            self.expire()
            if name not in self.reports and len(self.reports) >= MAX_REPLICAS:
                many = f"more than {MAX_REPLICAS} replicas"
                raise TooManyReplicasError(f"{many}; give each one name, and keep it")
            seen = datetime.now(UTC).isoformat(timespec="seconds")
            replica = Replica(**msgspec.structs.asdict(status), seen=seen)
            self.reports[name] = (time.monotonic(), replica)

    def listed(self) -> dict[str, Replica]:
        with self.lock:
            self.expire()
            return {name: replica for name, (_, replica) in sorted(self.reports.items())}

    def expire(self) -> None:
        oldest = time.monotonic() - SILENT_SECONDS
        self.reports = {name: kept for name, kept in self.reports.items() if kept[0] > oldest}
