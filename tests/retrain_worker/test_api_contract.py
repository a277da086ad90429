"""The calls of a worker, on the real API and on the fake one: the same answers."""

import json
from collections.abc import Callable

import pytest
import requests

from tests.support.api import Api, report, result_files
from tests.support.fake_worker_api import SECRET, fake_api

NO_JOB = "no-such-job"


class RealApi:
    """The real API, as a worker sees it."""

    def __init__(self, api: Api):
        self.api, self.url = api, api.url
        self.secret = (api.data / "worker_secret").read_text().strip()

    def new_job(self) -> str:
        return self.api.new_job()

    def cancel(self, job: str) -> None:
        self.api.call("DELETE", f"/jobs/{job}")

    def serve_another_version(self) -> int:
        return self.api.version()


class FakeApi:
    """The fake one, whose state a test sets."""

    def __init__(self, api):
        self.api, self.url, self.secret = api, api.url, SECRET

    def new_job(self) -> str:
        return self.api.add("").id

    def cancel(self, job: str) -> None:
        self.api.jobs[job].state = "cancelled"

    def serve_another_version(self) -> int:
        self.api.version, self.api.champion = self.api.version + 1, b"TFL3"
        return self.api.version


@pytest.fixture(scope="module", params=["real", "fake"])
def api(request, tmp_path_factory):
    if request.param == "fake":
        with fake_api() as fake:
            yield FakeApi(fake)
    else:
        with Api(tmp_path_factory.mktemp("api")) as real:
            yield RealApi(real)


@pytest.fixture
def call(api) -> Callable[..., requests.Response]:
    """Return a function that calls as a worker does, with a JSON body."""

    def call(method: str, path: str, body=None, secret=api.secret, **content):
        headers = {"Authorization": f"Bearer {secret}"}
        if body is not None:
            content["data"] = body if isinstance(body, bytes) else json.dumps(body)
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, api.url + path, headers=headers, timeout=60, **content)

    return call


@pytest.fixture
def claimed(api, call) -> str:
    """Return the path of the first attempt at a new job, which the worker `w1` has claimed."""
    job = api.new_job()
    assert call("POST", f"/worker/jobs/{job}/claim", {"worker": "w1"}).status_code == 200
    return f"/worker/jobs/{job}/1"


def is_error(answer: requests.Response, code: int) -> bool:
    """Whether an answer is an error with this code and a sentence."""
    return answer.status_code == code and bool(answer.json()["error"])


def test_a_claim_is_answered_with_the_job_and_the_sizes_of_its_inputs(api, call):
    job = api.new_job()
    answer = call("POST", f"/worker/jobs/{job}/claim", {"worker": "w1"})
    assignment = answer.json()
    assert answer.status_code == 200 and set(assignment) == {"attempt", "job", "inputs"}
    assert assignment["attempt"] == 1 and assignment["job"]["id"] == job
    assert len(assignment["job"]["columns"]) == 10
    assert set(assignment["inputs"]) == {"train.npy", "hold_out.npy"}
    for name, size in assignment["inputs"].items():
        content = call("GET", f"/worker/jobs/{job}/1/inputs/{name}")
        assert content.status_code == 200 and len(content.content) == size
        assert content.headers["Content-Length"] == str(size)
    assert is_error(call("GET", f"/worker/jobs/{job}/1/inputs/other.npy"), 404)


def test_a_job_that_is_running_cancelled_or_unknown_cannot_be_claimed(api, call, claimed):
    job = claimed.split("/")[3]
    assert is_error(call("POST", f"/worker/jobs/{job}/claim", {"worker": "w2"}), 409)
    cancelled = api.new_job()
    api.cancel(cancelled)
    assert is_error(call("POST", f"/worker/jobs/{cancelled}/claim", {"worker": "w2"}), 409)
    assert is_error(call("POST", f"/worker/jobs/{NO_JOB}/claim", {"worker": "w2"}), 404)


def test_a_worker_without_the_secret_is_not_heard(call, claimed):
    assert is_error(call("PUT", f"{claimed}/progress", {}, secret="wrong"), 401)


def test_an_attempt_is_adopted_by_its_own_worker_and_by_no_other(call, claimed):
    answer = call("POST", f"{claimed}/adopt", {"worker": "w1"})
    assert answer.status_code == 200 and set(answer.json()) == {"attempt", "job", "inputs"}
    assert answer.json()["attempt"] == 1
    assert is_error(call("POST", f"{claimed}/adopt", {"worker": "w2"}), 423)


