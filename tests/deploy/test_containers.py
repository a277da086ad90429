"""The system in its containers: what is promised of `make up` and docker-compose."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request

import pika
import pytest

from tests.support.api import next_version, retrain, write_large_csv
from tests.support.composed import SERVICES, composed
from tests.support.csv_files import rows_of
from tests.support.docker import docker
from tests.support.environment import lacking
from tests.support.memory import peak_memory
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def system():
    with composed() as system:
        yield system


def test_make_up_comes_back_with_the_first_row_and_leaves_alone_what_runs(system, figure):
    start = time.monotonic()
    said = system.run("make", "up")
    first = time.monotonic() - start
    assert re.search(r"id,y_true,y_pred,absolute_error\n\d{10}\.\d{6},\d+\.0,", said)
    assert f"http://localhost:{system.ports['MANAGEMENT_PORT']}" in said
    before = {name: system.inspect(name)["State"]["StartedAt"] for name in SERVICES}
    start = time.monotonic()
    said = system.run("make", "up")
    second = time.monotonic() - start
    figure(f"make up with Docker: {first:.0f} s, again: {second:.0f} s")
    assert "waiting for a row" not in said and "id,y_true,y_pred,absolute_error\n" in said
    assert before == {name: system.inspect(name)["State"]["StartedAt"] for name in SERVICES}


def test_the_files_in_logs_can_be_read_and_removed_by_who_cloned_it(system):
    wait_for((system.clone / "logs/error_distribution.png").exists, 30, "the picture")
    system.run("wc", "-c", "logs/metric_log.csv", "logs/error_distribution.png")
    system.run("rm", "logs/error_distribution.png")
    wait_for((system.clone / "logs/error_distribution.png").exists, 30, "the picture again")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_without_root_and_can_write_nothing_but_logs(system, service):
    container = system.inspect(service)
    host = container["HostConfig"]
    root = service == "retrain_worker"  # who opens the Docker socket has to be
    assert container["Config"]["User"] == ("0:0" if root else "1000:1000")
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] and host["PidsLimit"] and host["LogConfig"]["Config"]["max-size"]


def test_every_port_is_on_the_loopback_interface(system):
    for service in ["rabbitmq", *SERVICES]:
        bindings = system.inspect(service)["HostConfig"]["PortBindings"] or {}
        assert all(b["HostIp"] == "127.0.0.1" for ports in bindings.values() for b in ports)


@pytest.mark.parametrize("command", ["build features", "logs --tail=50", "logs rabbitmq", "ps"])
def test_the_other_commands_of_the_specification(system, command):
    assert system.run("docker-compose", *command.split())


def test_the_management_page_knows_the_queues(system):
    url = f"http://localhost:{system.ports['MANAGEMENT_PORT']}/api/queues"
    request = urllib.request.Request(url, headers={"Authorization": "Basic Z3Vlc3Q6Z3Vlc3Q="})
    with urllib.request.urlopen(request, timeout=30) as answer:
        queues = {queue["name"]: queue["type"] for queue in json.load(answer)}
    names = ("features", "y_true", "y_pred", "dead", "retrain_jobs")
    replicas = {name: queues.pop(name) for name in list(queues) if name.startswith("amq.gen")}
    assert list(replicas.values()) == ["classic"]  # of the one model, for news of versions
    streams = dict.fromkeys(("errors", "history", "drift"), "stream")
    assert queues == dict.fromkeys(names, "quorum") | streams


def test_an_upload_of_1_gb_passes_through_the_api_with_its_limits_on(system, figure):
    large = write_large_csv(system.clone / "large.csv", 10**9)
    url = f"http://localhost:{system.ports['API_PORT']}/jobs"
    start = time.monotonic()
    answer = system.run("curl", "-sS", "-F", "deploy=never", "-F", f"data=@{large}", url)
    seconds = time.monotonic() - start
    large.unlink()
    job = json.loads(answer)
    system.run("curl", "-sS", "-X", "DELETE", f"{url}/{job['id']}")
    # gunicorn's first process and the one that serves share most of their pages
    peak = max(peak_memory(int(pid)) for pid in system.pids("retrain_api"))
    figure(f"upload of 1 GB into the container of the API: {seconds:.0f} s, {peak:.0f} MB at most")
    assert job["rows"] > 5 * 10**6 and peak < 150


def test_what_the_readme_says_of_retraining(system, figure):
    system.run("make", "sample")
    start = time.monotonic()
    url = f"http://localhost:{system.ports['API_PORT']}"
    job = retrain(url, system.clone / "sample/diabetes.csv", deploy="always")
    assert job["state"] == "succeeded" and job["report"]["deployed"], job["reason"]
    amqp = f"amqp://guest:guest@127.0.0.1:{system.ports['AMQP_PORT']}/%2F"
    wait_for(lambda: next_version(amqp) == job["version"], 60, "rows of the new version")
    figure(f"in containers: {time.monotonic() - start:.0f} s from the upload to its rows")
    current = json.loads(system.run("curl", "-sS", f"{url}/models/current"))
    assert [said["serves"] for said in current["replicas"].values()] == [job["version"]]


def test_dead_letters_are_shown_and_replayed_by_make(system):
    url = f"amqp://guest:guest@127.0.0.1:{system.ports['AMQP_PORT']}/%2F"
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().basic_publish("", "features", b"nonsense")
    time.sleep(3)
    assert "nonsense" in system.run("make", "dead")
    assert "sent 1 again" in system.run("make", "replay")
    time.sleep(3)
    assert "1 dead letter\n" in system.run("make", "dead")
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_purge("dead")


class TestFaults:
    @pytest.fixture(autouse=True)
    def needs_root(self):
        if os.geteuid():
            lacking("root, to send signals past Docker")

    def test_each_container_is_killed_once_and_comes_back_and_no_row_is_lost(self, system):
        for service in [*SERVICES, "rabbitmq"]:
            system.wait_for_more()
            system.signal(service, signal.SIGKILL)
            wait_for(lambda s=service: system.inspect(s)["RestartCount"] == 1, 60, service)
        system.wait_for_more()
        system.check_nothing_lost()

    def test_a_stopped_service_turns_unhealthy_within_a_minute_and_recovers(self, system, figure):
        everyone = [*SERVICES, "rabbitmq"]
        wait_for(lambda: {system.health(s) for s in everyone} == {"healthy"}, 120, "health")
        for service in everyone:
            system.signal(service, signal.SIGSTOP)
        start = time.monotonic()
        try:
            for service in everyone:
                left = 60 - (time.monotonic() - start)
                wait_for(lambda s=service: system.health(s) == "unhealthy", left, service)
                figure(f"{service} unhealthy {time.monotonic() - start:.0f} s after SIGSTOP")
        finally:
            for service in everyone:
                system.signal(service, signal.SIGCONT)
        wait_for(lambda: {system.health(s) for s in everyone} == {"healthy"}, 180, "health")
        system.wait_for_more()
        system.check_nothing_lost()


@pytest.mark.parametrize("queue", ["features", "y_true", "y_pred", "dead", "errors"])
def test_a_deleted_queue_is_declared_again_by_services_that_restart_themselves(system, queue):
    url = f"amqp://guest:guest@127.0.0.1:{system.ports['AMQP_PORT']}/%2F"
    system.check_nothing_lost()
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(queue)
        if queue == "dead":  # noticed by the next who needs it
            connection.channel().basic_publish("", "y_true", b"nonsense")
    wait_for(lambda: queue_exists(url, queue), 60, f"{queue} to be declared again")
    system.wait_for_more()
    wait_for(lambda: {system.health(s) for s in SERVICES} == {"healthy"}, 60, "health")


def queue_exists(url: str, queue: str) -> bool:
    try:
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            return bool(connection.channel().queue_declare(queue, passive=True))
    except pika.exceptions.AMQPError:
        return False


def test_down_and_up_again_loses_no_row_that_waited(system):
    before = system.ids()
    system.run("docker-compose", "stop", "model", "metric")
    time.sleep(3)
    system.sent.clear()  # of queues that were deleted above, rows are gone on purpose
    system.remember_sent()
    recent = {row_id for row_id in system.sent if row_id > before[-1]}
    assert recent
    system.run("docker-compose", "down")
    system.run("docker-compose", "up", "-d")
    system.wait_for_more()
    wait_for(lambda: recent <= set(system.ids()), 60, "what waited in the broker")
    assert system.ids()[: len(before)] == before


def test_up_in_the_foreground_starts_everything_and_ends_with_ctrl_c(system):
    system.run("docker-compose", "down", "--volumes")
    system.run("rm", "-f", "logs/metric_log.csv", "logs/metric.sqlite3")
    command = system.command("docker-compose", "up", "--build")
    with open(system.clone / "up.log", "wb") as log:
        up = subprocess.Popen(
            command, cwd=system.clone, env=system.environment, stdout=log, stderr=log
        )
    wait_for(lambda: rows_of(system.csv), 300, "the first row")
    up.send_signal(signal.SIGINT)
    assert up.wait(60) in (0, 1, 130)


def test_a_features_that_has_sent_its_rows_stays_down(system):
    system.run("docker-compose", "up", "-d", FEATURES_COUNT="3", FEATURES_DELAY_SECONDS="0")
    wait_for(lambda: not system.inspect("features")["State"]["Running"], 60, "the end of features")
    time.sleep(3)
    state = system.inspect("features")
    assert (state["State"]["ExitCode"], state["RestartCount"]) == (0, 0)


def test_the_complete_clean_up_of_the_specification_leaves_nothing(system):
    """Under other names for the base images, so that the other tests keep theirs."""
    project = system.environment["COMPOSE_PROJECT_NAME"]
    images = {}
    for name, default in (
        ("PYTHON_IMAGE", "python:3.11-slim"),
        ("RABBITMQ_IMAGE", "rabbitmq:3-management"),
    ):
        images[name] = f"{project}/{name.lower()}:latest"
        docker("tag", system.setting(name) or default, images[name])
    system.run("docker-compose", "up", "-d", **images)
    system.run("docker-compose", "down", "--volumes", "--rmi", "all", **images)
    for what in ("container ls -a", "volume ls", "network ls", "image ls"):
        assert project not in docker(*what.split())
