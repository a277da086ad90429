"""What the tests run on: real brokers, real processes, and a way to kill both."""

import csv
import functools
import importlib.util
import itertools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

import pika
import pytest

logging.getLogger("pika").setLevel(logging.CRITICAL)  # waiting for a broker is no news here
# Whoever started us in the background has SIGINT ignored, and services would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI") == "true"
# Below those that the system gives to whoever asks for any; each process of the tests has its own.
FIRST_PORT = 20_000 + 1500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = itertools.cycle(range(FIRST_PORT, FIRST_PORT + 1500))
SOAK = 10 if os.environ.get("SOAK") else 1  # `make soak`: tests go on for longer
RABBITMQ4_IMAGE = os.environ.get("RABBITMQ4_IMAGE", "monitoring-standin/rabbitmq:4")

# Files are dealt out to several processes; those that take minutes go first.
LONG = ["containers", "retraining", "drift", "chaos", "disk", "exactly_once", "long_run"]
LONG += ["jail", "worker", "pipeline", "page", "warm", "watching"]


def pytest_collection_modifyitems(items):
    order = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


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


def load(path: str):
    """Import a service's file as a module; its folder is where it finds its neighbours."""
    file = ROOT / path
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lacking(what: str):
    """Fail in CI, where everything has to be there; skip elsewhere."""
    (pytest.fail if IN_CI else pytest.skip)(f"needs {what}")


def copy_project(folder: Path) -> None:
    """Copy what a clone would have, as it is on disk now, without what running leaves behind."""
    left = [".git", ".venv", ".run", "logs", "__pycache__", ".*_cache"]
    left += [".hypothesis", ".schemathesis"]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left))
    (folder / "logs").mkdir()


def wait_for(true, seconds: float, what: str):
    """Return what `true()` returns as soon as that is something; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (result := true()):
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)
    return result


def memory(pid: int, kind: str) -> float:
    """Return what /proc says of a process under `kind`, such as VmRSS, in MB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


def peak_memory(pid: int) -> float:
    """Return the most memory that a process ever had, in MB; 0 if it has ended."""
    return memory(pid, "VmHWM")


def within(seconds: float, call, what: str):
    """Return or raise what `call` does; fail if it takes longer.

    Of a queue without a leader no answer ever comes, and pika waits for one.
    """
    answer = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        pytest.fail(f"waited {seconds} s in vain for {what}")


def confirms(connect, queue: str, body: bytes, seconds: float) -> bool:
    """Publish a body on a connection of its own; return whether the broker confirmed it in time."""

    def publish() -> None:
        with connect() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))

    try:
        within(seconds, publish, f"{queue} to take a body")
    except (pytest.fail.Exception, pika.exceptions.AMQPError):
        return False
    return True


@contextmanager
def small_disk_at(folder: Path, size: str):
    """Let `folder` be a file system of its own, of a `size` such as 40m."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        lacking("root, to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def free_port() -> int:
    """Return a port that nobody has, nor is given by the system or to a test in another process."""
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", port := next(PORTS))):
            return port


class Broker:
    """A RabbitMQ of the tests' own: what is common to the installed one and one in a container."""

    def __init__(self, name: str):
        self.port, self.management = free_port(), free_port()
        self.url = (
            f"amqp://guest:guest@127.0.0.1:{self.port}/%2F?heartbeat=30"
            "&connection_attempts=120&retry_delay=0.5&blocked_connection_timeout=60"
        )
        self.name = name

    def connect(self):
        return pika.BlockingConnection(pika.URLParameters(self.url))

    def wait_until_up(self) -> None:
        wait_for(self.answers, 180, "the broker")

    def answers(self) -> bool:
        """Does it take a connection? A broker that starts may drop one half way."""
        try:
            self.connect().close()
        except pika.exceptions.AMQPError:
            return False
        return True

    def takes_messages(self) -> bool:
        """Does each queue confirm one within a minute? One without a leader never does."""
        queues = ("features", "y_true", "y_pred", "dead")
        return all(confirms(self.connect, queue, b"a probe", 60) for queue in queues)

    def count(self, queue: str) -> int:
        """Return how many messages wait in `queue`; 0 if there is no such queue."""
        with suppress(pika.exceptions.ChannelClosedByBroker), self.connect() as connection:
            for _ in range(3):  # one that is busy for 250 ms says 0, too
                declared = connection.channel().queue_declare(queue, passive=True)
                if count := declared.method.message_count:
                    return count
                connection.sleep(0.3)
        return 0

    def send(self, queue: str, bodies, headers: dict | None = None) -> None:
        properties = pika.BasicProperties(headers=headers, delivery_mode=2)
        with self.connect() as connection:
            channel = connection.channel()
            channel.tx_select()
            for number, body in enumerate(bodies, 1):
                channel.basic_publish("", queue, body, properties, mandatory=True)
                if number % 500 == 0:
                    channel.tx_commit()
            channel.tx_commit()

    def take(self, queue: str) -> list[tuple]:
        """Take all that waits in `queue` as (headers, body)."""
        taken = []
        with self.connect() as connection:
            channel = connection.channel()
            while (got := channel.basic_get(queue, auto_ack=True))[0]:
                taken.append((got[1].headers, got[2]))
        return taken

    def stream(self, count: int = 10**9, name: str = "errors") -> list[bytes]:
        """Return the first messages on a stream, `count` of them or all that come within 5 s."""
        got = []
        with self.connect() as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=1000)
            first = {"x-stream-offset": "first"}
            for method, _, body in channel.consume(name, arguments=first, inactivity_timeout=5):
                if method is None:
                    break
                got.append(body)
                channel.basic_ack(method.delivery_tag)
                if len(got) == count:
                    break
            channel.cancel()
        return got

    def delete_queues(self) -> None:
        queues = ["features", "y_true", "y_pred", "dead", "retrain_jobs"]
        with self.connect() as connection:
            for queue in [*queues, "errors", "history", "drift"]:
                connection.channel().queue_delete(queue)


