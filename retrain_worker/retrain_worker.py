"""Receive a job, run it in containers, and deliver the model to the API.

    [retrain_jobs]  {"id": "251122-104159-3fa2b1"}
        └──▶ retrain_worker ──HTTP──▶ retrain_api: claim, inputs, progress, result
                    └──▶ a container that trains, a container that scores

The message is acknowledged as soon as the job is claimed, and no broker is needed while the job
runs; from then on the API's lease keeps the promise. A worker that dies leaves its containers, and
its next life goes on with them. A stop request ends the containers and releases the job. A message
that names no job goes to `dead`. Any other failure ends the process, and its supervisor starts it
again.

    python retrain_worker/retrain_worker.py      # needs a broker, retrain_api and a Docker engine
    TRAIN_BACKEND=process python …               # without an engine
"""

import logging
import sys
import time
from pathlib import Path

from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `common` is
from common import lifecycle
from common.connection import connect
from common.consuming import consume_batches
from common.messages import INVALID, JobMessage, decode_job
from common.publishing import commit, dead_letter, require_routing
from common.queues import declare
from common.worker_api import Assignment
from retrain_worker.api_client import ApiClient
from retrain_worker.api_errors import ApiUnavailableError, ForeignAttemptError, StaleAttemptError
from retrain_worker.job import Attempt
from retrain_worker.runners.docker_runner import DockerRunner
from retrain_worker.runners.process_runner import ProcessRunner
from retrain_worker.runners.protocol import Runner, RunnerUnavailableError
from retrain_worker.settings import TRAIN_BACKEND, WORKER_NAME

QUEUE = "retrain_jobs"
RECONCILE_SECONDS = 5  # between two comparisons of the engine with the API

log = logging.getLogger("retrain_worker")


def make_runner(api_name: str) -> Runner:
    """Return the runner that TRAIN_BACKEND names. `api_name` labels what it makes."""
    if TRAIN_BACKEND == "container":
        return DockerRunner(WORKER_NAME, api_name)
    if TRAIN_BACKEND == "process":
        return ProcessRunner()
    raise SystemExit(f"TRAIN_BACKEND is container or process, and not {TRAIN_BACKEND!r}")


def reconcile(runner: Runner, api: ApiClient) -> Assignment | None:
    """Return an attempt of an earlier life to go on with; remove what belongs to no attempt."""
    for job, attempt in sorted(runner.attempts()):
        lifecycle.check_stop()
        try:
            return api.adopt(job, attempt)
        except StaleAttemptError as error:
            log.info("removing what is left of job %s, attempt %d: %s", job, attempt, error)
            runner.remove(job, attempt)
        except ForeignAttemptError:
            continue
    return None


def parse(publishing: BlockingChannel, body: bytes) -> JobMessage | None:
    """Return the message; publish one that names no job to `dead`, and return None."""
    try:
        return decode_job(body)
    except INVALID as error:
        log.info("to `dead`: %s", error)
        dead_letter(publishing, QUEUE, body, str(error))
        commit(publishing)
        return None


def receive(connection: BlockingConnection, runner: Runner, api: ApiClient) -> Assignment | None:
    """Return the next job, from the queue or of an earlier life; None on a stop request."""
    publishing, consuming = connection.channel(), connection.channel()
    declare(publishing, "dead", QUEUE)
    require_routing(publishing)
    publishing.tx_select()
    log.info("waiting for a job")
    reconciled_at = time.monotonic()
    for batch in consume_batches(consuming, QUEUE, 1):
        for message in batch:
            job = parse(publishing, message.body)
            assignment = api.claim(job.id) if job else None
            if assignment:  # cancel first: the next job would be delivered here, and count as tried
                consuming.basic_cancel(QUEUE)
            consuming.basic_ack(message.tag)
            if assignment:
                return assignment
        if not batch and time.monotonic() - reconciled_at > RECONCILE_SECONDS:
            reconciled_at = time.monotonic()
            runner.prewarm()
            adopted = reconcile(runner, api) if api.is_up() else None
            if adopted:
                return adopted
    return None


def next_assignment(runner: Runner, api: ApiClient) -> Assignment | None:
    """Return the next attempt to run; None on a stop request."""
    adopted = reconcile(runner, api)
    if adopted:
        log.info("going on with job %s, attempt %d", adopted.id, adopted.attempt)
        return adopted
    api.wait_until_up()  # before there is a message, which would count as tried
    runner.prewarm()
    with connect("retrain_worker") as connection:
        return receive(connection, runner, api)


def serve(runner: Runner, api: ApiClient) -> None:
    """Run one job after the other; raise StopRequested on a stop request."""
    while True:
        lifecycle.check_stop()
        assignment = next_assignment(runner, api)
        if assignment:
            Attempt(runner, api, assignment).run()


def main() -> None:
    lifecycle.start()
    lifecycle.report_liveness()
    try:
        api = ApiClient()
        runner = make_runner(api.fingerprint)
        log.info("started as %s, jobs run in a %s", WORKER_NAME, TRAIN_BACKEND)
        try:
            serve(runner, api)
        except lifecycle.StopRequested:
            runner.close()
            raise
    except lifecycle.StopRequested:
        log.info("stopped")
    except (ApiUnavailableError, RunnerUnavailableError) as error:
        raise SystemExit(f"no answer, from the engine or the API: {error}") from None


if __name__ == "__main__":
    main()
