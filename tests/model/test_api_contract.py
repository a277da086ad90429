"""The fake API of these tests and the real one give `model` the same answers."""

import hashlib
import json
from urllib.parse import quote

import msgspec
import pytest
import requests

from common.artifacts import Golden
from common.worker_api import Refusal, ReplicaStatus, ServedVersion
from model.api_client import ApiClient
from tests.support.api import TFLITE, Api, result_files
from tests.support.fake_model_api import FakeModelApi

TOKEN = "a token of the tests"
GOLDEN = result_files()["golden.json"][1]
SHA256 = hashlib.sha256(TFLITE).hexdigest()
STATUS = {"serves": 0, "refused": None}


def call(method: str, url: str, token: str = TOKEN, **request) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, headers=headers, timeout=30, **request)


@pytest.fixture(scope="module")
def fake():
    api = FakeModelApi(TOKEN)
    api.add(1, TFLITE, GOLDEN)
    yield api
    api.stop()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with Api(tmp_path_factory.mktemp("api"), API_TOKEN=TOKEN) as api:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        job = api.upload({"deploy": "never"}, headers=headers).json()["id"]
        assert api.claim(job).ok and api.result(job, 1).json()["version"] == 1
        yield api


def make_current(api, version: int) -> None:
    if isinstance(api, FakeModelApi):
        api.current = version
    else:
        assert call("POST", f"{api.url}/models/{version}/deploy").ok


@pytest.fixture(params=["fake", "real"])
def url(request) -> str:
    """The address of the API; its current version is 1."""
    api = request.getfixturevalue(request.param)
    make_current(api, 1)
    return api.url


def put(url: str, body, replica: str = "one", token: str = TOKEN) -> requests.Response:
    body = body if isinstance(body, bytes) else json.dumps(body)
    return call("PUT", f"{url}/models/current/replicas/{quote(replica, safe='')}", token, data=body)


def is_error(answer: requests.Response, code: int) -> bool:
    """Whether an answer has this code, and a sentence in JSON."""
    json_type = answer.headers["Content-Type"].startswith("application/json")
    return answer.status_code == code and json_type and len(answer.json()["error"]) > 10


@pytest.mark.parametrize("replica", ["one", "host-1.example:2_x", "x" * 100])
@pytest.mark.parametrize("refused", [None, {"version": 4, "reason": "it has 2 inputs"}])
def test_a_status_is_answered_with_the_current_version_and_its_hash(url, replica, refused):
    answer = put(url, STATUS | {"refused": refused}, replica)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json() == {"version": 1, "sha256": SHA256}


@pytest.mark.parametrize("name", ["fake", "real"])
def test_the_built_in_version_has_no_hash(name, request):
    api = request.getfixturevalue(name)
    make_current(api, 0)
    assert put(api.url, STATUS).json() == {"version": 0, "sha256": None}


def test_the_client_of_model_reads_every_answer(url):
    client = ApiClient(url, TOKEN, "one")
    status = ReplicaStatus(0, Refusal(4, "it has 2 inputs"))
    assert client.report(status) == ServedVersion(1, SHA256)
    assert b"".join(client.file(1, "model.tflite", 1000)) == TFLITE
    golden = msgspec.json.decode(b"".join(client.file(1, "golden.json", 1000)), type=Golden)
    assert golden == msgspec.json.decode(GOLDEN, type=Golden)


INVALID = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "no version": b"{}",
    "a text": b'{"serves": "1", "refused": null}',
    "below zero": b'{"serves": -1, "refused": null}',
    "a fraction": b'{"serves": 1.5, "refused": null}',
    "null": b'{"serves": null, "refused": null}',
    "a refusal that is a number": b'{"serves": 1, "refused": 7}',
    "a refusal without a reason": b'{"serves": 1, "refused": {"version": 2}}',
    "a refusal without a version": b'{"serves": 1, "refused": {"reason": "why"}}',
    "depth": b'{"serves":' + b"[" * 100_000,
}


@pytest.mark.parametrize("kind", INVALID)
def test_an_invalid_status_is_a_400(url, kind):
    assert is_error(put(url, INVALID[kind]), 400)


@pytest.mark.parametrize("replica", ["a b", "x" * 101, "Пациент"])
def test_an_invalid_name_of_a_replica_is_a_400(url, replica):
    assert is_error(put(url, STATUS, replica), 400)


def test_a_name_with_a_slash_is_a_404(url):
    assert is_error(put(url, STATUS, "../../1"), 404)


@pytest.mark.parametrize("token", ["", "another token"])
def test_a_status_without_the_token_is_a_401(url, token):
    assert is_error(put(url, STATUS, token=token), 401)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("model.tflite", "application/octet-stream"), ("golden.json", "application/json")],
)
def test_the_files_of_a_version_need_no_token(url, name, content_type):
    answer = call("GET", f"{url}/models/1/{name}", token="")
    assert answer.status_code == 200 and answer.headers["Content-Type"] == content_type
    if name == "model.tflite":
        assert answer.content == TFLITE
    else:
        assert answer.json() == json.loads(GOLDEN)


@pytest.mark.parametrize("name", ["model.tflite", "golden.json"])
@pytest.mark.parametrize("version", ["0", "2", "999999999", "99999999999", "-1", "x", "..%2F1"])
def test_the_files_of_an_unknown_version_are_a_404(url, version, name):
    assert is_error(call("GET", f"{url}/models/{version}/{name}"), 404)


def test_an_unknown_file_of_a_version_is_a_404(url):
    assert is_error(call("GET", f"{url}/models/1/passwords.json"), 404)
