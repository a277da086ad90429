"""Which version is active, on trial, good or refused.

    Releases          the active version: the service's loop asks for it before each batch
    ReleaseManager    makes the API's current version the active one, step by step

    current in the API ──download──▶ active, on trial ──5 s and a batch──▶ good, kept for a start
             └──bad file, wrong predictions, three processes that died──▶ refused, and reported

A download is compared with its hash and tried by a child process (`serving.trial`) first.
Whatever is wrong with a version or with the API, the active version stays. A step that failed for
a reason that may pass (the network, the disk) is repeated in the next step. A version that is
refused for good is not tried again before another one was current.

The manager runs in a thread of its own (`model.updates`), a test calls `step` itself. The only
state that both threads write is the cache, which has a lock.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from common.artifacts import MAX_SERVED_BYTES
from common.worker_api import Refusal, ReplicaStatus, ServedVersion
from model.api_client import ApiClient
from model.cache import Cache
from serving.network import Predictor, UnservableError, load
from serving.trial import run_trial

TRIAL_SECONDS = 5  # for which a version has to answer before it counts as good
MAX_GOLDEN_BYTES = 1 << 20
MAX_REASON_CHARACTERS = 1000
BUILTIN = ServedVersion(0)

log = logging.getLogger("model")


class Release(NamedTuple):
    model: Predictor
    version: ServedVersion


class RefusedVersion(NamedTuple):
    version: ServedVersion
    reason: str
    final: bool  # else it is tried again in each step


class Releases:
    """The active version, replaced in one assignment between two batches."""

    def __init__(self, builtin: Predictor) -> None:
        self.builtin = builtin
        self.release = Release(builtin, BUILTIN)
        self.predicting = False  # still true at the end if the version ended the process
        self.last_finished: int | None = None  # the version that last predicted a batch

    def active(self) -> tuple[Predictor, int]:
        """Return the model and the version for the next batch."""
        self.predicting = True
        model, version = self.release
        return model, version.version

    def finish(self, version: int, rows: int) -> None:
        """Note that `version` has predicted a batch in which so many rows have an answer."""
        self.predicting = False
        if rows:
            self.last_finished = version


class ReleaseManager:
    """Follows the API. `clock` gives seconds."""

    def __init__(
        self,
        releases: Releases,
        api: ApiClient,
        cache: Cache,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._releases, self._api, self._cache, self._clock = releases, api, cache, clock
        self._active_since = clock()
        self._current: ServedVersion | None = None  # in the API
        self.good: ServedVersion | None = None  # the version that passed its trial last
        self.refused: RefusedVersion | None = None
        self._failures: dict[str, str | None] = {}  # the last one of each action

    @property
    def on_trial(self) -> bool:
        return self._releases.release.version != self.good

    def recover(self) -> None:
        """Activate the version that was good in the process before, from the cache."""
        if good := self._cache.state.good:
            self._activate_or_refuse(good, self._require_cached)

    def step(self) -> None:
        """Follow the API once, and end the trial of the active version if it is over."""
        for action in (self._follow, self._end_trial):
            failure = None
            try:
                action()
            except OSError as error:
                failure = str(error)
                if failure != self._failures.get(action.__name__):
                    active = self._releases.release.version.version
                    log.warning("%s; version %d stays active", failure, active)
            self._failures[action.__name__] = failure

    def close(self) -> None:
        """Uncount the trial of the active version, unless the process ends in a prediction."""
        if not self._releases.predicting:
            with suppress(OSError):  # on a full disk one trial stays counted
                self._cache.end_trial(self._releases.release.version)

    def _follow(self) -> None:
        self._current = self._report()
        refused_for_good = self.refused and self.refused.final
        if self._current != self._releases.release.version and not refused_for_good:
            self._activate_or_refuse(self._current, self._download)
            self._report()

    def _report(self) -> ServedVersion:
        """Report to the API; return the version that is current there."""
        refusal = None
        if self.refused:
            reason = self.refused.reason[:MAX_REASON_CHARACTERS]
            refusal = Refusal(self.refused.version.version, reason)
        active = self._releases.release.version.version
        current = self._api.report(ReplicaStatus(active, refusal))
        if self.refused and self.refused.version != current:
            self.refused = None
        return current

    def _activate_or_refuse(
        self, version: ServedVersion, provide: Callable[[ServedVersion], None]
    ) -> None:
        """Activate `version` once `provide` has its file in the cache, or note why not."""
        try:
            if version.version:
                provide(version)
            self._activate(version)
            self.refused = None
        except (OSError, UnservableError) as error:
            refused = RefusedVersion(version, str(error), isinstance(error, UnservableError))
            if refused != self.refused:
                log.warning("version %d is refused: %s", version.version, error)
            self.refused = refused

    def _require_cached(self, version: ServedVersion) -> None:
        """Raise OSError if the file of `version` is not in the cache."""
        if not self._cache.has(version):
            raise OSError("its file in the cache is missing or has another hash")

    def _download(self, version: ServedVersion) -> None:
        """Download the file of `version` into the cache, if a child process can serve it."""
        number, api, cache = version.version, self._api, self._cache
        sha256 = cache.write("new.tflite", api.file(number, "model.tflite", MAX_SERVED_BYTES))
        if sha256 != version.sha256:
            raise UnservableError(f"its model.tflite has the sha256 {sha256}, not {version.sha256}")
        cache.write("golden.json", api.file(number, "golden.json", MAX_GOLDEN_BYTES))
        run_trial(cache.folder / "new.tflite", cache.folder / "golden.json")
        (cache.folder / "new.tflite").replace(cache.path(version))

    def _activate(self, version: ServedVersion) -> None:
        """Load `version`, and let it answer from the next batch on, on trial."""
        model = self._releases.builtin
        # The trial of the version before would count what this one does.
        self._cache.end_trial(self._releases.release.version)
        if version.version:
            self._start_trial(version)
            model = load(self._cache.path(version))
        self._releases.release, self._active_since = Release(model, version), self._clock()
        log.info("version %d is active", version.version)

    def _start_trial(self, version: ServedVersion) -> None:
        """Count the trial. A full disk keeps no good version from being served again."""
        try:
            self._cache.start_trial(version)
        except OSError as error:
            if version != self._cache.state.good:
                raise
            log.warning("the trial of version %d is not counted: %s", version.version, error)

    def _end_trial(self) -> None:
        """Promote the active version if it has answered for TRIAL_SECONDS."""
        version = self._releases.release.version
        answered = self._releases.last_finished == version.version
        known = version.version or self._current == version  # not 0 for want of another version
        elapsed = self._clock() - self._active_since
        if version != self.good and answered and known and elapsed > TRIAL_SECONDS:
            self._cache.promote(version)
            log.info("version %d has passed its trial", version.version)
            self.good = version
