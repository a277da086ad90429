// The live view: numbers and charts that the server sends each second while the view is visible.

import { follow } from "./calls.js";
import { drawError, drawHistogram, drawPairs } from "./charts.js";
import { byId, node, showProblem, write } from "./dom.js";
import { day, named, short, t, whole } from "./i18n.js";

const MAX_VERSIONS = 4; // listed below the chart

let charts;

export function start() {
  const redraw = () => charts && showCharts(charts);
  addEventListener("resize", redraw);
  const handlers = {
    numbers: (data) => showNumbers(JSON.parse(data)),
    charts: (data) => showCharts((charts = JSON.parse(data))),
  };
  const stop = follow("/live/events", handlers, showProblem);
  return () => {
    stop();
    removeEventListener("resize", redraw);
  };
}

function showNumbers(numbers) {
  showProblem(numbers.problem ?? "");
  if (numbers.problem) return;
  write("error", short(numbers.error));
  write("rolling", numbers.rolling ? t("live.rolling", { count: numbers.rolling }) : "");
  write("version", numbers.version ?? "–");
  write("per-minute", whole(numbers.per_minute));
  write("pending", whole(numbers.counts?.pending));
  write("dead", whole(numbers.queues.dead ?? 0));
  byId("dead").classList.toggle("bad", numbers.queues.dead > 0);
  const backlog = Object.entries(numbers.queues).map(([name, count]) =>
    node("li", {}, name, node("b", {}, whole(count))),
  );
  byId("queues").replaceChildren(...backlog);
}

function showCharts({ error, marks, news, histogram, pairs }) {
  drawError(byId("error-chart"), error, marks, news);
  drawHistogram(byId("histogram"), histogram);
  drawPairs(byId("pairs"), pairs);
  write("histogram-rows", histogramRows(histogram));
  listVersions(marks);
  listEvents(news);
}

function histogramRows({ counts, beyond }) {
  const rows = counts.reduce((sum, count) => sum + count, beyond);
  const parts = [t("live.histogramRows", { count: rows }), beyond && t("live.beyond", { count: beyond })];
  return rows ? parts.filter(Boolean).join("; ") : "";
}

function listVersions(marks) {
  const items = marks.slice(-MAX_VERSIONS).reverse().map(({ at, version, rows, error }) =>
    node("li", {}, node("time", {}, t("live.since", { time: day(at * 1000) })), t("live.versionError", {
      version: String(version ?? t("live.versionUnknown")), error: short(error), count: rows })),
  );
  byId("versions").replaceChildren(...items);
}

function listEvents(events) {
  byId("events-card").hidden = events.length === 0;
  const items = [...events].reverse().map(({ at, event, text }) =>
    node("li", {}, node("time", { datetime: at }, day(at)),
      node("span", { class: "state" }, named("event", event)), " ", text),
  );
  byId("events").replaceChildren(...items);
}
