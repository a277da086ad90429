// The entry: shows one view of the page. A view works only while it is visible.

import { byId, showProblem } from "./dom.js";
import { translateDocument } from "./i18n.js";
import * as jobs from "./jobs.js";
import * as live from "./live.js";
import * as models from "./models.js";

const VIEWS = { live, jobs, models };

let stop = () => {};

// The address selects the view: #live, #jobs, #jobs/ID, #models.
function show() {
  stop();
  showProblem("");
  const [name, id] = location.hash.slice(1).split("/");
  const shown = Object.hasOwn(VIEWS, name) ? name : "live";
  for (const view of Object.keys(VIEWS)) {
    byId(view).hidden = view !== shown;
    const link = document.querySelector(`nav a[href="#${view}"]`);
    if (view === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  stop = document.hidden ? () => {} : VIEWS[shown].start(id);
}

translateDocument();
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", show);
show();
