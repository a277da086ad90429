"""Settings of `drift`, from the environment."""

import os
from pathlib import Path

# ADWIN's confidence: smaller values give fewer false alarms and later detection. With river's own
# default, 0.002, 2 of 60 runs of 20,000 rows raise one.
DRIFT_DELTA = float(os.environ.get("DRIFT_DELTA", "0.0001"))
DRIFT_MIN_ROWS = int(os.environ.get("DRIFT_MIN_ROWS", "300"))  # since a change, to train on
DRIFT_MAX_ROWS = int(os.environ.get("DRIFT_MAX_ROWS", "5000"))  # the newest of them
DRIFT_TRIAL_ROWS = int(os.environ.get("DRIFT_TRIAL_ROWS", "300"))  # length of a trial
DRIFT_COOLDOWN_SECONDS = float(os.environ.get("DRIFT_COOLDOWN_SECONDS", "60"))  # between two jobs
API_URL = os.environ.get("API_URL", "http://localhost:8000").rstrip("/")
API_TOKEN = os.environ.get("API_TOKEN", "")
LOGS_DIR = Path(os.environ.get("LOGS_DIR", "logs"))


def check_settings() -> None:
    """Raise SystemExit if a case of drift could never have enough rows."""
    if not 0 < DRIFT_MIN_ROWS <= DRIFT_MAX_ROWS:
        raise SystemExit("DRIFT_MIN_ROWS has to be at least 1, and at most DRIFT_MAX_ROWS.")
