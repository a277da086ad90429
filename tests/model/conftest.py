import pytest

from tests.support.fake_model_api import FakeModelApi
from tests.support.waiting import wait_for


@pytest.fixture
def api():
    api = FakeModelApi()
    api.add_networks()
    yield api
    api.stop()


@pytest.fixture
def start(run, api, broker):
    """Return a function that starts a replica of `model` and waits until it answers."""

    def start(name="one", broker=broker, supervised=False, **settings):
        settings = {"API_URL": api.url, "REPLICA_NAME": name} | settings
        service = run("model", broker, supervised, **settings)
        wait_for(service.has_started, 60, "the model")
        return service

    return start
