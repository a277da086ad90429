"""The whole system in its containers, under load, while something breaks every few seconds.

What breaks is chosen by a seed, which is printed. At the end it is looked at from outside: nothing
that was promised is missing, and nothing that was borrowed is left.

    make chaos                          # five minutes, with a seed of its own
    make chaos SEED=7 SECONDS=60        # once more what another run was
"""

import os
import random
import re
import signal
import subprocess
import time
from contextlib import suppress

import pika
import pytest
import requests

from tests.support.api import csv_text
from tests.support.broker import confirms
from tests.support.composed import SERVICES, composed
from tests.support.csv_files import rows_of
from tests.support.docker import docker
from tests.support.environment import SOAK, small_disk_at
from tests.support.memory import memory
from tests.support.rows import data, shown, target
from tests.support.waiting import wait_for, within

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.slow]

SECONDS = int(os.environ.get("CHAOS_SECONDS") or (300 if SOAK > 1 else 60))
SEEDS = os.environ.get("CHAOS_SEED", "").split() or range(10 if SOAK > 1 else 2)
EVERYBODY = [*SERVICES, "rabbitmq"]
QUEUES = ["features", "y_true", "y_pred", "retrain_jobs"]
KNOWN_FILES = {"metric_log.csv", "metric.sqlite3", "metric.sqlite3-wal", "metric.sqlite3-shm"}
KNOWN_FILES |= {"metric.ballast", "error_distribution.png", "error_distribution.png.new"}
KNOWN_FILES |= {"drift.json", "drift.json.new", "drift_log.csv", "drift_log.csv.new"}
GROWTH = 1.5  # of a service's memory, and some MB


class Chaos:
    """Breaks a system, one thing at a time, and remembers what was promised meanwhile."""

    def __init__(self, system, seed):
        self.system, self.chance = system, random.Random(f"chaos {seed}")
        self.jobs, self.nonsense, self.perhaps, self.done = [], [], [], []
        self.url = f"http://127.0.0.1:{system.ports['API_PORT']}"
        self.amqp = f"amqp://guest:guest@127.0.0.1:{system.ports['AMQP_PORT']}/%2F"

    def one(self) -> None:
        acts = [self.kill, self.restart, self.pause, self.cut, self.fill, self.say_nonsense]
        acts += [self.post, self.post, self.post_rubbish, self.cancel]
        act = self.chance.choice(acts)
        try:
            what = act() or ""
        except AssertionError as error:  # Docker's, of a container that has just ended by itself
            if not re.search("is not running|is restarting", str(error)):
                raise
            what = "somebody who was down"
        self.done.append(f"{act.__name__} {what}".strip())

    def somebody(self) -> str:
        return self.chance.choice(EVERYBODY)

    def a_while(self) -> None:
        time.sleep(self.chance.uniform(1, 8))

    def kill(self) -> str:
        self.system.signal(name := self.somebody(), signal.SIGKILL)
        return name

    def restart(self) -> str:
        docker("restart", "-t", "20", self.system.container(name := self.somebody()))
        return name

    def pause(self) -> str:
        container = self.system.container(name := self.somebody())
        docker("pause", container)
        self.a_while()
        docker("unpause", container)
        return name

    def cut(self) -> str:
        """Take a container off the network for a while; plot never was on it."""
        name = self.chance.choice([name for name in EVERYBODY if name != "plot"])
        container = self.system.container(name)
        network = f"{self.system.environment['COMPOSE_PROJECT_NAME']}_default"
        docker("network", "disconnect", network, container)
        self.a_while()
        wait_for(lambda: connect(network, name, container), 60, f"{name} to be connected again")
        return name

    def fill(self) -> None:
        hog = self.system.clone / "logs/hog"
        with suppress(OSError), hog.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        self.a_while()
        hog.unlink()

    def say_nonsense(self) -> str:
        body = self.chance.randbytes(self.chance.randrange(1, 200)) + b"]"
        self.perhaps.append(body)
        queue = self.chance.choice(QUEUES)
        if confirms(self.connection, queue, body, 20):
            self.nonsense.append(body)
        return queue

    def connection(self):
        parameters = pika.URLParameters(self.amqp)
        parameters.socket_timeout = parameters.stack_timeout = 5
        parameters.heartbeat = 5
        return pika.BlockingConnection(parameters)

    def ask(self, method: str, path: str, **more) -> requests.Response | None:
        with suppress(requests.RequestException):
            return requests.request(method, self.url + path, timeout=20, **more)
        return None

    def post(self) -> str:
        files = {"data": ("a.csv", csv_text())}
        fields = {"epochs": self.chance.choice([1, 200]), "deploy": "never"}
        answer = self.ask("POST", "/jobs", files=files, data=fields)
        if answer is not None and answer.status_code == 202:
            self.jobs.append(answer.json()["id"])
            return self.jobs[-1]
        return "to nobody"

    def post_rubbish(self) -> None:
        noise = self.chance.randbytes(self.chance.randrange(1, 10**6))
        files = {"data": ("a.csv", noise), "model": ("m.keras", noise)}
        answer = self.ask("POST", "/jobs", files=files)
        assert answer is None or 400 <= answer.status_code < 500, answer.text

    def cancel(self) -> None:
        if self.jobs:
            self.ask("DELETE", f"/jobs/{self.chance.choice(self.jobs)}")

    def job(self, job_id: str) -> dict:
        answer = self.ask("GET", f"/jobs/{job_id}")
        return answer.json() if answer is not None else {"state": "unknown"}


