"""What the API publishes: jobs that are queued, and that another version is current.

    [retrain_jobs]  {"id": "251122-104159-3fa2b1"}   a job; its data are fetched over HTTP
    (model_updates) {"version": 3}                   a notice to every `model`, which asks the API

Each call has a connection of its own, which gives up after BROKER_SECONDS: the API continues
without a broker, and what was not confirmed is published later. Errors are BROKER_ERRORS.
"""

from pika.adapters.blocking_connection import BlockingChannel

from common.connection import BROKER_ERRORS, connect
from common.messages import JobMessage, VersionNotice, encode
from common.publishing import properties
from common.queues import declare, message_count
from retrain_api.settings import BROKER_SECONDS


def is_reachable() -> bool:
    """Return whether the broker accepts a connection now."""
    try:
        with connect("retrain_api, healthz", BROKER_SECONDS):
            return True
    except BROKER_ERRORS:
        return False


def prepare(channel: BlockingChannel) -> int:
    """Declare what is published to, and have it confirmed; return the jobs that are ready."""
    declare(channel, "dead", "retrain_jobs", "model_updates")
    channel.confirm_delivery()
    return message_count(channel, "retrain_jobs")


def publish_job(channel: BlockingChannel, job_id: str) -> None:
    """Publish a job; return when the broker has it on disk."""
    body = encode(JobMessage(job_id))
    channel.basic_publish("", "retrain_jobs", body, properties(), mandatory=True)


def publish_version(channel: BlockingChannel, version: int) -> None:
    """Publish a notice; there may be no `model` that receives it."""
    channel.basic_publish("model_updates", "", encode(VersionNotice(version)), properties())
