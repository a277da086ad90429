"""What the retraining API promises to its workers; the tests play the worker."""

import json
import shutil
import time

import numpy as np
import pytest
import requests

from tests.support.api import KERAS, MAE, TFLITE, Api, at_once, epoch, report, result_files
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
def hasty(tmp_path):
    with Api(tmp_path, LEASE_SECONDS=3) as api:
        yield api


def scores(**mae) -> dict:
    return report()["scores"] | {"mae": MAE | mae}


def test_the_whole_life_of_a_job(api):
    id = api.new_job(epochs=3)
    claim = api.claim(id).json()
    assert claim["attempt"] == 1
    assert claim["job"]["id"] == id and claim["job"]["epochs"] == 3
    for name, size in claim["inputs"].items():
        content = api.work("GET", f"{id}/1/inputs/{name}").content
        assert (len(content), content) == (
            size,
            (api.data / "jobs" / id / name).read_bytes(),
        )
    news = epoch(2, 3, 5.0, 6.0)
    assert api.progress(id, 1, news, log="epoch 2\n").status_code == 200
    job = api.job(id)
    assert (job["state"], job["worker"], job["progress"]) == ("running", "w1", news)
    assert api.get(f"/jobs/{id}/log").text == "epoch 2\n"
    answer = api.result(id, 1).json()
    version, job = answer["version"], api.job(id)
    assert answer["deployed"] is True
    assert (job["state"], job["version"]) == ("succeeded", version)
    assert "is better" in job["reason"] and job["report"] == api.get(f"/models/{version}").json()
    assert api.get(f"/models/{version}/model.tflite").content == TFLITE
    assert api.get("/models/current").json()["version"] == version


def test_a_report_has_what_is_promised(api):
    version = api.version()
    told = api.get(f"/models/{version}").json()
    assert told["mae"] == MAE and told["regions"][0]["file"] == "a.csv"
    assert told["containers"] == {"training": "c1", "scoring": "c2"}
    assert told["training"]["started_from"] == "scratch" and told["target"] == "y"
    assert set(told["sha256"]) == {"model.keras", "model.tflite"}
    assert (told["fits_stream"], told["deployed"], told["compared_with"]) == (True, True, 0)


def test_of_twenty_claims_one_wins(api):
    id = api.new_job()
    answers = at_once(20, lambda number: api.claim(id, f"w{number}"))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    assert api.job(id)["attempt"] == 1


def test_three_silent_workers_and_the_job_has_failed_with_the_reason(hasty):
    id = hasty.new_job()
    for attempt in (1, 2, 3):
        assert hasty.claim(id).json()["attempt"] == attempt
        job = hasty.wait_for_state(id, "failed" if attempt == 3 else "queued")
        assert "silent for 3 s" in job["reason"]
    assert hasty.claim(id).status_code == 409


def test_a_sign_of_life_renews_the_lease(hasty):
    id = hasty.new_job()
    hasty.claim(id)
    for _ in range(8):
        time.sleep(0.5)
        assert hasty.progress(id, 1).status_code == 200
    assert hasty.job(id)["attempt"] == 1


def test_a_slow_download_renews_the_lease(tmp_path):
    large = KERAS + bytes(60 * 2**20)  # more than what waits in sockets
    with Api(tmp_path, LEASE_SECONDS=2.5) as api:
        id = api.upload(files={"model": ("m.keras", large)}).json()["id"]
        api.claim(id)
        with api.work("GET", f"{id}/1/inputs/model.keras", stream=True) as answer:
            for _ in answer.iter_content(3 * 2**20):
                time.sleep(0.2)
        assert api.progress(id, 1).status_code == 200


def test_a_slow_upload_renews_the_lease(hasty):
    id = hasty.new_job()
    hasty.claim(id)
    files = result_files(model_keras=KERAS + bytes(6 * 2**20))
    form = requests.Request("POST", "http://x", data={"report": json.dumps(report())}, files=files)
    ready = form.prepare()

    def slowly():
        for at in range(0, len(ready.body), 2**20):
            time.sleep(0.6)
            yield ready.body[at : at + 2**20]

    headers = {"Content-Type": ready.headers["Content-Type"]}
    answer = hasty.work("POST", f"{id}/1/result", data=slowly(), headers=headers)
    assert answer.json() == {"version": 1, "deployed": True}


