"""The demo reads what the services wrote, says what happened, and leaves a picture."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tests.support.environment import ROOT

pytestmark = pytest.mark.slow

START = 1765912012.5  # Unix time of the first row
EVENTS = "at,event,id,version,job,text\n"


def write_logs(logs, *events: str) -> None:
    """Write 200 rows, one a second, whose errors rise after 80 and fall after 130; and events."""
    rows = [
        f"{START + n:.6f},100.0,98.50,{40 if n < 80 else 160 if n < 130 else 50}.00\n"
        for n in range(200)
    ]
    (logs / "metric_log.csv").write_text("id,y_true,y_pred,absolute_error\n" + "".join(rows))
    lines = []
    for number, event in enumerate(events):
        at = datetime.fromtimestamp(START + 90 + 20 * number, UTC).isoformat()
        lines.append(f'{at},{event},,1,,"text of {event}, in a sentence"\n')
    (logs / "drift_log.csv").write_text(EVENTS + "".join(lines) + "torn,")


def demo(logs, **settings: str) -> subprocess.CompletedProcess:
    environment = {"LOGS_DIR": str(logs), "FEATURES_DRIFT_AFTER": "80"} | settings
    return subprocess.run(
        [sys.executable, ROOT / "tools/demo.py"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "events",
    [
        ("drift_detected", "job_submitted", "deployed", "confirmed"),
        ("drift", "job", "deployed", "confirmed"),
    ],
    ids=["present names", "former names"],
)
def test_the_demo_ends_when_the_new_version_is_confirmed_and_leaves_a_picture(logs, events):
    write_logs(logs, *events)
    done = demo(logs)
    assert done.returncode == 0, done.stderr
    for name, written in zip(
        ("drift_detected", "job_submitted", "deployed", "confirmed"), events, strict=True
    ):
        assert f"  {name}: text of {written}, in a sentence\n" in done.stdout
    assert "before  mean absolute error   40.0 over 80 rows" in done.stdout
    assert "during  mean absolute error  160.0 over 50 rows" in done.stdout
    assert "after   mean absolute error   50.0 over 70 rows" in done.stdout
    assert (logs / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_demo_without_a_confirmed_version_fails_and_leaves_a_picture(logs):
    write_logs(logs, "drift_detected")
    done = demo(logs, DEMO_SECONDS="1")
    assert done.returncode == 1 and "No new version was confirmed within 1 s." in done.stderr
    assert "row 200: the mean error of the last 60 rows" in done.stdout
    assert (logs / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_version_that_somebody_deploys_by_hand_is_drawn_as_well(logs):
    write_logs(logs, "deployed", "confirmed")
    assert demo(logs).returncode == 0
    assert (logs / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_demo_without_rows_fails(logs):
    done = demo(logs, DEMO_SECONDS="1")
    assert done.returncode == 1 and done.stderr == "No row came.\n"
