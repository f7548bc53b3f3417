"use strict";
/* What every chart is made of: SVG elements, ticks, rounded figures, styles of lines. */

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 4", "2 4", "9 3 2 3", "12 5", "4 3"];
const MARKERS = [
  "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z",
  "M-3 -3h6v6h-6z",
  "M0 -4l3.7 6.6h-7.4z",
  "M0 -4.3l4.3 4.3l-4.3 4.3l-4.3-4.3z",
  "M0 4l3.7-6.6h-7.4z",
  "M-4-1.2h2.8v-2.8h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8z",
  "M0-4.4l1.3 3h3.1l-2.4 2l.9 3.2l-2.9-1.9l-2.9 1.9l.9-3.2l-2.4-2h3.1z",
];
const PAD = { left: 48, right: 10, top: 8, bottom: 22 };

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

const colour = (style) => `var(--c${style % 8})`;
const dash = (style) => DASHES[style % DASHES.length];
const marker = (style) => MARKERS[style % MARKERS.length];

/* The sample of a line that stands in legends and beside names of runs. */
function drawSwatch(svg) {
  const style = Number(svg.dataset.style);
  element("path", { d: "M1 7H33", stroke: colour(style), "stroke-width": 2, "stroke-dasharray": dash(style), fill: "none" }, svg);
  element("path", { d: marker(style), fill: colour(style), transform: "translate(17 7)" }, svg);
}

/* 4 significant digits, as in the tables. */
function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text = String(Number(value.toPrecision(4)));
  if (size >= 1000) text = Math.round(value).toLocaleString("en-US");
  else if (size !== 0 && size < 1e-3) text = value.toExponential(2);
  return text.replaceAll("-", "−");
}

function tickText(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
  const text = size !== 0 && size < 1e-3 ? value.toExponential() : String(+value.toPrecision(6));
  return text.replaceAll("-", "−");
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough) || 10 * power;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(+(k * step).toPrecision(12));
  return ticks;
}

function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const steps = decades > 3 ? [1] : decades > 1.2 ? [1, 3] : [1, 2, 3, 5, 7];
  const every = Math.max(1, Math.ceil(decades / 6));
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    if (e % every) continue;
    for (const k of steps) {
      const tick = +(k * 10 ** e).toPrecision(12);
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks.length > 1 ? ticks : linearTicks(low, high, 4);
}

/* Index of the entry of ascending xs nearest to x. */
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  return x - xs[low] <= xs[high] - x ? low : high;
}

const data = JSON.parse(document.getElementById("data").textContent);
