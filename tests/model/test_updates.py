import os
import subprocess
import sys

from tests.support.environment import ROOT
from tests.support.waiting import wait_for


def test_an_unexpected_error_in_the_thread_ends_the_process(tmp_path):
    program = (
        "import pathlib, time\n"
        "from model.releases import ReleaseManager, Releases\n"
        "from model.updates import follow_api\n"
        "ReleaseManager.step = lambda self: 1 / 0\n"
        f"cache = pathlib.Path({str(tmp_path)!r})\n"
        "with follow_api(Releases(None), 'http://127.0.0.1:1', '', 'one', cache): time.sleep(30)"
    )
    settings = {"PYTHONPATH": str(ROOT), "PATH": os.defpath}
    done = subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True)
    assert done.returncode == 1 and b"ZeroDivisionError" in done.stderr


def test_the_token_is_sent(broker, start, api):
    api.token = "abc"
    start(API_TOKEN="abc")
    wait_for(api.last_report, 20, "a report")
