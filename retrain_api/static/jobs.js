// Jobs: send data, see what becomes of it.

import { get, keepLooking, upload } from "./calls.js";
import { byId, fill, node, short, tell } from "./dom.js";
import { watch } from "./job.js";

// Show the list, and the job with this id if there is one; return what stops it.
export function start(id) {
  byId("job").hidden = true;
  const stopJob = id ? watch(decoded(id)) : () => {};
  const stopList = keepLooking(list, tell);
  return () => {
    stopList();
    stopJob();
  };
}

function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch { // somebody typed it
    return id;
  }
}

async function list() {
  const { jobs } = await get("/jobs?limit=20");
  fill("job-list", jobs, row);
}

function row(job) {
  return node(
    "tr", {},
    node("td", {}, node("a", { href: `#jobs/${encodeURIComponent(job.id)}` }, job.id)),
    node("td", {}, node("span", { class: `state ${job.state}` }, job.state)),
    node("td", {}, job.reason ?? far(job.progress)),
  );
}

function far(progress) {
  return progress?.epoch ? `epoch ${progress.epoch} of ${progress.epochs}, loss ${short(progress.loss)}` : "";
}

async function send(event) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  tell("");
  try {
    const job = await upload("/jobs", formOf(event.target), showSent);
    event.target.reset();
    byId("sending").textContent = "";
    location.hash = `#jobs/${job.id}`;
  } catch (error) {
    byId("sending").textContent = error.message;
  } finally {
    byId("sent").hidden = true;
    button.disabled = false;
  }
}

function showSent(share) {
  byId("sent").hidden = false;
  byId("sent").value = share;
  byId("sending").textContent = share < 1 ? `${Math.floor(share * 100)} % sent` : "sent; being checked";
}

// What POST /jobs takes: empty fields are left out, as they mean the default.
function formOf(form) {
  const data = new FormData();
  for (const file of byId("data").files) data.append("data", file);
  for (const file of byId("model").files) data.append("model", file);
  for (const [name, value] of new FormData(form)) if (value !== "") data.append(name, value);
  return data;
}

// Dropped files go into the fields that take them.
function drop(event) {
  event.preventDefault();
  over(false);
  const files = [...event.dataTransfer.files];
  const isModel = (file) => /\.(keras|h5)$/i.test(file.name);
  put(byId("data"), files.filter((file) => !isModel(file)));
  put(byId("model"), files.filter(isModel).slice(0, 1));
}

function put(input, files) {
  if (!files.length) return;
  const carrier = new DataTransfer();
  files.forEach((file) => carrier.items.add(file));
  input.files = carrier.files;
}

const over = (is) => byId("upload").classList.toggle("over", is);

const form = byId("upload");
form.addEventListener("submit", send);
form.addEventListener("drop", drop);
form.addEventListener("dragover", (event) => {
  event.preventDefault();
  over(true);
});
form.addEventListener("dragleave", () => over(false));
