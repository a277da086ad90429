"""The stream flows while versions come and go: each row is answered once, by the version it says.

The API here is a small HTTP server that speaks the same words; the real one is in test_retraining.
"""

import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
import time

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from tests.support.environment import ROOT, SOAK, load
from tests.support.networks import ROWS, networks
from tests.support.waiting import wait_for

cache = load("model/cache.py")
NETWORKS = {1: "first", 2: "second", 3: "convolution"}
LINEAR = LinearRegression().fit(ROWS, load_diabetes().target).predict(ROWS)


class Api(http.server.ThreadingHTTPServer):
    """The versions 1, 2 and 3, the current one, and what the replicas said."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.current, self.files, self.sha256 = 0, {}, {0: None}
        self.asked, self.said, self.released = [], [], threading.Event()
        self.trouble = lambda handler: False  # answers in its own way, and returns True
        for version, name in NETWORKS.items():
            tflite = (networks() / f"{name}.tflite").read_bytes()
            self.add(version, tflite, (networks() / f"{name}.json").read_bytes())
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, version: int, tflite: bytes, golden: bytes, sha256: str | None = None) -> None:
        self.files |= {f"{version}/model.tflite": tflite, f"{version}/golden.json": golden}
        self.sha256[version] = sha256 or hashlib.sha256(tflite).hexdigest()

    def last(self, replica: str) -> dict:
        """Return what `replica` said last, or {}."""
        return next((said for name, said in reversed(self.said) if name == replica), {})

    def serves(self, version: int, *replicas: str) -> bool:
        return all(self.last(name).get("serves") == version for name in replicas or ["one"])

    def refused(self, version: int) -> str | None:
        """Return why the replica `one` refuses `version`, if it does."""
        refused = self.last("one").get("refused") or {}
        return refused.get("reason") if refused.get("version") == version else None

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def answer(self, body: bytes, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = re.fullmatch(r"/models/current/replicas/([^/]+)", self.path)[1]
        self.server.said.append((name, said | {"token": self.headers["Authorization"]}))
        self.server.asked.append(("PUT", time.monotonic()))
        if not self.server.trouble(self):
            current = self.server.current
            known = {"version": current, "sha256": self.server.sha256[current]}
            self.answer(json.dumps(known).encode())

    def do_GET(self):
        self.server.asked.append((self.path, time.monotonic()))
        if not self.server.trouble(self):
            file = self.server.files.get(self.path.removeprefix("/models/"))
            self.answer(file or b"", 200 if file is not None else 404)


@pytest.fixture
def api():
    api = Api()
    yield api
    api.stop()


@pytest.fixture
def start(run, api, broker):
    """Return a function that starts a replica of `model` and waits until it answers."""

    def start(name="one", broker=broker, **settings):
        settings = {"API_URL": api.url, "REPLICA_NAME": name} | settings
        service = run("model", broker, **settings)
        wait_for(service.has_started, 60, "the model")
        return service

    return start


def nudge(broker, *bodies: bytes) -> None:
    with broker.connect() as connection:
        channel = connection.channel()
        for body in bodies or [b'{"version": 1}']:
            channel.basic_publish("model_updates", "", body)


def deploy(api, broker, version: int, *replicas: str) -> None:
    """Make `version` current and wait until every replica says that it serves it."""
    api.current = version
    api.said.clear()
    nudge(broker)
    wait_for(lambda: api.serves(version, *replicas), 60, f"version {version}")


def body(row: int, id=None) -> bytes:
    return msgspec.json.encode({"id": str(row) if id is None else id, "body": ROWS[row].tolist()})


def expected(version: int) -> np.ndarray:
    return np.load(networks() / f"{NETWORKS[version]}.npy") if version else LINEAR


def answered(broker, version: int, seconds: float = 10) -> None:
    """Send three rows, and see that `version` answers them at once and right."""
    broker.send("features", [body(row) for row in range(3)])
    taken = []
    wait_for(lambda: taken.extend(broker.take("y_pred")) or len(taken) == 3, seconds, "answers")
    for headers, answer in taken:
        answer = msgspec.json.decode(answer)
        assert headers["model_version"] == version
        assert answer["body"] == pytest.approx(expected(version)[int(answer["id"])], rel=1e-5)


class Stream(threading.Thread):
    """Sends rows without a pause, each with a number of its own as id."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker, self.sent, self.flowing = broker, 0, True
        self.start()

    def run(self):
        with self.broker.connect() as connection:
            channel = connection.channel()
            channel.tx_select()
            while self.flowing:
                for n in range(self.sent, self.sent + 20):
                    channel.basic_publish("", "features", body(n % len(ROWS), n), mandatory=True)
                channel.tx_commit()
                self.sent += 20
                connection.sleep(0.02)

    def stop(self):
        self.flowing = False
        self.join()


