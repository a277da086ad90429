"""The system in its containers, in a clone that belongs to an ordinary user, for the tests."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.csv_files import rows_of
from tests.support.docker import docker, has_docker
from tests.support.environment import copy_project, lacking, needs
from tests.support.ports import free_port
from tests.support.waiting import wait_for

SERVICES = ["features", "model", "metric", "plot", "drift", "retrain_api", "retrain_worker"]
ORDINARY_USER = 12345


class System:
    """One compose project in one clone."""

    def __init__(self, clone, **settings: str):
        self.clone, self.csv = clone, clone / "logs/metric_log.csv"
        names = ("AMQP_PORT", "MANAGEMENT_PORT", "API_PORT")
        self.ports = {name: str(free_port()) for name in names}
        self.environment = os.environ | self.ports
        self.environment |= {"HOME": str(clone), "FEATURES_DELAY_SECONDS": "1", "MODE": "docker"}
        self.environment |= settings
        project = f"test{self.ports['AMQP_PORT']}"
        self.environment |= {"COMPOSE_PROJECT_NAME": project}
        for image in ("model", "trainer"):  # a running system keeps its own
            self.environment[f"{image.upper()}_IMAGE"] = f"{project}-{image}"
        self.sent = set()

    def command(self, *command: str) -> list[str]:
        """Return `command` as the owner of the clone would run it."""
        if os.geteuid():
            return list(command)
        group = str(os.stat("/var/run/docker.sock").st_gid)
        user = ["--reuid", str(ORDINARY_USER), "--regid", group, "--clear-groups"]
        return ["setpriv", *user, "--", *command]

    def run(self, *command: str, seconds: int = 900, **environment: str) -> str:
        done = subprocess.run(
            self.command(*command),
            cwd=self.clone,
            env=self.environment | environment,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def container(self, service: str) -> str:
        return self.run("docker-compose", "ps", "-q", service).strip()

    def inspect(self, service: str) -> dict:
        return json.loads(docker("inspect", self.container(service)))[0]

    def setting(self, name: str) -> str | None:
        file = self.clone / ".env"
        lines = file.read_text() if file.exists() else ""
        found = re.search(rf"^{name}=(.+)$", lines, re.MULTILINE)
        return found and found[1]

    def signal(self, service: str, number: int) -> None:
        """Send a signal to all processes of a service, past Docker, as a crash would."""
        for pid in self.pids(service):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), number)

    def pids(self, service: str) -> list[str]:
        return docker("top", self.container(service), "-eo", "pid").split()[1:]

    def health(self, service: str) -> str:
        return self.inspect(service)["State"]["Health"]["Status"]

    def ids(self) -> list[str]:
        return [row[0] for row in rows_of(self.csv)]

    def remember_sent(self) -> None:
        said = self.run("docker-compose", "logs", "--no-color", "features")
        self.sent |= set(re.findall(r"\d{10}\.\d{6}", "".join(re.findall(r"sent .*\n", said))))

    def wait_for_more(self, rows: int = 3) -> None:
        seen = len(self.ids())
        wait_for(lambda: len(self.ids()) >= seen + rows, 120, "more rows")

    def check_nothing_lost(self) -> None:
        self.remember_sent()
        wait_for(lambda: self.sent <= set(self.ids()), 60, "every row that was sent")
        assert len(set(self.ids())) == len(self.ids())


@contextlib.contextmanager
def composed(**settings: str):
    """Yield a system that is not up yet; at the end nothing of it is left."""
    needs("docker")
    if not has_docker() or not shutil.which("docker-compose"):
        lacking("a Docker engine and docker-compose")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        clone = Path(folder) / "neural-network-monitoring"
        copy_project(clone)
        if not os.geteuid():
            subprocess.run(["chown", "-R", str(ORDINARY_USER), folder], check=True)
        system = System(clone, **settings)
        try:
            yield system
        finally:
            system.run("docker-compose", "down", "--volumes", "--rmi", "local")
            images = [system.environment[name] for name in ("MODEL_IMAGE", "TRAINER_IMAGE")]
            subprocess.run(["docker", "rmi", "--force", *images], capture_output=True, timeout=60)
