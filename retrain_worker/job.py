"""One attempt at one job, from its inputs to its result.

    train.npy, job.json, perhaps a model, train.py ──▶ [training] ──▶ model.keras, model.tflite, …
    hold_out.npy, job.json, challenger, golden.json, champion ──▶ [scoring] ──▶ scores.json
    all of it ──▶ the API

The hold-out never meets the training. Files go straight from the API to the step and back, so the
worker needs neither disk nor memory for them. A job that cannot be done ends with a sentence.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import msgspec
from client import Api, Claim, Over, Refused
from form import Multipart, Part
from outputs import (
    JSON_BYTES,
    File,
    Golden,
    Progress,
    Scores,
    Training,
    Unusable,
    log_text,
    parse,
    plain,
)
from requests import RequestException
from step import TRAIN_OUTPUT_BYTES, Failed, Inputs, Step, collect, launch, lost, wait

PROGRAM = ("train.py", "libraries.py", "rows.py", "uploaded.py")
MODELS = ("model.keras", "model.h5")

log = logging.getLogger("retrain_worker")


def run(place, api: Api, claim: Claim) -> None:
    """Bring an attempt to its end; whatever that is, nothing of it is left in this place.

    Where the engine is away, this process ends and its next life goes on.
    """
    try:
        attempt(place, api, claim)
    except Over as over:
        log.info("job %s, attempt %d is over: %s", claim.id, claim.attempt, over)
    except Failed as failed:
        fail(api, claim, str(failed), failed.retry)
    except Unusable as unusable:
        fail(api, claim, f"What the job left cannot be used: {unusable}.", False)
    except Refused as refused:
        fail(api, claim, f"The API said to the worker: {refused}", refused.retry)
    except place.errors as error:
        fail(api, claim, f"The worker could not run the job: {error}", True)
    except RequestException:  # the engine is away: the next life goes on
        raise
    except Exception as error:  # a mistake of ours, which must not be made again for ever
        fail(api, claim, f"The worker crashed: {error!r}", True)
        raise
    place.remove(claim.id, claim.attempt)


def fail(api: Api, claim: Claim, reason: str, retry: bool) -> None:
    reason = plain(reason, 1500)
    log.info("job %s failed: %s", claim.id, reason)
    api.failed(claim, reason, retry)


def attempt(place, api: Api, claim: Claim) -> None:
    """Train, score against the version that serves, deliver; again if another serves by then."""
    training = Step(claim.id, claim.attempt, "training")
    containers = {"training": launch(place, training, training_inputs(api, claim))}
    log.info("job %s, attempt %d trains in %.12s", claim.id, claim.attempt, containers["training"])
    state = wait(place, training, follower(place, training, api, claim, containers))
    kinds = {"training.json": Training, "golden.json": Golden}
    trained, golden = collect(place, training, state, kinds)
    files = {name: part(place, training, name) for name in ("model.keras", "model.tflite")}
    if files["model.keras"] is None:
        raise Unusable("model.keras is missing")
    files["golden.json"] = content(golden)
    version = api.champion()
    while version is not None:
        scores = None
        if files["model.tflite"]:
            scores = score(place, api, claim, version, files, containers)
        report = {"scores": scores, "compared_with": version, "training": trained}
        report["containers"] = containers
        parts = {"report": content(report), **files}
        parts = {name: part for name, part in parts.items() if part}
        version = api.result(claim, partial(Multipart, parts, partial(api.beat, claim)))


def part(place, step: Step, name: str) -> Part | None:
    """Return a large file that a step left, or None, without reading it."""
    if file := place.read(step, name, TRAIN_OUTPUT_BYTES):
        file.close()
        return Part(file.size, partial(reopen, place, step, name))
    return None


def reopen(place, step: Step, name: str) -> File:
    """Open a file that was there. No trouble with it may pass for one of whom it is sent to."""
    try:
        file = place.read(step, name, TRAIN_OUTPUT_BYTES)
    except OSError as error:  # all errors of the engine are such
        raise lost(step) from error
    if file is None:
        raise lost(step)
    return file._replace(chunks=unless_lost(step, file.chunks))


def unless_lost(step: Step, chunks: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except OSError as error:
        raise lost(step) from error


def content(of: bytes | object) -> Part:
    """Return bytes as they are, anything else as JSON."""
    raw = of if isinstance(of, bytes) else msgspec.json.encode(of)
    return Part(len(raw), lambda: File(len(raw), [raw]))


def training_inputs(api: Api, claim: Claim) -> Inputs:
    """Return all that the training sees; the hold-out is not among it."""
    names = [name for name in ("train.npy", *MODELS) if name in claim.inputs]
    inputs = {name: partial(api.input, claim, name) for name in names}
    here = Path(__file__).parent
    inputs |= {name: content((here / name).read_bytes()).open for name in PROGRAM}
    return inputs | job_json(claim)


def job_json(claim: Claim) -> Inputs:
    return {"job.json": content(claim.job).open}


def scoring_inputs(api: Api, claim: Claim, version: int, files: dict[str, Part]) -> Inputs:
    inputs = {"hold_out.npy": partial(api.input, claim, "hold_out.npy"), **job_json(claim)}
    inputs |= {"challenger.tflite": files["model.tflite"].open}
    inputs |= {"golden.json": files["golden.json"].open}
    if version:  # version 0 is built into the scoring itself
        inputs["champion.tflite"] = partial(api.champion_file, claim, version)
    return inputs


def score(
    place, api: Api, claim: Claim, version: int, files: dict[str, Part], containers: dict
) -> Scores:
    """Return how challenger, champion and the mean do on the hold-out; note the container."""
    step = Step(claim.id, claim.attempt, "scoring", version)
    inputs = scoring_inputs(api, claim, version, files)
    containers["scoring"] = launch(place, step, inputs)
    api.progress(claim, {"containers": containers})
    state = wait(place, step, partial(api.beat, claim))
    [scores] = collect(place, step, state, {"scores.json": Scores})
    return scores


def follower(place, step: Step, api: Api, claim: Claim, containers: dict) -> Callable[[], None]:
    """Return a function that tells the API what is new, which also renews the lease."""
    told = {}

    def tell() -> None:
        now = {"containers": containers, "log": log_text(place.log(step))} | progress(place, step)
        news = {name: value for name, value in now.items() if told.get(name) != value}
        if api.progress(claim, news):
            told.update(news)

    return tell


def progress(place, step: Step) -> dict:
    """Return what progress.json says; nothing if it is not there, or not what it has to be."""
    try:
        file = place.read(step, "progress.json", JSON_BYTES)
        return msgspec.to_builtins(parse(Progress, "progress.json", file))
    except (Unusable, *place.errors, OSError):  # it may have been exchanged while it was read
        return {}
