"""Server-sent events: news as they come, for the page and for `curl -N`.

    GET /live/events        numbers, each second; charts, when there is something new to draw
    GET /jobs/<id>/events   state, progress, epochs, lines of the log; at last the final state

A listener that comes late gets every epoch of the running or last attempt. A new attempt starts
again with a low epoch, after its state.
"""

import json
import time

import msgspec
from flask import Blueprint
from flask.typing import ResponseReturnValue

from retrain_api.jobs.records import JobRecord
from retrain_api.jobs.store import JobStore
from retrain_api.live.viewers import LiveFeed
from retrain_api.routes.log_lines import new_lines
from retrain_api.routes.streams import COMMENT, Events, Shutdown, event, stream
from retrain_api.services import services

POLL_SECONDS = 1  # between two looks at a job
QUIET_POLLS = 10  # then a comment is sent, which shows whether anybody listens

events = Blueprint("events", __name__)


@events.get("/live/events")
def live() -> ResponseReturnValue:
    return stream(live_events(services().live))


@events.get("/jobs/<job_id>/events")
def job(job_id: str) -> ResponseReturnValue:
    services().jobs.get(job_id)  # 404 if there is none
    return stream(job_events(services().jobs, job_id))


def live_events(feed: LiveFeed) -> Events:
    sent: dict[str, bytes] = {}
    with feed.watched():
        while not Shutdown.started:
            newest = feed.wait(POLL_SECONDS)
            new = {name: body for name, body in newest.items() if body is not sent.get(name)}
            yield "".join(event(name, body.decode()) for name, body in new.items()) or COMMENT
            sent = newest


def job_events(jobs: JobStore, job_id: str) -> Events:
    news, quiet = JobNews(jobs, job_id), 0
    while not (news.ended or Shutdown.started):
        text = news.collect()
        quiet = 0 if text else quiet + 1
        if text or quiet % QUIET_POLLS == 0:
            yield text or COMMENT
        if not news.ended:
            time.sleep(POLL_SECONDS)


class JobNews:
    """What one listener of a job has not received yet."""

    def __init__(self, jobs: JobStore, job_id: str) -> None:
        self.jobs, self.job_id, self.ended = jobs, job_id, False
        self.sent: dict[str, str] = {}  # the newest progress and state
        self.log, self.attempt, self.epoch = "", 0, -1

    def collect(self) -> str:
        """Return the events since the last call; the state comes first, but the final one last."""
        job = self.jobs.get(self.job_id)
        self.ended = not job.active
        state = self.changed("state", describe_state(job))
        progress = self.changed("progress", json.dumps(job.progress) if job.progress else "")
        news = self.epochs(job) + progress + self.lines(job)
        return news + state if self.ended else state + news

    def changed(self, name: str, data: str) -> str:
        before, self.sent[name] = self.sent.get(name), data
        return event(name, data) if data and data != before else ""

    def epochs(self, job: JobRecord) -> str:
        if job.attempt != self.attempt:
            self.attempt, self.epoch = job.attempt, -1
        epochs = self.jobs.epochs_after(self.job_id, self.epoch)
        self.epoch = epochs[-1].epoch if epochs else self.epoch
        return "".join(event("epoch", msgspec.json.encode(epoch).decode()) for epoch in epochs)

    def lines(self, job: JobRecord) -> str:
        log = "" if job.purged else self.jobs.log(self.job_id)
        lines, self.log = new_lines(log, self.log, self.ended)
        return event("log", lines) if lines else ""


def describe_state(job: JobRecord) -> str:
    state = {"state": job.state, "attempt": job.attempt, "version": job.version}
    return json.dumps(state | {"reason": job.reason}, ensure_ascii=False)
