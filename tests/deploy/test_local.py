"""The system without Docker, in a clone of its own: up, a kill of each process, down."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.api import next_version, retrain
from tests.support.csv_files import rows_of
from tests.support.environment import copy_project, lacking
from tests.support.ports import free_port
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.broker, pytest.mark.tensorflow, pytest.mark.slow]

PROGRAMS = ["broker", "features", "model", "metric", "plot", "drift"]
PROGRAMS += ["retrain_api", "retrain_worker"]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    if not Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists():
        lacking("RabbitMQ: install the package rabbitmq-server")
    clone = tmp_path_factory.mktemp("local") / "clone"
    copy_project(clone)
    ports = {n: str(free_port()) for n in ("AMQP_PORT", "MANAGEMENT_PORT", "API_PORT")}
    environment = (
        {k: v for k, v in os.environ.items() if k not in ("AMQP_URL", "LOGS_DIR")}
        | ports
        | {"MODE": "local", "FEATURES_DELAY_SECONDS": "0.5"}
    )

    def make(target: str, **settings: str) -> str:
        done = subprocess.run(
            ["make", target],
            cwd=clone,
            env=environment | settings,
            text=True,
            timeout=900,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    make.clone, make.csv, make.ports = clone, clone / "logs/metric_log.csv", ports
    yield make
    make("down")


def pids(local) -> dict[str, int]:
    """Return the process of each program that supervisord keeps."""
    control = [".venv/bin/supervisorctl", "-c", "deploy/supervisord.conf", "status"]
    environment = os.environ | local.ports
    said = subprocess.run(control, cwd=local.clone, env=environment, capture_output=True, text=True)
    return {n: int(p) for n, p in re.findall(r"^(\w+) .* pid (\d+)", said.stdout, re.MULTILINE)}


def test_make_up_comes_back_with_the_first_row_and_the_second_time_at_once(local, figure):
    start = time.monotonic()
    assert re.search(r"id,y_true,y_pred,absolute_error\n\d{10}\.\d{6},\d+\.0,", local("up"))
    first = time.monotonic() - start
    before, start = pids(local), time.monotonic()
    local("up")
    second = time.monotonic() - start
    figure(f"make up without Docker: {first:.0f} s, again: {second:.0f} s")
    assert second < first / 2
    assert pids(local) == before and sorted(before) == sorted(PROGRAMS)


def test_nothing_of_it_listens_to_the_outside(local):
    listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    for port in local.ports.values():
        addresses = re.findall(rf"(\S+):{port}\b", listening)
        assert addresses and set(addresses) <= {"127.0.0.1", "[::ffff:127.0.0.1]"}


def test_nobody_else_may_read_what_was_uploaded_or_the_workers_secret(local):
    assert (local.clone / ".run/retrain").stat().st_mode & 0o777 == 0o700


def test_each_process_is_killed_once_and_comes_back_and_no_row_is_lost(local):
    time.sleep(10)  # a broker that is killed sooner may lose the leader of a new queue
    for program in PROGRAMS:
        before = all_programs(local)
        os.kill(before[program], signal.SIGKILL)
        wait_for(lambda p=program, b=before: pids(local).get(p, b[p]) != b[p], 60, program)
    all_programs(local)
    seen = len(rows_of(local.csv))
    wait_for(lambda: len(rows_of(local.csv)) > seen + 5, 120, "more rows")
    check_nothing_lost(local)


def all_programs(local, count: int = len(PROGRAMS)) -> dict[str, int]:
    """Wait until all run, and return their processes: without a broker nobody does for long."""
    wait_for(lambda: len(pids(local)) == count, 120, "all programs")
    return pids(local)


def check_nothing_lost(local) -> None:
    said = (local.clone / ".run/features.log").read_text()
    sent = set(re.findall(r"\d{10}\.\d{6}", "".join(re.findall(r"sent .*\n", said))))
    wait_for(lambda: sent <= {row[0] for row in rows_of(local.csv)}, 60, "every row that was sent")
    ids = [row[0] for row in rows_of(local.csv)]
    assert len(set(ids)) == len(ids)


def test_a_job_is_trained_scored_and_served(local, figure):
    local("sample")
    start = time.monotonic()
    url = f"http://localhost:{local.ports['API_PORT']}"
    job = retrain(url, local.clone / "sample/diabetes.csv", deploy="always")
    assert job["state"] == "succeeded" and job["report"]["deployed"], job["reason"]
    amqp = f"amqp://guest:guest@127.0.0.1:{local.ports['AMQP_PORT']}/%2F"
    wait_for(lambda: next_version(amqp) == job["version"], 60, "rows of the new version")
    figure(f"without Docker: {time.monotonic() - start:.0f} s from the upload to its rows")


def test_make_demo_heals_a_system_of_its_own_beside_this_one_and_leaves_a_picture(local, figure):
    before, start = pids(local), time.monotonic()
    said = local("demo")
    figure(f"make demo without Docker: {time.monotonic() - start:.0f} s")
    errors = {
        n: float(e) for n, e in re.findall(r"^(\w+) +mean absolute error +([\d.]+)", said, re.M)
    }
    assert errors["during"] > 2 * errors["before"] and errors["after"] < 1.25 * errors["before"]
    for event in ("drift_detected", "job_submitted", "deployed", "confirmed"):
        assert len(re.findall(rf"^\d:\d\d  {event}: ", said, re.M)) == 1
    assert (local.clone / "logs/demo.png").read_bytes().startswith(b"\x89PNG")
    assert pids(local) == before and not (local.clone / ".run/demo").exists()
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(local.clone / ".run/demo") not in running


def test_dead_letters_are_shown(local):
    assert "0 dead letters" in local("dead")


def test_down_leaves_no_process_and_up_again_goes_on_with_the_same_rows(local):
    before = pids(local)
    assert "Stopped the services and the broker;" in local("down")
    alive = [Path(f"/proc/{pid}") for pid in before.values()]
    wait_for(lambda: not any(path.exists() for path in alive), 30, "the kernel to forget them all")
    rows = local.csv.read_bytes()
    local("up")
    assert local.csv.read_bytes().startswith(rows) and len(local.csv.read_bytes()) > len(rows)
    check_nothing_lost(local)


def test_a_broker_of_ones_own_is_used_and_left_running(local, broker):
    local("down")
    local("up", AMQP_URL=broker.url)
    assert "broker" not in all_programs(local, len(PROGRAMS) - 1)
    assert "Stopped the services;" in local("down")
    with broker.connect() as connection:
        assert connection.channel().queue_declare("features", passive=True)