EPOCH = {"epoch": 1, "epochs": 3, "loss": 1.5, "val_loss": 2.5}
PROGRESS = [
    {},
    {"epochs": []},
    {"epochs": [EPOCH, EPOCH | {"epoch": 2}]},
    {"epochs": [{"epoch": 1, "epochs": 3}]},
    {"epochs": [EPOCH | {"loss": None}]},
    {"containers": {"training": "c1"}},
    {"containers": {"training": "c1", "scoring": "c2"}, "log": "epoch 1/3\n"},
]
BAD_PROGRESS = [
    b"[" * 10_000,
    b"progress",
    b"\xff",
    [],
    {"epoch": 1},
    {"epochs": EPOCH},
    {"epochs": [{"epoch": 1}]},
    {"epochs": [EPOCH | {"epoch": -1}]},
    {"epochs": [EPOCH | {"epoch": "1"}]},
    {"epochs": [EPOCH] * 1001},
    {"containers": "c1"},
    {"log": 7},
]


@pytest.mark.parametrize("body", PROGRESS, ids=str)
def test_progress_is_accepted(call, claimed, body):
    answer = call("PUT", f"{claimed}/progress", body)
    assert answer.status_code == 200 and answer.json() == {}


@pytest.mark.parametrize("body", BAD_PROGRESS, ids=lambda body: str(body)[:40])
def test_progress_that_is_none_is_refused(call, claimed, body):
    assert is_error(call("PUT", f"{claimed}/progress", body), 400)


@pytest.mark.parametrize("body", [b"", {}, {"worker": ""}, {"worker": 7}, {"w": "w1"}], ids=str)
@pytest.mark.parametrize("action", ["claim", "1/adopt"])
def test_a_worker_without_a_name_is_refused(api, call, body, action):
    job = api.new_job()
    if action == "1/adopt":
        call("POST", f"/worker/jobs/{job}/claim", {"worker": "w1"})
    assert is_error(call("POST", f"/worker/jobs/{job}/{action}", body), 400)


ENDS = {"failed": {"reason": "It failed.", "retry": False}, "release": {}}


@pytest.mark.parametrize("action", ENDS)
def test_an_attempt_that_has_ended_is_over_for_every_call(call, claimed, action):
    answer = call("POST", f"{claimed}/{action}", ENDS[action])
    assert answer.status_code == 200 and answer.json() == {}
    assert is_error(call("PUT", f"{claimed}/progress", {}), 409)
    assert is_error(call("POST", f"{claimed}/adopt", {"worker": "w1"}), 409)
    assert is_error(call("POST", f"{claimed}/{action}", ENDS[action]), 409)
    assert is_error(call("GET", f"{claimed}/inputs/train.npy"), 409)
    assert is_error(deliver(call, claimed), 409)


def test_an_attempt_that_another_one_has_replaced_is_over(call, claimed):
    job = claimed.split("/")[3]
    call("POST", f"{claimed}/release", {})
    again = call("POST", f"/worker/jobs/{job}/claim", {"worker": "w2"})
    assert again.json()["attempt"] == 2
    assert is_error(call("PUT", f"{claimed}/progress", {}), 409)


@pytest.mark.parametrize(
    "body", [b"failed", {}, {"reason": 7}, {"reason": "x", "more": 1}], ids=str
)
def test_a_failure_without_a_reason_is_refused(call, claimed, body):
    assert is_error(call("POST", f"{claimed}/failed", body), 400)
    assert is_error(call("POST", f"{claimed}/release", {"reason": "x"}), 400)


def deliver(call, attempt: str, files=None, **changes) -> requests.Response:
    form = {"report": json.dumps(report(**changes))}
    return call(
        "POST", f"{attempt}/result", files=result_files() if files is None else files, data=form
    )


def test_a_result_is_stored_once_and_answered_twice(api, call, claimed):
    version = call("GET", "/models/current").json()["version"]
    answer = deliver(call, claimed, compared_with=version)
    assert answer.status_code == 200 and set(answer.json()) == {"version", "deployed"}
    again = deliver(call, claimed, compared_with=version)
    assert (again.status_code, again.json()) == (200, answer.json())


def test_a_result_that_is_compared_with_another_version_names_the_one_that_serves(
    api, call, claimed
):
    version = api.serve_another_version()
    answer = deliver(call, claimed, compared_with=version - 1)
    assert is_error(answer, 409) and answer.json()["compare_with"] == version
    assert deliver(call, claimed, compared_with=version).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [{"files": result_files(model_keras=None)}, {"scores": "good"}, {"compared_with": None}],
    ids=["no model", "scores", "compared with nothing"],
)
def test_a_result_that_is_none_is_refused(call, claimed, changes):
    assert is_error(deliver(call, claimed, **changes), 400)


def test_the_model_of_a_version_is_there_and_that_of_no_version_is_not(api, call):
    version = api.serve_another_version()
    assert call("GET", "/models/current").json()["version"] == version
    answer = call("GET", f"/models/{version}/model.tflite")
    assert answer.status_code == 200
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert is_error(call("GET", "/models/999/model.tflite"), 404)
