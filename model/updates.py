"""A thread that keeps the active version the one that is current in the API.

It takes a step at its start, after a message on `model_updates`, when a trial is over, and every
10 s. Predictions never wait for it. An unexpected error in it ends the process.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.lifecycle import stop_requested
from model.api_client import ApiClient
from model.cache import Cache
from model.releases import TRIAL_SECONDS, ReleaseManager, Releases
from model.settings import API_TOKEN, API_URL, MODEL_CACHE, REPLICA_NAME

STEP_SECONDS = 10  # from one step to the next without a message
PAUSE_SECONDS = 1  # the least between two steps, however many messages come

log = logging.getLogger("model")


class UpdateThread(threading.Thread):
    """Calls `manager.step()` until a stop is requested."""

    def __init__(self, manager: ReleaseManager) -> None:
        super().__init__(name="updates", daemon=True)
        self._manager, self._due = manager, threading.Event()

    def wake(self) -> None:
        """Take the next step now, or PAUSE_SECONDS after the one before."""
        self._due.set()

    def run(self) -> None:
        try:
            while not stop_requested():
                self._due.clear()
                self._manager.step()
                time.sleep(PAUSE_SECONDS)
                on_trial = self._manager.on_trial
                self._due.wait(TRIAL_SECONDS if on_trial else STEP_SECONDS - PAUSE_SECONDS)
        except BaseException:
            log.exception("the thread that follows the API failed")
            os._exit(1)  # an exception would end this thread only


@contextmanager
def follow_api(releases: Releases) -> Iterator[Callable[[], None]]:
    """Keep `releases` up to date; yield a function that asks for a step now.

    Without API_URL there is nothing to follow.
    """
    if not API_URL:
        yield lambda: None
        return
    api = ApiClient(API_URL, API_TOKEN, REPLICA_NAME)
    manager = ReleaseManager(releases, api, Cache(MODEL_CACHE))
    manager.recover()
    thread = UpdateThread(manager)
    thread.start()
    try:
        yield thread.wake
    finally:
        manager.close()
