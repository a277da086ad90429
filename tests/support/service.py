"""One service of the project as a process, which a test may kill and start again."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.support.environment import ROOT
from tests.support.memory import peak_memory


class Service:
    """One of our services as a process; `supervised`, it is started again when it fails."""

    def __init__(self, name: str, log: Path, environment: dict, supervised: bool):
        self.name, self.log, self.environment = name, log, environment
        self.supervised, self.process, self.codes, self.peak = supervised, None, [], 0
        self.start()
        if supervised:
            self.keep_alive()

    def start(self) -> None:
        self.life_start = len(self.said())
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
        return self.process.poll() is None and "started" in self.said()[self.life_start :]

    def kill(self) -> bool:
        """Kill the life that lives now; return whether it was that which ended it."""
        process = self.process
        process.kill()
        return process.wait(30) == -signal.SIGKILL

    def pause(self, number: int = signal.SIGKILL) -> None:
        """End the life that lives now, and start no other before `resume`."""
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
