"""What the next process does with the cache of the one before."""

import pytest

from tests.support.fake_model_api import answer_with
from tests.support.model_stage import assert_answers, deploy, notify, wait_until_good
from tests.support.waiting import wait_for


def test_after_a_restart_without_the_api_the_last_good_version_serves(broker, start, api):
    service = start()
    deploy(api, broker, 1)
    assert_answers(broker, 1)
    wait_until_good(service, 1)
    assert service.stop() == 0
    api.stop()
    service = start()
    assert "started with version 1" in service.said()
    assert_answers(broker, 1)
    service.kill()
    start()
    assert_answers(broker, 1)


def test_a_full_disk_at_a_restart_does_not_keep_the_good_version_from_being_served(
    broker, start, api, tmp_path
):
    service = start()
    deploy(api, broker, 1)
    assert_answers(broker, 1)
    wait_until_good(service, 1)
    service.stop()
    api.stop()
    (tmp_path / "cache/0/state.json.new").mkdir()  # no state can be written now, not even by root
    service = start()
    assert_answers(broker, 1)
    assert "is not counted" in service.said()


def test_version_0_is_served_after_a_restart_if_it_was_the_last_good_one(broker, start, api):
    service = start()
    for version in (1, 0):
        deploy(api, broker, version)
        assert_answers(broker, version)
        wait_until_good(service, version)
    service.stop()
    api.stop()
    assert "started with version 0" in start().said()


def replace_state(folder) -> None:
    path = '{"good": {"version": 1, "sha256": "../../../../etc/passwd"}}'
    (folder / "state.json").write_text(path)


DAMAGE = {
    "the file is missing": (lambda folder: next(folder.glob("*.tflite")).unlink(), "is missing"),
    "the file is another": (
        lambda folder: next(folder.glob("*.tflite")).write_bytes(b"x" * 9000),
        "another hash",
    ),
    "the state is garbage": (
        lambda folder: (folder / "state.json").write_bytes(b"\x00{"),
        "starting with an empty state",
    ),
    "the state is a path": (replace_state, "starting with an empty state"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_is_logged_and_version_0_serves_until_the_api_helps(
    broker, start, api, tmp_path, kind
):
    damage, logged = DAMAGE[kind]
    service = start()
    deploy(api, broker, 1)
    assert_answers(broker, 1)
    wait_until_good(service, 1)
    service.stop()
    damage(tmp_path / "cache/0")
    api.failure = answer_with(b"", 500)
    service = start()
    assert "started with version 0" in service.said() and logged in service.said()
    assert_answers(broker, 0)


def test_replicas_may_share_a_cache(broker, start, api, tmp_path):
    services = [start(name) for name in ("one", "two")]
    deploy(api, broker, 1, "one", "two")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["0", "1"]
    for service in services:
        assert service.stop() == 0


def test_a_cache_that_cannot_be_written_stops_no_prediction(broker, start, api, tmp_path):
    service = start()
    (tmp_path / "cache/0/new.tflite").mkdir()  # a file cannot be written here, not even by root
    api.current = 1
    notify(broker)
    assert wait_for(lambda: api.refused(1), 30, "the refusal")
    assert_answers(broker, 0)
    (tmp_path / "cache/0/new.tflite").rmdir()
    wait_for(lambda: api.serves(1), 30, "version 1")
    assert service.process.poll() is None


def test_a_cache_of_a_newer_release_ends_the_process_with_a_sentence(broker, run, api, tmp_path):
    (tmp_path / "cache/0").mkdir(parents=True)
    (tmp_path / "cache/0/state.json").write_text('{"format": 2, "good": null, "more": 1}')
    service = run("model", broker, API_URL=api.url)
    assert service.process.wait(60) == 1
    assert "has the format 2" in service.said() and "Traceback" not in service.said()
