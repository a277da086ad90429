// One job: its progress, losses and log while it runs, and its report at the end.

import { change, follow, get } from "./calls.js";
import { byId, node, showProblem } from "./dom.js";
import { named, short, t } from "./i18n.js";
import { lossChart } from "./losses.js";
import { describeReport } from "./report.js";

const MAX_LOG_LINES = 2000;

// Show the job and follow it until it has ended; return what stops that.
export function followJob(id) {
  const losses = lossChart();
  const parts = layout(id, losses.svg);
  byId("job").replaceChildren(...Object.values(parts));
  byId("job").hidden = false;
  byId("job").focus();
  let state = "";
  const stop = follow(`/jobs/${encodeURIComponent(id)}/events`, {
    open: () => { // perhaps not the first time: then the server sends everything again
      showProblem("");
      losses.clear();
      parts.log.querySelector("pre").textContent = "";
    },
    epoch: (data) => losses.add(JSON.parse(data)),
    log: (text) => addLog(parts, text.split("\n")),
    progress: (data) => showProgress(parts, JSON.parse(data)),
    state: (data) => {
      const job = JSON.parse(data);
      state = job.state;
      showState(parts, id, job);
      if (isOpen(state)) return;
      stop(); // or the browser would ask again for a stream that has ended
      showReport(parts, id);
    },
  }, (problem) => isOpen(state) && showProblem(problem));
  return () => {
    stop();
    losses.stop();
  };
}

const isOpen = (state) => ["", "queued", "running"].includes(state);

function layout(id, chart) {
  return {
    head: node("h2", {}, t("job.title", { id }), " ", node("span", { class: "state" })),
    about: node("p", { role: "status" }),
    bar: node("progress", { hidden: true, "aria-label": t("job.epochs") }),
    chart,
    report: node("div"),
    actions: node("p", { class: "actions" }),
    log: node("details", {}, node("summary", {}, t("job.log")), node("pre", { tabindex: 0 })),
  };
}

function showState({ head, about, actions, bar, log }, id, { state, reason }) {
  const badge = head.querySelector(".state");
  badge.textContent = named("state", state);
  badge.className = `state ${state}`;
  if (reason || state === "queued") about.textContent = reason ?? t("job.waiting");
  if (state === "running" && bar.hidden) about.textContent = t("job.starting");
  if (!isOpen(state)) bar.hidden = true;
  if (state === "failed") log.open = true;
  const cancel = node("button", { type: "button", class: "plain", onclick: () => end(id) }, t("job.cancel"));
  actions.replaceChildren(...(isOpen(state) ? [cancel] : []));
}

async function end(id) {
  try {
    await change("DELETE", `/jobs/${encodeURIComponent(id)}`);
  } catch (error) {
    showProblem(error.message);
  }
}

function showProgress({ about, bar }, { epoch, epochs, loss, val_loss }) {
  if (!epoch) return;
  about.textContent = t("job.epoch", { epoch, epochs, loss: short(loss), validation: short(val_loss) });
  bar.hidden = false;
  bar.max = epochs;
  bar.value = epoch;
}

function addLog({ log }, lines) {
  const text = log.querySelector("pre");
  const kept = [...text.textContent.split("\n"), ...lines].slice(-MAX_LOG_LINES);
  text.textContent = kept.join("\n").trimStart();
  text.scrollTop = text.scrollHeight;
}

async function showReport({ report, about }, id) {
  try {
    const job = await get(`/jobs/${encodeURIComponent(id)}`);
    if (!job.report) return;
    about.textContent = job.reason;
    report.replaceChildren(...describeReport(job, job.report));
  } catch (error) {
    showProblem(error.message);
  }
}
