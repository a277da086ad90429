"""Whatever is wrong with a request, the answer says so in a sentence, and the disk is as before."""

import json
import socket

import pytest

from tests.support.api import KERAS, Api, csv_text

GOOD = csv_text()
H5 = b"\x89HDF\r\n\x1a\n and so on"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
UNNAMED = b"--b\r\nContent-Disposition: form-data%b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="data"; filename="a.csv"\r\n\r\n'


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with Api(tmp_path_factory.mktemp("api")) as api:
        api.version()
        api.new_job()
        yield api


def data(content=GOOD, name="a.csv") -> tuple:
    return ("data", (name, content))


def model(content=KERAS, name="m.keras") -> tuple:
    return ("model", (name, content))


def job(*files, headers=None, **fields) -> dict:
    return {
        "method": "POST",
        "path": "/jobs",
        "files": list(files) or [data()],
        "data": fields,
        "headers": headers,
    }


def call(method, path, **more) -> dict:
    return {"method": method, "path": path} | more


def raw(body, headers=FORM) -> dict:
    return call("POST", "/jobs", data=body, headers=headers)


def replaced(old: str, new: str, text: str = GOOD) -> tuple:
    return data(text.replace(old, new, 1))


SECOND = GOOD.splitlines()[1]
CELL = SECOND.split(",")[0]
CASES = {
    "no form": (call("POST", "/jobs", data=GOOD), 415, "curl -F"),
    "a form of another kind": (call("POST", "/jobs", data={"data": "x"}), 415, "curl -F"),
    "json": (call("POST", "/jobs", json={"data": GOOD}), 415, "curl -F"),
    "nothing at all": (call("POST", "/jobs"), 415, "curl -F"),
    "an empty form": (raw(b"--b--\r\n"), 400, "0 data files"),
    "no boundary": (raw(PART, {"Content-Type": "multipart/form-data"}), 400, "torn"),
    "another boundary": (raw(b"--c\r\n\r\n\r\n--c--\r\n"), 400, "torn"),
    "a form that breaks off": (raw(PART + GOOD.encode()), 400, "torn"),
    "a form of noise": (raw(bytes(range(256)) * 99), 400, "torn"),
    "data as text": (job(("x", ("", b"")), data=GOOD), 400, "@"),
    "no data": (job(model()), 400, "0 data files"),
    "data without a name": (raw(PART.replace(b"a.csv", b"") + b"\r\n--b--\r\n"), 400, "name"),
    "two files of one name": (job(data(), data()), 400, "same name"),
    "101 files": (job(*[data(name=f"{i}.csv") for i in range(101)]), 400, "1 to 100"),
    "130 parts": (job(*[data("", f"{i}.csv") for i in range(130)]), 413, "120 parts"),
    "an unknown file": (job(data(), ("daten", ("b.csv", GOOD))), 400, "data, model"),
    "an unknown field": (job(epoch="5"), 400, "epochs"),
    "a field in capitals": (job(Target="y"), 400, "target"),
    "a field of 1 MB": (job(target="y" * 10**6), 413, "500 kB"),
    "a field as a file": (job(data(), ("target", ("t", b"y"))), 400, "without an @"),
    "a field twice": (job(epochs=["5", "6"]), 400, "once"),
    "a field without a name": (raw(UNNAMED % b"" + b"\r\n5\r\n--b--\r\n"), 400, "not known"),
    "a file without a field": (
        *(raw(UNNAMED % b'; filename="a.csv"' + b"\r\n5\r\n--b--\r\n"), 400, "not known"),
    ),
    "an empty field": (job(target=""), 400, "empty"),
    "epochs in words": (job(epochs="five"), 400, "1 to 10000"),
    "no epochs": (job(epochs="0"), 400, "1 to 10000"),
    "negative epochs": (job(epochs="-1"), 400, "1 to 10000"),
    "too many epochs": (job(epochs="10001"), 400, "1 to 10000"),
    "half an epoch": (job(epochs="1.5"), 400, "1 to 10000"),
    "epochs in Thai": (job(epochs="๕"), 400, "1 to 10000"),
    "deploy maybe": (job(deploy="maybe"), 400, "if_better"),
    "a target that is not there": (job(target="z"), 400, "z"),
    "a column to ignore that is not there": (job(ignore="z"), 400, "z"),
    "a target to be ignored": (job(target="x1", ignore="x1"), 400, "x1"),
    "everything to be ignored": (job(ignore=",".join(f"x{i}" for i in range(10))), 400, ""),
    "an empty name to ignore": (job(ignore="x1,,x2"), 400, "ignore"),
    "a bad quotation to ignore": (job(ignore='"x1'), 400, ""),
    "an empty file": (job(data("")), 400, "a.csv"),
    "a header alone": (job(data(GOOD.splitlines()[0])), 400, "rows"),
    "no header": (job(data(GOOD.split("\n", 1)[1])), 400, "names"),
    "too few rows": (job(data("\n".join(GOOD.splitlines()[:15]))), 400, "20"),
    "a doubled name": (job(replaced("x1", "x0")), 400, "x0"),
    "a ragged row": (job(replaced(SECOND, SECOND + ",1")), 400, "line 2"),
    "a text in a cell": (job(replaced(CELL, "warm")), 400, "line 2"),
    "an empty cell": (job(replaced(CELL, "")), 400, "empty"),
    "nan in a cell": (job(replaced(CELL, "nan")), 400, "line 2"),
    "inf in a cell": (job(replaced(CELL, "1e999")), 400, "line 2"),
    "a constant target": (job(data("a,b\n" + "".join(f"{i},1\n" for i in range(60)))), 400, "same"),
    "bytes that are no text": (job(data(bytes(range(256)) * 40)), 400, "a.csv"),
    "a workbook": (job(data(KERAS + bytes(9999), "a.xlsx")), 400, "a.xlsx"),
    "files that differ": (job(data(), data(csv_text(columns=4), "b.csv")), 400, "b.csv"),
    "two models": (job(data(), model(), model()), 400, "one"),
    "an empty model": (job(data(), model(b"")), 400, "Keras"),
    "a pickle as a model": (job(data(), model(b"\x80\x05cos\nsystem\n.")), 400, "Keras"),
    "a model named .pkl": (job(data(), model(name="m.pkl")), 400, ".keras"),
    "a model without a suffix": (job(data(), model(name="model")), 400, ".keras"),
    "an .h5 named .keras": (job(data(), model(H5)), 400, "Keras"),
    "a .keras named .h5": (job(data(), model(name="m.h5")), 400, "Keras"),
    "a key with spaces": (job(headers={"Idempotency-Key": "a b"}), 400, "Key"),
    "an empty key": (job(headers={"Idempotency-Key": ""}), 400, "Key"),
    "a long key": (job(headers={"Idempotency-Key": "k" * 300}), 400, "Key"),
    "limit in words": (call("GET", "/jobs?limit=all"), 400, "limit"),
    "an unknown page": (call("GET", "/job"), 404, "POST /jobs"),
    "an unknown job": (call("GET", "/jobs/1"), 404, "GET /jobs"),
    "the log of an unknown job": (call("GET", "/jobs/1/log"), 404, "GET /jobs"),
    "an end to an unknown job": (call("DELETE", "/jobs/1"), 404, "GET /jobs"),
    "another path": (call("GET", "/jobs/..%2f..%2fworker_secret"), 404, ""),
    "an end to all jobs": (call("DELETE", "/jobs"), 405, "allowed"),
    "a job to be changed": (call("PATCH", "/jobs/1", data="x"), 405, "allowed"),
    "an unknown version": (call("GET", "/models/99"), 404, "GET /models"),
    "a version below zero": (call("GET", "/models/-1"), 404, ""),
    "a version in words": (call("GET", "/models/best"), 404, ""),
    "files of version 0": (call("GET", "/models/0/model.keras"), 404, "built into"),
    "a file that no version has": (call("GET", "/models/1/model.pkl"), 404, ""),
    "an unknown version to serve": (call("POST", "/models/99/deploy"), 404, "GET /models"),
    "an end to an unknown version": (call("DELETE", "/models/99"), 404, "GET /models"),
    "an end to version 0": (call("DELETE", "/models/0"), 409, "stays"),
    "an end to what serves": (call("DELETE", "/models/1"), 409, "another"),
    "a version of 400 digits": (call("GET", f"/models/{'9' * 400}"), 404, ""),
    "a replica without JSON": (call("PUT", "/models/current/replicas/a", data="hm"), 400, "serves"),
    "a replica that says nothing": (call("PUT", "/models/current/replicas/a"), 400, "serves"),
    "a replica that serves text": (
        call("PUT", "/models/current/replicas/a", json={"serves": "one"}),
        *(400, "serves"),
    ),
    "a replica with a strange name": (
        call("PUT", "/models/current/replicas/a%20b", json={"serves": 1}),
        *(400, "name"),
    ),
    "a replica with a name in Cyrillic": (
        call("PUT", "/models/current/replicas/раз", json={"serves": 1}),
        *(400, "name"),
    ),
    "5 MB where no file is expected": (
        call("PUT", "/models/current/replicas/a", data=b"x" * 5_000_000),
        *(413, "4 MB"),
    ),
    "an address of 10 kB": (call("GET", "/jobs?" + "x" * 10_000), 414, "address"),
    "a header of 10 kB": (call("GET", "/jobs", headers={"x": "x" * 10_000}), 431, "headers"),
    "claim without a secret": (call("POST", "/worker/jobs/1/claim"), 401, "workers"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_request_gets_a_sentence_and_leaves_nothing(api, name):
    request, code, word = CASES[name]
    before = api.stored(), api.get("/jobs").json()
    answer = api.call(**{key: value for key, value in request.items() if value is not None})
    assert answer.headers["Content-Type"] == "application/json"
    sentence = json.loads(answer.text)["error"]
    assert (answer.status_code, word in sentence) == (code, True), sentence
    assert len(sentence.split()) > 4 and "Traceback" not in sentence
    assert (api.stored(), api.get("/jobs").json()) == before


@pytest.mark.parametrize(
    "request_text",
    [
        "nonsense",
        "GET /jobs",
        "POST /jobs HTTP/1.1\r\nContent-Length: -5",
        "POST /jobs HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6",
        "POST /jobs HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "POST /jobs HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        "Transfer-Encoding: chunked\r\n\r\nno chunk",
    ],
)
def test_what_is_no_http_gets_json_too(api, request_text):
    before = api.stored()
    with socket.create_connection(("127.0.0.1", int(api.url.rsplit(":")[-1]))) as client:
        client.sendall(request_text.encode() + b"\r\n\r\n")
        answer = client.makefile().read()
    head, _, body = answer.partition("\n\n")
    assert head.startswith("HTTP/1.1 400") and len(json.loads(body)["error"].split()) > 4
    assert api.stored() == before


WORK = {
    "a claim without a worker": ("POST", "{id}/claim", {"json": {}}, 400),
    "a claim by a number": ("POST", "{id}/claim", {"json": {"worker": 7}}, 400),
    "a claim that is no JSON": ("POST", "{id}/claim", {"data": "{"}, 400),
    "a claim that is a list": ("POST", "{id}/claim", {"json": [1]}, 400),
    "a claim of an unknown job": ("POST", "nix/claim", {"json": {"worker": "w"}}, 404),
    "progress of an unknown job": ("PUT", "nix/1/progress", {"json": {}}, 404),
    "progress nobody claimed": ("PUT", "{id}/1/progress", {"json": {}}, 409),
    "progress of an unknown kind": ("PUT", "{id}/1/progress", {"json": {"eta": 1}}, 400),
    "progress in a bottomless list": ("PUT", "{id}/1/progress", {"data": "[" * 10**5}, 400),
    "an attempt in words": ("PUT", "{id}/one/progress", {"json": {}}, 404),
    "an attempt of 400 digits": ("PUT", f"{{id}}/{'9' * 400}/progress", {"json": {}}, 404),
    "a failure without a reason": ("POST", "{id}/1/failed", {"json": {"retry": True}}, 400),
    "a result nobody claimed": ("POST", "{id}/1/result", {"data": {"report": "{}"}}, 409),
    "a log of 5 MB": ("PUT", "{id}/1/progress", {"json": {"log": "x" * 5_000_000}}, 413),
}


@pytest.mark.parametrize("name", WORK)
def test_a_bad_call_of_a_worker_gets_a_sentence_too(api, name):
    method, path, more, code = WORK[name]
    queued = api.get("/jobs").json()["jobs"][0]["id"]
    before = api.stored()
    answer = api.work(method, path.format(id=queued), **more)
    assert answer.status_code == code and len(answer.json()["error"].split()) > 4
    assert api.stored() == before
