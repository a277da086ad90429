"""Serve the API: gunicorn, one process, some threads.

One process, because leases are in its memory and the disk has one owner; uploads and downloads
wait for the network most of the time, so threads do. gunicorn starts the process again when it
ends; a second API on the same data waits here until the first has gone.
"""

import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
from pathlib import Path

from gunicorn.app.base import BaseApplication
from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker

from retrain_api import API_TOKEN, DATA_DIR, create_app, disk
from retrain_api.events import LISTENERS, Streams

API_HOST = os.environ.get("API_HOST", "127.0.0.1")
API_PORT = os.environ.get("API_PORT", "8000")

log = logging.getLogger("retrain_api")


class Worker(ThreadWorker):
    """A worker whose errors are JSON even where a request does not reach the application."""

    def handle_exit(self, number, frame) -> None:
        """End with the requests in hand, but for streams, which would never end."""
        Streams.ending = True
        super().handle_exit(number, frame)

    # SIGINT ends as SIGTERM does. gunicorn's own handler takes a lock of its thread pool that this
    # very thread may hold, and then waits for ever.
    handle_quit = handle_exit

    def handle_error(self, request, client, address, error) -> None:
        status, told = "400 Bad Request", f"this is not HTTP as it should be: {error}"
        if isinstance(error, errors.LimitRequestLine):
            status, told = "414 URI Too Long", "the address is too long: send the rest as a form"
        elif isinstance(error, errors.LimitRequestHeaders):
            status, told = "431 Request Header Fields Too Large", "the headers are too long"
        elif not isinstance(error, errors.ParseException):
            log.error("unexpected", exc_info=error)
            status, told = "500 Internal Server Error", "unexpected; it is in the log"
        body = json.dumps({"error": told}) + "\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


class Server(BaseApplication):
    def load_config(self) -> None:
        settings = {
            "bind": f"{API_HOST}:{API_PORT}",
            "worker_class": Worker,
            "threads": 16 + LISTENERS,
            "graceful_timeout": 8,  # Docker waits for 10 s
            "control_socket_disable": True,
            "proc_name": "retrain_api",
            "post_fork": end_together,
            "worker_exit": end_at_once,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self):
        self.lock = own(Path(DATA_DIR))
        app = create_app()
        app.extensions["keeper"].start()
        log.info("started, http://%s:%s", API_HOST, API_PORT)
        return app


def end_together(server, worker) -> None:
    """Have the kernel end this process with gunicorn's first one, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def end_at_once(server, worker) -> None:
    """Leave out Python's own end, which waits for threads: some wait for clients that are gone."""
    if worker.booted:
        os._exit(0)


def own(folder: Path):
    """Return a lock that lasts as long as this process."""
    lock = (folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # the keeper says what is to be said
    if not (API_TOKEN.isascii() and API_TOKEN.isprintable()):  # "" is both
        raise SystemExit("API_TOKEN: no header can have it; use letters, digits and signs of ASCII")
    Path(DATA_DIR).mkdir(parents=True, exist_ok=True)
    disk.wait_for_room(Path(DATA_DIR))
    Server().run()


if __name__ == "__main__":
    main()
