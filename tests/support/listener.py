"""A listener of server-sent events, as a user has one: curl -N."""

import json
import shutil
import subprocess
import threading

from tests.support.api import Api
from tests.support.environment import lacking


class Listener(threading.Thread):
    """Collects `events` as (name, lines). Leaving `with` ends it."""

    def __init__(self, api: Api, path: str):
        super().__init__(daemon=True)
        if not shutil.which("curl"):
            lacking("curl")
        command = ["curl", "-sN", "--noproxy", "*", api.url + path]
        self.curl = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.events: list[tuple[str, list[str]]] = []
        self.start()

    def run(self) -> None:
        event, lines = "", []
        for line in self.curl.stdout:
            kind, _, text = line.rstrip("\n").partition(": ")
            if kind == "event":
                event, lines = text, []
            elif kind == "data":
                lines.append(text)
            elif not kind and lines:
                self.events.append((event, lines))
                lines = []

    def ended_well(self) -> bool:
        """Whether the server ended the stream properly, within half a minute."""
        return self.curl.wait(30) == 0  # 18 if it was cut off

    def received(self, name: str) -> list[str]:
        return ["\n".join(lines) for event, lines in list(self.events) if event == name]

    def last(self, name: str) -> dict:
        received = self.received(name)
        return json.loads(received[-1]) if received else {}

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.curl.kill()
        self.curl.wait()
        self.join()
        self.curl.stdout.close()
