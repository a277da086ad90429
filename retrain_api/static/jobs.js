// The view of the jobs: their list, and the one that the address names.

import { get, poll } from "./calls.js";
import { byId, fill, node, showProblem } from "./dom.js";
import { named, short, t } from "./i18n.js";
import { followJob } from "./job.js";
import "./upload.js";

// Show the list, and the job with this id if there is one; return what stops it.
export function start(id) {
  byId("job").hidden = true;
  const stopJob = id ? followJob(decoded(id)) : () => {};
  const stopList = poll(list, showProblem);
  return () => {
    stopList();
    stopJob();
  };
}

function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch { // typed by hand
    return id;
  }
}

async function list() {
  const { jobs } = await get("/jobs?limit=20");
  byId("no-jobs").hidden = jobs.length > 0;
  fill("job-list", jobs, row);
}

function row(job) {
  return node(
    "tr", {},
    node("td", {}, node("a", { href: `#jobs/${encodeURIComponent(job.id)}` }, job.id)),
    node("td", {}, node("span", { class: `state ${job.state}` }, named("state", job.state))),
    node("td", {}, job.reason ?? describe(job.progress)),
  );
}

function describe(progress) {
  if (!progress?.epoch) return "";
  return t("jobs.epoch", { ...progress, loss: short(progress.loss) });
}
