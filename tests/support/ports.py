"""Ports for the services that tests start."""

import itertools
import os
import socket
from contextlib import suppress

FIRST_PORT = 20_000 + 1500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


PORTS = itertools.cycle(range(FIRST_PORT, FIRST_PORT + 1500))


def free_port() -> int:
    """Return a port that nobody has, nor is given by the system or to a test in another process."""
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", port := next(PORTS))):
            return port
