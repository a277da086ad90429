"""All settings of the worker, read once from the environment."""

import os

API_URL = os.environ.get("API_URL", "http://localhost:8000")
WORKER_SECRET_FILE = os.environ.get("WORKER_SECRET_FILE", "data/worker_secret")
WORKER_NAME = os.environ.get("WORKER_NAME", os.uname().nodename)

TRAIN_BACKEND = os.environ.get("TRAIN_BACKEND", "container")  # or process
TRAIN_PREWARM = int(os.environ.get("TRAIN_PREWARM", "1"))  # 0: each job waits for its imports
ALLOW_UNSANDBOXED_MODELS = os.environ.get("ALLOW_UNSANDBOXED_MODELS", "")  # any text means yes
TRAINER_IMAGE = os.environ.get("TRAINER_IMAGE", "monitoring-trainer")
MODEL_IMAGE = os.environ.get("MODEL_IMAGE", "monitoring-model")

TRAIN_TIMEOUT_SECONDS = float(os.environ.get("TRAIN_TIMEOUT_SECONDS", "3600"))  # for each step
TRAIN_MEMORY = os.environ.get("TRAIN_MEMORY", "2g")  # files in /tmp and /out count, too
TRAIN_CPUS = float(os.environ.get("TRAIN_CPUS", "2"))
TRAIN_GPUS = int(os.environ.get("TRAIN_GPUS", "0"))  # -1: all of them
TRAIN_OUTPUT_BYTES = int(os.environ.get("TRAIN_OUTPUT_BYTES", str(256 << 20)))  # of all files

ENGINE_TIMEOUT_SECONDS = float(os.environ.get("ENGINE_TIMEOUT_SECONDS", "25"))  # for one answer
