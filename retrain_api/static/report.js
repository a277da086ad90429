// The report of a job: errors of challenger, champion and baseline on the same hold-out.

import { node } from "./dom.js";
import { short, t, whole } from "./i18n.js";

export function describeReport(job, report) {
  const rows = errorRows(job, report);
  return [
    node("h3", {}, t("report.title")),
    rows.length ? node("div", { class: "scroll" }, table(report, rows)) : node("p", {}, t("report.notScored")),
    node("ul", { class: "facts" }, ...facts(job, report.training).map((fact) => node("li", {}, fact))),
    node("p", {}, node("a", { href: "#models" }, t("report.versions"))),
  ];
}

function errorRows(job, { mae, regions }) {
  const rows = mae ? [errorRow(t("report.all"), job.hold_out_rows, mae)] : [];
  if (regions.length > 1) rows.push(...regions.map((region) => errorRow(region.file, region.rows, region)));
  return rows;
}

function table({ version, compared_with: champion }, rows) {
  const names = [
    t("report.file"),
    t("report.rows"),
    t("report.challenger", { version: String(version) }),
    t("report.champion", { version: String(champion) }),
    t("report.mean"),
  ];
  const head = names.map((name, column) => node("th", { scope: "col", class: column ? "number" : "" }, name));
  return node("table", {}, node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...rows));
}

// One row of the table; the smallest error stands out.
function errorRow(name, rows, { challenger, champion, mean }) {
  const errors = [challenger, champion, mean];
  const least = Math.min(...errors.filter((error) => error != null));
  const cells = errors.map((error) =>
    node("td", { class: error === least ? "number best" : "number" }, short(error)),
  );
  return node("tr", {}, node("th", { scope: "row" }, name), node("td", { class: "number" }, whole(rows)), ...cells);
}

function facts(job, training) {
  const { started_from: model } = training;
  return [
    t("report.epochs", { count: training.epochs_run, seconds: short(training.seconds) }),
    t("report.parameters", { count: training.parameters }),
    model === "scratch" ? t("report.scratch") : t("report.startedFrom", { model }),
    t("report.trainedOn", { count: job.rows }),
  ];
}
