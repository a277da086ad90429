"""Settings that have a new name. A service that finds an old name in its environment ends."""

import os
from collections.abc import Mapping

RENAMED = {
    "ALIVE_FILE": "LIVENESS_FILE",
    "ALLOW_UNJAILED_MODELS": "ALLOW_UNSANDBOXED_MODELS",
    "DRIFT_JUDGE_ROWS": "DRIFT_TRIAL_ROWS",
    "KEEP_FREE_BYTES": "MIN_FREE_BYTES",
    "KEEP_SECONDS": "METRIC_RETENTION_SECONDS",
    "KEEP_UPLOADS_SECONDS": "UPLOAD_RETENTION_SECONDS",
    "RESERVE_BYTES": "METRIC_BALLAST_BYTES",
    "SHOW_AT_MOST": "MAX_SHOWN_LETTERS",
    "TRAIN_IN": "TRAIN_BACKEND",
    "TRAIN_WARM": "TRAIN_PREWARM",
}


def refuse_renamed_settings(environment: Mapping[str, str] = os.environ) -> None:
    """Raise SystemExit if an old name is set. An empty value counts as not set."""
    for old, new in RENAMED.items():
        if environment.get(old):
            raise SystemExit(f"The setting {old} is called {new} now: set {new} instead.")
