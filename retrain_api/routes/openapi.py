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
from retrain_api.registry.versions import VersionReport
from retrain_api.routes import views
from retrain_api.routes.job_form import DEPLOY, MAX_EPOCHS

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
FILE: Schema = {"type": "string", "format": "binary"}
WHOLE: Schema = {"type": "integer"}
FILES = ["model.keras", "model.tflite", "golden.json", "report.json"]
SCHEMAS = {"application/json": {"type": "object"}, "application/octet-stream": FILE, "*/*": FILE}
STRUCTS = [views.ErrorAnswer, views.JobSummary, views.JobView, views.JobList, views.ModelList]
STRUCTS += [views.CurrentModel, views.DeletedModel, views.Health, ReplicaStatus, ServedVersion]
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
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": TEXT | {"pattern": "^[!-~]{1,200}$"},
    "description": "a repeat with the same key is the first job",
}
LIMIT = {"name": "limit", "in": "query", "schema": WHOLE | {"minimum": 1, "maximum": 9999}}

openapi = Blueprint("openapi", __name__)


@openapi.get("/openapi.json")
def description() -> ResponseReturnValue:
    return DESCRIPTION


def content(body: type | str) -> Schema:
    """Describe a body: a struct as JSON, or another media type."""
    if isinstance(body, str):
        return {body: {"schema": SCHEMAS.get(body, TEXT)}}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}


def in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def call(summary: str, answer: type | str, *parameters: Schema, **more: Any) -> Schema:
    """Describe one call, whose success is `answer`: a struct, or another media type."""
    code, headers = more.pop("code", "200"), more.pop("headers", {})
    success = {"description": "done", "content": content(answer), "headers": headers}
    wrong = "what is wrong, and what to send instead"
    failure = {"description": wrong, "content": content(views.ErrorAnswer)}
    responses = {code: success, "default": failure}
    return {"summary": summary, "parameters": list(parameters), "responses": responses} | more


def schemas() -> dict[str, Schema]:
    """Return a JSON schema for each struct, by its name."""
    _, found = msgspec.json.schema_components(STRUCTS, ref_template="#/components/schemas/{name}")
    text = json.dumps(found).replace("\\\\Z", "$")  # JSON Schema has the patterns of JavaScript
    components: dict[str, Schema] = json.loads(text)
    return components


JOB_ID = in_path("job_id", TEXT)
VERSION = in_path("version", WHOLE | {"minimum": 0})
FILE_NAME = in_path("name", {"enum": FILES})
REPLICA_NAME = in_path("name", TEXT | {"pattern": r"^[A-Za-z0-9_.:-]{1,100}$"})
STREAM, PLAIN, BYTES = "text/event-stream", "text/plain", "application/octet-stream"
NEWS = "its states, epochs, progress and lines of log as they come, until it has ended"
REPORT = "a replica of `model` reports what it serves; the answer is what it has to serve"
STATUS = {"required": True, "content": content(ReplicaStatus)}
HEALTH = call("whether broker and disk are well", views.Health)
HEALTH["responses"]["503"] = HEALTH["responses"]["200"] | {"description": "they are not"}
PATHS: dict[str, dict[str, Schema]] = {
    "/jobs": {
        "get": call("the newest jobs", views.JobList, LIMIT),
        "post": call(
            "train on data, from scratch or from a model",
            views.JobView,
            KEY,
            code="202",
            headers={"Location": {"schema": TEXT, "description": "the job"}},
            requestBody={"required": True, "content": {"multipart/form-data": {"schema": UPLOAD}}},
        ),
    },
    "/jobs/{job_id}": {
        "get": call("one job", views.JobView, JOB_ID),
        "delete": call("cancel it, which ends its container", views.JobView, JOB_ID),
    },
    "/jobs/{job_id}/events": {"get": call(NEWS, STREAM, JOB_ID)},
    "/jobs/{job_id}/log": {"get": call("what its training printed", PLAIN, JOB_ID)},
    "/models": {"get": call("all versions", views.ModelList)},
    "/models/current": {"get": call("the current version, and its replicas", views.CurrentModel)},
    "/models/current/replicas/{name}": {
        "put": call(REPORT, ServedVersion, REPLICA_NAME, requestBody=STATUS)
    },
    "/models/{version}": {
        "get": call("the report of a version", VersionReport, VERSION),
        "delete": call("remove it", views.DeletedModel, VERSION),
    },
    "/models/{version}/deploy": {"post": call("serve it", views.CurrentModel, VERSION)},
    "/models/{version}/{name}": {"get": call("one of its files", BYTES, VERSION, FILE_NAME)},
    "/live/events": {"get": call("numbers each second, for the page", STREAM)},
    "/": {"get": call("the page", "text/html")},
    "/d3.js": {"get": call("the library of its charts", "text/javascript")},
    "/static/{filename}": {"get": call("the files of the page", "*/*", in_path("filename", TEXT))},
    "/healthz": {"get": HEALTH},
    "/openapi.json": {"get": call("this description", "application/json")},
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
