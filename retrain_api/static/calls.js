// The calls of the API. An answer that is an error is thrown with the sentence that the API gave.

import { byId } from "./dom.js";
import { t } from "./i18n.js";

const POLL_MS = 3000;
const RETRY_MS = 5000;
const HEADER_TEXT = /^[ -~]+$/; // a token of other characters cannot be sent, and no server has one

export async function get(path) {
  return answerOf(await fetch(path).catch(unreachable));
}

// Call `look` now and every few seconds; return what stops that. A problem is shown until it is gone.
export function poll(look, showProblem) {
  let failed = false;
  let stopped = false;
  const turn = async () => {
    try {
      await look();
      if (failed) showProblem("");
      failed = false;
    } catch (error) {
      if (stopped) return; // meanwhile
      failed = true;
      showProblem(error.message);
    }
  };
  turn();
  const timer = setInterval(turn, POLL_MS);
  return () => {
    stopped = true;
    clearInterval(timer);
  };
}

// A call that changes something. If the service requires its token, ask for it and call again.
export async function change(method, path) {
  const answer = await fetch(path, { method, headers: authorization() }).catch(unreachable);
  if (answer.status !== 401) return answerOf(answer);
  await askForToken();
  return change(method, path);
}

// Upload a form; `progress` is called with the share that is sent, from 0 to 1.
export async function upload(path, form, progress) {
  const request = await send(path, form, progress);
  if (request.status === 401) {
    await askForToken();
    return upload(path, form, progress);
  }
  const answer = parse(request.responseText);
  if (request.status >= 400) throw new Error(answer.error);
  return answer;
}

function send(path, form, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not report the progress of an upload
    request.open("POST", path);
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => progress(event.loaded / event.total);
    request.onload = () => resolve(request);
    request.onerror = () => reject(new Error(t("problem.unreachable")));
    request.send(form);
  });
}

async function answerOf(response) {
  const answer = parse(await response.text());
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(t("problem.answer"));
  }
}

function unreachable() {
  throw new Error(t("problem.unreachable"));
}

// The token stays in this tab, and only until the tab is closed.
function authorization() {
  const token = sessionStorage.getItem("token") ?? "";
  return HEADER_TEXT.test(token) ? { Authorization: `Bearer ${token}` } : {};
}

function askForToken() {
  const dialog = byId("token");
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("token", byId("token-text").value);
      byId("token-text").value = "";
      dialog.close();
      resolve();
    };
    byId("token-no").onclick = () => dialog.close();
    dialog.onclose = () => reject(new Error(t("token.missing")));
  });
}

// Follow server-sent events until `stop()`; `handlers` get the data of each event by its name.
export function follow(path, handlers, showProblem) {
  const source = new EventSource(path);
  let stopped = false;
  let stopNext = () => {};
  for (const [name, handle] of Object.entries(handlers))
    source.addEventListener(name, (event) => handle(event.data));
  source.onerror = async () => {
    if (source.readyState !== EventSource.CLOSED) return showProblem(t("problem.unreachable")); // it retries
    const problem = await findProblem(path);
    if (stopped) return; // meanwhile
    showProblem(problem);
    const retry = setTimeout(() => (stopNext = follow(path, handlers, showProblem)), RETRY_MS);
    stopNext = () => clearTimeout(retry);
  };
  return () => {
    stopped = true;
    source.close();
    stopNext();
  };
}

// An EventSource hides the answer that ended it: ask again, and read only the error.
async function findProblem(path) {
  const aborting = new AbortController();
  try {
    const response = await fetch(path, { signal: aborting.signal });
    return response.ok ? "" : (await response.json()).error;
  } catch {
    return t("problem.unreachable");
  } finally {
    aborting.abort();
  }
}
