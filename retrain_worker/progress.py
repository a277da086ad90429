"""Report the progress of a training to the API: new epochs, its containers, its log."""

from common.artifacts import Epoch
from common.worker_api import Assignment, Containers, ProgressReport
from retrain_worker.api_client import ApiClient
from retrain_worker.runners.protocol import Runner, Step
from retrain_worker.training_log import epochs_after, read_log


class ProgressReporter:
    """Send what is new since the last report that arrived; each report renews the lease.

    Epochs are sent once in the life of a worker. The next life sends them again, as far as they are
    in the log, and the API ignores those that it has.
    """

    def __init__(
        self,
        runner: Runner,
        api: ApiClient,
        assignment: Assignment,
        step: Step,
        containers: Containers,
    ) -> None:
        self.runner, self.api, self.assignment, self.step = runner, api, assignment, step
        self.containers: Containers | None = containers  # None once they are reported
        self.log, self.last_epoch = "", 0

    def report(self) -> None:
        """Raise StaleAttemptError if the attempt is over."""
        text, all_epochs = read_log(self.runner.log(self.step))
        epochs: list[Epoch] = epochs_after(self.last_epoch, all_epochs)
        changed_log = text if text != self.log else None
        report = ProgressReport(epochs, self.containers, changed_log)
        if self.api.progress(self.assignment, report):
            self.containers, self.log = None, text
            self.last_epoch = epochs[-1].epoch if epochs else self.last_epoch
