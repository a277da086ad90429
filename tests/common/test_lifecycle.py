"""The life of a process: each test that ends one starts its own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from common import lifecycle
from common.lifecycle import RENAMED_SETTINGS, refuse_renamed_settings
from tests.support.environment import ROOT
from tests.support.waiting import wait_for

PROGRAM = """
import time
from common import lifecycle
lifecycle.start()
print("ready", flush=True)
{body}
"""


def start(body: str, **settings: str) -> subprocess.Popen:
    """Start a program that installs the handlers, and return it when it has."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | settings
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_only_sets_the_stop_flag(number):
    body = "while not lifecycle.stop_requested(): time.sleep(0.01)\nprint('unit of work done')"
    process = start(body)
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert (out, process.returncode) == ("unit of work done\n", 0)


def test_a_second_signal_ends_the_process_at_once():
    process = start("time.sleep(60)")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGINT


def test_a_stop_request_between_two_units_of_work_ends_the_process_with_code_0():
    process = start("while True: lifecycle.check_stop(); time.sleep(0.01)")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("", "", 0)


def test_a_stop_request_ends_a_wait():
    process = start("lifecycle.wait(60)\nprint('waited')")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[0] == "waited\n"


def test_a_unit_of_work_that_hangs_is_ended_by_the_watchdog():
    process = start("lifecycle.report_liveness()\ntime.sleep(60)", WATCHDOG_SECONDS="1")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Timeout" in err


def test_a_wait_reports_liveness(tmp_path):
    file = tmp_path / "alive"
    body = "while not lifecycle.stop_requested(): lifecycle.wait(5)"
    process = start(body, LIVENESS_FILE=str(file))
    wait_for(file.exists, 10, "the first report")
    before = file.stat().st_mtime
    wait_for(lambda: file.stat().st_mtime > before, 10, "the next report")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)


def test_a_wait_lasts_as_long_as_it_is_asked_to():
    start = time.monotonic()
    lifecycle.wait(0.7, lambda seconds: time.sleep(min(seconds, 0.2)))
    lifecycle.faulthandler.cancel_dump_traceback_later()
    assert 0.7 <= time.monotonic() - start < 5


@pytest.mark.parametrize(("old", "new"), RENAMED_SETTINGS.items())
def test_the_old_name_of_a_setting_is_refused_with_the_new_one(old, new):
    with pytest.raises(SystemExit, match=f"{old} is called {new} now"):
        refuse_renamed_settings({old: "1"})
    refuse_renamed_settings({old: "", new: "1"})
