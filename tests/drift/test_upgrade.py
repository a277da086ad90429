"""`drift` continues on the archived state, streams and API of the version before."""

import csv
import json

import pytest

from drift.state import FORMAT
from tests.support import archive
from tests.support.api import Api
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

SETTINGS = {"DRIFT_DELTA": "0.0002", "DRIFT_MIN_ROWS": "80", "DRIFT_MAX_ROWS": "1000"}
SETTINGS |= {"DRIFT_TRIAL_ROWS": "90", "DRIFT_COOLDOWN_SECONDS": "5"}


@pytest.fixture
def api(broker, logs, tmp_path):
    """The archived API, beside the archived logs."""
    archive.unpack(tmp_path)
    with broker.connect() as connection:
        archive.publish(connection)
    with Api(tmp_path, broker, UPLOAD_RETENTION_SECONDS=10**9) as process:
        yield process


def test_the_archived_case_becomes_a_job(api, broker, run, logs):
    before = (logs / "drift_log.csv").read_bytes()
    [alarm] = archive.expected()["drift"]["alarms"]
    archived_rows = archive.expected()["queues"]["errors"]
    service = run("drift", broker, supervised=True, API_URL=api.url, **SETTINGS)

    def state() -> dict:
        state = json.loads((logs / "drift.json").read_text())
        return state if state.get("format") == FORMAT else {}

    wait_for(lambda: state().get("offset") == archived_rows, 60, "all archived rows")
    [case] = wait_for(
        lambda: [each for each in state()["cases"] if each["phase"]["state"] == "training"],
        60,
        "the job",
    )
    assert case["key"] == alarm["key"] and api.job(case["phase"]["job"])["state"] == "queued"
    assert service.stop() == 0 and not service.codes
    assert "is not a row" not in service.said()
    after = (logs / "drift_log.csv").read_bytes()
    assert after.startswith(before)
    new = list(csv.reader(after.removeprefix(before).decode().splitlines()))
    assert [line[1] for line in new] == ["job_submitted"]
