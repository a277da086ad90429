"""The settings of `model`, from the environment."""

import os
import socket
from pathlib import Path

BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "200"))  # rows predicted at once, at most
API_URL = os.environ.get("API_URL", "").rstrip("/")  # empty: version 0 stays active
API_TOKEN = os.environ.get("API_TOKEN", "")
MODEL_CACHE = Path(os.environ.get("MODEL_CACHE", ".run/model"))  # folder for the last good version
REPLICA_NAME = os.environ.get("REPLICA_NAME", "") or socket.gethostname()
