"""The contract of retrain_api with `drift`: the real API and the tests' FakeApi fulfil it alike."""

import uuid

import pytest
import requests

from common.messages import HistoryRow
from drift.api_client import ApiClient, RejectedError, to_csv
from tests.support.api import MAE, Api
from tests.support.drift import FakeApi

TABLE = to_csv([HistoryRow(n, [n / 7, *[0.5 + n] * 9], float(n % 9)) for n in range(60)])


class RealApi(ApiClient):
    """retrain_api over HTTP, and what its users and workers do there."""

    def __init__(self, api: Api) -> None:
        super().__init__(api.url, "")
        self.process = api

    def finish(self, job_id: str, error: float) -> int:
        assert self.process.claim(job_id).ok and error == MAE["challenger"]
        return self.process.result(job_id, 1).json()["version"]

    def cancel(self, job_id: str) -> None:
        assert self.process.call("DELETE", f"/jobs/{job_id}").ok

    def refuse(self, version: int, reason: str) -> None:
        for name, refused in (("a", None), ("b", {"version": version, "reason": reason})):
            status = {"serves": 0, "refused": refused}
            path = f"{self.process.url}/models/current/replicas/{name}"
            requests.put(path, json=status, timeout=30).raise_for_status()


@pytest.fixture(scope="module", params=["real", "fake"])
def api(request, tmp_path_factory):
    """One API for all tests: each of them has its own keys, jobs and versions."""
    if request.param == "fake":
        yield FakeApi()
        return
    with Api(tmp_path_factory.mktemp("api")) as process:
        yield RealApi(process)


@pytest.fixture(params=["real", "fake"])
def stopped_api(request):
    if request.param == "real":
        return ApiClient("http://127.0.0.1:9", "")  # where nothing listens
    fake = FakeApi()
    fake.is_down = True
    return fake


@pytest.fixture
def key():
    return f"drift-{uuid.uuid4().hex}"


def test_a_key_is_of_one_job(api, key):
    job = api.submit(key, TABLE)
    assert not job.has_ended and not job.is_deployed
    assert api.submit(key, TABLE).id == job.id
    assert api.submit(f"{key}-2", TABLE).id != job.id
    assert api.job(job.id) == job


def test_a_table_without_rows_is_rejected(api, key):
    with pytest.raises(RejectedError, match="rows"):
        api.submit(key, TABLE.splitlines()[0])


def test_an_unknown_job_is_rejected(api):
    with pytest.raises(RejectedError):
        api.job("unknown")


def test_the_built_in_version_is_of_no_job(api):
    api.deploy(0)
    current = api.current()
    assert (current.version, current.report.job, current.refusal()) == (0, None, None)


def test_a_job_that_is_better_is_deployed_with_its_error_on_the_hold_out(api, key):
    api.deploy(0)
    job_id = api.submit(key, TABLE).id
    version = api.finish(job_id, error=40.0)
    job, current = api.job(job_id), api.current()
    assert job.has_ended and job.is_deployed and job.state == "succeeded"
    assert job.version == current.version == version > 0
    assert current.report.job == job_id and current.report.mae.challenger == 40.0


def test_a_cancelled_job_says_so(api, key):
    job_id = api.submit(key, TABLE).id
    api.cancel(job_id)
    job = api.job(job_id)
    assert job.has_ended and not job.is_deployed
    assert (job.state, job.reason) == ("cancelled", "cancelled on request")


def test_an_earlier_version_is_deployed_and_an_unknown_one_rejected(api, key):
    api.deploy(0)
    version = api.finish(api.submit(key, TABLE).id, error=40.0)
    assert api.current().version == version
    api.deploy(0)
    assert api.current().version == 0
    with pytest.raises(RejectedError):
        api.deploy(999)
    assert api.current().version == 0


def test_a_replica_s_refusal_counts_for_the_version_that_it_is_of(api, key):
    api.deploy(0)
    api.refuse(api.finish(api.submit(key, TABLE).id, error=40.0), "it cannot be loaded")
    assert api.current().refusal() == "it cannot be loaded"
    api.deploy(0)
    assert api.current().refusal() is None


def test_an_api_that_is_down_is_an_os_error(stopped_api):
    api = stopped_api
    for call in (api.current, lambda: api.job("j"), lambda: api.deploy(0)):
        with pytest.raises(OSError, match="onnection"):
            call()
