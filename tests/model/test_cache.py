import hashlib
import json

import pytest

from common.worker_api import ServedVersion
from model.cache import MAX_REMEMBERED, Cache, State, read_state
from serving.network import UnservableError

FIRST, SECOND = ServedVersion(1, "1" * 64), ServedVersion(2, "2" * 64)


@pytest.fixture
def open_cache(tmp_path):
    """Return a function that opens the cache as the next process would; closed at the end."""
    opened = []

    def open_cache() -> Cache:
        while opened:
            opened.pop().close()
        opened.append(Cache(tmp_path / "cache"))
        return opened[-1]

    yield open_cache
    opened.pop().close()


def test_a_trial_that_ends_for_another_reason_does_not_count(open_cache):
    for _ in range(10):
        life = open_cache()
        life.start_trial(FIRST)
        life.end_trial(FIRST)
    open_cache().start_trial(FIRST)


def test_a_version_that_is_refused_has_one_more_trial_in_the_life_after(open_cache):
    for _ in range(3):
        open_cache().start_trial(FIRST)
    for _ in range(3):
        with pytest.raises(UnservableError, match="died 3 times"):
            open_cache().start_trial(FIRST)
        open_cache().start_trial(FIRST)


def test_the_trials_of_a_version_are_remembered_while_the_good_one_is_served_again(open_cache):
    for _ in range(3):
        life = open_cache()
        life.start_trial(FIRST)
        life.promote(FIRST)
        life.start_trial(SECOND)
    with pytest.raises(UnservableError, match="died 3 times"):
        open_cache().start_trial(SECOND)


def test_the_good_version_stays_while_another_is_on_trial_and_is_replaced_when_that_is_good(
    open_cache,
):
    life = open_cache()
    for version in (FIRST, SECOND):
        life.path(version).write_bytes(b"x")
    life.start_trial(FIRST)
    life.promote(FIRST)
    assert life.path(FIRST).exists() and not life.path(SECOND).exists()
    life.start_trial(SECOND)
    assert open_cache().state.good == FIRST
    open_cache().promote(SECOND)
    assert open_cache().state.good == SECOND and not life.path(FIRST).exists()


def test_only_the_trials_of_the_last_versions_are_remembered(open_cache):
    cache = open_cache()
    versions = [ServedVersion(n, f"{n:064x}") for n in range(1, MAX_REMEMBERED + 6)]
    for version in versions:
        cache.start_trial(version)
    assert list(open_cache().state.trials) == [v.sha256 for v in versions[-MAX_REMEMBERED:]]


def test_a_cached_file_has_to_have_its_hash(open_cache):
    cache, content = open_cache(), b"a network"
    version = ServedVersion(3, hashlib.sha256(content).hexdigest())
    assert not cache.has(version)
    cache.path(version).write_bytes(content)
    assert cache.has(version)
    cache.path(version).write_bytes(content[:-1])
    assert not cache.has(version)


def test_a_folder_that_another_process_has_locked_is_left_alone(tmp_path):
    first, second = Cache(tmp_path), Cache(tmp_path)
    assert (first.folder.name, second.folder.name) == ("0", "1")
    first.close()
    third = Cache(tmp_path)
    assert third.folder.name == "0"
    for cache in (second, third):
        cache.close()


# state.json


def test_the_state_of_releases_before_format_1_is_migrated(tmp_path, open_cache):
    (tmp_path / "cache/0").mkdir(parents=True)
    before = {"good": {"version": 1, "sha256": FIRST.sha256}, "tries": {SECOND.sha256: 3}}
    (tmp_path / "cache/0/state.json").write_text(json.dumps(before))
    cache = open_cache()
    assert cache.state == State(good=FIRST, trials={SECOND.sha256: 3})
    with pytest.raises(UnservableError, match="died 3 times"):
        cache.start_trial(SECOND)
    written = json.loads((tmp_path / "cache/0/state.json").read_text())
    assert written == {
        "format": 1,
        "good": {"version": 1, "sha256": FIRST.sha256},
        "trials": {SECOND.sha256: 2},
    }


def test_a_state_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "state.json"
    content = b'{"format": 2, "good": "in another form"}'
    path.write_bytes(content)
    with pytest.raises(SystemExit, match="format 2"):
        read_state(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00{",
        b"[1]",
        b'{"format": "1"}',
        b'{"format": 1, "good": {"version": -1}}',
        b'{"format": 1, "good": {"version": 1, "sha256": "../../etc/passwd"}}',
        b'{"tries": {"../x": 1}}',
        b'{"format": ' + b"[" * 100_000,
    ],
    ids=lambda content: content[:60].decode("latin-1"),
)
def test_an_unreadable_state_is_logged_and_counts_as_empty(content, tmp_path, caplog):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    assert read_state(path) == State()
    assert "starting with an empty state" in caplog.text
