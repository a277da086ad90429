"""The promises of the API about versions, and to replicas of `model`."""

import shutil

import pytest

from tests.support.api import KERAS, Api


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """An API that other tests used before."""
    with Api(tmp_path_factory.mktemp("api")) as api:
        yield api


def test_any_version_can_be_deployed_again_and_zero_stays(api):
    one, two = api.version(), api.version()
    assert api.get("/models/current").json()["version"] == two
    for version in (one, 0, two):
        assert api.call("POST", f"/models/{version}/deploy").json()["version"] == version
        assert api.get("/models/current").json()["version"] == version
    assert api.call("DELETE", "/models/0").status_code == 409
    assert api.call("DELETE", f"/models/{two}").status_code == 409


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(api):
    one, two = api.version(), api.version()
    assert api.call("DELETE", f"/models/{one}").json() == {"deleted": one, "current": two}
    assert not (api.data / "versions" / str(one)).exists()
    for path in (f"/models/{one}", f"/models/{one}/model.keras"):
        assert api.get(path).status_code == 404
    assert api.version() == two + 1


def test_files_of_a_version_can_be_downloaded_whole_and_in_part(api):
    path = f"/models/{api.version()}/model.keras"
    assert api.get(path).content == KERAS
    assert api.get(path, headers={"Range": "bytes=0-1"}).content == b"PK"
    head = api.call("HEAD", path)
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(KERAS)))


def test_replicas_report_what_they_serve_and_get_what_to_serve(api):
    version = api.version()
    status = {"serves": 0, "refused": {"version": version, "reason": "torn\x1b[2J"}}
    answer = api.call("PUT", "/models/current/replicas/model-1", json=status).json()
    report = api.get(f"/models/{version}").json()
    assert answer == {"version": version, "sha256": report["sha256"]["model.tflite"]}
    replica = api.get("/models/current").json()["replicas"]["model-1"]
    assert (replica["serves"], replica["refused"]["version"]) == (0, version)
    assert replica["seen"].startswith("20") and "\x1b" not in replica["refused"]["reason"]


def test_a_version_that_is_being_deleted_is_not_listed_and_404(api):
    first, second = api.version(), api.version()
    shutil.rmtree(api.data / "versions" / str(first))
    listed = [report["version"] for report in api.get("/models").json()["models"]]
    assert second in listed and first not in listed
    assert api.get(f"/models/{first}").status_code == 404
    api.call("DELETE", f"/models/{first}")
