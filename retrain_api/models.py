"""The calls on models: what there is, what serves, the files, another one to be served."""

import json
import re
import threading
import time
from datetime import UTC, datetime

from flask import Blueprint, abort, current_app, request, send_file

from retrain_api import handed_in

SILENT_SECONDS = 60  # a replica of `model` that says nothing for so long is not listed
MOST_REPLICAS = 1000
FILES = "'model.keras', 'model.tflite', 'golden.json', 'report.json'"

VERSION = "<int(max=999999999):version>"

models = Blueprint("models", __name__)


class Replicas:
    """What the replicas of `model` said that they serve; they say it every 10 s."""

    def __init__(self):
        self.said, self.lock = {}, threading.Lock()

    def note(self, name: str, said: dict) -> None:
        with self.lock:
            self.forget()
            if name not in self.said and len(self.said) >= MOST_REPLICAS:
                abort(400, f"more than {MOST_REPLICAS} replicas; give each one name, and keep it")
            seen = datetime.now(UTC).isoformat(timespec="seconds")
            self.said[name] = (time.monotonic(), said | {"seen": seen})

    def listed(self) -> dict:
        with self.lock:
            self.forget()
            return {name: said for name, (_, said) in sorted(self.said.items())}

    def forget(self) -> None:
        old = time.monotonic() - SILENT_SECONDS
        self.said = {name: said for name, said in self.said.items() if said[0] > old}


def versions():
    return current_app.extensions["versions"]


@models.get("/models")
def every():
    return {"current": versions().current(), "models": versions().reports()}


@models.get("/models/current")
def current():
    version = versions().current()
    replicas = current_app.extensions["replicas"].listed()
    return {"version": version, "replicas": replicas, "report": versions().report(version)}


@models.get(f"/models/{VERSION}")
def one(version):
    return versions().report(version)


@models.get(f"/models/{VERSION}/<any({FILES}):name>")
def file(version, name):
    path = versions().file(version, name)
    kind = "application/json" if name.endswith(".json") else "application/octet-stream"
    return send_file(path.absolute(), mimetype=kind, download_name=f"v{version}-{name}")


@models.post(f"/models/{VERSION}/deploy")
def deploy(version):
    versions().deploy(version)
    current_app.extensions["keeper"].wake.set()
    return current()


@models.delete(f"/models/{VERSION}")
def delete(version):
    versions().delete(version)
    return {"deleted": version, "current": versions().current()}


@models.put("/models/current/replicas/<name>")
def replica(name):
    if not re.fullmatch(r"[\w.:-]{1,100}", name, re.ASCII):
        abort(400, "the name of a replica has 1 to 100 letters, digits or . : - _")
    try:
        said = serving(handed_in.loads(request.get_data()))
    except ValueError as error:
        abort(400, f"{error}; send {json.dumps({'serves': 1, 'refused': None})}")
    current_app.extensions["replicas"].note(name, said)
    version = versions().current()
    return {"version": version, "sha256": versions().sha256(version)}


def serving(value) -> dict:
    said = handed_in.known(value, ("serves",), handed_in.count)
    if said["serves"] is None:
        raise ValueError("serves is to be the number of a version")
    refused = value.get("refused")
    if refused is not None:
        refused = handed_in.known(refused, ("version",), handed_in.count) | handed_in.known(
            refused, ("reason",), handed_in.text
        )
        if None in refused.values():
            raise ValueError("refused is to have the number of a version, and a reason")
    return said | {"refused": refused}
