"""The calls of the workers, which alone know the secret: claim, inputs, progress, result."""

import hmac
import json
from functools import partial

from flask import Blueprint, Response, abort, current_app, request

from retrain_api import disk, handed_in
from retrain_api.attempts import Taken

ATTEMPT = "<int(max=999999999):attempt>"
RESULT_FILES = ("model.keras", "model.tflite", "golden.json")

work = Blueprint("work", __name__, url_prefix="/worker/jobs/<id>")


def leases():
    return current_app.extensions["attempts"]


def store():
    return current_app.extensions["store"]


@work.before_request
def only_workers():
    secret = current_app.config["WORKER_SECRET"].encode()
    sent = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(sent, b"Bearer " + secret):
        abort(401, "these calls are for workers: Authorization: Bearer, and the workers' secret")


def body(*allowed: str) -> dict:
    """Return the JSON object that was sent; 400 if it has other keys."""
    try:
        sent = handed_in.loads(request.get_data() or b"{}")
    except ValueError as error:
        abort(400, str(error))
    if not isinstance(sent, dict) or set(sent) - set(allowed):
        abort(400, f"send a JSON object with {', '.join(allowed) or 'nothing'} in it")
    return sent


def sentence(sent: dict, key: str, length: int) -> str:
    return handed_in.text(sent.get(key), length) or abort(400, f"{key} is to be a text")


@work.post("/claim")
def claim(id):
    return task(leases().claim(id, sentence(body("worker"), "worker", 100)))


@work.post(f"/{ATTEMPT}/adopt")
def adopt(id, attempt):
    return task(leases().adopt(id, attempt, sentence(body("worker"), "worker", 100)))


def task(row) -> dict:
    sizes = {name: path.stat().st_size for name, path in store().inputs(row["id"]).items()}
    job = json.loads(row["job"])
    return {"attempt": row["attempt"], "job": job, "inputs": sizes}


@work.get(f"/{ATTEMPT}/inputs/<name>")
def inputs(id, attempt, name):
    attempts = leases()
    attempts.progress(id, attempt, {}, {})
    path = store().inputs(id).get(name) or abort(404, f"job {id} has no input {name!r}")

    def blocks():
        with path.open("rb") as file:
            while block := file.read(disk.BLOCK):
                attempts.moving(id, attempt)
                yield block

    length = {"Content-Length": path.stat().st_size}
    return Response(blocks(), headers=length, content_type="application/octet-stream")


@work.put(f"/{ATTEMPT}/progress")
def progress(id, attempt):
    sent = body("epoch", "epochs", "loss", "val_loss", "containers", "log")
    try:
        containers = handed_in.containers(sent.pop("containers", None) or {})
    except ValueError as error:
        abort(400, f"containers: {error}")
    log = handed_in.text(sent.pop("log", None), current_app.config["MAX_CONTENT_LENGTH"])
    numbers = {key: handed_in.number(value) for key, value in sent.items()}
    containers = {role: container for role, container in containers.items() if container}
    leases().progress(id, attempt, numbers, containers)
    if log is not None:
        store().write_log(id, log)
    return {}


@work.post(f"/{ATTEMPT}/failed")
def failed(id, attempt):
    sent = body("reason", "retry")
    reason = sentence(sent, "reason", 2000)
    if sent.get("retry"):
        leases().give_back(id, attempt, reason)
        current_app.extensions["keeper"].wake.set()
    else:
        leases().fail(id, attempt, reason)
    return {}


@work.post(f"/{ATTEMPT}/release")
def release(id, attempt):
    body()
    leases().give_back(id, attempt, None)
    current_app.extensions["keeper"].wake.set()
    return {}


@work.post(f"/{ATTEMPT}/result")
def result(id, attempt):
    versions = current_app.extensions["versions"]
    if answer := versions.answer(id, attempt):
        return answer
    leases().progress(id, attempt, {}, {})
    request.moving = partial(leases().moving, id, attempt)
    request.reserve = disk.KEEP_FREE_BYTES // 10  # the reserve is there for this
    job = json.loads(store().job(id)["job"])
    report, files = result_form(job)
    try:
        answer = versions.add(job, attempt, report, files)
    finally:
        current_app.extensions["keeper"].wake.set()
    return answer


def result_form(job: dict) -> tuple[dict, dict]:
    """Return the report and the files of a result; 400 if they are not what they are to be."""
    files = {name: file.stream for name, file in request.files.items()}
    wrong = set(files) - set(RESULT_FILES) or set(request.form) - {"report"}
    if wrong or "report" not in request.form or not {"model.keras", "golden.json"} <= set(files):
        abort(400, f"send the field report and the files {', '.join(RESULT_FILES)}")
    try:
        report = handed_in.report(handed_in.loads(request.form["report"]))
        for name in set(files) - {"golden.json"}:
            handed_in.model_file(name, files[name])
        handed_in.golden(files["golden.json"], len(job["columns"]))
    except ValueError as error:
        abort(400, f"the result is refused: {error}")
    return report, files


@work.errorhandler(Taken)
def taken(error):
    return {"error": str(error)}, 423
