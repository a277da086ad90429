// The charts, as SVG by D3. Each is drawn anew whenever its numbers change; colours are in page.css.

import { short } from "./dom.js";

const { d3 } = window;
const MARGIN = { top: 18, right: 10, bottom: 22, left: 44 };

const NAME = 24; // pixels for a name such as v12

const TIME = d3.time.format.multi([
  [":%S", (time) => time.getSeconds()],
  ["%H:%M", (time) => time.getHours() || time.getMinutes()],
  ["%-d %b", () => true],
]);

// Draw the axes of an empty chart; return where its inside is and how numbers become pixels.
function frame(svg, x, y, { xLabel, yLabel, format }) {
  const { width, height } = svg.getBoundingClientRect();
  const inside = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  svg.replaceChildren();
  const group = d3.select(svg).append("g").attr("transform", `translate(${MARGIN.left},${MARGIN.top})`);
  x.range([0, inside.width]);
  y.range([inside.height, 0]);
  const across = d3.svg.axis().scale(x).orient("bottom").ticks(Math.max(2, width / 110)).tickSize(4);
  if (format) across.tickFormat(format);
  const up = d3.svg.axis().scale(y).orient("left").ticks(5).tickSize(-inside.width);
  group.append("g").attr("class", "axis").call(up);
  group.append("g").attr("class", "axis").attr("transform", `translate(0,${inside.height})`).call(across);
  label(group, inside.width, inside.height - 6, xLabel, "end");
  label(group, 0, -7, yLabel, "start");
  return { group, ...inside };
}

function label(group, x, y, text, anchor) {
  if (text) group.append("text").attr("x", x).attr("y", y).attr("text-anchor", anchor).text(text);
}

function line(group, x, y, points, kind) {
  const path = d3.svg.line().x(([at]) => x(at)).y(([, value]) => y(value));
  group.append("path").attr("class", kind).attr("d", path(points));
}

// The values with some room above and below; zero is not in it, as what changes is small.
function around(values) {
  const [low, high] = d3.extent(values);
  const room = (high - low) * 0.15 || Math.abs(high) * 0.1 || 1;
  return [Math.max(0, low - room), high + room];
}

function mark(group, at, height, text, kind, left = 3) {
  const place = group.append("g").attr("class", `mark ${kind}`).attr("transform", `translate(${at},0)`);
  place.append("line").attr("y2", height);
  if (text) place.append("text").attr("x", left).attr("y", -5).text(text);
  return place;
}

// `points` are [seconds, error]; `marks` say since when a version answers, `news` what happened.
export function drawError(svg, points, marks, news) {
  if (!points.length) return nothing(svg, "No row has come yet.");
  const times = [...points.map(([at]) => at), ...marks.map(({ at }) => at)];
  const [first, last] = d3.extent(times);
  const x = d3.time.scale().domain([first * 1000, Math.max(last, first + 1) * 1000]);
  const errors = [...points.map(([, error]) => error), ...marks.map(({ error }) => error)];
  const y = d3.scale.linear().domain(around(errors)).nice(5);
  const { group, height } = frame(svg, x, y, { format: TIME });
  for (const { at, text } of news) {
    const when = Date.parse(at);
    if (when >= first * 1000 && when <= last * 1000)
      mark(group, x(when), height, "", "drift").append("title").text(text);
  }
  line(group, x, y, points.map(([at, error]) => [at * 1000, error]), "value");
  drawVersions(group, x, y, height, marks);
  const version = marks.length ? `, version ${marks.at(-1).version} answers` : "";
  svg.setAttribute("aria-label", `Mean absolute error over time; now ${short(points.at(-1)[1])}${version}.`);
}

// A line and a name where a version begins to answer, and its mean error up to the next one. Of
// names that would stand on each other the newest is written.
function drawVersions(group, x, y, height, marks) {
  const [, width] = x.range();
  let until = width;
  let free = Infinity;
  for (const { at, version, error } of [...marks].reverse()) {
    const place = x(at * 1000);
    const left = Math.min(place + 3, width - NAME);
    const text = left + NAME < free ? `v${version ?? "?"}` : "";
    mark(group, place, height, text, "", left - place);
    group.append("path").attr("class", "mean").attr("d", `M${place},${y(error)}H${until}`);
    until = place;
    if (text) free = left;
  }
}

export function drawHistogram(svg, { top, counts }) {
  if (!counts.length) return nothing(svg, "No row has come yet.");
  const x = d3.scale.linear().domain([0, top]);
  const y = d3.scale.linear().domain([0, d3.max(counts)]).nice(5);
  const { group, height } = frame(svg, x, y, { xLabel: "", yLabel: "rows" });
  const width = x(top) / counts.length;
  counts.forEach((count, bin) =>
    group.append("rect").attr("class", "bar")
      .attr("x", bin * width).attr("width", Math.max(1, width - 1))
      .attr("y", y(count)).attr("height", height - y(count))
      .append("title").text(`${count} rows have an error of ${short((bin * top) / counts.length)} to ${short(((bin + 1) * top) / counts.length)}`),
  );
  svg.setAttribute("aria-label", `Histogram of absolute errors from 0 to ${short(top)}.`);
}

export function drawPairs(svg, pairs) {
  if (!pairs.length) return nothing(svg, "No row has come yet.");
  const [low, high] = d3.extent(pairs.flat());
  const x = d3.scale.linear().domain([low, high > low ? high : low + 1]).nice();
  const y = d3.scale.linear().domain(x.domain());
  const { group } = frame(svg, x, y, { xLabel: "true", yLabel: "predicted" });
  line(group, x, y, x.domain().map((end) => [end, end]), "value right");
  const dots = pairs.map(([truth, predicted]) => `M${x(truth).toFixed(1)},${y(predicted).toFixed(1)}h0`);
  group.append("path").attr("class", "dots").attr("d", dots.join(""));
  svg.setAttribute("aria-label", `The last ${pairs.length} predictions against what was true.`);
}

// `losses` are [epoch, loss, loss on the rows that are kept back].
export function drawLosses(svg, losses) {
  const x = d3.scale.linear().domain([losses[0][0], Math.max(losses.at(-1)[0], losses[0][0] + 1)]);
  const values = losses.flatMap(([, loss, validation]) => [loss, validation]);
  const y = d3.scale.linear().domain(around(values)).nice(5);
  const { group } = frame(svg, x, y, { xLabel: "epoch", yLabel: "loss: training, and validation in orange" });
  line(group, x, y, losses.map(([epoch, loss]) => [epoch, loss]), "value");
  line(group, x, y, losses.map(([epoch, , validation]) => [epoch, validation]), "value second");
  const [epoch, loss, validation] = losses.at(-1);
  svg.setAttribute("aria-label", `Losses; in epoch ${epoch} ${short(loss)}, in validation ${short(validation)}.`);
}

function nothing(svg, text) {
  svg.replaceChildren();
  d3.select(svg).append("text").attr("x", 10).attr("y", 30).text(text);
  svg.setAttribute("aria-label", text);
}
