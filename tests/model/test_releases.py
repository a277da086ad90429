"""The release manager, step by step: no thread, no broker, and a clock that the test moves."""

import numpy as np
import pytest

from common.worker_api import ServedVersion
from model.api_client import ApiClient
from model.cache import Cache
from model.releases import BUILTIN, ReleaseManager, Releases
from tests.support.fake_model_api import answer_with, no_failure


class Zero:
    """A version 0 that is loaded at once."""

    inputs, outputs = 10, 1

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return np.zeros(len(rows))


class Process:
    """One life of `model` on the cache in `folder`; it answers only where a test says so."""

    def __init__(self, folder, api) -> None:
        self.now = 100.0
        self.cache = Cache(folder)
        self.releases = Releases(Zero())
        client = ApiClient(api.url, "", "one")
        self.manager = ReleaseManager(self.releases, client, self.cache, lambda: self.now)

    @property
    def version(self) -> int:
        return self.releases.release.version.version

    def answer(self, rows: int = 1) -> None:
        _, version = self.releases.active()
        self.releases.finish(version, rows)

    def pass_trial(self) -> None:
        self.answer()
        self.now += 5.1
        self.manager.step()

    def die(self) -> None:
        self.cache.close()

    def stop(self) -> None:
        self.manager.close()
        self.cache.close()


@pytest.fixture
def life(tmp_path, api):
    """Return a function that starts a process on the same cache; the last one dies at the end."""
    started = []

    def start_process() -> Process:
        started.append(Process(tmp_path / "cache", api))
        return started[-1]

    yield start_process
    for process in started:
        process.die()


def served(api, version: int) -> ServedVersion:
    return ServedVersion(version, api.sha256[version])


def test_the_current_version_of_the_api_is_active_after_a_step_and_reported(life, api):
    process = life()
    assert process.releases.active() == (process.releases.builtin, 0)
    api.current = 1
    process.manager.step()
    model, version = process.releases.active()
    assert version == 1 and model is not process.releases.builtin and model.inputs == 10
    statuses = [status for _, status in api.reports]
    assert statuses == [{"serves": 0, "refused": None}, {"serves": 1, "refused": None}]


def test_an_active_version_is_not_downloaded_again(life, api):
    process = life()
    api.current = 1
    for _ in range(3):
        process.manager.step()
    assert api.downloads(1) == 1


def test_a_version_is_on_trial_until_it_has_answered_for_five_seconds(life, api):
    process = life()
    api.current = 1
    process.manager.step()
    process.answer()
    process.now += 4.9
    process.manager.step()
    assert process.manager.on_trial and process.cache.state.good is None
    process.now += 0.2
    process.manager.step()
    assert not process.manager.on_trial and process.cache.state.good == served(api, 1)
    assert process.cache.state.trials == {}


@pytest.mark.parametrize("rows", [None, 0], ids=["no batch", "a batch without an answer"])
def test_a_version_that_has_answered_no_row_stays_on_trial(life, api, rows):
    process = life()
    api.current = 1
    process.manager.step()
    if rows is not None:
        process.answer(rows)
    process.now += 1000
    process.manager.step()
    assert process.manager.on_trial and process.cache.state.good is None


def test_a_batch_of_the_version_before_ends_no_trial(life, api):
    process = life()
    _, before = process.releases.active()
    api.current = 1
    process.manager.step()
    process.releases.finish(before, 200)
    process.now += 1000
    process.manager.step()
    assert process.manager.on_trial


def test_version_0_is_good_only_if_the_api_wants_it(life, api):
    api.failure = answer_with(b"", 500)
    process = life()
    process.manager.step()
    process.pass_trial()
    assert process.manager.on_trial
    api.failure = no_failure
    process.pass_trial()
    assert process.manager.good == BUILTIN and process.cache.state.good is None


def test_a_bad_version_is_refused_for_good_until_another_one_was_current(life, api, caplog):
    process = life()
    api.add(7, b"no network", api.files["1/golden.json"])
    api.current = 7
    for _ in range(3):
        process.manager.step()
    assert process.version == 0 and api.downloads(7) == 1
    assert "cannot be served" in api.refused(7)
    assert caplog.text.count("version 7 is refused") == 1
    api.current = 1
    process.manager.step()
    assert process.version == 1 and api.last_report()["refused"] is None
    api.current = 7
    process.manager.step()
    assert process.version == 1 and api.downloads(7) == 2


def test_a_missing_file_is_tried_again_in_each_step(life, api):
    process = life()
    golden = api.files.pop("1/golden.json")
    api.current = 1
    for _ in range(2):
        process.manager.step()
    assert process.version == 0 and api.downloads(1) == 2 and "404" in api.refused(1)
    api.files["1/golden.json"] = golden
    process.manager.step()
    assert process.version == 1 and api.last_report() == {"serves": 1, "refused": None}


def test_a_failure_of_the_api_is_logged_once_and_the_active_version_stays(life, api, caplog):
    process = life()
    api.current = 1
    process.manager.step()
    api.failure, api.current = answer_with(b"<html>"), 2
    for _ in range(3):
        process.manager.step()
    assert process.version == 1
    assert caplog.text.count("answer is invalid") == 1
    assert "version 1 stays active" in caplog.text
    api.failure = no_failure
    process.manager.step()
    assert process.version == 2


def test_the_next_process_starts_with_the_last_good_version_without_the_api(life, api):
    first = life()
    api.current = 1
    first.manager.step()
    first.pass_trial()
    first.stop()
    api.failure = answer_with(b"", 500)
    second = life()
    second.manager.recover()
    assert second.releases.active()[1] == 1 and second.manager.on_trial


def test_a_version_on_trial_is_not_what_the_next_process_starts_with(life, api):
    first = life()
    for version in (1, 2):
        api.current = version
        first.manager.step()
        if version == 1:
            first.pass_trial()
    assert first.version == 2
    first.die()
    second = life()
    second.manager.recover()
    assert second.version == 1


def test_a_version_with_which_three_processes_died_is_refused(life, api):
    api.current = 1
    for _ in range(3):
        process = life()
        process.manager.step()
        assert process.version == 1
        process.die()
    process = life()
    process.manager.step()
    assert process.version == 0
    assert api.refused(1) == "the process died 3 times while this version answered"


def test_a_stop_between_two_batches_counts_against_no_version(life, api):
    api.current = 1
    for _ in range(5):
        process = life()
        process.manager.step()
        assert process.version == 1
        process.stop()


def test_an_error_in_the_middle_of_a_prediction_counts_against_the_version(life, api):
    api.current = 1
    for _ in range(3):
        process = life()
        process.manager.step()
        process.releases.active()
        process.stop()
    process = life()
    process.manager.step()
    assert process.version == 0 and "died 3 times" in api.refused(1)


def test_the_trial_of_a_version_that_is_replaced_does_not_count(life, api):
    for _ in range(3):
        process = life()
        for version in (1, 2):
            api.current = version
            process.manager.step()
        process.die()
    api.current = 1
    process = life()
    process.manager.step()
    assert process.version == 1
