"""The retraining API as a process, and what its clients and its workers say to it."""

import json
import os
import random
import threading
from pathlib import Path

import pika
import requests

from tests.support.ports import free_port
from tests.support.service import Service
from tests.support.waiting import wait_for

NO_BROKER = "amqp://guest:guest@127.0.0.1:1/%2F"
KERAS = b"PK\x03\x04 and so on: it is never opened"
TFLITE = b"\x1c\0\0\0TFL3 and so on"
MAE = {"challenger": 40.0, "champion": 44.0, "mean": 66.0}


def csv_text(rows: int = 60, columns: int = 10) -> str:
    """Return a CSV whose last column, `y`, is the target."""
    draw = random.Random(rows)
    lines = [",".join([*(f"x{i}" for i in range(columns)), "y"])]
    lines += [",".join(f"{draw.random():.6f}" for _ in range(columns + 1)) for _ in range(rows)]
    return "\n".join(lines) + "\n"


def write_large_csv(path: Path, size: int) -> Path:
    """Write a CSV of at least `size` bytes, and return its path."""
    header, rows = csv_text(rows=20_000).split("\n", 1)
    with path.open("w") as file:
        file.write(header + "\n")
        while file.tell() < size:
            file.write(rows)
    return path


def epoch(number: int, epochs: int = 3, loss: float | None = None, val_loss: float | None = None):
    """Return one epoch of a progress report."""
    return {"epoch": number, "epochs": epochs, "loss": loss, "val_loss": val_loss}


def report(**changes) -> dict:
    """Return the report of a result; `changes` replace some of it."""
    regions = [{"file": "a.csv", "rows": 12} | MAE]
    training = {"started_from": "scratch", "epochs_run": 3, "seconds": 1.5, "parameters": 99}
    return {
        "scores": {"inputs": 10, "outputs": 1, "mae": MAE, "regions": regions},
        "compared_with": 0,
        "training": training | {"keras": "3", "tensorflow": "2", "why_no_tflite": None},
        "containers": {"training": "c1", "scoring": "c2"},
    } | changes


def result_files(columns: int = 10, **changes) -> dict:
    """Return the files of a result; None for a name leaves it out."""
    golden = json.dumps({"rows": [[0.5] * columns] * 3, "predictions": [1.0, 2.0, 3.0]})
    files = {"model.keras": KERAS, "model.tflite": TFLITE, "golden.json": golden.encode()}
    files |= {name.replace("_", "."): content for name, content in changes.items()}
    return {name: (name, content) for name, content in files.items() if content is not None}


class Api:
    """One API on a data folder of its own; `with` stops it at the end."""

    def __init__(self, folder: Path, broker=None, **settings):
        self.data, self.url = folder / "data", f"http://127.0.0.1:{(port := free_port())}"
        environment = {
            "API_PORT": str(port),
            "AMQP_URL": broker.url if broker else NO_BROKER,
            "DATA_DIR": str(self.data),
            "WORKER_SECRET_FILE": str(self.data / "worker_secret"),
        } | {name: str(value) for name, value in settings.items()}
        self.process = Service("retrain_api", folder / "api.log", environment, supervised=False)
        self.wait_until_up()

    def wait_until_up(self) -> None:
        wait_for(self.is_up, 30, "the API")

    def is_up(self) -> bool:
        try:
            return self.get("/jobs").ok
        except requests.ConnectionError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        if self.process.process.poll() is None:
            self.process.stop()

    def start_again(self, **settings) -> None:
        self.process.environment |= {name: str(value) for name, value in settings.items()}
        self.process.start()
        self.wait_until_up()

    def call(self, method: str, path: str, **more) -> requests.Response:
        with requests.Session() as session:  # one for each call: threads share nothing
            session.trust_env = False
            return session.request(method, self.url + path, timeout=60, **more)

    def get(self, path: str, **more) -> requests.Response:
        return self.call("GET", path, **more)

    def upload(self, fields: dict | None = None, columns: int = 10, **more) -> requests.Response:
        files = {"data": ("a.csv", csv_text(columns=columns))} | more.pop("files", {})
        return self.call("POST", "/jobs", data=fields, files=files, **more)

    def new_job(self, **fields) -> str:
        return self.upload(fields, fields.pop("columns", 10)).json()["id"]

    def job(self, job_id: str) -> dict:
        return self.get(f"/jobs/{job_id}").json()

    def wait_for_state(self, job_id: str, state: str) -> dict:
        return wait_for(lambda: (job := self.job(job_id))["state"] == state and job, 30, state)

    def work(self, method: str, path: str, **more) -> requests.Response:
        """Call as a worker does."""
        secret = (self.data / "worker_secret").read_text().strip()
        headers = {"Authorization": f"Bearer {secret}"} | more.pop("headers", {})
        return self.call(method, f"/worker/jobs/{path}", headers=headers, **more)

    def claim(self, job_id: str, worker: str = "w1") -> requests.Response:
        return self.work("POST", f"{job_id}/claim", json={"worker": worker})

    def progress(self, job_id: str, attempt: int, **news) -> requests.Response:
        return self.work("PUT", f"{job_id}/{attempt}/progress", json=news)

    def result(self, job_id: str, attempt: int, columns: int = 10, files=None, **changes):
        form = {"report": json.dumps(report(**changes))}
        files = files or result_files(columns)
        return self.work("POST", f"{job_id}/{attempt}/result", data=form, files=files)

    def version(self, **fields) -> int:
        """Have a job trained, and return its version."""
        job_id = self.new_job(**{"deploy": "always"} | fields)
        self.claim(job_id)
        return self.result(job_id, 1).json()["version"]

    def pid(self) -> int:
        """Return the process that serves, a child of gunicorn's first one."""
        pid = self.process.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def busy_seconds(self) -> float:
        """Return the processor time that the serving process took."""
        stat = Path(f"/proc/{self.pid()}/stat").read_text()
        user, system = stat.rsplit(")")[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def stored(self) -> dict[str, int]:
        """Return the files in the data folder, with their sizes."""
        passing = ("-wal", "-shm")  # SQLite's, there while somebody reads
        return {
            str(path.relative_to(self.data)): path.stat().st_size if path.is_file() else -1
            for path in self.data.rglob("*")
            if not path.name.endswith(passing)
        }


def retrain(url: str, table: Path, **fields) -> dict:
    """Have a network trained by whatever API is at `url`; return the job when it has ended."""
    with requests.Session() as session, table.open("rb") as file:
        session.trust_env = False
        answer = session.post(f"{url}/jobs", data=fields, files={"data": file}, timeout=60)
        assert answer.status_code == 202, answer.text

        def job():
            job = session.get(f"{url}/jobs/{answer.json()['id']}", timeout=60).json()
            return job["state"] not in ("queued", "running") and job

        return wait_for(job, 300, "the end of the job")


def next_version(amqp_url: str) -> int:
    """Return the version that predicted the next row on `errors`."""
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        _, _, body = next(channel.consume("errors", arguments={"x-stream-offset": "next"}))
        channel.cancel()
    return json.loads(body)["model_version"]


def at_once(count: int, call) -> list:
    """Call from `count` threads at the same time; return what came back."""
    together, answers = threading.Barrier(count), []

    def one(number):
        together.wait()
        answers.append(call(number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
