"""One attempt at one job, from its inputs to its result.

    train.npy, job.json, perhaps a model, train.py ──▶ [training] ──▶ model.keras, model.tflite, …
    hold_out.npy, job.json, challenger, golden.json, champion ──▶ [scoring] ──▶ scores.json
    all of it ──▶ the API

The hold-out never enters the training. Files are streamed from the API into the step and back, so
the worker needs neither disk nor memory for them. A job that cannot be done ends with a sentence.
"""

import logging
from functools import partial
from pathlib import Path

from common.artifacts import Golden, Scores, Training
from common.lifecycle import StopRequested
from common.worker_api import Assignment, Containers, ProgressReport, ResultReport
from retrain_worker.api_client import ApiClient
from retrain_worker.api_errors import RejectedError, StaleAttemptError
from retrain_worker.multipart import Multipart, Part, bytes_part, json_part, output_part
from retrain_worker.progress import ProgressReporter
from retrain_worker.runners.outputs import InvalidOutputError, printable_line
from retrain_worker.runners.protocol import (
    Inputs,
    Runner,
    RunnerUnavailableError,
    Step,
    StepFailedError,
)
from retrain_worker.steps import read_json, wait_for_success

SANDBOX = Path(__file__).parent / "sandbox"  # read as data, never imported
TRAINING_PROGRAM = ("train.py", "libraries.py", "dataset.py", "export.py", "uploaded_model.py")
TRAINING_FILES = {"train.npy", "model.keras", "model.h5"}  # no row of the hold-out

log = logging.getLogger("retrain_worker")


class Attempt:
    def __init__(self, runner: Runner, api: ApiClient, assignment: Assignment) -> None:
        self.runner, self.api, self.assignment = runner, api, assignment
        self.job, self.number = assignment.id, assignment.attempt
        self.containers = Containers()  # those that its steps run in
        self.renew_lease = partial(api.renew_lease, assignment)

    def run(self) -> None:
        """Bring the attempt to its end, and remove everything of it.

        On a stop request release the job, and raise StopRequested. RunnerUnavailableError ends the
        process, and its next life goes on with the attempt.
        """
        try:
            self._run_and_report()
            self.runner.remove(self.job, self.number)
        except StopRequested:
            try:
                self.runner.remove(self.job, self.number)
            finally:
                self.api.release(self.assignment)
            raise

    def _run_and_report(self) -> None:
        """Run the steps, and report to the API why the attempt failed, if it does."""
        try:
            self._run_steps()
        except StaleAttemptError as error:
            log.info("job %s, attempt %d is over: %s", self.job, self.number, error)
        except StepFailedError as error:
            self._fail(str(error), error.retry)
        except InvalidOutputError as error:
            self._fail(f"What the job left cannot be used: {error}.", retry=False)
        except RejectedError as error:
            self._fail(f"The API said to the worker: {error}", error.retry)
        except RunnerUnavailableError:
            raise
        except Exception as error:  # a mistake of ours, which must not be repeated for ever
            self._fail(f"The worker crashed: {error!r}", retry=True)
            raise

    def _fail(self, reason: str, retry: bool) -> None:
        reason = printable_line(reason, 1500)
        log.info("job %s failed: %s", self.job, reason)
        self.api.failed(self.assignment, reason, retry)

    def _run_steps(self) -> None:
        """Train, score against the version that serves, deliver; again if another serves then."""
        trained, files = self._train()
        version: int | None = self.api.current_version()
        while version is not None:
            scores = self._score(version, files) if "model.tflite" in files else None
            report = ResultReport(scores, version, trained, self.containers)
            form = Multipart({"report": json_part(report), **files}, self.renew_lease)
            version = self.api.result(self.assignment, form)

    def _train(self) -> tuple[Training, dict[str, Part]]:
        """Return training.json, and the files of the result."""
        runner, step = self.runner, Step(self.job, self.number, "training")
        self.containers.training = runner.launch(step, self._training_inputs())
        log.info("job %s, attempt %d trains in %.12s", *step[:2], self.containers.training)
        send = partial(self.api.progress, self.assignment)
        reporter = ProgressReporter(partial(runner.log, step), send, self.containers)
        wait_for_success(runner, step, reporter.report)
        trained = read_json(runner, step, "training.json", Training)
        golden = read_json(runner, step, "golden.json", Golden)
        parts = {name: output_part(runner, step, name) for name in ("model.keras", "model.tflite")}
        if parts["model.keras"] is None:
            raise InvalidOutputError("model.keras is missing")
        files = {name: part for name, part in parts.items() if part}
        return trained, files | {"golden.json": json_part(golden)}

    def _score(self, version: int, files: dict[str, Part]) -> Scores:
        """Return the errors on the hold-out: of the trained model, of `version` and of the mean."""
        step = Step(self.job, self.number, "scoring", version)
        self.containers.scoring = self.runner.launch(step, self._scoring_inputs(version, files))
        self.api.progress(self.assignment, ProgressReport(containers=self.containers))
        wait_for_success(self.runner, step, self.renew_lease)
        return read_json(self.runner, step, "scores.json", Scores)

    def _training_inputs(self) -> Inputs:
        names = [name for name in self.assignment.inputs if name in TRAINING_FILES]
        return self._uploaded(*names) | self._program(*TRAINING_PROGRAM)

    def _scoring_inputs(self, version: int, files: dict[str, Part]) -> Inputs:
        inputs = self._uploaded("hold_out.npy") | {
            "challenger.tflite": files["model.tflite"].open,
            "golden.json": files["golden.json"].open,
        }
        if version:  # version 0 is built into the scoring itself
            champion = partial(self.api.version_file, self.assignment, version)
            inputs["champion.tflite"] = champion
        return inputs | self._program("score.py")

    def _uploaded(self, *names: str) -> Inputs:
        return {name: partial(self.api.input_file, self.assignment, name) for name in names}

    def _program(self, *names: str) -> Inputs:
        """Return a program of ours and the description of the job."""
        program: Inputs = {name: bytes_part((SANDBOX / name).read_bytes()).open for name in names}
        return program | {"job.json": json_part(self.assignment.job).open}
