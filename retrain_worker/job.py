"""One attempt at one job, from its inputs to its result.

    train.npy, job.json, perhaps a model, train.py ──▶ [training] ──▶ model.keras, model.tflite, …
    hold_out.npy, job.json, challenger, golden.json, champion ──▶ [scoring] ──▶ scores.json
    all of it ──▶ the API

The hold-out never enters the training. Files are streamed from the API into the step and back, so
the worker needs neither disk nor memory for them. A job that cannot be done ends with a sentence.
"""

import logging
from functools import partial

from common.artifacts import Golden, Scores, Training
from common.lifecycle import StopRequested
from common.worker_api import Assignment, Containers, ProgressReport, ResultReport
from retrain_worker.api_client import ApiClient
from retrain_worker.api_errors import RejectedError, StaleAttemptError
from retrain_worker.inputs import scoring_inputs, training_inputs
from retrain_worker.multipart import Multipart, Part
from retrain_worker.parts import json_part, output_part
from retrain_worker.progress import ProgressReporter
from retrain_worker.runners.outputs import InvalidOutputError
from retrain_worker.runners.printable import printable_line
from retrain_worker.runners.protocol import (
    Runner,
    RunnerUnavailableError,
    Step,
    StepFailedError,
)
from retrain_worker.steps import collect, wait_for_end

log = logging.getLogger("retrain_worker")


def run(runner: Runner, api: ApiClient, assignment: Assignment) -> None:
    """Bring an attempt to its end, and remove everything of it.

    On a stop request release the job, and raise StopRequested. RunnerUnavailableError ends the
    process, and its next life goes on with the attempt.
    """
    try:
        run_and_report(runner, api, assignment)
        runner.remove(assignment.id, assignment.attempt)
    except StopRequested:
        try:
            runner.remove(assignment.id, assignment.attempt)
        finally:
            api.release(assignment)
        raise


def run_and_report(runner: Runner, api: ApiClient, assignment: Assignment) -> None:
    """Run an attempt, and report to the API why it failed, if it does."""
    try:
        run_attempt(runner, api, assignment)
    except StaleAttemptError as error:
        log.info("job %s, attempt %d is over: %s", assignment.id, assignment.attempt, error)
    except StepFailedError as error:
        fail(api, assignment, str(error), error.retry)
    except InvalidOutputError as error:
        fail(api, assignment, f"What the job left cannot be used: {error}.", False)
    except RejectedError as error:
        fail(api, assignment, f"The API said to the worker: {error}", error.retry)
    except RunnerUnavailableError:
        raise
    except Exception as error:  # a mistake of ours, which must not be repeated for ever
        fail(api, assignment, f"The worker crashed: {error!r}", True)
        raise


def fail(api: ApiClient, assignment: Assignment, reason: str, retry: bool) -> None:
    reason = printable_line(reason, 1500)
    log.info("job %s failed: %s", assignment.id, reason)
    api.failed(assignment, reason, retry)


def run_attempt(runner: Runner, api: ApiClient, assignment: Assignment) -> None:
    """Train, score against the version that serves, deliver; again if another serves by then."""
    step = Step(assignment.id, assignment.attempt, "training")
    containers = Containers()
    trained, files = train(runner, api, assignment, step, containers)
    version: int | None = api.current_version()
    while version is not None:
        scores = None
        if "model.tflite" in files:
            scores = score(runner, api, assignment, version, files, containers)
        report = ResultReport(scores, version, trained, containers)
        parts = {"report": json_part(report), **files}
        body = partial(Multipart, parts, partial(api.renew_lease, assignment))
        version = api.result(assignment, body)


def train(
    runner: Runner, api: ApiClient, assignment: Assignment, step: Step, containers: Containers
) -> tuple[Training, dict[str, Part]]:
    """Return training.json, and the files of the result; note the container."""
    containers.training = runner.launch(step, training_inputs(api, assignment))
    log.info("job %s, attempt %d trains in %.12s", step.job, step.attempt, containers.training)
    reporter = ProgressReporter(runner, api, assignment, step, containers)
    state = wait_for_end(runner, step, reporter.report)
    kinds: dict[str, type] = {"training.json": Training, "golden.json": Golden}
    trained, golden = collect(runner, step, state, kinds)
    parts = {name: output_part(runner, step, name) for name in ("model.keras", "model.tflite")}
    if parts["model.keras"] is None:
        raise InvalidOutputError("model.keras is missing")
    files = {name: part for name, part in parts.items() if part}
    return trained, files | {"golden.json": json_part(golden)}


def score(
    runner: Runner,
    api: ApiClient,
    assignment: Assignment,
    version: int,
    files: dict[str, Part],
    containers: Containers,
) -> Scores:
    """Return the errors on the hold-out, also of champion and mean; note the container."""
    step = Step(assignment.id, assignment.attempt, "scoring", version)
    inputs = scoring_inputs(api, assignment, version, files)
    containers.scoring = runner.launch(step, inputs)
    api.progress(assignment, ProgressReport(containers=containers))
    state = wait_for_end(runner, step, partial(api.renew_lease, assignment))
    scores: Scores
    [scores] = collect(runner, step, state, {"scores.json": Scores})
    return scores
