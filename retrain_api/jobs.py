"""The calls on jobs: send data to train on, see what became of it, cancel it."""

import csv
import json
import re
from datetime import UTC, datetime
from pathlib import PurePath, PureWindowsPath
from threading import BoundedSemaphore

from flask import Blueprint, Response, abort, current_app, request, url_for

from retrain_api import disk, handed_in

FIELDS = ("target", "ignore", "epochs", "deploy")
FILES = ("data", "model")
DEPLOY = ("if_better", "always", "never")
MOST_EPOCHS = 10_000
MOST_FILES = 100
UPLOADS = BoundedSemaphore(8)  # at once: the other threads are for the workers and for questions
HOW = "curl -F data=@diabetes.csv http://localhost:8000/jobs"

jobs = Blueprint("jobs", __name__)


@jobs.post("/jobs")
def create():
    store = current_app.extensions["store"]
    key = idempotency_key()
    id = key and store.with_key(key)
    if not id:
        if not UPLOADS.acquire(blocking=False):
            abort(429, "too many uploads at once; send this again in some seconds")
        try:
            id = store.create(*form(), key)
        finally:
            UPLOADS.release()
        current_app.extensions["keeper"].wake.set()
    return view(store.job(id)), 202, {"Location": url_for("jobs.one", id=id)}


@jobs.get("/jobs")
def newest():
    limit = request.args.get("limit", "20")
    if not re.fullmatch(r"[1-9]\d{0,3}", limit):
        abort(400, "limit is to be 1 to 9999: GET /jobs?limit=100")
    rows = current_app.extensions["store"].newest(int(limit))
    return {"jobs": [view(row, brief=True) for row in rows]}


@jobs.get("/jobs/<id>")
def one(id):
    return view(current_app.extensions["store"].job(id))


@jobs.get("/jobs/<id>/log")
def log(id):
    text = current_app.extensions["store"].log(id)
    return Response(text, content_type="text/plain; charset=utf-8")


@jobs.delete("/jobs/<id>")
def cancel(id):
    current_app.extensions["store"].cancel(id)
    return one(id)


def idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(r"[!-~]{1,200}", key):
        abort(400, "an Idempotency-Key has 1 to 200 letters, digits or signs, and no spaces")
    return key


def form() -> tuple:
    """Return what `Store.create` wants: the CSVs, the model, and the settings."""
    if request.mimetype != "multipart/form-data":
        abort(415, f"send the CSV as a form: {HOW}")
    folder = current_app.extensions["store"].incoming
    disk.check_room(folder, 2 * (request.content_length or 0), disk.KEEP_FREE_BYTES)
    check_names()
    files = [(shown_name(file.filename), file.stream) for file in request.files.getlist("data")]
    sizes = [disk.size_of(file) for _, file in files]
    # The arrays take about as much; where they take more, that is seen while they are written.
    disk.check_room(folder, 2 * sum(sizes), disk.KEEP_FREE_BYTES)
    names = [name for name, _ in files]
    if len(set(names)) < len(names):
        abort(400, "two data files have the same name; name each after its region")
    return files, model(), settings()


def check_names() -> None:
    """See that there are data, and nothing that is unknown or in the wrong place."""
    for name in request.form:
        if name in FILES:
            abort(400, f"{name} came as text; to send a file, write an @: -F {name}=@FILE")
    unknown = [name for name in request.form if name not in FIELDS]
    unknown += [name for name in request.files if name not in FILES]
    for name in unknown:
        allowed = f"files are {', '.join(FILES)}; fields are {', '.join(FIELDS)}"
        if name in FIELDS:
            abort(400, f"{name} came as a file, and is a field: -F {name}=VALUE, without an @")
        abort(400, f"{clean(name)!r} is not known here; {allowed}")
    count = len(request.files.getlist("data"))
    if not 1 <= count <= MOST_FILES:
        abort(400, f"{count} data files came; send 1 to {MOST_FILES} CSVs: {HOW}")


def clean(name: str | None) -> str:
    """Return a name from a form in one harmless line; a field may have none."""
    return handed_in.text(name or "", 100).replace("\n", " ").replace("\t", " ")


def shown_name(name: str) -> str:
    """Return a client's file name without folders; it is only ever shown."""
    return clean(PureWindowsPath(PurePath(name).name).name) or abort(400, "a data file has no name")


def model() -> tuple | None:
    """Return (model.keras or model.h5, binary file) of the model that came, if one came."""
    files = request.files.getlist("model")
    if len(files) > 1:
        abort(400, "several models came; send one")
    if not files:
        return None
    suffix = PurePath(files[0].filename).suffix.lower()
    if suffix not in (".keras", ".h5"):
        abort(400, f"a model is a .keras or .h5 file; {clean(files[0].filename)!r} is neither")
    try:
        handed_in.model_file(f"model{suffix}", files[0].stream)
    except ValueError as error:
        abort(400, f"{error}; send a model saved by Keras: model.save('model.keras')")
    return f"model{suffix}", files[0].stream


def settings() -> dict:
    return {
        "target": once("target"),
        "ignore": ignored(),
        "epochs": epochs(once("epochs")),
        "deploy": deploy(once("deploy")),
    }


def once(name: str) -> str | None:
    values = request.form.getlist(name)
    if len(values) > 1:
        abort(400, f"{name} came {len(values)} times; send it once")
    if values and not values[0].strip():
        abort(400, f"{name} is empty; give it a value, or leave it out")
    return values[0].strip() if values else None


def ignored() -> list[str]:
    """Return the columns to leave out: of repeated fields, or parted by commas as in a CSV."""
    lines = request.form.getlist("ignore")
    try:
        names = [name.strip() for cells in csv.reader(lines, strict=True) for name in cells]
    except csv.Error:  # a quotation that does not end
        names = [""]
    if "" in names or len(names) > 1000:
        abort(
            400, "ignore wants names of columns: -F ignore=id,date or -F ignore=id -F ignore=date"
        )
    return names


def epochs(value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= MOST_EPOCHS:
        abort(400, f"epochs is to be a whole number from 1 to {MOST_EPOCHS}, not {clean(value)!r}")
    return int(value)


def deploy(value: str | None) -> str:
    if value not in (None, *DEPLOY):
        abort(400, f"deploy is to be {', '.join(DEPLOY[:2])} or {DEPLOY[2]}, not {clean(value)!r}")
    return value or DEPLOY[0]


def view(row, brief: bool = False) -> dict:
    """Return what is told of a job."""
    job = json.loads(row["job"])
    told = {key: row[key] for key in ("id", "state", "reason", "version", "attempt", "worker")}
    told["progress"] = row["progress"] and json.loads(row["progress"])
    told |= {key: iso(row[key]) for key in ("created", "started", "finished")}
    if brief:
        return told
    told["containers"] = row["containers"] and json.loads(row["containers"])
    told |= {key: value for key, value in job.items() if key not in told}
    told["report"] = report(row["version"])
    return told


def report(version: int | None) -> dict | None:
    try:
        return version and current_app.extensions["versions"].report(version)
    except LookupError:  # it was deleted since
        return None


def iso(seconds: float | None) -> str | None:
    return seconds and datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
