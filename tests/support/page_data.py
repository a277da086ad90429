"""What the page shows: rows, drift events and jobs as the services would send them."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from sklearn.datasets import load_diabetes

from tests.support.api import Api, epoch, result_files
from tests.support.broker import Broker

HOSTILE = "<img src=x onerror=alert(1)>"


def write_diabetes(path: Path) -> str:
    """Write the diabetes data as a CSV, and return its path."""
    data = load_diabetes()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*data.feature_names, "y"])
        rows = zip(data.data.tolist(), data.target.tolist(), strict=True)
        writer.writerows([*x, y] for x, y in rows)
    return str(path)


def send_rows(broker: Broker, first: int, count: int, version: int, error: float) -> None:
    """Send true values and the predictions of a version with this absolute error."""
    ids = range(first, first + count)
    truths = [{"id": row, "body": 100 + row % 50} for row in ids]
    predictions = [{"id": row, "body": 100 + row % 50 + error} for row in ids]
    broker.send("y_true", [msgspec.json.encode(truth) for truth in truths])
    encoded = [msgspec.json.encode(prediction) for prediction in predictions]
    broker.send("y_pred", encoded, {"model_version": version})


def send_event(broker: Broker, event: str, text: str, at: str | None = None) -> None:
    """Send one event of drift; `at` is now unless given."""
    at = at or datetime.now(UTC).isoformat()
    body = {"at": at, "event": event, "id": 7, "version": 0, "job": None, "text": text}
    broker.send("drift", [msgspec.json.encode(body)])


def epochs(first: int, last: int, total: int = 20) -> list[dict]:
    """Return the progress of some epochs, whose losses fall."""
    return [epoch(n, total, 50 + 40 / n, 55 + 35 / n) for n in range(first, last + 1)]


def finish(api: Api, job: str, files: tuple[str, str], refused: str | None = None) -> None:
    """Hand in a result with one region for each of two data files."""
    mae = {"challenger": 40.0, "champion": 44.0, "mean": 66.0}
    regions = [{"file": name, "rows": 9} | mae for name in files]
    scores = {"inputs": 10, "outputs": 1, "mae": mae, "regions": regions, "refused": refused}
    assert api.result(job, 1, files=result_files(), scores=scores).ok
