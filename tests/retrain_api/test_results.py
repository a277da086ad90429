"""A result of a worker becomes a version, or is refused."""

import json

import pytest

from tests.support.api import KERAS, MAE, Api, at_once, report, result_files


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Api(tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def api(shared):
    """An API that may have jobs and versions, and serves version 0."""
    shared.call("POST", "/models/0/deploy")
    return shared


def scores(**mae) -> dict:
    return report()["scores"] | {"mae": MAE | mae}


def test_a_report_has_the_promised_fields(api):
    version = api.version()
    stored = api.get(f"/models/{version}").json()
    assert stored["mae"] == MAE and stored["regions"][0]["file"] == "a.csv"
    assert stored["containers"] == {"training": "c1", "scoring": "c2"}
    assert stored["training"]["started_from"] == "scratch" and stored["target"] == "y"
    assert set(stored["sha256"]) == {"model.keras", "model.tflite"}
    assert (stored["fits_stream"], stored["deployed"], stored["compared_with"]) == (True, True, 0)


def test_a_result_that_comes_twice_is_one_version(api):
    job_id = api.new_job()
    api.claim(job_id)
    first = api.result(job_id, 1).json()
    assert api.result(job_id, 1).json() == first
    assert api.get("/models").json()["models"][-1]["version"] == first["version"]


def test_a_result_that_comes_four_times_at_once_is_one_version(api):
    job_id = api.new_job()
    api.claim(job_id)
    before = len(list((api.data / "versions").iterdir()))
    answers = at_once(4, lambda _: api.result(job_id, 1))
    assert [answer.json() for answer in answers] == [answers[0].json()] * 4
    assert len(list((api.data / "versions").iterdir())) == before + 1


def test_the_second_of_two_concurrent_results_is_to_be_compared_again(api):
    ids = [api.new_job() for _ in range(2)]
    for job_id in ids:
        api.claim(job_id)
    answers = at_once(2, lambda number: api.result(ids[number], 1))
    won, lost = sorted(answers, key=lambda answer: answer.status_code)
    version = won.json()["version"]
    assert (won.status_code, lost.status_code, lost.json()["compare_with"]) == (200, 409, version)
    loser = next(job_id for job_id in ids if api.job(job_id)["state"] == "running")
    worse = api.result(loser, 1, scores=scores(champion=39.0), compared_with=version)
    assert worse.json() == {"version": version + 1, "deployed": False}
    assert api.get("/models/current").json()["version"] == version


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
def test_a_version_is_deployed_by_the_rule(api, deploy, changes, deployed, why):
    job_id = api.new_job(deploy=deploy)
    api.claim(job_id)
    version = api.result(job_id, 1, **changes).json()["version"]
    stored = api.get(f"/models/{version}").json()
    assert stored["deployed"] is deployed and why in stored["why"]
    assert api.get("/models/current").json()["version"] == (version if deployed else 0)


def test_a_version_with_other_columns_is_kept_and_never_deployed(api):
    job_id = api.new_job(columns=4, deploy="always")
    api.claim(job_id)
    answer = api.result(job_id, 1, columns=4).json()  # its report lies: it says 10 columns
    assert answer["deployed"] is False
    refused = api.call("POST", f"/models/{answer['version']}/deploy")
    assert refused.status_code == 409 and "does not fit" in refused.json()["error"]
    assert api.get(f"/models/{answer['version']}/model.keras").content == KERAS


def test_a_version_without_tflite_is_kept_and_says_why(api):
    job_id = api.new_job(deploy="always")
    api.claim(job_id)
    training = report()["training"] | {"why_no_tflite": "LSTM needs extra operations"}
    files = result_files(model_tflite=None)
    answer = api.result(job_id, 1, files=files, training=training, scores=None).json()
    assert answer["deployed"] is False and "LSTM" in api.job(job_id)["reason"]
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
def test_an_invalid_result_is_refused_and_nothing_is_stored(api, files, changes):
    job_id = api.new_job()
    api.claim(job_id)
    before = api.stored()
    answer = api.result(job_id, 1, files=files, **changes)
    assert answer.status_code == 400 and len(answer.json()["error"]) > 20
    assert api.stored() == before and api.job(job_id)["state"] == "running"


@pytest.mark.parametrize(
    "changes",
    [{"keras": "3" * 10**5}, {"epochs_run": float("inf")}, {"epochs_run": -1}, {"seconds": [1]}],
)
def test_a_report_with_values_out_of_bounds_is_refused(api, changes):
    job_id = api.new_job()
    api.claim(job_id)
    answer = api.result(job_id, 1, training=report()["training"] | changes)
    assert answer.status_code == 400 and "training" in answer.json()["error"]
    assert api.job(job_id)["state"] == "running"


def test_unknown_fields_of_a_report_are_dropped_and_its_texts_steer_no_terminal(api):
    job_id = api.new_job()
    api.claim(job_id)
    training = report()["training"] | {"evil": 1, "keras": "3\x1b[2J"}
    api.result(job_id, 1, training=training, containers={"training": "\x1b[2J", "more": "x"})
    stored = api.job(job_id)["report"]
    assert "evil" not in stored["training"] and stored["training"]["keras"] == "3\ufffd[2J"
    assert stored["containers"] == {"training": "\ufffd[2J", "scoring": None}
