"""GET /healthz, and the health check of the container."""

import os
import subprocess

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


def health_check(api: Api) -> bool:
    """Run the health check of the container on an API; a proxy that is set leads nowhere."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    _, *command, program = compose["services"]["retrain_api"]["healthcheck"]["test"]
    program = program.replace("$$", "$")  # as Compose reads it
    program = program.replace("localhost/8000", f"127.0.0.1/{api.url.split(':')[-1]}")
    proxy = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.0/8"}
    return subprocess.run([*command, program], env=os.environ | proxy).returncode == 0


def test_the_health_check_of_the_container_fails_without_a_broker_and_needs_no_proxy(
    tmp_path, broker
):
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
    with Api(tmp_path / "without") as api:
        assert not health_check(api)
    with Api(tmp_path / "with", broker) as api:
        assert health_check(api)
    assert not health_check(api)
