"""What the tests run on: real brokers, real processes, and a way to kill both."""

import faulthandler
import logging
import signal

import pika
import pytest

from common import lifecycle
from tests.support.broker import Broker, in_a_container, installed
from tests.support.environment import RunningTest
from tests.support.service import Service

logging.getLogger("pika").setLevel(logging.CRITICAL)  # waiting for a broker is no news here
# Whoever started us in the background has SIGINT ignored, and services would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What a test calls in this process may arm the watchdog, which would end the tests a minute later.
lifecycle.WATCHDOG_SECONDS = 3600


# Files are dealt out to several processes; those that take minutes go first.
LONG = ["containers", "retraining", "drift", "chaos", "exactly_once", "local", "disk", "train"]
LONG += ["sandbox", "worker", "warm_pool", "upgrade", "pipeline", "fuzz", "bad_versions", "restart"]
LONG += ["swap", "bad_api", "page_live", "page_jobs", "uploads", "attempts", "live_events"]


# What a test needs because of its fixtures. A test that needs more is marked in its module.
# A name with a folder is the fixture of that name in the tests of that folder alone.
FIXTURES = {
    "broker": ["broker"],
    "installed_broker": ["broker"],
    "any_broker": ["broker"],
    "rabbitmq4": ["broker", "docker"],
    "browser": ["browser"],
    "russian": ["browser"],
    "start_browser": ["browser"],
    "small_disk": ["root"],
    "own_engine": ["root", "docker"],
    "models": ["tensorflow"],
    "deploy/system": ["docker"],
    "deploy/local": ["broker", "tensorflow"],
    "deploy/needs_root": ["root"],
    "drift/running": ["broker", "tensorflow"],
    "drift/container_worker": ["docker"],
    "model/api": ["tensorflow"],
    "retrain_worker/scratch": ["tensorflow"],
    "serving/fill": ["tensorflow"],
    "system/system": ["docker", "root"],
}


def pytest_collection_modifyitems(items):
    for item in items:
        mark(item)
    order = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


def mark(item: pytest.Item) -> None:
    """Mark a test with what its fixtures need."""
    callspec = getattr(item, "callspec", None)  # any_broker chooses one by its parameter
    chosen = [
        value for value in (callspec.params.values() if callspec else []) if isinstance(value, str)
    ]
    for name in [*item.fixturenames, *chosen]:
        for key in (name, f"{item.path.parent.name}/{name}"):
            for marker in FIXTURES.get(key, []):
                item.add_marker(marker)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    RunningTest.markers = {mark.name for mark in item.iter_markers()}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item):
    faulthandler.cancel_dump_traceback_later()
    RunningTest.markers = None  # fixtures of other tests may end with this one


@pytest.fixture
def figure(record_property):
    """Return a function that keeps a line for the end of the test report."""
    return lambda line: record_property("figure", line)


def pytest_terminal_summary(terminalreporter):
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    ended = [report for report in reports if getattr(report, "when", "") == "teardown"]
    lines = [line for report in ended for name, line in report.user_properties if name == "figure"]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show with a failure what the services said last, and how the broker's queues are."""
    report = yield
    if report.failed and call.when == "call":
        folder = item.funcargs.get("tmp_path")
        for log in sorted(folder.glob("*.log")) if folder else []:
            report.sections.append((log.name, "\n".join(log.read_text().splitlines()[-15:])))
        for name in ("broker", "any_broker"):
            if broker := item.funcargs.get(name):
                report.sections.append(("queues", broker.state()))
    return report


@pytest.fixture(scope="session")
def installed_broker(tmp_path_factory):
    broker = installed(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def rabbitmq4():
    broker = in_a_container()
    yield broker
    broker.stop()


@pytest.fixture(params=["installed_broker", "rabbitmq4"])
def any_broker(request):
    """Each test with this runs on the installed RabbitMQ, and on RabbitMQ 4 in a container."""
    broker = request.getfixturevalue(request.param)
    yield broker
    broker.delete_queues()


class Raw(bytes):
    """A value of a header as it goes over the wire."""


@pytest.fixture
def odd_headers(monkeypatch) -> dict:
    """Headers that other clients send, and that pika can neither make nor decode."""

    def encode_value(pieces: list, value, encode=pika.data.encode_value) -> int:
        if not isinstance(value, Raw):
            return encode(pieces, value)
        pieces.append(value)
        return len(value)

    monkeypatch.setattr(pika.data, "encode_value", encode_value)
    milliseconds = Raw(b"T" + (1765912012233).to_bytes(8))  # where AMQP has seconds
    return {"at": milliseconds, b"\xff": 1}


@pytest.fixture
def broker(installed_broker):
    yield installed_broker
    installed_broker.delete_queues()


@pytest.fixture
def logs(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


@pytest.fixture
def run(tmp_path, logs):
    """Return a function that starts a service; whatever is still running at the end is killed."""
    started = []

    def start(name: str, broker: Broker, supervised: bool = False, **settings) -> Service:
        environment = {"AMQP_URL": broker.url, "LOGS_DIR": str(logs), "API_URL": ""}
        environment |= {"FEATURES_DELAY_SECONDS": "0", "MODEL_CACHE": str(tmp_path / "cache")}
        environment |= {key: str(value) for key, value in settings.items()}
        log = tmp_path / f"{name}-{len(started)}.log"
        started.append(Service(name, log, environment, supervised))
        return started[-1]

    yield start
    for service in started:
        service.end()
