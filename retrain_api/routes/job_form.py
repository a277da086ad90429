"""The form of POST /jobs: files, and fields; every mistake is a 400 that says what to send."""

import csv
import re
from pathlib import Path, PurePath, PureWindowsPath
from typing import IO, cast, get_args

from flask import abort, request
from werkzeug.datastructures import FileStorage

from retrain_api import settings
from retrain_api.ingest.dataset import MAX_FILES
from retrain_api.jobs.records import Deploy
from retrain_api.jobs.store import JobForm
from retrain_api.routes.decoding import check_model_file, one_line
from retrain_api.storage import disk

FIELDS = ("target", "ignore", "epochs", "deploy")
FILES = ("data", "model")
DEPLOY = get_args(Deploy)
MAX_EPOCHS = 10_000
MAX_IGNORED = 1000
EXAMPLE = "curl -F data=@diabetes.csv http://localhost:8000/jobs"


def parse_job_form(folder: Path) -> JobForm:
    """Return the form of the request, whose files go to `folder`; abort with 400, 415 or 507."""
    if request.mimetype != "multipart/form-data":
        abort(415, f"send the CSV as a form: {EXAMPLE}")
    disk.check_room(folder, 2 * (request.content_length or 0), settings.MIN_FREE_BYTES)
    check_names()
    files = [(shown_name(file), file.stream) for file in request.files.getlist("data")]
    # The arrays need about as much; where they need more, that shows while they are written.
    size = sum(disk.size_of(file) for _, file in files)
    disk.check_room(folder, 2 * size, settings.MIN_FREE_BYTES)
    if len({name for name, _ in files}) < len(files):
        abort(400, "two data files have the same name; name each after its region")
    epochs, deploy = parse_epochs(single("epochs")), parse_deploy(single("deploy"))
    return JobForm(files, parse_model(), single("target"), parse_ignore(), epochs, deploy)


def check_names() -> None:
    """Check that there are data, and nothing unknown or in the wrong place."""
    for name in request.form:
        if name in FILES:
            abort(400, f"{name} came as text; to send a file, write an @: -F {name}=@FILE")
    unknown = [name for name in request.form if name not in FIELDS]
    unknown += [name for name in request.files if name not in FILES]
    for name in unknown:
        allowed = f"files are {', '.join(FILES)}; fields are {', '.join(FIELDS)}"
        if name in FIELDS:
            abort(400, f"{name} came as a file, and is a field: -F {name}=VALUE, without an @")
        abort(400, f"{one_line(name or '')!r} is not known here; {allowed}")
    count = len(request.files.getlist("data"))
    if not 1 <= count <= MAX_FILES:
        abort(400, f"{count} data files came; send 1 to {MAX_FILES} CSVs: {EXAMPLE}")


def shown_name(file: FileStorage) -> str:
    """Return a client's file name without folders; it is only ever shown."""
    name = one_line(PureWindowsPath(PurePath(file.filename or "").name).name)
    return name or abort(400, "a data file has no name")


def parse_model() -> tuple[str, IO[bytes]] | None:
    """Return (model.keras or model.h5, binary file) of the model, if there is one."""
    files = request.files.getlist("model")
    if len(files) > 1:
        abort(400, "several models came; send one")
    if not files:
        return None
    filename = files[0].filename or ""
    suffix = PurePath(filename).suffix.lower()
    if suffix not in (".keras", ".h5"):
        abort(400, f"a model is a .keras or .h5 file; {one_line(filename)!r} is neither")
    try:
        check_model_file(f"model{suffix}", files[0].stream)
    except ValueError as error:
        abort(400, f"{error}; send a model saved by Keras: model.save('model.keras')")
    return f"model{suffix}", files[0].stream


def single(name: str) -> str | None:
    """Return a field that may come once."""
    values = request.form.getlist(name)
    if len(values) > 1:
        abort(400, f"{name} came {len(values)} times; send it once")
    if values and not values[0].strip():
        abort(400, f"{name} is empty; give it a value, or leave it out")
    return values[0].strip() if values else None


def parse_ignore() -> list[str]:
    """Return the columns to leave out, of repeated fields or separated by commas as in a CSV."""
    lines = request.form.getlist("ignore")
    try:
        names = [name.strip() for cells in csv.reader(lines, strict=True) for name in cells]
    except csv.Error:  # a quote that is not closed
        names = [""]
    if "" in names or len(names) > MAX_IGNORED:
        examples = "-F ignore=id,date or -F ignore=id -F ignore=date"
        abort(400, f"ignore needs names of columns: {examples}")
    return names


def parse_epochs(value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= MAX_EPOCHS:
        abort(400, f"epochs must be a whole number from 1 to {MAX_EPOCHS}, not {one_line(value)!r}")
    return int(value)


def parse_deploy(value: str | None) -> Deploy:
    if value not in (None, *DEPLOY):
        choices = f"{', '.join(DEPLOY[:-1])} or {DEPLOY[-1]}"
        abort(400, f"deploy must be {choices}, not {one_line(value or '')!r}")
    return cast(Deploy, value or DEPLOY[0])
