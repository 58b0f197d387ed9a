"use strict";
// Elements, and figures as text. Whatever comes from data becomes text, never markup.

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// a number as Python gave it: NaN, infinities and large integers are text
const num = (value) => (value === null || value === undefined ? null : Number(value));
const isNumber = (value) => value !== null && !Number.isNaN(value);

function bytes(value) {
  if (value === null || value === undefined) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let size = Number(value), power = 0;
  while (size >= 1023.95 && power < units.length - 1) { size /= 1024; power += 1; }
  return `${power ? size.toFixed(1) : size} ${units[power]}`;
}

function figure(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "string" && /^-?\d+$/.test(value)) return BigInt(value).toLocaleString("en");
  const number = Number(value);
  if (!Number.isFinite(number)) return String(value);
  if (Number.isInteger(number) && Math.abs(number) < 1e15) return number.toLocaleString("en");
  const size = Math.abs(number);
  return size >= 1e-4 && size < 1e6 ? String(Number(number.toPrecision(5))) : number.toExponential(3);
}

const counted = (number, noun) => `${figure(number)} ${noun}${Number(number) === 1 ? "" : "s"}`;
const percent = (share) => (share === null ? "" : `${Number((100 * share).toPrecision(3))} %`);

function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "";
  if (seconds < 120) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds < 7200) return `${Number((seconds / 60).toPrecision(3))} min`;
  return seconds < 172800 ? `${Number((seconds / 3600).toPrecision(3))} h` : `${Number((seconds / 86400).toPrecision(3))} d`;
}

const moment = (seconds) => (seconds === null ? "" : new Date(1000 * seconds).toISOString().replace("T", " ").slice(0, 19));

// a part of the page with a heading, which the list of sections leads to
function section(id, title, ...children) {
  const heading = h("h2", { id, tabindex: "-1" }, title);
  const whole = h("section", { "aria-labelledby": id }, heading, ...children);
  document.getElementById("main").append(whole);
  document.getElementById("sections").append(h("li", {}, h("a", { href: `#${id}` }, title)));
  return whole;
}

const tiles = (pairs) =>
  h("ul", { class: "tiles" }, pairs.filter(Boolean).map(([label, value, state]) => h("li", { class: state }, h("b", {}, value), label)));

const list = (pairs) => h("dl", {}, pairs.map(([label, value]) => [h("dt", {}, label), h("dd", {}, value)]));

// a choice among some, of which the first is taken; `change` is called with each
function choice(label, options, change) {
  const select = h("select", { change: () => change(options[select.selectedIndex]) }, options.map((one) => h("option", {}, one.label)));
  return h("label", {}, `${label} `, select);
}
