"""Settings of retrain_api. Each environment variable and its default stand here and nowhere else.

common has three more: AMQP_URL (connection), LIVENESS_FILE and WATCHDOG_SECONDS (lifecycle).
"""

import os

API_HOST = os.environ.get("API_HOST", "127.0.0.1")
API_PORT = os.environ.get("API_PORT", "8000")
API_TOKEN = os.environ.get("API_TOKEN", "")  # if set, every changing call has to send it
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "")  # further names of this service, with commas
DATA_DIR = os.environ.get("DATA_DIR", "data")
WORKER_SECRET_FILE = os.environ.get("WORKER_SECRET_FILE", "data/worker_secret")  # made if missing

LEASE_SECONDS = float(os.environ.get("LEASE_SECONDS", "60"))  # a silent worker loses its job then
MIN_FREE_BYTES = int(os.environ.get("MIN_FREE_BYTES", str(500 * 10**6)))  # uploads stop there
UPLOAD_RETENTION_SECONDS = float(  # files of a job, after its end
    os.environ.get("UPLOAD_RETENTION_SECONDS", "604800")
)

BROKER_SECONDS = 5  # limit of a connection attempt and of a heartbeat: finds a broker that hangs
MAX_BODY_BYTES = 4 << 20  # of a body that is not an upload
MAX_FORM_PARTS = 120
MAX_LISTENERS = 16  # of event streams, at once: each holds a thread of the server
MAX_UPLOADS = 8  # at once: the other threads are for workers and for questions
