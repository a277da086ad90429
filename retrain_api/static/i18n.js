// The language of the page: its texts, and how it writes numbers and times.

import { TEXTS } from "./texts.js";

export const LOCALES = { en: "en-GB", ru: "ru-RU" };

// The first of the browser's languages that the page has, else English.
export function choose(languages) {
  const names = languages.map((tag) => tag.toLowerCase().split("-")[0]);
  return names.find((name) => Object.hasOwn(LOCALES, name)) ?? "en";
}

const language = choose(navigator.languages);
export const locale = LOCALES[language];
const plurals = new Intl.PluralRules(locale);

// A text of the page: t("job.epoch", {epoch: 2, …}). Numbers are written as whole numbers.
export function t(key, values = {}) {
  const entry = TEXTS[key][language];
  const text = typeof entry === "string" ? entry : entry[plurals.select(values.count)];
  return text.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? whole(values[name]) : values[name]);
}

// A name that the API gave, such as a state; one that has no text is shown as it came.
export const named = (kind, name) =>
  Object.hasOwn(TEXTS, `${kind}.${name}`) ? t(`${kind}.${name}`) : name;

// Fill in the texts of page.html; the attributes say which.
export function translateDocument() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]"))
    element.textContent = t(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]"))
    element.setAttribute("aria-label", t(element.dataset.label));
  for (const element of document.querySelectorAll("[data-placeholder]"))
    element.placeholder = t(element.dataset.placeholder);
}

const WHOLE = new Intl.NumberFormat(locale);
const SHORT = new Intl.NumberFormat(locale, { maximumSignificantDigits: 4 });
const EXPONENT = new Intl.NumberFormat(locale, { maximumSignificantDigits: 4, notation: "scientific" });
const PERCENT = new Intl.NumberFormat(locale, { style: "percent" });
const DAY = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });

const isPlain = (number) => number === 0 || (Math.abs(number) >= 1e-6 && Math.abs(number) < 1e12);

export const whole = (number) => (number == null ? "–" : WHOLE.format(number));
export const short = (number) => (number == null ? "–" : (isPlain(number) ? SHORT : EXPONENT).format(number));
export const percent = (share) => PERCENT.format(Math.floor(share * 100) / 100);

// A moment of the API as date and time; what is no moment is shown as it came.
export function day(moment) {
  const date = new Date(moment);
  return Number.isNaN(date.valueOf()) ? String(moment) : DAY.format(date);
}

const CLOCK = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const DATE = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" });
const COMPACT = new Intl.NumberFormat(locale, { maximumSignificantDigits: 4, notation: "compact" });

// The label of a tick on an axis of time: the most precise part that is not zero.
export function axisTimes(time) {
  if (time.getMilliseconds()) return "";
  if (time.getSeconds()) return `:${String(time.getSeconds()).padStart(2, "0")}`;
  return (time.getHours() || time.getMinutes() ? CLOCK : DATE).format(time);
}

// What writes the numbers of an axis, with as many decimals as its ticks differ in.
export function axisNumbers(ticks) {
  const largest = Math.max(...ticks.map(Math.abs));
  if (largest >= 1e5) return (largest < 1e12 ? COMPACT : EXPONENT).format;
  const decimals = Math.max(0, -Math.floor(Math.log10(ticks[1] - ticks[0]) + 1e-9)) || 0; // one tick has no step
  if (decimals > 6) return EXPONENT.format;
  return new Intl.NumberFormat(locale, { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).format;
}
