"""The contract of retrain_api with `drift`: the real API and the tests' FakeApi fulfil it alike."""

import pytest
import requests

from common.messages import HistoryRow
from drift.api_client import ApiClient, RejectedError
from drift.training_table import to_csv
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

    def stop(self) -> None:
        self.process.process.stop()


@pytest.fixture(params=["real", "fake"])
def api(request, tmp_path):
    if request.param == "fake":
        yield FakeApi()
        return
    with Api(tmp_path) as process:
        yield RealApi(process)


def test_a_key_is_of_one_job(api):
    job = api.submit("drift-1-1", TABLE)
    assert not job.has_ended and not job.is_deployed
    assert api.submit("drift-1-1", TABLE).id == job.id
    assert api.submit("drift-1-2", TABLE).id != job.id
    assert api.job(job.id) == job


def test_a_table_without_rows_is_rejected(api):
    with pytest.raises(RejectedError, match="rows"):
        api.submit("drift-1-1", TABLE.splitlines()[0])


def test_an_unknown_job_is_rejected(api):
    with pytest.raises(RejectedError):
        api.job("unknown")


def test_the_built_in_version_is_current_and_of_no_job(api):
    current = api.current()
    assert (current.version, current.report.job, current.refusal()) == (0, None, None)


def test_a_job_that_is_better_is_deployed_with_its_error_on_the_hold_out(api):
    job_id = api.submit("drift-1-1", TABLE).id
    version = api.finish(job_id, error=40.0)
    job, current = api.job(job_id), api.current()
    assert job.has_ended and job.is_deployed and job.state == "succeeded"
    assert job.version == current.version == version == 1
    assert current.report.job == job_id and current.report.mae.challenger == 40.0


def test_a_cancelled_job_says_so(api):
    job_id = api.submit("drift-1-1", TABLE).id
    api.cancel(job_id)
    job = api.job(job_id)
    assert job.has_ended and not job.is_deployed
    assert (job.state, job.reason) == ("cancelled", "cancelled on request")


def test_an_earlier_version_is_deployed_and_an_unknown_one_rejected(api):
    api.finish(api.submit("drift-1-1", TABLE).id, error=40.0)
    api.deploy(0)
    assert api.current().version == 0
    with pytest.raises(RejectedError):
        api.deploy(7)
    assert api.current().version == 0


def test_a_replica_s_refusal_counts_for_the_version_that_it_is_of(api):
    api.finish(api.submit("drift-1-1", TABLE).id, error=40.0)
    api.refuse(1, "it cannot be loaded")
    assert api.current().refusal() == "it cannot be loaded"
    api.deploy(0)
    assert api.current().refusal() is None


def test_an_api_that_is_down_is_an_os_error(api):
    api.stop()
    for call in (api.current, lambda: api.job("j"), lambda: api.deploy(0)):
        with pytest.raises(OSError, match="onnection"):
            call()