def test_a_late_twin_is_refused(hasty):
    id = hasty.new_job()
    hasty.claim(id, "early")
    hasty.wait_for_state(id, "queued")
    hasty.claim(id, "late")
    for answer in (
        hasty.progress(id, 1),
        hasty.result(id, 1),
        hasty.work("POST", f"{id}/1/release"),
    ):
        assert answer.status_code == 409 and "compare_with" not in answer.json()
    assert hasty.result(id, 2).json()["version"] == 1


def test_a_result_that_comes_twice_is_one_version(api):
    id = api.new_job()
    api.claim(id)
    first = api.result(id, 1).json()
    assert api.result(id, 1).json() == first
    assert api.get("/models").json()["models"][-1]["version"] == first["version"]


def test_a_version_that_is_deleted_just_now_is_not_listed_and_404(api):
    first, second = api.version(), api.version()
    shutil.rmtree(api.data / "versions" / str(first))
    listed = [report["version"] for report in api.get("/models").json()["models"]]
    assert second in listed and first not in listed
    assert api.get(f"/models/{first}").status_code == 404
    api.call("DELETE", f"/models/{first}")


def test_a_result_that_comes_four_times_at_once_is_one_version(api):
    id = api.new_job()
    api.claim(id)
    before = len(list((api.data / "versions").iterdir()))
    answers = at_once(4, lambda _: api.result(id, 1))
    assert [answer.json() for answer in answers] == [answers[0].json()] * 4
    assert len(list((api.data / "versions").iterdir())) == before + 1


def test_of_two_results_that_race_the_second_is_to_be_compared_again(api):
    ids = [api.new_job() for _ in range(2)]
    for id in ids:
        api.claim(id)
    answers = at_once(2, lambda number: api.result(ids[number], 1))
    won, lost = sorted(answers, key=lambda answer: answer.status_code)
    version = won.json()["version"]
    assert (won.status_code, lost.status_code, lost.json()["compare_with"]) == (200, 409, version)
    loser = next(id for id in ids if api.job(id)["state"] == "running")
    worse = api.result(loser, 1, scores=scores(champion=39.0), compared_with=version)
    assert worse.json() == {"version": version + 1, "deployed": False}
    assert api.get("/models/current").json()["version"] == version


def test_a_cancelled_job_takes_nothing_more(api):
    id = api.new_job()
    api.claim(id)
    api.call("DELETE", f"/jobs/{id}")
    before = api.stored()
    assert api.progress(id, 1).status_code == 409
    assert api.result(id, 1).status_code == 409
    assert api.stored() == before


def test_a_released_job_is_queued_again_and_the_attempt_does_not_count(api):
    id = api.new_job()
    for attempt in range(1, 6):
        assert api.claim(id).json()["attempt"] == attempt
        assert api.work("POST", f"{id}/{attempt}/release", json={}).status_code == 200
    assert api.job(id)["state"] == "queued"


def test_a_failed_job_says_why(api):
    id = api.new_job()
    api.claim(id)
    reason = {"reason": "out of memory\x1b[31m", "retry": False}
    assert api.work("POST", f"{id}/1/failed", json=reason).status_code == 200
    job = api.job(id)
    assert job["state"] == "failed" and job["reason"].startswith("out of memory")
    assert "\x1b" not in job["reason"]


def test_what_failed_for_no_fault_of_its_own_is_tried_three_times(api):
    id = api.new_job()
    for attempt in (1, 2, 3):
        api.claim(id)
        api.work("POST", f"{id}/{attempt}/failed", json={"reason": "no engine", "retry": True})
    assert api.job(id)["state"] == "failed" and "no engine" in api.job(id)["reason"]


def test_a_worker_adopts_what_is_its_own(hasty):
    id = hasty.new_job()
    hasty.claim(id, "mine")

    def adopt(attempt, worker):
        return hasty.work("POST", f"{id}/{attempt}/adopt", json={"worker": worker})

    again = adopt(1, "mine").json()
    assert again["attempt"] == 1 and again["job"]["id"] == id and "train.npy" in again["inputs"]
    assert adopt(1, "other").status_code == 423
    assert adopt(7, "mine").status_code == 409
    assert hasty.work("POST", "nix/1/adopt", json={"worker": "mine"}).status_code == 404
    hasty.wait_for_state(id, "queued")
    assert adopt(1, "mine").status_code == 409


