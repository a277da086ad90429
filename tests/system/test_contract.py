"""What the files repeat has to agree, and what they promise has to be written down."""

import ast
import re

import msgspec
import pika
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

import retrain_api
from retrain_api.openapi import PATHS
from tests.support.environment import ROOT, load

modules = {name: load(f"{name}/{name}.py") for name in ("features", "model", "metric", "drift")}


def constant(file, name: str):
    """Return what stands behind `name = ` in a source file, without running it."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    return None


def declaring() -> list:
    return [file for file in sources() if "\nQUEUE = " in file.read_text()]


def test_every_service_declares_a_queue_with_the_same_arguments():
    names = {"features", "model", "metric", "dead", "retrain_api", "retrain_worker"}
    assert {file.parent.name for file in declaring()} == names
    for name in ("QUEUE", "DEAD"):
        values = [constant(file, name) for file in declaring()]
        assert values == [values[0]] * len(names) and values[0]


@pytest.mark.parametrize("stream", ["ERRORS", "HISTORY", "DRIFT"])
def test_every_service_declares_a_stream_with_the_same_arguments(stream):
    values = [value for file in sources() if (value := constant(file, stream))]
    assert values == [values[0]] * len(values) and values[0]["x-queue-type"] == "stream"


def test_the_services_publish_keep_alive_and_stop_in_the_same_way():
    for name in ("publish", "alive", "stop_between_batches", "stop", "leave_alone"):
        copies = {ast.unparse(function) for file in sources() if (function := found(file, name))}
        assert len(copies) == 1, name
    stops = {
        line for file in sources() for line in re.findall(r"^STOPS = .*", file.read_text(), re.M)
    }
    assert len(stops) == 1
    for file in sources():
        if found(file, "publish"):
            assert "signal.SIGINT, functools.partial(stop_between_batches" in file.read_text(), file


def test_every_service_that_reads_messages_survives_the_same_headers():
    names = {"model", "metric", "drift", "dead", "retrain_api", "retrain_worker"}
    files = [file for file in sources() if found(file, "decode_value")]
    assert {file.parent.name for file in files} == names
    assert len({ast.unparse(found(file, "decode_value")) for file in files}) == 1
    for file in files:
        assert "\npika.data.decode_value = decode_value\n" in file.read_text(), file


@pytest.mark.parametrize(
    "value",
    [
        b"T" + (1765912012233).to_bytes(8),  # milliseconds, where AMQP has seconds
        b"T" + bytes([255] * 8),
    ],
    ids=["a date in milliseconds", "the last date"],
)
def test_a_date_that_python_does_not_know_is_none_and_the_others_are_what_they_are(value):
    table = b"\x01a" + value + b"\x01bA" + len(value).to_bytes(4) + value + b"\x01ct\x01"
    headers, end = pika.data.decode_table(len(table).to_bytes(4) + table, 0)
    assert headers == {"a": None, "b": [None], "c": True} and end == 4 + len(table)


def found(file, name: str):
    """Return the function of this name in a source file, if it has one."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    return None


def test_the_description_of_the_api_has_every_call_of_the_public_and_no_other(tmp_path):
    app = retrain_api.create_app(
        {"DATA_DIR": str(tmp_path), "WORKER_SECRET_FILE": str(tmp_path / "secret")}
    )
    calls = {
        (re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if not rule.rule.startswith("/worker")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, calls in PATHS.items() for method in calls}
    assert calls == described


def test_what_the_api_deploys_is_what_model_takes():
    deploys = load("retrain_api/promotion.py")
    assert deploys.STREAM_COLUMNS == load("model/serving.py").STREAM_COLUMNS
    assert deploys.SERVED_BYTES == load("model/updates.py").LARGEST_MODEL


def test_what_features_sends_is_what_model_takes_and_its_answer_what_metric_takes():
    data, target = load_diabetes(return_X_y=True)
    id, x, y = next(modules["features"].rows(data, target, "1"))
    known = msgspec.json.encode({"id": id, "body": x})
    true = msgspec.json.encode({"id": id, "body": y})
    answers, refused = modules["model"].answer(LinearRegression().fit(data, target), [known])
    messages = [("y_true", None, true), ("y_pred", 0, answers[0])]
    halves, refused_too = modules["metric"].read(messages)
    [joined], _, _ = modules["metric"].join({}, halves)
    assert not refused and not refused_too
    assert (joined.id, joined.y_true) == (id, y)


def test_what_features_keeps_is_what_drift_reads():
    data, target = load_diabetes(return_X_y=True)
    batch = [next(modules["features"].rows(data, target, "1")) for _ in range(250)]
    bodies = modules["features"].whole(batch)
    read = [row for body in bodies for row in load("drift/streams.py").read(body)]
    assert [(row.id, row.body, row.y_true) for row in read] == batch
    assert max(map(len, bodies)) < 128 * 1024  # a frame


def test_what_metric_tells_is_what_drift_sees():
    joined = modules["metric"].Joined("a", 1.0, 3.0, 2.0, 7)
    row = modules["drift"].decode_row(msgspec.json.encode(joined))
    assert (row.id, row.absolute_error, row.model_version) == ("a", 2.0, 7)


def sources():
    return [file for file in ROOT.glob("*/*.py") if file.parent.name != "tests"]


def settings() -> set[str]:
    found = set()
    for file in sources():
        found |= set(re.findall(r'environ\.get\(\s*"(\w+)"', file.read_text()))
    return found | set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))


@pytest.mark.parametrize("name", sorted(settings()))
def test_every_setting_is_in_the_readme(name):
    assert f"`{name}`" in (ROOT / "README.md").read_text()


FIXED = {"AMQP_URL", "LOGS_DIR", "ALIVE_FILE", "API_HOST", "API_URL", "DATA_DIR", "MODEL_CACHE"}
FIXED |= {"REPLICA_NAME", "WORKER_NAME", "WORKER_SECRET_FILE", "TRAIN_IN", "ALLOW_UNJAILED_MODELS"}


@pytest.mark.parametrize("name", sorted(settings() - FIXED))  # compose itself sets those
def test_every_setting_reaches_the_containers(name):
    assert f"${{{name}:-" in (ROOT / "docker-compose.yml").read_text()


def test_every_pin_is_exact():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert all(
        re.fullmatch(r'[\w.-]+==[\w.]+(; platform_machine [!=]= "x86_64")?|#.*|', line)
        for line in lines
    )


@pytest.mark.parametrize(
    "dockerfile", sorted(ROOT.glob("*/Dockerfile")), ids=lambda f: f.parent.name
)
def test_every_dockerfile_begins_with_the_same_four_lines(dockerfile):
    first = (ROOT / "features/Dockerfile").read_text().splitlines()[:4]
    assert dockerfile.read_text().splitlines()[:4] == first


def test_nothing_but_tests_and_experiments_sleeps_while_it_is_connected():
    connected = [file for file in sources() if "BlockingConnection" in file.read_text()]
    assert connected and not [file for file in connected if "time.sleep" in file.read_text()]
