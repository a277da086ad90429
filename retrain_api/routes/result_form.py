"""The form of a worker's result: the field `report`, and files."""

from typing import BinaryIO, cast

from flask import abort, request

from common.worker_api import ResultReport
from retrain_api.ingest.model_files import check_model_file
from retrain_api.routes.decoding import check_golden, decode

FILES = ("model.keras", "model.tflite", "golden.json")
REQUIRED_FILES = {"model.keras", "golden.json"}


def parse_result_form(columns: int) -> tuple[ResultReport, dict[str, BinaryIO]]:
    """Return the report and the files of a model of `columns` columns; abort with 400."""
    files = {name: cast(BinaryIO, file.stream) for name, file in request.files.items()}
    unknown = set(files) - set(FILES) or set(request.form) - {"report"}
    if unknown or "report" not in request.form or not set(files) >= REQUIRED_FILES:
        abort(400, f"send the field report and the files {', '.join(FILES)}")
    try:
        report = decode(request.form["report"], ResultReport)
        for name in set(files) - {"golden.json"}:
            check_model_file(name, files[name])
        check_golden(files["golden.json"], columns)
    except ValueError as error:
        abort(400, f"the result is refused: {error}")
    return report, files
