"""The promises of the API to its workers about attempts and leases; the tests play the worker."""

import json
import time

import numpy as np
import pytest
import requests

from tests.support.api import KERAS, TFLITE, Api, at_once, epoch, report, result_files
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Api(tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def api(shared):
    """An API that may have jobs and versions, and serves version 0."""
    shared.call("POST", "/models/0/deploy")
    return shared


@pytest.fixture
def impatient(tmp_path):
    with Api(tmp_path, LEASE_SECONDS=3) as api:
        yield api


def test_the_whole_life_of_a_job(api):
    job_id = api.new_job(epochs=3)
    claim = api.claim(job_id).json()
    assert claim["attempt"] == 1
    assert claim["job"]["id"] == job_id and claim["job"]["epochs"] == 3
    for name, size in claim["inputs"].items():
        content = api.work("GET", f"{job_id}/1/inputs/{name}").content
        assert (len(content), content) == (
            size,
            (api.data / "jobs" / job_id / name).read_bytes(),
        )
    news = epoch(2, 3, 5.0, 6.0)
    assert api.progress(job_id, 1, epochs=[news], log="epoch 2\n").status_code == 200
    job = api.job(job_id)
    assert (job["state"], job["worker"], job["progress"]) == ("running", "w1", news)
    assert api.get(f"/jobs/{job_id}/log").text == "epoch 2\n"
    answer = api.result(job_id, 1).json()
    version, job = answer["version"], api.job(job_id)
    assert answer["deployed"] is True
    assert (job["state"], job["version"]) == ("succeeded", version)
    assert "is better" in job["reason"] and job["report"] == api.get(f"/models/{version}").json()
    assert api.get(f"/models/{version}/model.tflite").content == TFLITE
    assert api.get("/models/current").json()["version"] == version


def test_of_twenty_claims_one_wins(api):
    job_id = api.new_job()
    answers = at_once(20, lambda number: api.claim(job_id, f"w{number}"))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    assert api.job(job_id)["attempt"] == 1


@pytest.mark.slow
def test_a_job_with_three_silent_workers_has_failed_with_the_reason(impatient):
    job_id = impatient.new_job()
    for attempt in (1, 2, 3):
        assert impatient.claim(job_id).json()["attempt"] == attempt
        job = impatient.wait_for_state(job_id, "failed" if attempt == 3 else "queued")
        assert "silent for 3 s" in job["reason"]
    assert impatient.claim(job_id).status_code == 409


@pytest.mark.slow
def test_a_report_renews_the_lease(impatient):
    job_id = impatient.new_job()
    impatient.claim(job_id)
    for _ in range(8):
        time.sleep(0.5)
        assert impatient.progress(job_id, 1).status_code == 200
    assert impatient.job(job_id)["attempt"] == 1


@pytest.mark.slow
def test_a_slow_download_renews_the_lease(tmp_path):
    large = KERAS + bytes(60 * 2**20)  # more than what waits in sockets
    with Api(tmp_path, LEASE_SECONDS=2.5) as api:
        job_id = api.upload(files={"model": ("m.keras", large)}).json()["id"]
        api.claim(job_id)
        with api.work("GET", f"{job_id}/1/inputs/model.keras", stream=True) as answer:
            for _ in answer.iter_content(3 * 2**20):
                time.sleep(0.2)
        assert api.progress(job_id, 1).status_code == 200


@pytest.mark.slow
def test_a_slow_upload_renews_the_lease(impatient):
    job_id = impatient.new_job()
    impatient.claim(job_id)
    files = result_files(model_keras=KERAS + bytes(6 * 2**20))
    form = requests.Request("POST", "http://x", data={"report": json.dumps(report())}, files=files)
    ready = form.prepare()

    def slowly():
        for at in range(0, len(ready.body), 2**20):
            time.sleep(0.6)
            yield ready.body[at : at + 2**20]

    headers = {"Content-Type": ready.headers["Content-Type"]}
    answer = impatient.work("POST", f"{job_id}/1/result", data=slowly(), headers=headers)
    assert answer.json() == {"version": 1, "deployed": True}


@pytest.mark.slow
def test_an_older_attempt_is_refused(impatient):
    job_id = impatient.new_job()
    impatient.claim(job_id, "early")
    impatient.wait_for_state(job_id, "queued")
    impatient.claim(job_id, "late")
    for answer in (
        impatient.progress(job_id, 1),
        impatient.result(job_id, 1),
        impatient.work("POST", f"{job_id}/1/release"),
    ):
        assert answer.status_code == 409 and "compare_with" not in answer.json()
    assert impatient.result(job_id, 2).json()["version"] == 1


def test_a_cancelled_job_accepts_no_more_reports(api):
    job_id = api.new_job()
    api.claim(job_id)
    api.call("DELETE", f"/jobs/{job_id}")
    before = api.stored()
    assert api.progress(job_id, 1).status_code == 409
    assert api.result(job_id, 1).status_code == 409
    assert api.stored() == before


def test_a_released_job_is_queued_again_and_the_attempt_does_not_count(api):
    job_id = api.new_job()
    for attempt in range(1, 6):
        assert api.claim(job_id).json()["attempt"] == attempt
        assert api.work("POST", f"{job_id}/{attempt}/release", json={}).status_code == 200
    assert api.job(job_id)["state"] == "queued"


def test_a_failed_job_says_why(api):
    job_id = api.new_job()
    api.claim(job_id)
    reason = {"reason": "out of memory\x1b[31m", "retry": False}
    assert api.work("POST", f"{job_id}/1/failed", json=reason).status_code == 200
    job = api.job(job_id)
    assert job["state"] == "failed" and job["reason"].startswith("out of memory")
    assert "\x1b" not in job["reason"]


def test_a_failure_that_is_not_the_jobs_is_tried_three_times(api):
    job_id = api.new_job()
    for attempt in (1, 2, 3):
        api.claim(job_id)
        api.work("POST", f"{job_id}/{attempt}/failed", json={"reason": "no engine", "retry": True})
    assert api.job(job_id)["state"] == "failed" and "no engine" in api.job(job_id)["reason"]


@pytest.mark.slow
def test_a_worker_adopts_its_own_attempt_only(impatient):
    job_id = impatient.new_job()
    impatient.claim(job_id, "mine")

    def adopt(attempt, worker):
        return impatient.work("POST", f"{job_id}/{attempt}/adopt", json={"worker": worker})

    again = adopt(1, "mine").json()
    assert again["attempt"] == 1 and again["job"]["id"] == job_id and "train.npy" in again["inputs"]
    assert adopt(1, "other").status_code == 423
    assert adopt(7, "mine").status_code == 409
    assert impatient.work("POST", "nix/1/adopt", json={"worker": "mine"}).status_code == 404
    impatient.wait_for_state(job_id, "queued")
    assert adopt(1, "mine").status_code == 409


def test_an_attempt_that_ends_its_worker_again_and_again_is_lost(api):
    job_id = api.new_job()
    api.claim(job_id, "mine")
    adopt = [api.work("POST", f"{job_id}/1/adopt", json={"worker": "mine"}) for _ in range(11)]
    assert [answer.status_code for answer in adopt] == [200] * 10 + [409]
    assert (job := api.job(job_id))["state"] == "queued" and "ended 10 times" in job["reason"]


@pytest.mark.slow
def test_no_lease_ends_while_the_api_is_away(impatient):
    job_id = impatient.new_job()
    impatient.claim(job_id)
    impatient.process.kill()
    time.sleep(2)
    impatient.start_again()
    assert impatient.progress(job_id, 1).status_code == 200
    impatient.wait_for_state(job_id, "queued")


def test_a_long_log_is_kept_by_its_end_and_steers_no_terminal(api):
    job_id = api.new_job()
    api.claim(job_id)
    api.progress(job_id, 1, log="x" * 2_000_000 + "\x1b[31m the end")
    answer = api.get(f"/jobs/{job_id}/log")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.text.endswith("[31m the end") and "\x1b" not in answer.text
    assert len(answer.text) <= 2**20


@pytest.mark.parametrize("secret", [None, "", "wrong", "é"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "claim"), ("POST", "1/result"), ("GET", "1/inputs/train.npy"), ("PUT", "1/progress")],
)
def test_without_the_secret_there_is_no_work(api, secret, method, path):
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}".encode()}
    answer = api.call(method, f"/worker/jobs/some/{path}", headers=headers)
    assert answer.status_code == 401 and "workers" in answer.json()["error"]


def test_inputs_are_those_of_the_job_and_of_a_running_attempt(api):
    job_id = api.new_job()
    assert api.work("GET", f"{job_id}/1/inputs/train.npy").status_code == 409
    api.claim(job_id)
    api.progress(job_id, 1, log="hello")
    for name in ("log.txt", "..%2f..%2fworker_secret", "model.keras", "job.json"):
        assert api.work("GET", f"{job_id}/1/inputs/{name}").status_code == 404
    train = api.data / "jobs" / job_id / "train.npy"
    assert np.load(train).shape[1] == 11


def test_a_worker_that_breaks_off_may_send_its_result_again(api):
    job_id = api.new_job()
    api.claim(job_id)
    before = api.stored()

    def torn():
        yield b'--b\r\nContent-Disposition: form-data; name="model.keras"; filename="m"\r\n\r\n'
        yield KERAS
        raise OSError("the cable is out")

    with pytest.raises((OSError, requests.ConnectionError)):
        api.work("POST", f"{job_id}/1/result", data=torn())
    wait_for(lambda: api.stored() == before, 30, "the remains to go")
    assert api.result(job_id, 1).status_code == 200
