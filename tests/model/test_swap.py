"""The stream flows while versions come and go: each row is answered once, by the version it names.

The API is a fake; test_api_contract compares it with the real one.
"""

import time

import msgspec
import numpy as np
import pytest

from tests.support.environment import SOAK
from tests.support.model_stage import Stream, assert_answers, deploy, expected, notify
from tests.support.networks import ROWS
from tests.support.waiting import wait_for


def test_rows_that_flow_while_versions_swap_are_answered_once_by_the_version_they_name(
    any_broker, start, api, figure
):
    start(broker=any_broker)
    stream, took = Stream(any_broker), []
    for version in [1, 2, 0, 3, 1, 0, 2, 3, 2, 1] * SOAK:
        start = time.monotonic()
        deploy(api, any_broker, version)
        took.append(time.monotonic() - start)
        time.sleep(0.5)
    stream.stop()
    wait_for(lambda: any_broker.count("y_pred") >= stream.sent, 60, "every answer")
    taken = [(h["model_version"], msgspec.json.decode(b)) for h, b in any_broker.take("y_pred")]
    assert sorted(answer["id"] for _, answer in taken) == list(range(stream.sent))
    for version in (0, 1, 2, 3):
        answers = [answer for by, answer in taken if by == version]
        rows = [answer["id"] % len(ROWS) for answer in answers]
        got = [answer["body"] for answer in answers]
        assert len(got) > 20 and got == pytest.approx(expected(version)[rows], rel=1e-5)
    assert any_broker.count("dead") == 0
    figure(
        f"{len(took)} swaps on {any_broker.name} while {stream.sent} rows flowed: each answered"
        f" once; from deploying to the report {np.median(took):.1f} s, at most {max(took):.1f} s"
    )
    assert stream.sent > 3000


def test_a_batch_is_answered_by_one_version_and_the_versions_do_not_alternate(broker, start, api):
    start()
    stream = Stream(broker)
    for version in (1, 2, 3):
        deploy(api, broker, version)
        sent = stream.sent
        wait_for(lambda n=sent: stream.sent > n + 500, 30, "rows for this version")
    stream.stop()
    wait_for(lambda: broker.count("y_pred") >= stream.sent, 60, "every answer")
    versions = [headers["model_version"] for headers, _ in broker.take("y_pred")]
    assert versions == sorted(versions) and set(versions) == {0, 1, 2, 3}


def test_two_replicas_follow_and_report_each_for_itself(broker, start, api):
    for name in ("one", "the-other:2.one"):
        start(name)
    for version in (1, 2, 0):
        deploy(api, broker, version, "one", "the-other:2.one")


def test_without_a_message_it_follows_within_ten_seconds(start, api):
    start()
    api.current = 1
    wait_for(lambda: api.serves(1), 20, "version 1")


def test_without_an_api_version_0_answers_and_no_cache_is_created(broker, start, tmp_path):
    start(API_URL="")
    notify(broker, b"x")
    assert_answers(broker, 0)
    assert not (tmp_path / "cache").exists()
