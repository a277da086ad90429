// The view of the versions: what each scored, which one is current; a click deploys another one.

import { change, get, poll } from "./calls.js";
import { fill, node, showProblem, write } from "./dom.js";
import { day, short, t } from "./i18n.js";

export const start = () => poll(list, showProblem);

async function list() {
  const [{ models }, current] = await Promise.all([get("/models"), get("/models/current")]);
  write("serving", describe(current));
  const reports = [...models].reverse();
  fill("model-list", reports.map((report) => ({ report, serves: report.version === current.version })), card);
}

// The version that was chosen, and what the replicas of `model` report.
function describe({ version, replicas }) {
  const all = Object.values(replicas);
  const serving = all.filter((replica) => replica.serves === version).length;
  const refused = all.find((replica) => replica.refused?.version === version)?.refused.reason;
  return [
    t("models.current", { version: String(version) }),
    all.length ? t("models.replicas", { serving, count: all.length }) : t("models.noReplicas"),
    refused ? t("models.refused", { reason: refused }) : "",
  ].join(" ");
}

function card({ report, serves }) {
  const title = t("models.version", { version: String(report.version) });
  return node(
    "article", { class: "card model", "aria-label": title },
    node("h2", {}, title, serves && node("span", { class: "state serves" }, t("models.serves"))),
    node("ul", { class: "facts" }, ...facts(report).map((fact) => node("li", {}, fact))),
    node("p", {}, report.why),
    node("p", { class: "actions" }, ...actions(report, serves)),
  );
}

function facts({ mae, created, columns, compared_with: champion }) {
  return [
    mae && t("models.error", { error: short(mae.challenger) }),
    mae && t("models.championError", { version: String(champion), error: short(mae.champion) }),
    mae && t("models.meanError", { error: short(mae.mean) }),
    columns && t("models.columns", { count: columns.length }),
    created && day(created),
  ].filter(Boolean);
}

function actions({ version, fits_stream: fits, sha256, job }, serves) {
  const able = version === 0 || fits;
  const files = Object.keys(sha256 ?? {}).filter((name) => /^model\.(keras|tflite)$/.test(name));
  return [
    able && !serves && node("button", { type: "button", onclick: () => deploy(version) }, t("models.deploy")),
    ...files.map((name) => node("a", { href: `/models/${version}/${name}`, download: "" }, name)),
    job && node("a", { href: `#jobs/${encodeURIComponent(job)}` }, t("models.job")),
  ];
}

async function deploy(version) {
  showProblem("");
  try {
    await change("POST", `/models/${version}/deploy`);
    await list();
  } catch (error) {
    showProblem(error.message);
  }
}
