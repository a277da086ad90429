"""Serve the API: gunicorn, one process, some threads.

One process, because leases are in its memory and the disk has one owner; uploads and downloads
wait for the network most of the time, so threads suffice. gunicorn starts the process again when
it ends; a second API on the same data waits here until the first has ended.
"""

import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker

from common.lifecycle import refuse_renamed_settings
from retrain_api import settings
from retrain_api.application import create_app
from retrain_api.routes.events import Shutdown
from retrain_api.storage.database import DatabaseFormatError, check_format
from retrain_api.storage.disk import wait_for_room

PR_SET_PDEATHSIG = 1  # of prctl(2)
GRACEFUL_SECONDS = 8  # Docker waits for 10

log = logging.getLogger("retrain_api")


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker whose errors are JSON, too, where a request does not reach the application."""

    def handle_exit(self, number: int, frame: Any) -> None:
        """Finish the running requests, but end the event streams, which have no end."""
        Shutdown.started = True
        super().handle_exit(number, frame)

    # SIGINT ends as SIGTERM does. gunicorn's own handler takes a lock of its thread pool that this
    # very thread may hold, and then waits forever.
    handle_quit = handle_exit

    def handle_error(self, request: Any, client: Any, address: Any, error: Exception) -> None:
        status, reason = "400 Bad Request", f"this is not valid HTTP: {error}"
        if isinstance(error, errors.LimitRequestLine):
            status, reason = "414 URI Too Long", "the address is too long: send the rest as a form"
        elif isinstance(error, errors.LimitRequestHeaders):
            status, reason = "431 Request Header Fields Too Large", "the headers are too long"
        elif not isinstance(error, errors.ParseException):
            log.error("unexpected error", exc_info=error)
            status, reason = "500 Internal Server Error", "unexpected; it is in the log"
        body = json.dumps({"error": reason}) + "\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def load_config(self) -> None:
        options = {
            "bind": f"{settings.API_HOST}:{settings.API_PORT}",
            "worker_class": Worker,
            "threads": 16 + settings.MAX_LISTENERS,
            "graceful_timeout": GRACEFUL_SECONDS,
            "control_socket_disable": True,
            "proc_name": "retrain_api",
            "post_fork": end_with_parent,
            "worker_exit": exit_at_once,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        self.lock = (Path(settings.DATA_DIR) / "lock").open("w")  # until this process ends
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        app = create_app()
        app.extensions["services"].scheduler.start()
        log.info("started, http://%s:%s", settings.API_HOST, settings.API_PORT)
        return app


def end_with_parent(server: Any, worker: Any) -> None:
    """Have the kernel end this process with gunicorn's first one, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def exit_at_once(server: Any, worker: Any) -> None:
    """Skip Python's own end, which waits for threads: some wait for clients that have left."""
    if worker.booted:
        os._exit(0)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # the scheduler logs its errors
    refuse_renamed_settings()
    token, folder = settings.API_TOKEN, Path(settings.DATA_DIR)
    if not (token.isascii() and token.isprintable()):  # "" is both
        raise SystemExit("API_TOKEN: no header can have it; use letters, digits and signs of ASCII")
    try:
        check_format(folder / "api.sqlite")  # here, as gunicorn would start the process again
    except DatabaseFormatError as error:
        raise SystemExit(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True)
    wait_for_room(folder)
    Server().run()


if __name__ == "__main__":
    main()
