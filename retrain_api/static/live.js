// What happens right now: the server tells it each second, as long as this part is shown.

import { follow } from "./calls.js";
import { drawError, drawHistogram, drawPairs } from "./charts.js";
import { byId, day, node, short, tell, whole, write } from "./dom.js";

const VERSIONS = 4; // listed below the chart

let charts;

export function start() {
  const redraw = () => charts && draw(charts);
  addEventListener("resize", redraw);
  const handlers = {
    numbers: (data) => tellNumbers(JSON.parse(data)),
    charts: (data) => draw((charts = JSON.parse(data))),
  };
  const stop = follow("/live/events", handlers, tell);
  return () => {
    stop();
    removeEventListener("resize", redraw);
  };
}

function tellNumbers(told) {
  tell(told.problem ?? "");
  if (told.problem) return;
  write("error", short(told.error));
  write("rolling", told.rolling ? ` of the last ${told.rolling} rows` : "");
  write("version", told.version ?? "–");
  write("per-minute", whole(told.per_minute));
  write("halves", whole(told.halves?.waiting));
  write("dead", whole(told.queues.dead ?? 0));
  byId("dead").classList.toggle("bad", told.queues.dead > 0);
  const waiting = Object.entries(told.queues).map(([name, count]) =>
    node("li", {}, name, node("b", {}, whole(count))),
  );
  byId("queues").replaceChildren(...waiting);
}

function draw(told) {
  drawError(byId("error-chart"), told.error, told.marks, told.news);
  drawHistogram(byId("histogram"), told.histogram);
  drawPairs(byId("pairs"), told.pairs);
  const shown = told.histogram.counts.reduce((sum, count) => sum + count, told.histogram.beyond);
  const beyond = told.histogram.beyond;
  const rest = beyond ? `; ${whole(beyond)} larger ones are not shown` : "";
  write("in-histogram", `of the last ${whole(shown)} rows${rest}`);
  listVersions(told.marks);
  listNews(told.news);
}

function listVersions(marks) {
  const items = marks.slice(-VERSIONS).reverse().map(({ at, version, rows, error }) =>
    node("li", {}, node("time", {}, `since ${day(at * 1000)}`),
      `version ${version ?? "unknown"}: mean error ${short(error)} on ${whole(rows)} rows`),
  );
  byId("versions").replaceChildren(...items);
}

function listNews(news) {
  byId("news-card").hidden = news.length === 0;
  const items = [...news].reverse().map((one) =>
    node("li", {}, node("time", { datetime: one.at }, day(one.at)), one.text),
  );
  byId("news").replaceChildren(...items);
}
