"""The promises of the API to those who send data."""

import numpy as np
import pytest

from tests.support.api import KERAS, Api, at_once, csv_text


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """An API that other tests used before."""
    with Api(tmp_path_factory.mktemp("api")) as api:
        yield api


def test_an_upload_becomes_a_queued_job_and_arrays(api):
    answer = api.upload({"epochs": "7", "target": "x3", "ignore": "x1,x2"})
    job = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/jobs/{job['id']}")
    assert (job["state"], job["epochs"], job["target"]) == ("queued", 7, "x3")
    assert job["columns"] == ["x0", "x4", "x5", "x6", "x7", "x8", "x9", "y"]
    train = np.load(api.data / "jobs" / job["id"] / "train.npy")
    hold_out = np.load(api.data / "jobs" / job["id"] / "hold_out.npy")
    assert train.shape == (job["rows"], 9) and hold_out.shape == (job["hold_out_rows"], 9)
    assert job["rows"] + job["hold_out_rows"] == 60


def test_several_files_are_regions_named_as_they_came(api):
    files = [("data", (name, csv_text(rows))) for name, rows in (("Москва.csv", 40), ("b.csv", 30))]
    job = api.call("POST", "/jobs", files=files).json()
    assert [region["file"] for region in job["regions"]] == ["Москва.csv", "b.csv"]


@pytest.mark.parametrize(
    ("name", "content", "stored"),
    [
        ("../../my.keras", KERAS, "model.keras"),
        ("OLD.H5", b"\x89HDF\r\n\x1a\n...", "model.h5"),
    ],
)
def test_a_model_is_kept_as_it_came_under_a_name_of_ours(api, name, content, stored):
    job = api.upload(files={"model": (name, content)}).json()
    assert job["model"] == stored
    assert (api.data / "jobs" / job["id"] / stored).read_bytes() == content


def test_answers_are_readable_in_a_terminal(api):
    text = api.get(f"/jobs/{api.new_job()}").text
    assert '\n  "state": "queued",\n' in text and text.endswith("}\n")
    assert '"columns": ["x0", "x1",' in text


def test_newer_jobs_are_listed_first_and_as_many_as_asked(api):
    ids = [api.new_job() for _ in range(3)]
    assert [job["id"] for job in api.get("/jobs").json()["jobs"]][:3] == ids[::-1]
    assert [job["id"] for job in api.get("/jobs?limit=1").json()["jobs"]] == ids[2:]


def test_a_repeat_with_the_same_key_is_the_first_job(api):
    first, again = (api.upload(headers={"Idempotency-Key": "k1"}) for _ in range(2))
    other = api.upload(headers={"Idempotency-Key": "k2"})
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert other.json()["id"] != first.json()["id"]


def test_a_large_repeat_that_need_not_be_read_gets_its_answer_too(api):
    first = api.upload(headers={"Idempotency-Key": "k3"})
    large = {"model": ("m.keras", bytes(80 * 10**6))}
    again = api.upload(files=large, headers={"Idempotency-Key": "k3"})
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_twins_with_the_same_key_at_the_same_time_are_one_job(api):
    before = len(list((api.data / "jobs").iterdir()))
    answers = at_once(8, lambda _: api.upload(headers={"Idempotency-Key": "twin"}))
    assert [answer.status_code for answer in answers] == [202] * 8
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(list((api.data / "jobs").iterdir())) == before + 1


def test_a_queued_job_is_cancelled_at_once_and_only_once(api):
    job_id = api.new_job()
    cancelled = api.call("DELETE", f"/jobs/{job_id}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert api.call("DELETE", f"/jobs/{job_id}").status_code == 409
    assert api.claim(job_id).status_code == 409
