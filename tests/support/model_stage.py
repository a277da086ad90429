"""What a test of `model` on a broker does: send rows, publish updates, deploy, compare answers."""

import threading

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from tests.support.fake_model_api import NETWORKS, FakeModelApi
from tests.support.networks import ROWS, networks
from tests.support.waiting import wait_for

LINEAR = LinearRegression().fit(ROWS, load_diabetes().target).predict(ROWS)


def notify(broker, *bodies: bytes) -> None:
    """Publish messages on `model_updates`, one by default."""
    with broker.connect() as connection:
        channel = connection.channel()
        for body in bodies or [b'{"version": 1}']:
            channel.basic_publish("model_updates", "", body)


def deploy(api: FakeModelApi, broker, version: int, *replicas: str) -> None:
    """Make `version` current and wait until every replica reports that it serves it."""
    api.current = version
    api.reports.clear()
    notify(broker)
    wait_for(lambda: api.serves(version, *replicas), 60, f"version {version}")


def row_body(row: int, row_id=None) -> bytes:
    """Return the message for a row of the diabetes data; its id is the number of the row."""
    row_id = str(row) if row_id is None else row_id
    return msgspec.json.encode({"id": row_id, "body": ROWS[row].tolist()})


def expected(version: int) -> np.ndarray:
    """Return the predictions of a version for all rows of the diabetes data."""
    return np.load(networks() / f"{NETWORKS[version]}.npy") if version else LINEAR


def assert_answers(broker, version: int, seconds: float = 10) -> None:
    """Send three rows, and require that `version` answers them in time and correctly."""
    broker.send("features", [row_body(row) for row in range(3)])
    taken = []
    wait_for(lambda: taken.extend(broker.take("y_pred")) or len(taken) == 3, seconds, "answers")
    for headers, answer in taken:
        answer = msgspec.json.decode(answer)
        assert headers["model_version"] == version
        assert answer["body"] == pytest.approx(expected(version)[int(answer["id"])], rel=1e-5)


def wait_until_good(service, version: int) -> None:
    passed = f"version {version} has passed its trial"
    wait_for(lambda: passed in service.said(), 60, "the end of the trial")


class Stream(threading.Thread):
    """Sends rows without a pause, each with a number of its own as id."""

    def __init__(self, broker) -> None:
        super().__init__(daemon=True)
        self.broker, self.sent, self.flowing = broker, 0, True
        self.start()

    def run(self) -> None:
        with self.broker.connect() as connection:
            channel = connection.channel()
            channel.tx_select()
            while self.flowing:
                for number in range(self.sent, self.sent + 20):
                    body = row_body(number % len(ROWS), number)
                    channel.basic_publish("", "features", body, mandatory=True)
                channel.tx_commit()
                self.sent += 20
                connection.sleep(0.02)

    def stop(self) -> None:
        self.flowing = False
        self.join()
