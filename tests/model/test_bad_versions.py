"""Versions that cannot be served, or end the process: the version before goes on."""

import time

import msgspec
import pytest

from tests.support.fake_model_api import FakeModelApi
from tests.support.model_stage import assert_answers, deploy, notify, wait_until_good
from tests.support.networks import networks
from tests.support.waiting import wait_for

pytestmark = pytest.mark.tensorflow


def make_current(api: FakeModelApi, kind: str, version: int) -> None:
    """Make `version` current, which is bad in the way that `kind` says."""
    tflite, golden = (api.files[f"2/{name}"] for name in ("model.tflite", "golden.json"))
    contents = {
        "corrupt": tflite[:300] + b"\xff" * 300 + tflite[600:],
        "empty": b"",
        "truncated": tflite[:9000],
        "too large": bytes(65 * 2**20),
    }
    if kind in contents:
        api.add(version, contents[kind], golden)
    elif kind == "hash":
        api.add(version, tflite, golden, sha256="0" * 64)
    elif kind == "no hash":
        api.add(version, tflite, golden)
        api.sha256[version] = None
    elif kind == "golden":
        api.add(version, tflite, api.files["1/golden.json"])
    elif kind == "golden is garbage":
        api.add(version, tflite, b"\x00garbage")
    else:  # the name of a network
        api.add(version, (networks() / f"{kind}.tflite").read_bytes(), golden)
    api.current = version


KINDS = ["truncated", "corrupt", "empty", "too large", "hash", "no hash", "golden",
         "golden is garbage", "nine columns", "two numbers", "integers", "huge"]  # fmt: skip


def test_a_bad_version_is_refused_with_a_reason_and_the_one_before_goes_on(
    broker, start, api, figure
):
    service = start()
    deploy(api, broker, 1)
    for version, kind in enumerate(KINDS, 10):
        make_current(api, kind, version)
        notify(broker)
        reason = wait_for(lambda v=version: api.refused(v), 60, f"the refusal of {kind}")
        figure(f"refused, {kind}: {reason}")
        assert api.serves(1) and "Traceback" not in reason
        assert_answers(broker, 1)
        before = len(api.requests)
        notify(broker)
        wait_for(lambda n=before: len(api.requests) > n, 30, "another step")
        assert api.downloads(version) == 1  # and not again
    deploy(api, broker, 2)
    assert api.last_report()["refused"] is None
    assert service.process.poll() is None


def test_a_version_whose_files_are_missing_for_a_while_is_served_when_they_come(broker, start, api):
    start()
    golden = api.files.pop("2/golden.json")
    api.current = 2
    notify(broker)
    assert "404" in wait_for(lambda: api.refused(2), 30, "the refusal")
    assert_answers(broker, 0)
    api.files["2/golden.json"] = golden
    wait_for(lambda: api.serves(2), 30, "version 2")
    wait_for(lambda: api.last_report()["refused"] is None, 30, "the end of the refusal")


def test_a_version_that_kills_the_process_is_dropped_and_its_row_answered_by_the_one_before(
    broker, run, start, api, figure
):
    service = start()
    deploy(api, broker, 1)
    assert_answers(broker, 1)
    wait_until_good(service, 1)
    service.stop()
    tflite, golden = (networks() / f"endless.{kind}" for kind in ("tflite", "json"))
    api.add(4, tflite.read_bytes(), golden.read_bytes())
    settings = {"API_URL": api.url, "REPLICA_NAME": "one", "WATCHDOG_SECONDS": 8}
    api.current, start = 4, time.monotonic()
    service = run("model", broker, supervised=True, **settings)
    for life in range(3):
        wait_for(lambda n=life: service.said().count("version 4 is active") > n, 60, "version 4")
        # It loops for ever with this row, until the watchdog ends the process.
        broker.send("features", [msgspec.json.encode({"id": "deadly", "body": [1e6] * 10})])
        wait_for(lambda n=life: len(service.codes) > n, 60, "its end")
    reason = wait_for(lambda: api.refused(4), 60, "the refusal")
    assert reason == "the process died 3 times while this version answered"
    wait_for(lambda: broker.count("y_pred") == 3, 60, "the answers")
    assert {headers["model_version"] for headers, _ in broker.take("y_pred")} == {1}
    assert_answers(broker, 1)
    figure(f"a version that loops for ever was dropped after {time.monotonic() - start:.0f} s")
    assert len(service.codes) == 3


def test_a_version_in_whose_first_seconds_the_process_is_killed_is_tried_again(broker, start, api):
    service = start(supervised=True)
    api.current = 1
    notify(broker)
    wait_for(lambda: api.serves(1), 60, "version 1")
    service.kill()
    wait_for(lambda: len(service.codes) == 1 and service.has_started(), 60, "the next life")
    deploy(api, broker, 1)
    assert_answers(broker, 1)


def test_a_version_that_never_survives_its_first_seconds_is_dropped(broker, run, api):
    service = run("model", broker, True, API_URL=api.url, REPLICA_NAME="one")
    api.current, active = 1, "version 1 is active"
    for _ in range(3):
        before = service.said().count(active)
        wait_for(lambda n=before: service.said().count(active) > n, 60, "a swap")
        service.kill()
    reason = wait_for(lambda: api.refused(1), 60, "the refusal")
    assert reason == "the process died 3 times while this version answered"
    assert_answers(broker, 0)
    deploy(api, broker, 2)  # something changed
    deploy(api, broker, 1)
    assert_answers(broker, 1)


def test_orderly_stops_count_against_no_version(start, broker, api):
    api.current = 1
    for _ in range(4):
        service = start()
        wait_for(lambda s=service: "version 1 is active" in s.said(), 60, "version 1")
        assert service.stop() == 0
    start()
    deploy(api, broker, 1)
