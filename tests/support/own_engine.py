"""A Docker engine beside the machine's, for tests that restart it.

It sees a network of its own: on the machine's it would remove the other engine's bridge. Where both
share one containerd, they know nothing of each other's containers.
"""

import os
import subprocess
from pathlib import Path

from tests.support.waiting import wait_for


class OwnEngine:
    def __init__(self, folder: Path):
        self.folder, self.host, self.process = folder, f"unix://{folder}/socket", None
        (folder / "daemon.json").write_text("{}")  # not the machine's settings

    def start(self) -> None:
        places = {"config-file": "daemon.json", "data-root": "data", "exec-root": "run"}
        command = ["unshare", "--net", "dockerd", f"--host={self.host}", "--bridge=none"]
        command += [f"--{name}={self.folder / place}" for name, place in places.items()]
        command += [f"--pidfile={self.folder}/pid", "--iptables=false"]
        for kind in ("", "-plugins"):
            command.append(f"--containerd{kind}-namespace=monitoring-test-{os.getpid()}{kind}")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_for(self.answers, 60, "an engine of our own")

    def copy_image(self, image: str) -> None:
        """Copy an image from the machine's engine."""
        copy = f"docker save {image} | docker --host {self.host} load"
        subprocess.run(copy, shell=True, check=True, capture_output=True, timeout=300)

    def answers(self) -> bool:
        info = ["docker", "--host", self.host, "info"]
        return not subprocess.run(info, capture_output=True, timeout=60).returncode

    def end(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(60)