def queues(ctl: list) -> str:
    """Return what rabbitmqctl says about the queues: one without a leader takes nothing."""
    columns = ["name", "type", "state", "leader", "messages", "messages_unacknowledged"]
    command = [*ctl, "--timeout", "20", "list_queues", *columns]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


class InstalledBroker(Broker):
    def __init__(self, folder: Path):
        super().__init__("installed")
        self.folder = folder
        self.start()

    def start(self) -> None:
        command = [ROOT / "scripts/broker", self.folder, str(self.port), str(self.management)]
        with open(self.folder / "out.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.wait_until_up()

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(60)

    def state(self) -> str:
        return queues([ROOT / "scripts/broker", "ctl", self.folder])

    def set(self, **milliseconds: int) -> dict[str, int]:
        """Change settings while it runs; return what they were."""
        before = {}
        for name, value in milliseconds.items():
            now = f"{{ok, V}} = application:get_env(rabbit, {name}), "
            code = f"{now} application:set_env(rabbit, {name}, {value}), V."
            before[name] = int(self.evaluate(code))
        return before

    def evaluate(self, code: str) -> str:
        """Return what this Erlang is, inside the broker."""
        command = [ROOT / "scripts/broker", "ctl", self.folder, "eval", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def restart(self, kill: bool) -> None:
        self.end(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def stop(self) -> None:
        self.end(signal.SIGTERM)


class ContainerBroker(Broker):
    def __init__(self):
        super().__init__("container")
        self.container = docker(
            *("run", "-d", "--hostname", "rabbitmq", "--memory", "2g"),
            *("-p", f"127.0.0.1:{self.port}:5672"),
            *("-v", f"{ROOT}/rabbitmq/rabbitmq.conf:/etc/rabbitmq/conf.d/90-monitoring.conf:ro"),
            RABBITMQ4_IMAGE,
        )
        self.wait_until_up()

    def state(self) -> str:
        return queues(["docker", "exec", self.container, "rabbitmqctl"])

    def restart(self, kill: bool) -> None:
        docker("kill" if kill else "stop", self.container)
        docker("start", self.container)
        self.wait_until_up()

    def stop(self) -> None:
        docker("rm", "-f", "-v", self.container)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def has_docker() -> bool:
    return bool(shutil.which("docker")) and not subprocess.call(
        ["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60
    )


@functools.cache
def python_image() -> str:
    """Return what our images are built on: the official image, or its stand-in."""
    if not has_docker():
        lacking("a Docker engine")
    official, standin = "python:3.11-slim", "monitoring-standin/python:3.11"
    for image in (os.environ.get("PYTHON_IMAGE"), official, standin):
        if image and docker("images", "-q", image):
            return image
    if not subprocess.call(["docker", "pull", "-q", official], stderr=subprocess.DEVNULL):
        return official
    subprocess.run([ROOT / "standin/build", "python"], check=True)
    return standin


def installed(folder: Path) -> Broker:
    if not Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists():
        lacking("RabbitMQ: install the package rabbitmq-server")
    return InstalledBroker(folder)


def in_a_container() -> Broker:
    if not has_docker():
        lacking("a Docker engine, for RabbitMQ 4")
    if not docker("images", "-q", RABBITMQ4_IMAGE):
        lacking(f"the image {RABBITMQ4_IMAGE}: standin/build rabbitmq4, or set RABBITMQ4_IMAGE")
    return ContainerBroker()


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


class Service:
    """One of our services as a process; `supervised`, it is started again when it fails."""

    def __init__(self, name: str, log: Path, environment: dict, supervised: bool):
        self.name, self.log, self.environment = name, log, environment
        self.supervised, self.process, self.codes, self.peak = supervised, None, [], 0
        self.start()
        if supervised:
            self.keep_alive()

    def start(self) -> None:
        self.begun = len(self.said())
        file = [ROOT / f"{self.name}/{self.name}.py"]
        command = [sys.executable, *(["-m", self.name] if self.name == "retrain_api" else file)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | self.environment, cwd=ROOT, stdout=log, stderr=log
            )

    def supervise(self) -> None:
        while self.supervised:
            try:
                code = self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            self.codes.append(code)
            if code == 0 or not self.supervised:
                return
            time.sleep(0.2)
            self.start()

    def has_started(self) -> bool:
        """Has the life that lives now said so?"""
        return self.process.poll() is None and "started" in self.said()[self.begun :]

    def kill(self) -> bool:
        """Kill the life that lives now; return whether it was that which ended it."""
        process = self.process
        process.kill()
        return process.wait(30) == -signal.SIGKILL

    def pause(self, number: int = signal.SIGKILL) -> None:
        """End the life that lives now, and begin no other before `resume`."""
        self.supervised = False
        self.thread.join()
        self.process.send_signal(number)
        self.process.wait(30)

    def resume(self) -> None:
        self.start()
        self.keep_alive()

    def keep_alive(self) -> None:
        self.supervised = True
        self.thread = threading.Thread(target=self.supervise, daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Kill it for good."""
        if self.supervised:
            self.supervised = False
            self.thread.join()
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Stop as Docker does, and return the exit code."""
        if self.supervised:
            self.supervised = False
            self.thread.join()
        self.remember_peak()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)

    def remember_peak(self) -> None:
        """Keep the highest memory seen in any life, in MB."""
        self.peak = max(self.peak, peak_memory(self.process.pid))

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


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


def rows_of(path: Path) -> list[list[str]]:
    """Return the records of a CSV without its header; [] if there is none yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]
