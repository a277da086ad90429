"""What the retraining API promises to those who send data and ask for models."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import yaml

import retrain_api
from retrain_api import keeper
from tests.support.api import KERAS, NO_BROKER, Api, at_once, csv_text
from tests.support.environment import ROOT, small_disk_at
from tests.support.memory import peak_memory
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """An API that other tests used before."""
    with Api(tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def own(tmp_path):
    """An API that may be killed."""
    with Api(tmp_path) as api:
        yield api


@pytest.fixture
def with_broker(tmp_path, broker):
    with Api(tmp_path, broker) as api:
        yield api
    forget_jobs(broker)


def forget_jobs(broker):
    with broker.connect() as connection:
        connection.channel().queue_delete("retrain_jobs")


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
    id = api.new_job()
    cancelled = api.call("DELETE", f"/jobs/{id}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert api.call("DELETE", f"/jobs/{id}").status_code == 409
    assert api.claim(id).status_code == 409


def test_with_a_token_changing_calls_need_it_and_questions_do_not(tmp_path):
    with Api(tmp_path, API_TOKEN="open sesame") as api:
        secret = (api.data / "worker_secret").read_text().strip()
        for wrong in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Bearer {secret}"}):
            assert api.upload(headers=wrong).status_code == 401
            assert api.call("DELETE", "/jobs/1", headers=wrong).status_code == 401
            assert api.call("POST", "/models/0/deploy", headers=wrong).status_code == 401
            assert api.call("PUT", "/models/current/replicas/a", headers=wrong).status_code == 401
        right = {"Authorization": "Bearer open sesame"}
        id = api.upload(headers=right).json()["id"]
        assert api.get(f"/jobs/{id}").status_code == 200
        assert api.call("POST", f"/worker/jobs/{id}/claim", headers=right).status_code == 401
        assert api.claim(id).status_code == 200


def test_the_secret_is_made_once_readable_and_kept(own):
    path = own.data / "worker_secret"
    secret = path.read_text()
    own.process.stop()
    own.start_again()
    assert path.read_text() == secret and len(secret.strip()) == 64
    assert path.stat().st_mode & 0o777 == 0o444


def test_health_tells_of_the_broker(api, tmp_path, broker):
    assert api.get("/healthz").status_code == 503
    assert api.get("/healthz").json()["broker"] is False
    (tmp_path / "other").mkdir()
    with Api(tmp_path / "other", broker) as well:
        assert well.get("/healthz").json()["ok"] is True
        assert well.get("/healthz").json()["disk_free_bytes"] > 0


def test_the_healthcheck_of_the_container_asks_no_proxy(tmp_path, broker):
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    command = compose["services"]["retrain_api"]["healthcheck"]["test"]
    with Api(tmp_path, broker) as api:
        program = command[3].replace("http://localhost:8000", api.url)
        proxy = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.0/8"}
        subprocess.run([sys.executable, "-c", program], env=os.environ | proxy, check=True)


def test_what_cannot_fit_is_refused_before_it_is_sent(tmp_path):
    with Api(tmp_path, KEEP_FREE_BYTES=10**18) as api:
        before = api.stored()
        answer = api.upload()
        assert answer.status_code == 507 and "kept back" in answer.json()["error"]
        assert api.stored() == before


@pytest.fixture
def tight(tmp_path):
    """An API on a disk of 40 MB, of which it keeps 10 free."""
    (tmp_path / "small").mkdir()
    with (
        small_disk_at(tmp_path / "small", "40m") as folder,
        Api(folder, KEEP_FREE_BYTES=10 * 10**6) as api,
    ):
        yield api


@pytest.mark.parametrize(
    "text",
    [csv_text(rows=500) * 1000, "a,b,y\n0,1,0\n" + "0,1,1\n" * 1_100_000],
    ids=["the file is too large", "short cells, of which the arrays are twice as large"],
)
def test_an_upload_of_unknown_length_stops_before_the_disk_is_full(tight, tmp_path, text):
    big = tmp_path / "big.csv"
    big.write_text(text)
    before = tight.stored()
    said = curl(tight, "-H", "Transfer-Encoding: chunked", "-F", f"data=@{big}")
    assert said["code"] == 507 and "kept back" in said["error"]
    assert tight.stored() == before and tight.upload().status_code == 202


def curl(api, *arguments) -> dict:
    """Post with the real curl; return its JSON, with the HTTP code in `code`."""
    command = ["curl", "-sS", "--noproxy", "*", "-w", "%{stderr}%{http_code}", *arguments]
    done = subprocess.run(
        [*command, f"{api.url}/jobs"], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout) | {"code": int(done.stderr)}


@pytest.mark.parametrize("way", ["-F", "--data-binary", "-T"])
def test_curl_reads_the_answer_to_a_large_upload_that_is_refused_early(tmp_path, way):
    big = tmp_path / "big.csv"
    with big.open("wb") as file:
        file.truncate(300 * 10**6)
    with Api(tmp_path, API_TOKEN="secret") as api:
        said = curl(
            api, "-X", "POST", way, {"-F": f"data=@{big}", "-T": f"{big}"}.get(way, f"@{big}")
        )
        assert said["code"] == 401 and "API_TOKEN" in said["error"]


def test_a_client_that_sends_on_regardless_reads_the_answer_too(tmp_path):
    with Api(tmp_path, API_TOKEN="secret") as api:
        assert api.call("POST", "/jobs", data=io.BytesIO(bytes(50 * 10**6))).status_code == 401


def begin_upload(api) -> socket.socket:
    """Send the first part of an upload."""
    host, port = api.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    head = b'--b\r\nContent-Disposition: form-data; name="data"; filename="a.csv"\r\n\r\n'
    client.sendall(
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: 90000000\r\n\r\n" + head + csv_text(rows=50000).encode()
    )
    return client


def test_an_api_that_is_killed_in_an_upload_leaves_nothing(own):
    with begin_upload(own):
        time.sleep(0.5)
        assert own.process.kill()
    own.start_again()
    assert not list((own.data / "jobs").iterdir()) and not list((own.data / "incoming").iterdir())
    assert own.get("/jobs").json() == {"jobs": []}


def test_a_client_that_breaks_off_leaves_nothing(own):
    before = own.stored()
    begin_upload(own).close()
    time.sleep(0.5)
    assert own.stored() == before and own.get("/jobs").json() == {"jobs": []}


def test_what_a_kill_left_half_way_is_removed_at_the_next_start(own):
    id = own.new_job()
    own.process.kill()
    for name in ("jobs/half", "incoming/half", "versions/7"):
        (own.data / name).mkdir()
        (own.data / name / "train.npy").write_bytes(b"torn")
    own.start_again()
    assert [path.name for path in (own.data / "jobs").iterdir()] == [id]
    assert not list((own.data / "incoming").iterdir()) + list((own.data / "versions").iterdir())


def test_an_accepted_job_is_published_with_its_id(with_broker, broker):
    id = with_broker.new_job()
    wait_for(lambda: broker.count("retrain_jobs"), 30, "the job")
    assert [json.loads(body) for _, body in broker.take("retrain_jobs")] == [{"id": id}]


def test_a_job_is_published_after_a_kill_right_after_its_202(with_broker, broker):
    id = with_broker.new_job()
    with_broker.process.kill()
    with_broker.start_again()
    wait_for(lambda: broker.count("retrain_jobs"), 30, "the job")
    assert {json.loads(body)["id"] for _, body in broker.take("retrain_jobs")} == {id}


def test_without_a_broker_a_job_is_accepted_and_published_when_there_is_one(own, broker):
    ids = [own.new_job() for _ in range(3)]
    own.process.kill()
    own.start_again(AMQP_URL=broker.url)
    wait_for(lambda: broker.count("retrain_jobs") == 3, 30, "the jobs")
    assert [json.loads(body)["id"] for _, body in broker.take("retrain_jobs")] == ids
    forget_jobs(broker)


def test_a_broker_that_goes_and_comes_back_gets_the_job(tmp_path, any_broker):
    with Api(tmp_path, any_broker) as api:
        wait_for(lambda: api.get("/healthz").ok, 30, "the broker")
        restart = threading.Thread(target=any_broker.restart, args=(False,))
        restart.start()
        wait_for(lambda: not api.get("/healthz").ok, 30, "the broker to go")
        assert api.upload().status_code == 202
        restart.join()
        wait_for(lambda: any_broker.count("retrain_jobs") == 1, 30, "the job")
    forget_jobs(any_broker)


def test_a_job_that_the_broker_lost_is_published_again_and_no_other(with_broker, broker):
    with_broker.new_job()
    wait_for(lambda: broker.count("retrain_jobs"), 30, "the job")
    time.sleep(12)
    assert len(broker.take("retrain_jobs")) == 1  # still there: it was not published again
    wait_for(lambda: broker.count("retrain_jobs") == 1, 30, "the job again")


def test_a_broker_that_confirms_nothing_is_away_and_stops_no_other_work(tmp_path, monkeypatch):
    """As one does whose queue has no leader: the connection lives, and publishing never returns."""
    monkeypatch.setattr(keeper, "TELL_SECONDS", 0.2)
    monkeypatch.setattr(keeper, "AWAY_SECONDS", 0)
    leader, told = threading.Event(), []

    @contextmanager
    def connect(name):
        leader.wait(30)
        told.append(name)
        raise ConnectionError("enough")
        yield

    monkeypatch.setattr(keeper.broker, "connect", connect)
    works = retrain_api.parts(tmp_path)["keeper"]
    works.nudged = -1  # there is something to tell
    for _ in range(3):
        begin = time.monotonic()
        works.publish()
        assert time.monotonic() - begin < 20 and not told
    leader.set()
    wait_for(lambda: told, 30, "the first attempt to go on")
    assert told == ["retrain_api"]


def test_a_restart_keeps_jobs_versions_and_what_serves(own):
    version = own.version()
    id = own.new_job()
    jobs, models = own.get("/jobs").json(), own.get("/models").json()
    assert own.process.stop() == 0
    own.start_again()
    assert (own.get("/jobs").json(), own.get("/models").json()) == (jobs, models)
    assert own.get("/models/current").json()["version"] == version
    assert own.job(id)["state"] == "queued"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_told(own, number):
    own.process.process.send_signal(number)
    assert own.process.process.wait(15) == 0


def test_a_database_deleted_under_it_ends_the_process_and_the_next_takes_over_the_folders(own):
    version = own.version()
    for path in own.data.glob("api.sqlite*"):
        path.unlink()
    wait_for(lambda: own.process.said().count("started, http") == 2, 20, "the next life")
    assert own.get(f"/models/{version}/model.keras").content == KERAS
    assert own.get("/models/current").json()["version"] == 0
    assert own.call("POST", f"/models/{version}/deploy").json()["version"] == version


def test_files_of_finished_jobs_are_removed_and_what_is_known_of_them_stays(tmp_path):
    with Api(tmp_path, KEEP_UPLOADS_SECONDS=1) as api:
        done, waiting = api.new_job(), api.new_job()
        api.call("DELETE", f"/jobs/{done}")
        wait_for(lambda: not (api.data / "jobs" / done).exists(), 30, "the removal")
        assert (api.data / "jobs" / waiting / "train.npy").exists()
        assert api.job(done)["state"] == "cancelled"
        assert api.get(f"/jobs/{done}/log").status_code == 404


def test_any_version_can_be_served_again_and_zero_stays(api):
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


def test_files_of_a_version_can_be_had_whole_in_part_and_by_name(api):
    path = f"/models/{api.version()}/model.keras"
    assert api.get(path).content == KERAS
    assert api.get(path, headers={"Range": "bytes=0-1"}).content == b"PK"
    head = api.call("HEAD", path)
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(KERAS)))


def test_replicas_tell_what_they_serve_and_are_told_what_to_serve(api):
    version = api.version()
    said = {"serves": 0, "refused": {"version": version, "reason": "torn\x1b[2J"}}
    answer = api.call("PUT", "/models/current/replicas/model-1", json=said).json()
    report = api.get(f"/models/{version}").json()
    assert answer == {"version": version, "sha256": report["sha256"]["model.tflite"]}
    replica = api.get("/models/current").json()["replicas"]["model-1"]
    assert (replica["serves"], replica["refused"]["version"]) == (0, version)
    assert replica["seen"].startswith("20") and "\x1b" not in replica["refused"]["reason"]


def test_models_are_nudged_when_another_version_is_to_serve(with_broker, broker):
    with broker.connect() as connection:
        channel = connection.channel()
        channel.exchange_declare("model_updates", "fanout", durable=True)
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "model_updates")
        with_broker.version()
        wait_for(lambda: b'"version":1' in (channel.basic_get(queue)[2] or b""), 30, "a nudge")


def test_an_upload_of_200_mb_takes_little_memory_and_time(own, tmp_path, figure):
    block = csv_text(rows=20000)
    header, rows = block.split("\n", 1)
    with (tmp_path / "big.csv").open("w") as file:
        file.write(header + "\n")
        while file.tell() < 200 * 10**6:
            file.write(rows)
    begun = time.monotonic()
    said = curl(own, "-F", f"data=@{tmp_path}/big.csv")
    seconds, busy, peak = time.monotonic() - begun, own.busy_seconds(), peak_memory(own.pid())
    told = f"{seconds:.1f} s, {busy:.1f} s of them computing, peak memory {peak:.0f} MB"
    figure(f"upload of 200 MB into retrain_api: {told}")
    assert said["code"] == 202 and said["rows"] > 10**6
    assert peak < 150 and busy < 20  # a busy machine takes longer, and is not to blame for it


def test_eight_uploads_at_once_leave_room_for_the_workers(own):
    uploads = [begin_upload(own) for _ in range(8)]
    time.sleep(0.5)
    assert own.get("/jobs").ok
    assert own.upload().status_code == 429
    for client in uploads:
        client.close()
    wait_for(lambda: own.upload().status_code == 202, 30, "room")


def test_no_broker_is_no_reason_for_many_lines_in_the_log(own):
    assert NO_BROKER in own.process.environment["AMQP_URL"]
    time.sleep(5)
    assert own.process.said().count("the broker is away") == 1
