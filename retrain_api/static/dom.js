// Building and filling the document. Whatever came from outside gets in as text, never as HTML.

export const byId = (id) => document.getElementById(id);

// A new element: node("td", {class: "number"}, 7), node("p", {}, "a ", node("b", {}, "c")).
export function node(tag, attributes = {}, ...inner) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...inner.filter((part) => part != null && part !== false));
  return made;
}

export function write(id, text) {
  const element = byId(id);
  if (element.textContent !== String(text)) element.textContent = text;
}

// Tell what is wrong, at the top, until `tell("")`.
export function tell(problem) {
  write("problem", problem);
  byId("problem").hidden = !problem;
}

// Draw a list, but only when it tells something new: else whoever is in it with the keyboard is lost.
export function fill(id, rows, made) {
  const told = JSON.stringify(rows);
  const place = byId(id);
  if (place.told === told) return;
  place.told = told;
  place.replaceChildren(...rows.map(made));
}

export const short = (number) => (number == null ? "–" : String(Number(number.toPrecision(4))));
export const whole = (number) => (number == null ? "–" : number.toLocaleString("en"));
export const clock = (moment) => new Date(moment).toLocaleTimeString("en-GB");
export const day = (moment) => new Date(moment).toLocaleString("en-GB");
