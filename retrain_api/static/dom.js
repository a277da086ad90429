// Build and fill the document. Text from outside is inserted as text, never as HTML.

export const byId = (id) => document.getElementById(id);

// A new element: node("td", {class: "number"}, 7), node("p", {}, "a ", node("b", {}, "c")).
export function node(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

export function write(id, text) {
  const element = byId(id);
  if (element.textContent !== String(text)) element.textContent = text;
}

// Show a problem at the top of the page until `showProblem("")`.
export function showProblem(problem) {
  write("problem", problem);
  byId("problem").hidden = !problem;
}

// Draw a list, but only when its rows have changed: a new element would lose the keyboard's focus.
export function fill(id, rows, draw) {
  const shown = JSON.stringify(rows);
  const list = byId(id);
  if (list.shown === shown) return;
  list.shown = shown;
  list.replaceChildren(...rows.map(draw));
}
