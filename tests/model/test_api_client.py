import pytest

from common.worker_api import Refusal, ReplicaStatus, ServedVersion
from model.api_client import ApiClient, ApiError
from serving.network import UnservableError
from tests.support.fake_model_api import answer_with


def test_a_report_returns_the_current_version(api):
    api.current = 2
    client = ApiClient(api.url, "", "one")
    assert client.report(ReplicaStatus(1)) == ServedVersion(2, api.sha256[2])
    client.report(ReplicaStatus(1, Refusal(2, "why")))
    assert api.last_report() == {"serves": 1, "refused": {"version": 2, "reason": "why"}}


def test_a_wrong_token_is_an_error_and_the_right_one_is_not(api):
    api.token = "abc"
    with pytest.raises(OSError, match="401"):
        ApiClient(api.url, "abd", "one").report(ReplicaStatus(1))
    assert ApiClient(api.url, "abc", "one").report(ReplicaStatus(1)).version == 0


def test_the_name_of_a_replica_reaches_no_other_path(api):
    with pytest.raises(OSError, match="404"):
        ApiClient(api.url, "", "../../1/deploy?").report(ReplicaStatus(1))
    [(path, _)] = api.requests
    assert path == "/models/current/replicas/..%2F..%2F1%2Fdeploy%3F"


@pytest.mark.parametrize("answer", [b"", b"[4]", b'{"version": -1}', b'{"x":' + b"[" * 500_000])
def test_an_invalid_answer_is_an_api_error(api, answer):
    api.failure = answer_with(answer)
    with pytest.raises(ApiError, match="the API's answer is invalid"):
        ApiClient(api.url, "", "one").report(ReplicaStatus(1))


def test_a_file_comes_whole_or_is_refused_as_too_large(api):
    client, content = ApiClient(api.url, "", "one"), api.files["1/model.tflite"]
    assert b"".join(client.file(1, "model.tflite", len(content))) == content
    with pytest.raises(UnservableError, match="larger than"):
        b"".join(client.file(1, "model.tflite", len(content) - 1))


def test_an_api_that_is_away_is_an_os_error():
    with pytest.raises(OSError, match="refused"):
        ApiClient("http://127.0.0.1:1", "", "one").report(ReplicaStatus(1))
