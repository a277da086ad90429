// The page: which part is shown. A part works only while somebody looks at it.

import { byId, tell } from "./dom.js";
import * as jobs from "./jobs.js";
import * as live from "./live.js";
import * as models from "./models.js";

const PARTS = { live, jobs, models };

let stop = () => {};

// The address says what is shown: #live, #jobs, #jobs/ID, #models.
function show() {
  stop();
  tell("");
  const [name, id] = location.hash.slice(1).split("/");
  const shown = Object.hasOwn(PARTS, name) ? name : "live";
  for (const part of Object.keys(PARTS)) {
    byId(part).hidden = part !== shown;
    const link = document.querySelector(`nav a[href="#${part}"]`);
    if (part === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  stop = document.hidden ? () => {} : PARTS[shown].start(id);
}

addEventListener("hashchange", show);
document.addEventListener("visibilitychange", show);
show();