def test_an_attempt_in_which_its_worker_ends_again_and_again_is_given_up(api):
    id = api.new_job()
    api.claim(id, "mine")
    adopt = [api.work("POST", f"{id}/1/adopt", json={"worker": "mine"}) for _ in range(11)]
    assert [answer.status_code for answer in adopt] == [200] * 10 + [409]
    assert (job := api.job(id))["state"] == "queued" and "ended 10 times" in job["reason"]


def test_an_api_that_was_away_blames_no_worker(hasty):
    id = hasty.new_job()
    hasty.claim(id)
    hasty.process.kill()
    time.sleep(2)
    hasty.start_again()
    assert hasty.progress(id, 1).status_code == 200
    hasty.wait_for_state(id, "queued")


@pytest.mark.parametrize(
    ("deploy", "changes", "deployed", "why"),
    [
        ("if_better", {}, True, "is better"),
        ("if_better", {"scores": scores(challenger=45.0)}, False, "not better"),
        ("if_better", {"scores": scores(mean=39.0)}, False, "not better"),
        ("if_better", {"scores": scores(mean=None)}, False, "compare"),
        ("if_better", {"scores": scores(champion=None)}, True, "no number for some row"),
        ("if_better", {"scores": scores(champion=None, mean=39.0)}, False, "not better"),
        ("always", {"scores": scores(challenger=99.0)}, True, "always"),
        ("always", {"scores": scores(challenger=99.0), "compared_with": 9}, True, "always"),
        ("always", {"scores": report()["scores"] | {"outputs": 2}}, False, "gives 2"),
        ("always", {"scores": report()["scores"] | {"inputs": 9}}, False, "takes 9"),
        ("always", {"scores": scores(challenger=None)}, False, "finite"),
        ("always", {"scores": report()["scores"] | {"refused": "rows mix"}}, False, "rows mix"),
        ("always", {"scores": None}, False, "not scored"),
        ("never", {}, False, "never"),
    ],
)
def test_what_is_deployed(api, deploy, changes, deployed, why):
    id = api.new_job(deploy=deploy)
    api.claim(id)
    version = api.result(id, 1, **changes).json()["version"]
    told = api.get(f"/models/{version}").json()
    assert told["deployed"] is deployed and why in told["why"]
    assert api.get("/models/current").json()["version"] == (version if deployed else 0)


def test_a_version_with_other_columns_is_kept_and_never_deployed(api):
    id = api.new_job(columns=4, deploy="always")
    api.claim(id)
    answer = api.result(id, 1, columns=4).json()  # its report lies: it says 10 columns
    assert answer["deployed"] is False
    refused = api.call("POST", f"/models/{answer['version']}/deploy")
    assert refused.status_code == 409 and "does not fit" in refused.json()["error"]
    assert api.get(f"/models/{answer['version']}/model.keras").content == KERAS


def test_a_version_without_tflite_is_kept_and_says_why(api):
    id = api.new_job(deploy="always")
    api.claim(id)
    training = report()["training"] | {"why_no_tflite": "LSTM needs extra operations"}
    files = result_files(model_tflite=None)
    answer = api.result(id, 1, files=files, training=training, scores=None).json()
    assert answer["deployed"] is False and "LSTM" in api.job(id)["reason"]
    assert "LSTM" in api.get(f"/models/{answer['version']}/model.tflite").json()["error"]


GOLDEN = {"rows": [[0.5] * 10] * 3, "predictions": [1.0, 2.0, 3.0]}


def golden(**changes) -> dict:
    return result_files(golden_json=json.dumps(GOLDEN | changes).encode())


