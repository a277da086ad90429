// Versions: what each scored, which one serves; another one with a click.

import { change, get, keepLooking } from "./calls.js";
import { day, fill, node, short, tell, write } from "./dom.js";

export const start = () => keepLooking(list, tell);

async function list() {
  const [{ models }, current] = await Promise.all([get("/models"), get("/models/current")]);
  write("serving", serving(current));
  const reports = [...models].reverse();
  fill("model-list", reports.map((report) => ({ report, serves: report.version === current.version })), card);
}

// What was chosen, and what the replicas of `model` say that they do.
function serving({ version, replicas }) {
  const all = Object.values(replicas);
  const there = all.filter((replica) => replica.serves === version).length;
  const refused = all.find((replica) => replica.refused?.version === version)?.refused.reason;
  const who = all.length
    ? `${there} of ${all.length} replicas of model serve it.`
    : "No replica of model has told yet what it serves.";
  return `Version ${version} is to serve. ${who}${refused ? ` One refused it: ${refused}` : ""}`;
}

function card({ report, serves }) {
  const { version, why, mae, created, columns, compared_with: champion } = report;
  const facts = mae
    ? [`error: ${short(mae.challenger)}`, `version ${champion}: ${short(mae.champion)}`, `always the mean: ${short(mae.mean)}`]
    : [];
  if (columns) facts.push(`${columns.length} columns`);
  if (created) facts.push(day(created));
  return node(
    "article", { class: "card model", "aria-label": `Version ${version}` },
    node("h2", {}, `Version ${version}`, serves && node("span", { class: "state serves" }, "serves")),
    node("ul", { class: "facts" }, ...facts.map((fact) => node("li", {}, fact))),
    node("p", {}, why),
    node("p", { class: "actions" }, ...actions(report, serves)),
  );
}

function actions({ version, fits_stream: fits, sha256, job }, serves) {
  const able = version === 0 || fits;
  const files = Object.keys(sha256 ?? {}).filter((name) => /^model\.(keras|tflite)$/.test(name));
  return [
    able && !serves && node("button", { type: "button", onclick: () => deploy(version) }, "Serve this one"),
    ...files.map((name) => node("a", { href: `/models/${version}/${name}`, download: "" }, name)),
    job && node("a", { href: `#jobs/${encodeURIComponent(job)}` }, "its job"),
  ];
}

async function deploy(version) {
  tell("");
  try {
    await change("POST", `/models/${version}/deploy`);
    await list();
  } catch (error) {
    tell(error.message);
  }
}
