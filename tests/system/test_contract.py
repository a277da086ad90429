"""What two parts of the project have to agree on: messages, routes, settings, pins, Dockerfiles."""

import re

import pytest
import yaml
from sklearn.datasets import load_diabetes

from common.consuming import Message
from common.lifecycle import RENAMED_SETTINGS
from common.messages import (
    MAX_HISTORY_BYTES,
    FeatureRow,
    HistoryRow,
    TargetValue,
    decode_joined_row,
    encode,
)
from drift.streams import decode_history
from features import features
from metric import metric
from model import model
from retrain_api.application import create_app
from retrain_api.routes.openapi import PATHS
from serving.builtin import Builtin
from tests.support.environment import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PACKAGES = ["common", "serving", "features", "model", "metric", "plot", "drift"]
PACKAGES += ["retrain_api", "retrain_worker", "tools"]
DOCKERFILES = [
    ROOT / name
    for name in re.findall(r"dockerfile: (\S+?)}?\n", (ROOT / "docker-compose.yml").read_text())
]
REQUIREMENTS = [ROOT / "requirements.txt", *sorted(ROOT.glob("requirements/*.txt"))]


def sample_rows(count: int) -> list[HistoryRow]:
    data, target = load_diabetes(return_X_y=True)
    rows = features.draw_rows(data, target, "1")
    return [next(rows) for _ in range(count)]


def test_a_row_of_features_is_predicted_by_model_joined_by_metric_and_read_by_drift():
    [sent] = sample_rows(1)
    [answer], rejected = model.predict(Builtin(), [encode(FeatureRow(sent.id, sent.body))])
    messages = [
        Message(1, "y_true", {}, encode(TargetValue(sent.id, sent.y_true))),
        Message(2, "y_pred", {"model_version": 7}, answer),
    ]
    values, refused = metric.parse(messages)
    [joined], _, repeated = metric.join({}, values)
    row = decode_joined_row(encode(joined))
    assert not rejected and not refused and not repeated
    assert (row.id, row.y_true, row.model_version) == (sent.id, sent.y_true, 7)
    assert row.absolute_error == abs(row.y_true - row.y_pred)


def test_the_rows_that_features_keeps_are_those_that_drift_reads():
    batch = sample_rows(250)
    bodies = features.history_messages(batch)
    assert [row for body in bodies for row in decode_history(body)] == batch
    assert max(map(len, bodies)) < min(128 * 1024, MAX_HISTORY_BYTES)  # a frame


def test_the_description_of_the_api_has_every_public_call_and_no_other(tmp_path):
    app = create_app({"DATA_DIR": str(tmp_path), "WORKER_SECRET_FILE": str(tmp_path / "secret")})
    calls = {
        (re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if not rule.rule.startswith("/worker")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, calls in PATHS.items() for method in calls}
    assert calls == described


def settings_of_services() -> set[str]:
    """Return the names of all environment variables of ours that product code reads."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    read = re.compile(r'environ\.get\(\s*"(\w+)"')
    return {name for file in files for name in read.findall(file.read_text())} - {"PATH"}


def settings_of_compose() -> set[str]:
    """Return the names that docker-compose.yml takes over from the environment or .env."""
    services = COMPOSE["services"].values()
    passed = {
        name
        for s in services
        for name, value in (s.get("environment") or {}).items()
        if value is None
    }
    return passed | set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))


SETTINGS = sorted((settings_of_services() | settings_of_compose()) - set(RENAMED_SETTINGS))
# Compose sets these itself, or a process outside containers has no other way to get them.
FIXED = {"AMQP_URL", "LOGS_DIR", "LIVENESS_FILE", "API_HOST", "API_URL", "DATA_DIR", "MODEL_CACHE"}
FIXED |= {"REPLICA_NAME", "WORKER_NAME", "WORKER_SECRET_FILE"}
FIXED |= {"TRAIN_BACKEND", "ALLOW_UNSANDBOXED_MODELS"}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_documented(name):
    assert f"`{name}`" in (ROOT / "docs/settings.md").read_text()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_in_the_example(name):
    assert re.search(rf"^#{name}=", (ROOT / ".env.example").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", sorted(settings_of_services() - FIXED))
def test_every_setting_reaches_the_containers(name):
    assert name in settings_of_compose()


@pytest.mark.parametrize(
    "old", sorted(set(RENAMED_SETTINGS) - {"ALIVE_FILE", "ALLOW_UNJAILED_MODELS", "TRAIN_IN"})
)
def test_an_old_name_reaches_the_service_that_refuses_it(old):
    new = RENAMED_SETTINGS[old]
    services = [s["environment"] for s in COMPOSE["services"].values() if "environment" in s]
    readers = [environment for environment in services if new in environment]
    assert readers and all(old in environment for environment in readers)


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.stem)
def test_every_pin_is_exact_and_hashed_and_the_same_in_all_files(file):
    everything = pins(REQUIREMENTS[0].read_text())
    assert pins(file.read_text()).items() <= everything.items()
    assert (
        "://" not in file.read_text()
    )  # the address of an index is a machine's, not the project's


def pins(text: str) -> dict[str, str]:
    """Return the versions by name and condition; each requirement has to have hashes."""
    found = {}
    lines = "".join(line for line in text.splitlines(True) if not line.lstrip().startswith("#"))
    for requirement in re.findall(r"^\S.*(?:\n +.*)*", lines.replace("\\\n", "\n"), re.MULTILINE):
        first, *hashes = requirement.split("\n")
        name, version, condition = re.fullmatch(r"([\w.-]+)==([\w.]+)( ; .*)?\s*", first).groups()
        assert hashes and all(re.fullmatch(r" +--hash=sha256:\w{64}\s*", line) for line in hashes)
        found[name + (condition or "")] = version
    return found


@pytest.mark.parametrize("name", ["features", "model", "metric", "plot", "tools", "check"])
def test_a_service_alone_and_make_check_do_not_install_tensorflow(name):
    text = (ROOT / f"requirements/{name}.txt").read_text()
    assert not re.search("^(tensorflow|keras)", text, re.MULTILINE)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=str)
def test_every_image_begins_with_the_same_layers(dockerfile):
    first = (ROOT / "features/Dockerfile").read_text().split("RUN uv")[0]
    assert dockerfile.read_text().startswith(first)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=str)
def test_every_image_installs_its_own_hashed_pins_as_a_user_who_is_not_root(dockerfile):
    text = dockerfile.read_text()
    name = "trainer" if dockerfile.stem == "trainer" else dockerfile.parent.name
    assert f"uv pip install --require-hashes -r /requirements/{name}.txt" in text
    [user] = re.findall(r"^USER (.*)$", text, re.MULTILINE)
    assert user == {"retrain_worker": "0:0", "trainer": "65534:65534"}.get(name, "1000:1000")
