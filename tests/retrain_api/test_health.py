"""GET /healthz, and the health check of the container."""

import os
import subprocess
import sys

import yaml

from tests.support.api import Api
from tests.support.environment import ROOT


def test_health_depends_on_the_broker(tmp_path, broker):
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
    with Api(tmp_path / "without") as api:
        assert api.get("/healthz").status_code == 503
        assert api.get("/healthz").json()["broker"] is False
    with Api(tmp_path / "with", broker) as api:
        assert api.get("/healthz").json()["ok"] is True
        assert api.get("/healthz").json()["disk_free_bytes"] > 0


def test_the_health_check_of_the_container_uses_no_proxy(tmp_path, broker):
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    command = compose["services"]["retrain_api"]["healthcheck"]["test"]
    with Api(tmp_path, broker) as api:
        program = command[3].replace("http://localhost:8000", api.url)
        proxy = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.0/8"}
        subprocess.run([sys.executable, "-c", program], env=os.environ | proxy, check=True)
