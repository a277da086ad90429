// The charts, as SVG by D3. Each is drawn again whenever its numbers change; colours are in page.css.

import { axisNumbers, axisTimes, named, short, t, whole } from "./i18n.js";

const { d3 } = window;
const MARGIN = { top: 18, right: 10, bottom: 22, left: 44 };
const NAME_WIDTH = 24; // pixels for a name such as v12

// Draw the axes of an empty chart; return its inside, whose pixels the scales then map to.
function frame(svg, x, y, { xLabel, yLabel, xFormat }) {
  const { width, height } = svg.getBoundingClientRect();
  const inside = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  svg.replaceChildren();
  const group = d3.select(svg).append("g").attr("transform", `translate(${MARGIN.left},${MARGIN.top})`);
  x.range([0, inside.width]);
  y.range([inside.height, 0]);
  const columns = Math.max(2, width / 110);
  const across = d3.svg.axis().scale(x).orient("bottom").ticks(columns).tickSize(4)
    .tickFormat(xFormat ?? axisNumbers(x.ticks(columns)));
  const up = d3.svg.axis().scale(y).orient("left").ticks(5).tickSize(-inside.width)
    .tickFormat(axisNumbers(y.ticks(5)));
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

// The range of the values with some room above and below; without zero, or small changes vanish.
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

// `points` are [seconds, error]; `marks` say since when a version serves; `events` are those of drift.
export function drawError(svg, points, marks, events) {
  if (!points.length) return drawNothing(svg);
  const times = [...points.map(([at]) => at), ...marks.map(({ at }) => at)];
  const [first, last] = d3.extent(times);
  const x = d3.time.scale().domain([first * 1000, Math.max(last, first + 1) * 1000]);
  const errors = [...points.map(([, error]) => error), ...marks.map(({ error }) => error)];
  const y = d3.scale.linear().domain(around(errors)).nice(5);
  const { group, height } = frame(svg, x, y, { xFormat: axisTimes });
  for (const { at, event, text } of events) {
    const when = Date.parse(at);
    if (when >= first * 1000 && when <= last * 1000)
      mark(group, x(when), height, "", "drift").append("title").text(`${named("event", event)}: ${text}`);
  }
  line(group, x, y, points.map(([at, error]) => [at * 1000, error]), "value");
  drawVersions(group, x, y, height, marks);
  const now = { error: short(points.at(-1)[1]), version: String(marks.at(-1)?.version) };
  svg.setAttribute("aria-label", t(marks.length ? "chart.errorNowOf" : "chart.errorNow", now));
}

// A line and a name where a version begins to serve, and its mean error up to the next one. Of names
// that would overlap only the newest is written.
function drawVersions(group, x, y, height, marks) {
  const [, width] = x.range();
  let until = width;
  let free = Infinity;
  for (const { at, version, error } of [...marks].reverse()) {
    const place = x(at * 1000);
    const left = Math.min(place + 3, width - NAME_WIDTH);
    const text = left + NAME_WIDTH < free ? `v${version ?? "?"}` : "";
    mark(group, place, height, text, "", left - place);
    group.append("path").attr("class", "mean").attr("d", `M${place},${y(error)}H${until}`);
    until = place;
    if (text) free = left;
  }
}

export function drawHistogram(svg, { top, counts }) {
  if (!counts.length) return drawNothing(svg);
  const x = d3.scale.linear().domain([0, top]);
  const y = d3.scale.linear().domain([0, d3.max(counts)]).nice(5);
  const { group, height } = frame(svg, x, y, { yLabel: t("chart.rows") });
  const width = x(top) / counts.length;
  const edge = (bin) => short((bin * top) / counts.length);
  counts.forEach((count, bin) =>
    group.append("rect").attr("class", "bar")
      .attr("x", bin * width).attr("width", Math.max(1, width - 1))
      .attr("y", y(count)).attr("height", height - y(count))
      .append("title").text(t("chart.bin", { count, from: edge(bin), to: edge(bin + 1) })),
  );
  svg.setAttribute("aria-label", t("chart.histogramTo", { top: short(top) }));
}

export function drawPairs(svg, pairs) {
  if (!pairs.length) return drawNothing(svg);
  const [low, high] = d3.extent(pairs.flat());
  const x = d3.scale.linear().domain([low, high > low ? high : low + 1]).nice();
  const y = d3.scale.linear().domain(x.domain());
  const { group } = frame(svg, x, y, { xLabel: t("chart.true"), yLabel: t("chart.predicted") });
  line(group, x, y, x.domain().map((end) => [end, end]), "value right");
  const dots = pairs.map(([truth, predicted]) => `M${x(truth).toFixed(1)},${y(predicted).toFixed(1)}h0`);
  group.append("path").attr("class", "dots").attr("d", dots.join(""));
  svg.setAttribute("aria-label", t("chart.pairsOf", { count: pairs.length }));
}

// `losses` are [epoch, training loss, validation loss].
export function drawLosses(svg, losses) {
  const x = d3.scale.linear().domain([losses[0][0], losses.at(-1)[0]]);
  const y = d3.scale.linear().domain(around(losses.flatMap(([, ...both]) => both))).nice(5);
  const xFormat = (epoch) => (Number.isInteger(epoch) ? whole(epoch) : "");
  const { group } = frame(svg, x, y, { xLabel: t("chart.epoch"), xFormat });
  legend(group, [[t("chart.training"), ""], [t("chart.validation"), "second"]]);
  line(group, x, y, losses.map(([epoch, loss]) => [epoch, loss]), "value");
  line(group, x, y, losses.map(([epoch, , validation]) => [epoch, validation]), "value second");
  const [epoch, loss, validation] = losses.at(-1);
  svg.setAttribute("aria-label", t("chart.losses", { epoch, loss: short(loss), validation: short(validation) }));
}

// The names of the lines above the chart, each in the colour of its line.
function legend(group, names) {
  const text = group.append("text").attr("class", "legend").attr("y", -7);
  names.forEach(([name, kind], index) =>
    text.append("tspan").attr("class", kind).attr("dx", index ? 16 : 0).text(name));
}

function drawNothing(svg) {
  svg.replaceChildren();
  d3.select(svg).append("text").attr("x", 10).attr("y", 30).text(t("chart.noRows"));
  svg.setAttribute("aria-label", t("chart.noRows"));
}