def connect(network: str, name: str, container: str) -> bool:
    """Try to, as it fails while the container is being started again."""
    command = ["docker", "network", "connect", "--alias", name, network, container]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return not done.returncode or "already exists" in done.stderr


@pytest.fixture(scope="module")
def system():
    """A system whose logs/ is a small disk, so that it can be filled."""
    with composed(FEATURES_DELAY_SECONDS="0.02", LEASE_SECONDS="20") as system:
        logs = system.clone / "logs"
        with small_disk_at(logs, "64m"):
            logs.chmod(0o777)
            start(system)
            yield system
            system.run("docker-compose", "down")  # before the disk goes


def start(system) -> None:
    system.run("make", "up")
    time.sleep(10)  # a broker that is killed sooner may lose the leader of a new queue


def memories(system) -> dict[str, float]:
    """Return the MB that each service has in memory, without what is only cached."""
    services = SERVICES[1:]  # features is stopped at the end
    return {name: sum(memory(int(p), "RssAnon") for p in system.pids(name)) for name in services}


def all_well(system) -> bool:
    return {system.health(name) for name in EVERYBODY} == {"healthy"}


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_whatever_breaks(system, seed, figure):
    try:
        figure(f"chaos, seed {seed}: {broken(system, seed)}")
    except pytest.fail.Exception:  # we waited in vain
        connect = Chaos(system, seed).connection
        if all(confirms(connect, queue, b"]", 60) for queue in [*QUEUES, "dead"]):
            raise
        figure(f"chaos, seed {seed}: RabbitMQ lost the leader of a queue by SIGKILL; once more")
        system.run("docker-compose", "down", "--volumes")
        system.sent.clear()
        start(system)
        figure(f"chaos, seed {seed}: {broken(system, seed)}")


def broken(system, seed) -> str:
    """Break things for SECONDS and see that every promise was kept; return what was seen."""
    chaos = Chaos(system, seed)
    print("seed", seed)
    system.run("docker-compose", "up", "-d", "features")
    wait_for(lambda: all_well(system), 180, "a system in which all is well")
    within(
        60, lambda: take_dead(chaos), "what is in `dead`"
    )  # what a seed before sent without an answer
    before, end = memories(system), time.monotonic() + SECONDS
    while time.monotonic() < end:
        chaos.one()
        time.sleep(chaos.chance.uniform(0, 4))
    print("\n".join(chaos.done))
    wait_for(lambda: all_well(system), 240, "all to be well again")
    system.run("docker-compose", "stop", "features")
    return check(chaos, before)


def check(chaos: Chaos, before: dict[str, float]) -> str:
    """See that every promise was kept; return what was seen."""
    system = chaos.system
    system.check_nothing_lost()
    rows = rows_of(system.csv)
    possible = {shown(x, y) for x, y in zip(data.tolist(), target.tolist(), strict=True)}
    assert {tuple(row[1:]) for row in rows} <= possible
    final = ("succeeded", "failed", "cancelled")
    for job_id in chaos.jobs:
        wait_for(lambda i=job_id: chaos.job(i)["state"] in final, 300, f"the end of job {job_id}")
    wait_for(lambda: not left_on_the_engine(chaos.jobs), 60, "the clean-up of the jobs")
    check_dead(chaos)
    assert {path.name for path in (system.clone / "logs").iterdir()} <= KNOWN_FILES
    files = docker("exec", system.container("retrain_api"), "ls", "/data/incoming", "/data/jobs")
    assert not set(files.split()) - {"/data/incoming:", "/data/jobs:", *known_jobs(chaos)}
    for name, now in memories(system).items():
        assert now < GROWTH * before[name] + 20, f"{name}: {before[name]} MB, then {now}"
    states = [chaos.job(job_id)["state"] for job_id in chaos.jobs]
    ended = ", ".join(f"{states.count(state)} {state}" for state in final)
    return (
        f"{len(chaos.done)} faults in {SECONDS} s; {len(system.sent)} rows sent so far, each once"
        f" in the CSV; jobs: {ended}; {len(chaos.nonsense)} nonsense bodies, all in `dead`"
    )


def known_jobs(chaos: Chaos) -> list[str]:
    return [job["id"] for job in chaos.ask("GET", "/jobs?limit=9999").json()["jobs"]]


def left_on_the_engine(jobs: list[str]) -> set[str]:
    found = docker("ps", "-a", "--format", "{{.Names}} {{.Labels}}")
    found += docker("volume", "ls", "--format", "{{.Name}} {{.Labels}}")
    return {job for job in jobs if job in found}


def take_dead(chaos: Chaos) -> list[bytes]:
    """Take out all that lies in `dead`; each has to say why and from where."""
    bodies = []
    with chaos.connection() as connection:
        channel = connection.channel()
        while (got := channel.basic_get("dead", auto_ack=True))[0]:
            assert got[1].headers["reason"] and got[1].headers["queue"] in QUEUES
            bodies.append(got[2])
    return bodies


def check_dead(chaos: Chaos) -> None:
    """See that all nonsense comes to lie there, and nothing else does."""
    bodies = []

    def all_there() -> bool:
        bodies.extend(within(60, lambda: take_dead(chaos), "what is in `dead`"))
        return set(chaos.nonsense) <= set(bodies)

    wait_for(all_there, 60, "all nonsense in `dead`")
    assert set(bodies) <= set(chaos.perhaps)