def test_rows_that_flow_while_versions_swap_are_answered_once_by_the_version_they_name(
    any_broker, start, api, figure
):
    start(broker=any_broker)
    stream, took = Stream(any_broker), []
    for version in [1, 2, 0, 3, 1, 0, 2, 3, 2, 1] * SOAK:
        begin = time.monotonic()
        deploy(api, any_broker, version)
        took.append(time.monotonic() - begin)
        time.sleep(0.5)
    stream.stop()
    wait_for(lambda: any_broker.count("y_pred") >= stream.sent, 60, "every answer")
    taken = [(h["model_version"], msgspec.json.decode(b)) for h, b in any_broker.take("y_pred")]
    assert sorted(answer["id"] for _, answer in taken) == list(range(stream.sent))
    for version in (0, 1, 2, 3):
        answers = [answer for by, answer in taken if by == version]
        rows = [answer["id"] % len(ROWS) for answer in answers]
        got = [answer["body"] for answer in answers]
        assert len(got) > 20 and got == pytest.approx(expected(version)[rows], rel=1e-5)
    assert any_broker.count("dead") == 0
    figure(
        f"{len(took)} swaps on {any_broker.name} while {stream.sent} rows flowed: each answered"
        f" once; from deploying to the report {np.median(took):.1f} s, at most {max(took):.1f} s"
    )
    assert stream.sent > 3000


def test_a_batch_is_answered_by_one_version_and_the_versions_do_not_alternate(broker, start, api):
    start()
    stream = Stream(broker)
    for version in (1, 2, 3):
        deploy(api, broker, version)
        sent = stream.sent
        wait_for(lambda n=sent: stream.sent > n + 500, 30, "rows for this version")
    stream.stop()
    wait_for(lambda: broker.count("y_pred") >= stream.sent, 60, "every answer")
    versions = [headers["model_version"] for headers, _ in broker.take("y_pred")]
    assert versions == sorted(versions) and set(versions) == {0, 1, 2, 3}


def test_two_replicas_follow_and_report_each_for_itself(broker, start, api):
    for name in ("one", "the/other one"):
        start(name)
    for version in (1, 2, 0):
        deploy(api, broker, version, "one", "the%2Fother%20one")


def test_the_token_is_sent(broker, start, api):
    start(API_TOKEN="abc")
    wait_for(lambda: api.last("one"), 20, "a report")
    assert api.last("one")["token"] == "Bearer abc"


def test_without_a_nudge_it_follows_within_ten_seconds(start, api):
    start()
    api.current = 1
    wait_for(lambda: api.serves(1), 20, "version 1")


# what anybody may send

FORGED = {
    "nothing": b"",
    "a version that is not": b'{"version": 999999}',
    "a path": b'{"version": "../../etc/passwd"}',
    "an address": b'{"url": "http://localhost:1/model.tflite"}',
    "a pickle": b"\x80\x04\x95\x10",
    "depth": b"[" * 1_000_000,
    "8 MB": bytes(8_000_000),
}


def test_forged_messages_change_nothing(broker, start, api):
    start()
    deploy(api, broker, 1)
    for message in FORGED.values():
        nudge(broker, message)
        answered(broker, 1)
    time.sleep(2)
    assert api.serves(1) and not api.last("one")["refused"]
    assert [path for path, _ in api.asked if "999999" in path] == []


def test_a_flood_of_forged_messages_floods_neither_the_api_nor_the_predictions(
    broker, start, api, figure
):
    service = start()
    deploy(api, broker, 1)
    begin, asked = time.monotonic(), len(api.asked)
    for _ in range(5):
        nudge(broker, *[b"forged"] * 2000)
        nudge(broker, *[bytes(4_000_000)] * 10)
        answered(broker, 1, seconds=3)
    seconds, asked = time.monotonic() - begin, len(api.asked) - asked
    service.remember_peak()
    figure(
        f"10,000 forged messages and 200 MB in {seconds:.0f} s: {asked} requests to the API,"
        f" model's peak {service.peak:.0f} MB"
    )
    assert asked <= seconds + 2
    assert service.process.poll() is None


# versions that are wrong


