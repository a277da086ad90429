"""The calls on models: what there is, what serves, the files, another one to be deployed."""

import re

from flask import Blueprint, abort, request, send_file
from flask.typing import ResponseReturnValue

from common.worker_api import ReplicaStatus, ServedVersion
from retrain_api.routes.decoding import decode
from retrain_api.routes.views import CurrentModel, DeletedModel, ModelList, as_json
from retrain_api.services import services

FILES = "'model.keras', 'model.tflite', 'golden.json', 'report.json'"
VERSION = "<int(max=999999999):version>"

models = Blueprint("models", __name__)


@models.get("/models")
def every() -> ResponseReturnValue:
    versions = services().versions
    return as_json(ModelList(versions.current(), versions.reports()))


@models.get("/models/current")
def current() -> ResponseReturnValue:
    versions, replicas = services().versions, services().replicas.listed()
    version = versions.current()
    return as_json(CurrentModel(version, replicas, versions.report(version)))


@models.get(f"/models/{VERSION}")
def one(version: int) -> ResponseReturnValue:
    return as_json(services().versions.report(version))


@models.get(f"/models/{VERSION}/<any({FILES}):name>")
def file(version: int, name: str) -> ResponseReturnValue:
    path = services().versions.file(version, name)
    kind = "application/json" if name.endswith(".json") else "application/octet-stream"
    return send_file(path.absolute(), mimetype=kind, download_name=f"v{version}-{name}")


@models.post(f"/models/{VERSION}/deploy")
def deploy(version: int) -> ResponseReturnValue:
    services().versions.deploy(version)
    services().scheduler.wake.set()
    return current()


@models.delete(f"/models/{VERSION}")
def delete(version: int) -> ResponseReturnValue:
    services().versions.delete(version)
    return as_json(DeletedModel(version, services().versions.current()))


@models.put("/models/current/replicas/<name>")
def replica(name: str) -> ResponseReturnValue:
    if not re.fullmatch(r"[\w.:-]{1,100}", name, re.ASCII):
        abort(400, "the name of a replica has 1 to 100 letters, digits or . : - _")
    try:
        status = decode(request.get_data(), ReplicaStatus)
    except ValueError as error:
        abort(400, f'{error}; send {{"serves": 1, "refused": null}}')
    services().replicas.report(name, status)
    version = services().versions.current()
    return as_json(ServedVersion(version, services().versions.sha256(version)))
