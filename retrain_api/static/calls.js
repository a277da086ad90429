// Calls of the API. An answer that is an error throws it as the sentence that the API gave.

import { byId } from "./dom.js";

const LOOK_MS = 3000;
const AGAIN_MS = 5000;
const CAN_BE_SENT = /^[ -~]+$/; // in a header; a token of other characters no server has
const AWAY = "The service does not answer. Is it running? This page goes on by itself when it is.";

export async function get(path) {
  return answerOf(await fetch(path).catch(away));
}

// Call `look` now and every few seconds; return what stops that. An error is told until it is gone.
export function keepLooking(look, problem) {
  let wrong = false;
  let stopped = false;
  const turn = async () => {
    try {
      await look();
      if (wrong) problem("");
      wrong = false;
    } catch (error) {
      if (stopped) return; // meanwhile
      wrong = true;
      problem(error.message);
    }
  };
  turn();
  const timer = setInterval(turn, LOOK_MS);
  return () => {
    stopped = true;
    clearInterval(timer);
  };
}

// A call that changes something. If the service wants its token, ask for it and call again.
export async function change(method, path) {
  const answer = await fetch(path, { method, headers: permit() }).catch(away);
  if (answer.status !== 401) return answerOf(answer);
  await askForToken();
  return change(method, path);
}

// Upload a form; `progress` is called with the share that is sent, from 0 to 1.
export async function upload(path, form, progress) {
  const request = await sent(path, form, progress);
  if (request.status === 401) {
    await askForToken();
    return upload(path, form, progress);
  }
  const told = JSON.parse(request.responseText);
  if (request.status >= 400) throw new Error(told.error);
  return told;
}

function sent(path, form, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how far an upload is
    request.open("POST", path);
    for (const [name, value] of Object.entries(permit())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => progress(event.loaded / event.total);
    request.onload = () => resolve(request);
    request.onerror = () => reject(new Error(AWAY));
    request.send(form);
  });
}

async function answerOf(answer) {
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

function away() {
  throw new Error(AWAY);
}

// The token stays in this tab, and only until it is closed.
function permit() {
  const token = sessionStorage.getItem("token") ?? "";
  return CAN_BE_SENT.test(token) ? { Authorization: `Bearer ${token}` } : {};
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
    dialog.onclose = () => reject(new Error("Nothing was done: that needs the token."));
  });
}

// Follow server-sent events until `stop()`; `handlers` get what each event says.
export function follow(path, handlers, problem) {
  const source = new EventSource(path);
  let stopped = false;
  let stopNext = () => {};
  for (const [name, handle] of Object.entries(handlers))
    source.addEventListener(name, (event) => handle(event.data));
  source.onerror = async () => {
    if (source.readyState !== EventSource.CLOSED) return problem(AWAY); // it tries again by itself
    const why = await whyNot(path);
    if (stopped) return; // meanwhile
    problem(why);
    const again = setTimeout(() => (stopNext = follow(path, handlers, problem)), AGAIN_MS);
    stopNext = () => clearTimeout(again);
  };
  return () => {
    stopped = true;
    source.close();
    stopNext();
  };
}

// An EventSource hides the answer that ended it: ask again, and read no further than the error.
async function whyNot(path) {
  const stopping = new AbortController();
  try {
    const answer = await fetch(path, { signal: stopping.signal });
    return answer.ok ? "" : (await answer.json()).error;
  } catch {
    return AWAY;
  } finally {
    stopping.abort();
  }
}