def wrong(api, kind: str, version: int) -> None:
    """Make `version` current, and wrong."""
    tflite, golden = (api.files[f"2/{name}"] for name in ("model.tflite", "golden.json"))
    other = {"corrupt": tflite[:300] + b"\xff" * 300 + tflite[600:], "empty": b""}
    other |= {"truncated": tflite[:9000], "too large": bytes(65 * 2**20)}
    if kind in other:
        api.add(version, other[kind], golden)
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


WRONG = ["truncated", "corrupt", "empty", "too large", "hash", "no hash", "golden",
         "golden is garbage", "nine columns", "two numbers", "integers", "huge"]  # fmt: skip


def test_a_version_that_is_wrong_is_refused_with_a_reason_and_the_one_before_goes_on(
    broker, start, api, figure
):
    service = start()
    deploy(api, broker, 1)
    for version, kind in enumerate(WRONG, 10):
        wrong(api, kind, version)
        nudge(broker)
        reason = wait_for(lambda v=version: api.refused(v), 60, f"the refusal of {kind}")
        figure(f"refused, {kind}: {reason}")
        assert api.serves(1) and "Traceback" not in reason
        answered(broker, 1)
        before = len(api.asked)
        nudge(broker)
        wait_for(lambda n=before: len(api.asked) > n, 30, "another turn")
        downloads = [path for path, _ in api.asked if path == f"/models/{version}/model.tflite"]
        assert len(downloads) == 1  # and not again
    deploy(api, broker, 2)
    assert api.last("one")["refused"] is None
    assert service.process.poll() is None


def test_a_version_whose_files_are_missing_for_a_while_is_served_when_they_come(broker, start, api):
    start()
    golden = api.files.pop("2/golden.json")
    api.current = 2
    nudge(broker)
    assert "404" in wait_for(lambda: api.refused(2), 30, "the refusal")
    answered(broker, 0)
    api.files["2/golden.json"] = golden
    wait_for(lambda: api.serves(2), 30, "version 2")
    wait_for(lambda: api.last("one")["refused"] is None, 30, "the end of the refusal")


# an API that is unwell


def hang(handler) -> bool:
    return handler.server.released.wait(60)


def drip(handler) -> bool:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.released.wait(0.2):
        try:
            handler.wfile.write(b" ")
        except OSError:
            break
    return True


def garbage(content: bytes, code: int = 200):
    def answer(handler) -> bool:
        handler.answer(content, code)
        return True

    return answer


