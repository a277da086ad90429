"""Who may call: with the token, with the workers' secret, and from no page of another site."""

import os
import subprocess
import sys

import pytest

from tests.support.api import Api
from tests.support.environment import ROOT


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with Api(tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def own(tmp_path):
    """An API that may be killed."""
    with Api(tmp_path) as api:
        yield api


@pytest.mark.slow
def test_changing_calls_need_the_token_and_questions_do_not(tmp_path):
    with Api(tmp_path, API_TOKEN="open sesame") as api:
        secret = (api.data / "worker_secret").read_text().strip()
        for wrong in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Bearer {secret}"}):
            assert api.upload(headers=wrong).status_code == 401
            assert api.call("DELETE", "/jobs/1", headers=wrong).status_code == 401
            assert api.call("POST", "/models/0/deploy", headers=wrong).status_code == 401
            assert api.call("PUT", "/models/current/replicas/a", headers=wrong).status_code == 401
        right = {"Authorization": "Bearer open sesame"}
        job_id = api.upload(headers=right).json()["id"]
        assert api.get(f"/jobs/{job_id}").status_code == 200
        assert api.call("POST", f"/worker/jobs/{job_id}/claim", headers=right).status_code == 401
        assert api.claim(job_id).status_code == 200


@pytest.mark.slow
def test_the_secret_is_made_once_and_kept_readable(own):
    path = own.data / "worker_secret"
    secret = path.read_text()
    own.process.stop()
    own.start_again()
    assert path.read_text() == secret and len(secret.strip()) == 64
    assert path.stat().st_mode & 0o777 == 0o444


@pytest.mark.slow
def test_a_token_that_no_header_can_have_is_refused_at_the_start(tmp_path):
    environment = os.environ | {"API_TOKEN": "sécret", "DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "retrain_api"]
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, **options, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("API_TOKEN: no header can have it")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[evil.example]"},
        {"Origin": "http://rebound.example:8000", "Host": "rebound.example:8000"},
    ],
)
def test_a_browser_on_another_site_changes_nothing(api, headers):
    job_id = api.new_job()
    for method, path in (
        ("POST", "/jobs"),
        ("DELETE", f"/jobs/{job_id}"),
        ("POST", "/models/0/deploy"),
    ):
        refused = api.call(method, path, headers=headers)
        assert refused.status_code == 403 and "another site" in refused.json()["error"]
    assert api.job(job_id)["state"] == "queued"


@pytest.mark.parametrize("host", ["rebound.example:8000", "127.0.0.1.rebound.example"])
@pytest.mark.parametrize(
    "sign", [{"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}, {"Accept-Language": ""}]
)
def test_a_browser_that_uses_a_foreign_host_name_gets_nothing(api, host, sign):
    headers = {"Host": host} | sign
    for path in ("/", "/jobs", "/models/current", "/live/events", "/healthz", "/nothing"):
        refused = api.get(path, headers=headers)
        assert refused.status_code == 403 and "ALLOWED_HOSTS" in refused.json()["error"]


def test_a_browser_may_use_addresses_and_a_program_any_name(api):
    browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    for host in ("127.0.0.1:8000", "localhost:8000", "retrain_api:8000", "[::1]:8000"):
        assert api.get("/models", headers=browser | {"Host": host}).ok
    assert api.get("/models", headers={"Host": "retrain.example:8000"}).ok


@pytest.mark.slow
def test_curl_the_page_itself_and_an_allowed_name_may_change_something(own):
    page = {"Sec-Fetch-Site": "same-origin", "Origin": own.url}
    host = {"Host": "models.example", "Origin": "https://models.example"}
    assert own.call("POST", "/models/0/deploy").ok
    assert own.call("POST", "/models/0/deploy", headers=page).ok
    own.process.stop()
    own.start_again(ALLOWED_HOSTS="other.example,models.example")
    assert own.call("POST", "/models/0/deploy", headers=host).ok
    assert own.get("/", headers=host | {"User-Agent": "Mozilla/5.0"}).ok


def test_every_answer_forbids_a_browser_to_load_anything_from_elsewhere(api):
    for path in ("/", "/d3.js", "/static/page.js", "/jobs", "/nothing"):
        policy = api.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
    page = api.get("/").text
    assert "http://" not in page and "https://" not in page and "style=" not in page
