// One job: its progress and log as they come, and at the end its report.

import { change, follow, get } from "./calls.js";
import { drawLosses } from "./charts.js";
import { byId, node, short, tell, whole } from "./dom.js";

const EPOCH = /^epoch (\d+)\/\d+ {2}loss (\S+) {2}val_loss (\S+)$/;
const LOG_LINES = 2000; // shown, at most

// Show the job in its place and follow it until it has ended; return what stops that.
export function watch(id) {
  const place = byId("job");
  const parts = layout(id);
  place.replaceChildren(...Object.values(parts));
  place.hidden = false;
  place.focus();
  const losses = [];
  let state = "";
  const stop = follow(`/jobs/${encodeURIComponent(id)}/events`, {
    open: () => { // again, perhaps: then all is told from the beginning
      tell("");
      losses.length = 0;
      parts.log.querySelector("pre").textContent = "";
    },
    log: (text) => addLog(parts, losses, text.split("\n")),
    progress: (data) => tellProgress(parts, JSON.parse(data)),
    state: (data) => {
      const told = JSON.parse(data);
      state = told.state;
      tellState(parts, id, told);
      if (!isOpen(told)) {
        stop(); // else the browser would ask again for what has ended
        report(parts, id);
      }
    },
  }, (problem) => isOpen({ state }) && tell(problem));
  return stop;
}

const isOpen = ({ state }) => ["", "queued", "running"].includes(state);

function layout(id) {
  return {
    head: node("h2", {}, `Job ${id} `, node("span", { class: "state" })),
    about: node("p", { role: "status" }),
    bar: node("progress", { hidden: true, "aria-label": "Epochs" }),
    chart: emptyChart(),
    report: node("div"),
    actions: node("p", { class: "actions" }),
    log: node("details", {}, node("summary", {}, "Log of the training"), node("pre", { tabindex: 0 })),
  };
}

function emptyChart() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("role", "img");
  svg.setAttribute("hidden", "");
  return svg;
}

function tellState({ head, about, actions, bar, chart, log }, id, told) {
  const badge = head.querySelector(".state");
  badge.textContent = told.state;
  badge.className = `state ${told.state}`;
  if (told.reason || told.state === "queued") about.textContent = told.reason ?? "It waits for a worker.";
  if (told.state === "running" && !chart.childNodes.length) about.textContent = "A container is being started.";
  if (!isOpen(told)) bar.hidden = true;
  if (told.state === "failed") log.open = true;
  const cancel = node("button", { type: "button", class: "plain", onclick: () => end(id) }, "Cancel this job");
  actions.replaceChildren(...(isOpen(told) ? [cancel] : []));
}

async function end(id) {
  try {
    await change("DELETE", `/jobs/${encodeURIComponent(id)}`);
  } catch (error) {
    tell(error.message);
  }
}

function tellProgress({ about, bar }, { epoch, epochs, loss, val_loss }) {
  if (!epoch) return;
  about.textContent = `Epoch ${epoch} of ${epochs}: loss ${short(loss)}, in validation ${short(val_loss)}.`;
  bar.hidden = false;
  bar.max = epochs;
  bar.value = epoch;
}

// Add lines to the log, and the losses that they tell to the chart.
function addLog({ log, chart }, losses, lines) {
  const text = log.querySelector("pre");
  const kept = [...text.textContent.split("\n"), ...lines].slice(-LOG_LINES);
  text.textContent = kept.join("\n").trimStart();
  text.scrollTop = text.scrollHeight;
  for (const line of lines) {
    const found = EPOCH.exec(line)?.slice(1).map(Number);
    if (found?.every(Number.isFinite)) {
      if (losses.length && found[0] <= losses.at(-1)[0]) losses.length = 0; // another attempt
      losses.push(found);
    }
  }
  if (losses.length > 1) {
    chart.removeAttribute("hidden");
    drawLosses(chart, losses);
  }
}

async function report({ report: place, about }, id) {
  try {
    const job = await get(`/jobs/${encodeURIComponent(id)}`);
    if (job.report) {
      about.textContent = job.reason;
      place.replaceChildren(...describe(job, job.report));
    }
  } catch (error) {
    tell(error.message);
  }
}

// The errors side by side: of the new model, of the one that served, of always saying the mean.
function describe(job, { version, mae, regions, compared_with: champion, training }) {
  const head = ["Rows held out", "Rows", `New: version ${version}`, `Served then: version ${champion}`, "Always the mean"];
  const rows = mae ? [errors("all", job.hold_out_rows, mae)] : [];
  if (regions.length > 1) rows.push(...regions.map((region) => errors(region.file, region.rows, region)));
  const names = head.map((name, column) => node("th", { scope: "col", class: column ? "number" : "" }, name));
  const table = node("table", {}, node("thead", {}, node("tr", {}, ...names)), node("tbody", {}, ...rows));
  const facts = [
    `${whole(training.epochs_run)} epochs in ${short(training.seconds)} s`,
    `${whole(training.parameters)} parameters`,
    `started from ${training.started_from}`,
    `trained on ${whole(job.rows)} rows`,
  ];
  return [
    node("h3", {}, "Mean absolute error on rows that the training never saw"),
    rows.length ? node("div", { class: "scroll" }, table) : node("p", {}, "It was not scored."),
    node("ul", { class: "facts" }, ...facts.map((fact) => node("li", {}, fact))),
    node("p", {}, node("a", { href: "#models" }, "To all versions")),
  ];
}

function errors(name, rows, { challenger, champion, mean }) {
  const all = [challenger, champion, mean];
  const least = Math.min(...all.filter((error) => error != null));
  const cells = all.map((error) =>
    node("td", { class: error === least ? "number best" : "number" }, short(error)),
  );
  return node("tr", {}, node("th", { scope: "row" }, name), node("td", { class: "number" }, whole(rows)), ...cells);
}
