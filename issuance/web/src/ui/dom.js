// Building elements. Text goes in as text and never as HTML, whatever a permit holds.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes (`on…` are listeners) and children, which may be strings or null. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const OCTAGON = "M33 6h34l27 27v34L67 94H33L6 67V33z";
const TRIANGLE = "M50 7 96 90H4z";
const MARKS = {
  valid: [s("circle", { cx: 50, cy: 50, r: 45, class: "shape" }), s("path", { d: "M27 51l16 17 31-35", class: "stroke" })],
  refused: [s("path", { d: OCTAGON, class: "shape" }), s("path", { d: "M34 34l32 32M66 34 34 66", class: "stroke" })],
  unclear: [s("path", { d: TRIANGLE, class: "shape" }), s("path", { d: "M50 39v17M50 75v.1", class: "stroke" })],
};

/** `text` with its dates and times kept whole at the end of a line. */
export const unbroken = (text) =>
  text.split(/(\d{4}-\d\d-\d\d(?: \d\d:\d\d)?)/).map((part, n) => (n % 2 ? h("span", { class: "whole" }, part) : part));

/** ✓ in a circle, ✕ in an octagon, ! in a triangle: told apart without colour. */
export function mark(kind) {
  return s(
    "svg",
    { viewBox: "0 0 100 100", class: `mark ${kind}`, "aria-hidden": "true" },
    MARKS[kind].map((part) => part.cloneNode()),
  );
}
