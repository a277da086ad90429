"""Wait for a condition, with a limit."""

import threading
import time
from concurrent.futures import Future

import pytest


def wait_for(true, seconds: float, what: str):
    """Return what `true()` returns as soon as that is something; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (result := true()):
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)
    return result


def within(seconds: float, call, what: str):
    """Return or raise what `call` does; fail if it takes longer.

    Of a queue without a leader no answer ever comes, and pika waits for one.
    """
    answer = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        pytest.fail(f"waited {seconds} s in vain for {what}")
