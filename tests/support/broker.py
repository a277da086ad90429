"""RabbitMQ brokers of the tests' own: the installed one, and RabbitMQ 4 in a container."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pika
import pytest

from tests.support.docker import docker, has_docker
from tests.support.environment import ROOT, lacking, needs
from tests.support.ports import free_port
from tests.support.waiting import wait_for, within

RABBITMQ4_IMAGE = os.environ.get("RABBITMQ4_IMAGE", "monitoring-standin/rabbitmq:4")


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
        command = [ROOT / "deploy/broker", self.folder, str(self.port), str(self.management)]
        with open(self.folder / "out.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.wait_until_up()

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(60)

    def state(self) -> str:
        return queues([ROOT / "deploy/broker", "ctl", self.folder])

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
        command = [ROOT / "deploy/broker", "ctl", self.folder, "eval", code]
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
            *("-v", f"{ROOT}/deploy/rabbitmq.conf:/etc/rabbitmq/conf.d/90-monitoring.conf:ro"),
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


def installed(folder: Path) -> Broker:
    needs("broker")
    if not Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists():
        lacking("RabbitMQ: install the package rabbitmq-server")
    return InstalledBroker(folder)


def in_a_container() -> Broker:
    needs("docker")
    if not has_docker():
        lacking("a Docker engine, for RabbitMQ 4")
    if not docker("images", "-q", RABBITMQ4_IMAGE):
        lacking(
            f"the image {RABBITMQ4_IMAGE}: deploy/standin/build rabbitmq4, or set RABBITMQ4_IMAGE"
        )
    return ContainerBroker()
