"""What the API publishes to RabbitMQ, also when that is away."""

import json
import threading
import time
from contextlib import contextmanager

import pytest

from retrain_api.jobs import scheduler
from retrain_api.services import build_services
from tests.support.api import NO_BROKER, Api
from tests.support.waiting import wait_for


@pytest.fixture
def own(tmp_path):
    """An API that may be killed."""
    with Api(tmp_path) as api:
        yield api


@pytest.fixture
def with_broker(tmp_path, broker):
    with Api(tmp_path, broker) as api:
        yield api
    delete_jobs(broker)


def delete_jobs(broker):
    with broker.connect() as connection:
        connection.channel().queue_delete("retrain_jobs")


def test_an_accepted_job_is_published_with_its_id(with_broker, broker):
    job_id = with_broker.new_job()
    wait_for(lambda: broker.count("retrain_jobs"), 30, "the job")
    assert [json.loads(body) for _, body in broker.take("retrain_jobs")] == [{"id": job_id}]


def test_a_job_is_published_after_a_kill_right_after_its_202(with_broker, broker):
    job_id = with_broker.new_job()
    with_broker.process.kill()
    with_broker.start_again()
    wait_for(lambda: broker.count("retrain_jobs"), 30, "the job")
    assert {json.loads(body)["id"] for _, body in broker.take("retrain_jobs")} == {job_id}


def test_without_a_broker_a_job_is_accepted_and_published_when_there_is_one(own, broker):
    ids = [own.new_job() for _ in range(3)]
    own.process.kill()
    own.start_again(AMQP_URL=broker.url)
    wait_for(lambda: broker.count("retrain_jobs") == 3, 30, "the jobs")
    assert [json.loads(body)["id"] for _, body in broker.take("retrain_jobs")] == ids
    delete_jobs(broker)


@pytest.mark.slow
def test_a_broker_that_goes_and_comes_back_gets_the_job(tmp_path, any_broker):
    with Api(tmp_path, any_broker) as api:
        wait_for(lambda: api.get("/healthz").ok, 30, "the broker")
        restart = threading.Thread(target=any_broker.restart, args=(False,))
        restart.start()
        wait_for(lambda: not api.get("/healthz").ok, 30, "the broker to go")
        assert api.upload().status_code == 202
        restart.join()
        wait_for(lambda: any_broker.count("retrain_jobs") == 1, 30, "the job")
    delete_jobs(any_broker)


@pytest.mark.slow
def test_a_job_that_the_broker_lost_is_published_again_and_no_other(with_broker, broker):
    with_broker.new_job()
    wait_for(lambda: broker.count("retrain_jobs"), 30, "the job")
    time.sleep(12)
    assert len(broker.take("retrain_jobs")) == 1  # still there: it was not published again
    wait_for(lambda: broker.count("retrain_jobs") == 1, 30, "the job again")


def test_a_broker_that_confirms_nothing_is_away_and_blocks_no_other_work(tmp_path, monkeypatch):
    """A queue may have no leader: the connection lives, and publishing never returns."""
    monkeypatch.setattr(scheduler, "CONFIRM_SECONDS", 0.2)
    monkeypatch.setattr(scheduler, "AWAY_SECONDS", 0)
    leader, connected = threading.Event(), []

    @contextmanager
    def connect(name, timeout_seconds):
        leader.wait(30)
        connected.append(name)
        raise ConnectionError("enough")
        yield

    monkeypatch.setattr(scheduler, "connect", connect)
    publishing = build_services(tmp_path).scheduler
    publishing.published_version = -1  # there is something to publish
    for _ in range(3):
        start = time.monotonic()
        publishing.publish()
        assert time.monotonic() - start < 20 and not connected
    leader.set()
    wait_for(lambda: connected, 30, "the first attempt to continue")
    assert connected == ["retrain_api"]


def test_models_are_notified_when_another_version_is_current(with_broker, broker):
    with broker.connect() as connection:
        channel = connection.channel()
        channel.exchange_declare("model_updates", "fanout", durable=True)
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "model_updates")
        with_broker.version()
        wait_for(lambda: b'"version":1' in (channel.basic_get(queue)[2] or b""), 30, "a notice")


@pytest.mark.slow
def test_an_absent_broker_is_logged_once(own):
    assert NO_BROKER in own.process.environment["AMQP_URL"]
    time.sleep(5)
    assert own.process.said().count("the broker is away") == 1
