"""What the API takes and gives, in the words of OpenAPI 3.1, for programs: GET /openapi.json.

The workers' own calls are not in it: they are between two halves of this project.
"""

TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
FLAG, MOMENT = {"type": "boolean"}, {"type": "string", "format": "date-time"}
FILE = {"type": "string", "format": "binary"}


def ref(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: dict) -> dict:
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: dict) -> dict:
    return {"type": "array", "items": schema}


def record(**properties: dict) -> dict:
    """Return the schema of an object that has all these properties, and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


SCHEMAS = {
    "Error": record(error=TEXT),
    "State": {"enum": ["queued", "running", "succeeded", "failed", "cancelled"]},
    "Brief": record(
        id=TEXT,
        state=ref("State"),
        reason=or_null(TEXT),
        version=or_null(WHOLE),
        attempt=WHOLE,
        worker=or_null(TEXT),
        progress=or_null({"type": "object"}),
        created=MOMENT,
        started=or_null(MOMENT),
        finished=or_null(MOMENT),
    ),
    "Job": {
        "allOf": [
            ref("Brief"),
            record(
                containers=or_null({"type": "object"}),
                columns=many(TEXT),
                target=TEXT,
                rows=WHOLE,
                hold_out_rows=WHOLE,
                epochs=or_null(WHOLE),
                model=or_null(TEXT),
                deploy=ref("Deploy"),
                report=or_null(ref("Report")),
            ),
        ]
    },
    "Deploy": {"enum": ["if_better", "always", "never"]},
    "Report": record(version=WHOLE, why=TEXT),
    "Current": record(version=WHOLE, replicas={"type": "object"}, report=ref("Report")),
    "Health": record(ok=FLAG, broker=FLAG, disk_free_bytes=WHOLE, queued=WHOLE, running=WHOLE),
}
UPLOAD = {
    "type": "object",
    "properties": {
        "data": many(FILE) | {"description": "one CSV or several with the same columns"},
        "model": FILE | {"description": "a .keras or .h5 file to go on from"},
        "target": TEXT | {"description": "a column; the last one, if not given"},
        "ignore": TEXT | {"description": "columns to leave out, with commas between"},
        "epochs": WHOLE | {"minimum": 1, "maximum": 10_000},
        "deploy": ref("Deploy"),
    },
    "required": ["data"],
}
SERVING = record(serves=WHOLE | {"minimum": 0})
SERVING["properties"]["refused"] = or_null(record(version=WHOLE, reason=TEXT))
ID = {"name": "id", "in": "path", "required": True, "schema": TEXT}
VERSION = {"name": "version", "in": "path", "required": True, "schema": WHOLE | {"minimum": 0}}


def call(does: str, gives: dict | None, *parameters: dict, kind="application/json", **more) -> dict:
    """Describe one call, whose success is `gives` in a body of this kind."""
    code, headers = more.pop("code", "200"), more.pop("headers", {})
    content = {kind: {"schema": gives}} if gives else {}
    error = {"application/json": {"schema": ref("Error")}}
    answers = {
        code: {"description": "done", "content": content, "headers": headers},
        "default": {"description": "what is wrong, and what to send instead", "content": error},
    }
    return {"summary": does, "parameters": list(parameters), "responses": answers} | more


def path_of(name: str, schema: dict) -> dict:
    return {"name": name, "in": "path", "required": True, "schema": schema}


LIMIT = {"name": "limit", "in": "query", "schema": WHOLE | {"minimum": 1, "maximum": 9999}}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": TEXT | {"pattern": "^[!-~]{1,200}$"},
    "description": "a repeat with the same key is the first job",
}
HEALTH = call("is it well, with its broker and its disk", ref("Health"))
HEALTH["responses"]["503"] = HEALTH["responses"]["200"] | {"description": "it is not"}
FILES = ["model.keras", "model.tflite", "golden.json", "report.json"]
PATHS = {
    "/jobs": {
        "get": call("the newest jobs", record(jobs=many(ref("Brief"))), LIMIT),
        "post": call(
            "train on data, and perhaps on from a model",
            ref("Job"),
            KEY,
            code="202",
            headers={"Location": {"schema": TEXT, "description": "the job"}},
            requestBody={"required": True, "content": {"multipart/form-data": {"schema": UPLOAD}}},
        ),
    },
    "/jobs/{id}": {
        "get": call("one job", ref("Job"), ID),
        "delete": call("cancel it, which ends its container", ref("Job"), ID),
    },
    "/jobs/{id}/events": {
        "get": call(
            "its states, progress and lines of log as they come, until it has ended",
            TEXT,
            ID,
            kind="text/event-stream",
        )
    },
    "/jobs/{id}/log": {"get": call("what its training printed", TEXT, ID, kind="text/plain")},
    "/models": {
        "get": call("all versions", record(current=WHOLE, models=many(ref("Report")))),
    },
    "/models/current": {"get": call("what serves, and where", ref("Current"))},
    "/models/current/replicas/{name}": {
        "put": call(
            "a replica of `model` tells what it serves, and is told what to serve",
            record(version=WHOLE, sha256=or_null(TEXT)),
            path_of("name", TEXT | {"pattern": r"^[A-Za-z0-9_.:-]{1,100}$"}),
            requestBody={"required": True, "content": {"application/json": {"schema": SERVING}}},
        )
    },
    "/models/{version}": {
        "get": call("the report of a version", ref("Report"), VERSION),
        "delete": call("remove it", record(deleted=WHOLE, current=WHOLE), VERSION),
    },
    "/models/{version}/deploy": {"post": call("serve it", ref("Current"), VERSION)},
    "/models/{version}/{name}": {
        "get": call(
            "one of its files",
            FILE,
            VERSION,
            path_of("name", {"enum": FILES}),
            kind="application/octet-stream",
        )
    },
    "/live/events": {
        "get": call("numbers each second, for the page", TEXT, kind="text/event-stream")
    },
    "/": {"get": call("the page", TEXT, kind="text/html")},
    "/d3.js": {"get": call("what draws its charts", TEXT, kind="text/javascript")},
    "/static/{filename}": {
        "get": call("the files of the page", FILE, path_of("filename", TEXT), kind="*/*")
    },
    "/healthz": {"get": HEALTH},
    "/openapi.json": {"get": call("this description", {"type": "object"})},
}
DESCRIPTION = {
    "openapi": "3.1.0",
    "info": {"title": "Retraining", "version": "1", "description": __doc__},
    "paths": PATHS,
    "components": {
        "schemas": SCHEMAS,
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
    "security": [{}, {"token": []}],
}
