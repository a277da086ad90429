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
from pathlib import Path

from common.lifecycle import stop_requested
from model.api_client import ApiClient
from model.cache import Cache
from model.releases import TRIAL_SECONDS, ReleaseManager, Releases

STEP_SECONDS = 10  # from one step to the next without a message
PAUSE_SECONDS = 1  # the least between two steps, however many messages come

log = logging.getLogger("model")


@contextmanager
def follow_api(
    releases: Releases, url: str, token: str, replica: str, cache: Path
) -> Iterator[Callable[[], None]]:
    """Keep `releases` up to date; yield a function that asks for a step now.

    The step comes PAUSE_SECONDS after the one before. Without a URL there is nothing to follow.
    """
    if not url:
        yield lambda: None
        return
    manager = ReleaseManager(releases, ApiClient(url, token, replica), Cache(cache))
    manager.recover()
    due = threading.Event()
    threading.Thread(target=_follow, args=(manager, due), name="updates", daemon=True).start()
    try:
        yield due.set
    finally:
        manager.close()


def _follow(manager: ReleaseManager, due: threading.Event) -> None:
    try:
        while not stop_requested():
            due.clear()
            manager.step()
            time.sleep(PAUSE_SECONDS)
            due.wait(TRIAL_SECONDS if manager.on_trial else STEP_SECONDS - PAUSE_SECONDS)
    except BaseException:
        log.exception("the thread that follows the API failed")
        os._exit(1)  # an exception would end this thread only
