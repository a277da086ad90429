"""Whatever the API does, predictions go on."""

from tests.support.fake_model_api import FAILURES, hang_downloads, no_failure
from tests.support.model_stage import assert_answers, deploy, notify
from tests.support.waiting import wait_for


def test_whatever_the_api_does_predictions_go_on_at_once(broker, start, api):
    service = start()
    deploy(api, broker, 1)
    for failure in FAILURES.values():
        api.failure, before = failure, len(api.requests)
        notify(broker)
        wait_for(lambda n=before: len(api.requests) > n, 30, "a request")
        assert_answers(broker, 1, seconds=5)
        api.failure = no_failure
        api.released.set()
        deploy(api, broker, 1)
        api.released.clear()
    deploy(api, broker, 2)
    assert_answers(broker, 2)
    assert service.process.poll() is None and service.said().count("answer is invalid") > 4


def test_a_download_that_hangs_stops_no_prediction_and_is_tried_again(broker, start, api):
    start()
    api.failure = hang_downloads
    api.current = 1
    notify(broker)
    wait_for(lambda: api.downloads(1), 30, "a download")
    assert_answers(broker, 0, seconds=5)
    assert "timed out" in wait_for(lambda: api.refused(1), 30, "the refusal")
    api.failure = no_failure
    wait_for(lambda: api.serves(1), 30, "version 1")
