"""Uploads that are large, slow, broken off, or too many."""

import io
import time

import pytest

from tests.support.api import Api, csv_text, write_large_csv
from tests.support.environment import small_disk_at
from tests.support.memory import peak_memory
from tests.support.uploads import curl, start_upload
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def own(tmp_path):
    """An API that may be killed."""
    with Api(tmp_path) as api:
        yield api


def test_an_upload_that_cannot_fit_is_refused_before_it_is_sent(tmp_path):
    with Api(tmp_path, MIN_FREE_BYTES=10**18) as api:
        before = api.stored()
        answer = api.upload()
        assert answer.status_code == 507 and "reserved" in answer.json()["error"]
        assert api.stored() == before


@pytest.fixture
def tight(tmp_path):
    """An API on a disk of 40 MB, of which 10 are reserved."""
    (tmp_path / "small").mkdir()
    with (
        small_disk_at(tmp_path / "small", "40m") as folder,
        Api(folder, MIN_FREE_BYTES=10 * 10**6) as api,
    ):
        yield api


@pytest.mark.root
@pytest.mark.parametrize(
    "text",
    [csv_text(rows=500) * 1000, "a,b,y\n0,1,0\n" + "0,1,1\n" * 1_100_000],
    ids=["a file too large", "short cells, whose arrays are twice as large"],
)
def test_an_upload_of_unknown_length_stops_before_the_disk_is_full(tight, tmp_path, text):
    big = tmp_path / "big.csv"
    big.write_text(text)
    before = tight.stored()
    answer = curl(tight, "-H", "Transfer-Encoding: chunked", "-F", f"data=@{big}")
    assert answer["code"] == 507 and "reserved" in answer["error"]
    assert tight.stored() == before and tight.upload().status_code == 202


@pytest.mark.parametrize("way", ["-F", "--data-binary", "-T"])
def test_curl_reads_the_answer_to_a_large_upload_that_is_refused_early(tmp_path, way):
    big = tmp_path / "big.csv"
    with big.open("wb") as file:
        file.truncate(300 * 10**6)
    with Api(tmp_path, API_TOKEN="secret") as api:
        data = {"-F": f"data=@{big}", "-T": f"{big}"}.get(way, f"@{big}")
        answer = curl(api, "-X", "POST", way, data)
        assert answer["code"] == 401 and "API_TOKEN" in answer["error"]


def test_a_client_that_sends_on_regardless_reads_the_answer_too(tmp_path):
    with Api(tmp_path, API_TOKEN="secret") as api:
        assert api.call("POST", "/jobs", data=io.BytesIO(bytes(50 * 10**6))).status_code == 401


def test_an_api_that_is_killed_during_an_upload_leaves_nothing(own):
    with start_upload(own):
        time.sleep(0.5)
        assert own.process.kill()
    own.start_again()
    assert not list((own.data / "jobs").iterdir()) and not list((own.data / "incoming").iterdir())
    assert own.get("/jobs").json() == {"jobs": []}


def test_a_client_that_breaks_off_leaves_nothing(own):
    before = own.stored()
    start_upload(own).close()
    time.sleep(0.5)
    assert own.stored() == before and own.get("/jobs").json() == {"jobs": []}


def test_an_upload_of_200_mb_takes_little_memory_and_time(own, tmp_path, figure):
    big = write_large_csv(tmp_path / "big.csv", 200 * 10**6)
    start = time.monotonic()
    answer = curl(own, "-F", f"data=@{big}")
    seconds, busy, peak = time.monotonic() - start, own.busy_seconds(), peak_memory(own.pid())
    cost = f"{seconds:.1f} s, {busy:.1f} s of them computing, peak memory {peak:.0f} MB"
    figure(f"upload of 200 MB into retrain_api: {cost}")
    assert answer["code"] == 202 and answer["rows"] > 10**6
    assert peak < 150 and busy < 20  # on a busy machine it takes longer, for other reasons


def test_eight_uploads_at_once_leave_room_for_the_workers(own):
    uploads = [start_upload(own) for _ in range(8)]
    time.sleep(0.5)
    assert own.get("/jobs").ok
    assert own.upload().status_code == 429
    for client in uploads:
        client.close()
    wait_for(lambda: own.upload().status_code == 202, 30, "room")
