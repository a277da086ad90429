// The form of a new job: files are chosen or dropped, sent, and the view of the job is opened.

import { upload } from "./calls.js";
import { byId, showProblem } from "./dom.js";
import { percent, t } from "./i18n.js";

const form = byId("upload");

async function send(event) {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  showProblem("");
  try {
    const job = await upload("/jobs", fields(), showSent);
    form.reset();
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
  byId("sending").textContent =
    share < 1 ? t("upload.sent", { share: percent(share) }) : t("upload.checking");
}

// The form of POST /jobs: an empty field is left out, which means its default.
function fields() {
  const data = new FormData();
  for (const file of byId("data").files) data.append("data", file);
  for (const file of byId("model").files) data.append("model", file);
  for (const [name, value] of new FormData(form)) if (value !== "") data.append(name, value);
  return data;
}

// Put dropped files into the inputs that accept them.
function drop(event) {
  event.preventDefault();
  highlight(false);
  const files = [...event.dataTransfer.files];
  const isModel = (file) => /\.(keras|h5)$/i.test(file.name);
  choose(byId("data"), files.filter((file) => !isModel(file)));
  choose(byId("model"), files.filter(isModel).slice(0, 1));
}

function choose(input, files) {
  if (!files.length) return;
  const carrier = new DataTransfer();
  files.forEach((file) => carrier.items.add(file));
  input.files = carrier.files;
}

const highlight = (on) => form.classList.toggle("over", on);

form.addEventListener("submit", send);
form.addEventListener("drop", drop);
form.addEventListener("dragover", (event) => {
  event.preventDefault();
  highlight(true);
});
form.addEventListener("dragleave", () => highlight(false));