@pytest.mark.parametrize(
    ("files", "changes"),
    [
        (result_files(model_keras=b"\x80\x05cos\nsystem"), {}),
        (result_files(model_keras=b""), {}),
        (result_files(model_keras=None), {}),
        (result_files(model_tflite=b"TFL3"), {}),
        (result_files(golden_json=None), {}),
        (result_files(golden_json=b"{"), {}),
        (result_files(golden_json=b"[" * 100_000), {}),
        (result_files(golden_json=b" " * 9_000_000), {}),
        (result_files(columns=9), {}),
        (golden(rows=[[0.5] * 10] * 40, predictions=[1.0] * 40), {}),
        (golden(rows=[], predictions=[]), {}),
        (golden(predictions=[1.0, 2.0]), {}),
        (golden(predictions=[1.0, float("nan"), 3.0]), {}),
        (golden(predictions=[1.0, 1e308, 3.0]), {}),
        (golden(rows=[["a"] * 10] * 3), {}),
        (golden(rows={"a": 1}), {}),
        (result_files() | {"../../etc/passwd": ("x", b"x")}, {}),
        (None, {"scores": []}),
        (None, {"scores": {"inputs": 10}}),
        (None, {"scores": report()["scores"] | {"regions": "many"}}),
        (None, {"scores": report()["scores"] | {"regions": [1]}}),
        (None, {"scores": report()["scores"] | {"mae": [1, 2]}}),
        (None, {"training": "fine"}),
        (None, {"containers": ["c1"]}),
    ],
)
def test_a_result_that_is_not_as_it_should_be_is_refused_and_nothing_stored(api, files, changes):
    id = api.new_job()
    api.claim(id)
    before = api.stored()
    answer = api.result(id, 1, files=files, **changes)
    assert answer.status_code == 400 and len(answer.json()["error"]) > 20
    assert api.stored() == before and api.job(id)["state"] == "running"


@pytest.mark.parametrize(
    "changes",
    [{"keras": "3" * 10**5}, {"epochs_run": float("inf")}, {"epochs_run": -1}, {"seconds": [1]}],
)
def test_a_report_with_values_out_of_bounds_is_refused(api, changes):
    id = api.new_job()
    api.claim(id)
    answer = api.result(id, 1, training=report()["training"] | changes)
    assert answer.status_code == 400 and "training" in answer.json()["error"]
    assert api.job(id)["state"] == "running"


def test_unknown_fields_of_a_report_are_dropped_and_its_texts_steer_no_terminal(api):
    id = api.new_job()
    api.claim(id)
    training = report()["training"] | {"evil": 1, "keras": "3\x1b[2J"}
    api.result(id, 1, training=training, containers={"training": "\x1b[2J", "more": "x"})
    stored = api.job(id)["report"]
    assert "evil" not in stored["training"] and stored["training"]["keras"] == "3\ufffd[2J"
    assert stored["containers"] == {"training": "\ufffd[2J", "scoring": None}


def test_losses_that_are_no_numbers_become_null(api):
    id = api.new_job()
    api.claim(id)
    body = '{"epochs": [{"epoch": 1, "epochs": 3, "loss": NaN, "val_loss": 1e999}]}'
    assert api.work("PUT", f"{id}/1/progress", data=body).status_code == 200
    assert api.job(id)["progress"] == {"epoch": 1, "epochs": 3, "loss": None, "val_loss": None}


def test_a_long_log_is_kept_by_its_end_and_steers_no_terminal(api):
    id = api.new_job()
    api.claim(id)
    api.progress(id, 1, log="x" * 2_000_000 + "\x1b[31m the end")
    answer = api.get(f"/jobs/{id}/log")
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
    id = api.new_job()
    assert api.work("GET", f"{id}/1/inputs/train.npy").status_code == 409
    api.claim(id)
    api.progress(id, 1, log="hello")
    for name in ("log.txt", "..%2f..%2fworker_secret", "model.keras", "job.json"):
        assert api.work("GET", f"{id}/1/inputs/{name}").status_code == 404
    train = api.data / "jobs" / id / "train.npy"
    assert np.load(train).shape[1] == 11


def test_a_worker_that_breaks_off_may_send_its_result_again(api):
    id = api.new_job()
    api.claim(id)
    before = api.stored()

    def torn():
        yield b'--b\r\nContent-Disposition: form-data; name="model.keras"; filename="m"\r\n\r\n'
        yield KERAS
        raise OSError("the cable is out")

    with pytest.raises((OSError, requests.ConnectionError)):
        api.work("POST", f"{id}/1/result", data=torn())
    wait_for(lambda: api.stored() == before, 30, "the remains to go")
    assert api.result(id, 1).status_code == 200