def cut_off(handler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"version": ')
    handler.close_connection = True
    return True


def no_http(handler) -> bool:
    handler.wfile.write(b"\x00\xff" * 1000)
    handler.close_connection = True
    return True


TROUBLE = {
    "hangs": hang,
    "drips": drip,
    "says 500": garbage(b"oh", 500),
    "wants a token": garbage(b"{}", 401),
    "sends elsewhere": garbage(b"", 302),
    "sends HTML": garbage(b"<html>"),
    "sends nothing": garbage(b""),
    "sends a list": garbage(b"[4]"),
    "names a version below zero": garbage(b'{"version": -1}'),
    "names a huge version": garbage(b'{"version": 99999999999999999999, "sha256": null}'),
    "names a path as hash": garbage(b'{"version": 4, "sha256": "../../../etc/passwd"}'),
    "sends depth": garbage(b'{"x":' + b"[" * 500_000),
    "sends 5 MB": garbage(b" " * 5_000_000),
    "breaks off": cut_off,
    "does not speak HTTP": no_http,
}


def test_whatever_the_api_does_predictions_go_on_at_once(broker, start, api):
    service = start()
    deploy(api, broker, 1)
    for trouble in TROUBLE.values():
        api.trouble, asked = trouble, len(api.asked)
        nudge(broker)
        wait_for(lambda a=asked: len(api.asked) > a, 30, "a request")
        answered(broker, 1, seconds=5)
        api.trouble = lambda handler: False
        api.released.set()
        deploy(api, broker, 1)
        api.released.clear()
    deploy(api, broker, 2)
    answered(broker, 2)
    assert service.process.poll() is None and service.said().count("makes no sense") > 4


def test_a_download_that_hangs_stops_no_prediction_and_is_tried_again(broker, start, api):
    start()
    api.trouble = lambda handler: handler.command == "GET" and hang(handler)
    api.current = 1
    nudge(broker)
    wait_for(lambda: "/models/1/model.tflite" in [path for path, _ in api.asked], 30, "a download")
    answered(broker, 0, seconds=5)
    assert "timed out" in wait_for(lambda: api.refused(1), 30, "the refusal")
    api.trouble = lambda handler: False
    wait_for(lambda: api.serves(1), 30, "version 1")


# the cache


def kept(service, version: int) -> None:
    said = f"version {version} answers well and is kept"
    wait_for(lambda: said in service.said(), 60, "the version to be kept")


def test_after_a_restart_without_the_api_the_last_good_version_serves(broker, start, api):
    service = start()
    deploy(api, broker, 1)
    answered(broker, 1)
    kept(service, 1)
    assert service.stop() == 0
    api.stop()
    service = start()
    assert "started, version 1 answers" in service.said()
    answered(broker, 1)
    service.kill()
    start()
    answered(broker, 1)


def test_a_full_disk_at_a_restart_takes_the_good_version_from_nobody(broker, start, api, tmp_path):
    service = start()
    deploy(api, broker, 1)
    answered(broker, 1)
    kept(service, 1)
    service.stop()
    api.stop()
    (tmp_path / "cache/0/state.new").mkdir()  # now nothing can be noted, not even by root
    service = start()
    answered(broker, 1)
    assert "served uncounted" in service.said()


def test_version_0_is_kept_too(broker, start, api):
    service = start()
    for version in (1, 0):
        deploy(api, broker, version)
        answered(broker, version)
        kept(service, version)
    service.stop()
    api.stop()
    assert "started, version 0 answers" in start().said()


CORRUPT = {
    "the file is gone": lambda folder: next(folder.glob("*.tflite")).unlink(),
    "the file is another": lambda folder: next(folder.glob("*.tflite")).write_bytes(b"x" * 9000),
    "the state is garbage": lambda folder: (folder / "state.json").write_bytes(b"\x00{"),
    "the state is a path": lambda folder: (folder / "state.json").write_text(
        '{"good": {"version": 1, "sha256": "../../../../etc/passwd"}}'
    ),
}


def test_a_cache_that_is_corrupt_is_told_and_version_0_serves_until_the_api_helps(
    broker, start, api, tmp_path
):
    service = start()
    for kind in CORRUPT:
        deploy(api, broker, 1)
        answered(broker, 1)
        kept(service, 1)
        service.stop()
        CORRUPT[kind](tmp_path / "cache/0")
        api.trouble = garbage(b"", 500)
        service = start()
        assert "started, version 0 answers" in service.said()
        assert re.search("beginning a new one|not what it was", service.said()), kind
        answered(broker, 0)
        api.trouble = lambda handler: False


def test_replicas_may_share_a_cache(broker, start, api, tmp_path):
    services = [start(name) for name in ("one", "two")]
    deploy(api, broker, 1, "one", "two")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["0", "1"]
    for service in services:
        assert service.stop() == 0


def test_a_cache_that_is_full_or_closed_stops_no_prediction(broker, start, api, tmp_path):
    service = start()
    (tmp_path / "cache/0/new.tflite").mkdir()  # a file cannot be written here, not even by root
    api.current = 1
    nudge(broker)
    assert wait_for(lambda: api.refused(1), 30, "the refusal")
    answered(broker, 0)
    (tmp_path / "cache/0/new.tflite").rmdir()
    wait_for(lambda: api.serves(1), 30, "version 1")
    assert service.process.poll() is None


# versions that kill


def test_a_version_that_kills_the_process_is_dropped_and_its_row_answered_by_the_one_before(
    broker, run, start, api, figure
):
    service = start()
    deploy(api, broker, 1)
    answered(broker, 1)
    kept(service, 1)
    service.stop()
    tflite, golden = (networks() / f"endless.{kind}" for kind in ("tflite", "json"))
    api.add(4, tflite.read_bytes(), golden.read_bytes())
    settings = {"API_URL": api.url, "REPLICA_NAME": "one", "WATCHDOG_SECONDS": 8}
    api.current, begin = 4, time.monotonic()
    service = run("model", broker, supervised=True, **settings)
    for life in range(3):
        wait_for(lambda n=life: service.said().count("version 4 answers") > n, 60, "version 4")
        # It loops for ever with this row, until the watchdog ends the process.
        broker.send("features", [msgspec.json.encode({"id": "deadly", "body": [1e6] * 10})])
        wait_for(lambda n=life: len(service.codes) > n, 60, "its end")
    reason = wait_for(lambda: api.refused(4), 60, "the refusal")
    assert reason == "the process died 3 times while this version answered"
    wait_for(lambda: broker.count("y_pred") == 3, 60, "the answers")
    assert {headers["model_version"] for headers, _ in broker.take("y_pred")} == {1}
    answered(broker, 1)
    figure(f"a version that loops for ever was dropped after {time.monotonic() - begin:.0f} s")
    assert len(service.codes) == 3


def test_a_version_in_whose_first_seconds_somebody_kills_the_process_is_tried_again(
    broker, run, start, api
):
    service = run("model", broker, True, API_URL=api.url, REPLICA_NAME="one")
    wait_for(service.has_started, 60, "the model")
    api.current = 1
    nudge(broker)
    wait_for(lambda: api.serves(1), 60, "version 1")
    service.kill()
    wait_for(lambda: len(service.codes) == 1 and service.has_started(), 60, "the next life")
    deploy(api, broker, 1)
    answered(broker, 1)


def test_a_version_that_never_survives_its_first_seconds_is_dropped(broker, run, api):
    service = run("model", broker, True, API_URL=api.url, REPLICA_NAME="one")
    api.current = 1
    for _ in range(3):
        lives = service.said().count("version 1 answers from now on")
        wait_for(lambda n=lives: service.said().count("version 1 answers from") > n, 60, "a swap")
        service.kill()
    reason = wait_for(lambda: api.refused(1), 60, "the refusal")
    assert reason == "the process died 3 times while this version answered"
    answered(broker, 0)
    deploy(api, broker, 2)  # something changed
    deploy(api, broker, 1)
    answered(broker, 1)


def test_orderly_stops_count_against_no_version(start, broker, api):
    api.current = 1
    for _ in range(4):
        service = start()
        wait_for(lambda s=service: "version 1 answers from now on" in s.said(), 60, "version 1")
        assert service.stop() == 0
    start()
    deploy(api, broker, 1)


@pytest.fixture
def folder(tmp_path):
    """Return a function that opens the cache; it is closed at the end."""
    opened = []

    def open_cache():
        while opened:
            opened.pop().close()
        opened.append(cache.Cache(tmp_path / "cache"))
        return opened[-1]

    yield open_cache
    opened.pop().close()


FIRST, SECOND = cache.Version(1, "1" * 64), cache.Version(2, "2" * 64)


def test_a_trial_that_ends_for_another_reason_does_not_count(folder):
    for _ in range(10):
        life = folder()
        life.begin(FIRST)
        life.end(FIRST)
    folder().begin(FIRST)


def test_a_version_that_is_refused_has_one_more_try_in_the_life_after(folder):
    for _ in range(3):
        folder().begin(FIRST)
    for _ in range(3):
        with pytest.raises(ValueError, match="died 3 times"):
            folder().begin(FIRST)
        folder().begin(FIRST)


def test_what_a_version_did_is_remembered_while_the_good_one_is_served_again(folder):
    for _ in range(3):
        life = folder()
        life.begin(FIRST)
        life.settle(FIRST)
        life.begin(SECOND)
    with pytest.raises(ValueError, match="died 3 times"):
        folder().begin(SECOND)


def test_the_good_version_is_kept_while_another_is_tried_and_replaced_when_that_is_good(folder):
    life = folder()
    for version in (FIRST, SECOND):
        life.path(version).write_bytes(b"x")
    life.begin(FIRST)
    life.settle(FIRST)
    assert life.path(FIRST).exists() and not life.path(SECOND).exists()
    life.begin(SECOND)
    assert folder().state.good == FIRST
    folder().settle(SECOND)
    assert folder().state.good == SECOND and not life.path(FIRST).exists()


# the thread


def test_without_an_api_version_0_answers_and_nothing_is_kept(broker, start, tmp_path):
    start(API_URL="")
    nudge(broker, b"x")
    answered(broker, 0)
    assert not (tmp_path / "cache").exists()


def test_an_unexpected_error_in_the_thread_ends_the_process(tmp_path):
    program = (
        "import time, updates\n"
        "updates.Updates.turn = lambda self: 1 / 0\n"
        "with updates.Updates(): time.sleep(30)"
    )
    settings = {"PYTHONPATH": str(ROOT / "model"), "MODEL_CACHE": str(tmp_path)}
    settings |= {"API_URL": "http://127.0.0.1:1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True)
    assert done.returncode == 1 and b"ZeroDivisionError" in done.stderr


def test_an_exchange_of_another_kind_is_an_error_at_the_start(broker, run, api):
    with broker.connect() as connection:
        connection.channel().exchange_delete("model_updates")
        connection.channel().exchange_declare("model_updates", "direct")
    try:
        service = run("model", broker, API_URL=api.url)
        assert service.process.wait(60) == 1
        assert isinstance(service.said(), str) and "model_updates" in service.said()
    finally:
        with broker.connect() as connection:
            connection.channel().exchange_delete("model_updates")
