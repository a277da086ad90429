"""The description of the API in OpenAPI 3.1, for programs: GET /openapi.json.

The schemas are generated from the structs that are sent and received. The workers' own calls are
left out: they are between two parts of this project.
"""

import json
from typing import Any

import msgspec
from flask import Blueprint
from flask.typing import ResponseReturnValue

from common.worker_api import ReplicaStatus, ServedVersion
from retrain_api.registry.report import VersionReport
from retrain_api.routes import views
from retrain_api.routes.job_form import DEPLOY, MAX_EPOCHS

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
FILE: Schema = {"type": "string", "format": "binary"}
WHOLE: Schema = {"type": "integer"}
STRUCTS = (
    views.ErrorAnswer,
    views.JobSummary,
    views.JobView,
    views.JobList,
    views.ModelList,
    views.CurrentModel,
    views.DeletedModel,
    views.Health,
    VersionReport,
    ReplicaStatus,
    ServedVersion,
)
FILES = ["model.keras", "model.tflite", "golden.json", "report.json"]
UPLOAD: Schema = {
    "type": "object",
    "properties": {
        "data": {
            "type": "array",
            "items": FILE,
            "description": "one CSV or several with the same columns",
        },
        "model": FILE | {"description": "a .keras or .h5 file to start from"},
        "target": TEXT | {"description": "a column; the last one, if not given"},
        "ignore": TEXT | {"description": "columns to leave out, with commas between"},
        "epochs": WHOLE | {"minimum": 1, "maximum": MAX_EPOCHS},
        "deploy": {"enum": list(DEPLOY)},
    },
    "required": ["data"],
}

openapi = Blueprint("openapi", __name__)


@openapi.get("/openapi.json")
def description() -> ResponseReturnValue:
    return DESCRIPTION


def schemas() -> dict[str, Schema]:
    """Return a JSON schema for each struct, by its name."""
    _, found = msgspec.json.schema_components(STRUCTS, ref_template="#/components/schemas/{name}")
    text = json.dumps(found).replace("\\\\Z", "$")  # JSON Schema has the patterns of JavaScript
    components: dict[str, Schema] = json.loads(text)
    return components


def ref(struct: type) -> Schema:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}


def content(schema: Schema, kind: str = "application/json") -> Schema:
    return {kind: {"schema": schema}}


def path_parameter(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def call(
    summary: str, answer: Schema, *parameters: Schema, kind: str = "application/json", **more: Any
) -> Schema:
    """Describe one call, whose success is `answer` in a body of this kind."""
    code, headers = more.pop("code", "200"), more.pop("headers", {})
    success = {"description": "done", "content": content(answer, kind), "headers": headers}
    failure = {
        "description": "what is wrong, and what to send instead",
        "content": content(ref(views.ErrorAnswer)),
    }
    responses = {code: success, "default": failure}
    return {"summary": summary, "parameters": list(parameters), "responses": responses} | more


JOB_ID = path_parameter("job_id", TEXT)
VERSION = path_parameter("version", WHOLE | {"minimum": 0})
REPLICA_NAME = path_parameter("name", TEXT | {"pattern": r"^[A-Za-z0-9_.:-]{1,100}$"})
LIMIT = {"name": "limit", "in": "query", "schema": WHOLE | {"minimum": 1, "maximum": 9999}}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": TEXT | {"pattern": "^[!-~]{1,200}$"},
    "description": "a repeat with the same key is the first job",
}
HEALTH = call("whether broker and disk are well", ref(views.Health))
HEALTH["responses"]["503"] = HEALTH["responses"]["200"] | {"description": "they are not"}
PATHS: dict[str, dict[str, Schema]] = {
    "/jobs": {
        "get": call("the newest jobs", ref(views.JobList), LIMIT),
        "post": call(
            "train on data, from scratch or from a model",
            ref(views.JobView),
            KEY,
            code="202",
            headers={"Location": {"schema": TEXT, "description": "the job"}},
            requestBody={"required": True, "content": content(UPLOAD, "multipart/form-data")},
        ),
    },
    "/jobs/{job_id}": {
        "get": call("one job", ref(views.JobView), JOB_ID),
        "delete": call("cancel it, which ends its container", ref(views.JobView), JOB_ID),
    },
    "/jobs/{job_id}/events": {
        "get": call(
            "its states, epochs, progress and lines of log as they come, until it has ended",
            TEXT,
            JOB_ID,
            kind="text/event-stream",
        )
    },
    "/jobs/{job_id}/log": {
        "get": call("what its training printed", TEXT, JOB_ID, kind="text/plain")
    },
    "/models": {"get": call("all versions", ref(views.ModelList))},
    "/models/current": {
        "get": call("the current version, and its replicas", ref(views.CurrentModel))
    },
    "/models/current/replicas/{name}": {
        "put": call(
            "a replica of `model` reports what it serves; the answer is what it has to serve",
            ref(ServedVersion),
            REPLICA_NAME,
            requestBody={"required": True, "content": content(ref(ReplicaStatus))},
        )
    },
    "/models/{version}": {
        "get": call("the report of a version", ref(VersionReport), VERSION),
        "delete": call("remove it", ref(views.DeletedModel), VERSION),
    },
    "/models/{version}/deploy": {"post": call("serve it", ref(views.CurrentModel), VERSION)},
    "/models/{version}/{name}": {
        "get": call(
            "one of its files",
            FILE,
            VERSION,
            path_parameter("name", {"enum": FILES}),
            kind="application/octet-stream",
        )
    },
    "/live/events": {
        "get": call("numbers each second, for the page", TEXT, kind="text/event-stream")
    },
    "/": {"get": call("the page", TEXT, kind="text/html")},
    "/d3.js": {"get": call("the library of its charts", TEXT, kind="text/javascript")},
    "/static/{filename}": {
        "get": call("the files of the page", FILE, path_parameter("filename", TEXT), kind="*/*")
    },
    "/healthz": {"get": HEALTH},
    "/openapi.json": {"get": call("this description", {"type": "object"})},
}
DESCRIPTION = {
    "openapi": "3.1.0",
    "info": {"title": "Retraining", "version": "1", "description": __doc__},
    "paths": PATHS,
    "components": {
        "schemas": schemas(),
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
    "security": [{}, {"token": []}],
}
