/* Curves: small panels in SVG with one x axis, a linked read-out, and legends that switch lines. */

const view = { x: "images", smooth: 0, at: null, hiddenRuns: new Set() };

/* Mean over the records around each; level 0 … 9, up to 7 % of the line on either side. */
function smoothed(values, level) {
  const reach = Math.floor((values.length * level) / 120);
  if (!reach) return values;
  return values.map((value, i) => {
    const near = values.slice(Math.max(0, i - reach), i + reach + 1).filter((v) => v !== null);
    return value === null ? null : near.reduce((sum, v) => sum + v, 0) / near.length;
  });
}

class Panel {
  constructor(root, spec) {
    Object.assign(this, { root, lines: spec.lines, log: spec.log, hidden: new Set() });
    this.svg = root.querySelector(".chart");
    this.at = root.querySelector(".at");
    this.buttons = [...root.querySelectorAll(".legend button")];
    root.querySelector(".log").addEventListener("click", (event) => {
      this.log = !this.log;
      event.currentTarget.setAttribute("aria-pressed", this.log);
      this.draw();
    });
    for (const button of this.buttons)
      button.addEventListener("click", () => toggle(this, this.lines[Number(button.dataset.line)]));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => readOut(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("blur", () => readOut(null));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  shown() {
    return this.lines.filter((line) => !this.hidden.has(line) && !view.hiddenRuns.has(line.run));
  }

  draw() {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    this.svg.replaceChildren();
    if (!width) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const lines = this.shown();
    for (const line of this.lines) line.drawn = smoothed(line.values, view.smooth);
    const usable = (v) => v !== null && (!this.log || v > 0);
    const ys = lines.flatMap((line) => line.values.filter(usable));
    const xs = this.lines.flatMap((line) => line[view.x]);
    this.scale(width, height, xs, ys);
    this.axes(width, height);
    if (!ys.length) this.say(width, height, lines.length ? "no value above 0: switch log off" : "all lines are off");
    for (const mark of data.events) {
      const x = this.x(mark[view.x]);
      if (!view.hiddenRuns.has(mark.run) && x >= PAD.left && x <= width - PAD.right) {
        const rule = element("line", { class: "event", x1: x, x2: x, y1: PAD.top, y2: height - PAD.bottom }, this.svg);
        element("title", {}, rule).textContent = `${mark.what}: ${mark.text}`;
      }
    }
    for (const line of lines) {
      if (line.drawn !== line.values) this.curve(line, line.values, usable, "curve raw");
      this.curve(line, line.drawn, usable, "curve");
      this.spots(line, usable);
    }
    this.cross = element("g", {}, this.svg);
    this.read();
  }

  scale(width, height, xs, ys) {
    let left = Math.min(...xs, 0), right = Math.max(...xs);
    if (right === left) right = left + 1;
    let low = Math.min(...ys), high = Math.max(...ys);
    if (!ys.length) [low, high] = this.log ? [0.1, 1] : [0, 1];
    if (this.log) {
      if (high / low < 1.05) [low, high] = [low / 1.3, high * 1.3];
      const room = (high / low) ** 0.05;
      [low, high] = [low / room, high * room];
    } else {
      const room = (high - low || Math.abs(high) || 1) * 0.06;
      [low, high] = [low - room, high + room];
    }
    this.range = { left, right, low, high };
    const place = this.log ? (v) => Math.log(v / low) / Math.log(high / low) : (v) => (v - low) / (high - low);
    this.x = (v) => PAD.left + ((v - left) / (right - left)) * (width - PAD.left - PAD.right);
    this.y = (v) => height - PAD.bottom - place(v) * (height - PAD.top - PAD.bottom);
  }

  axes(width, height) {
    const { left, right, low, high } = this.range;
    for (const tick of this.log ? logTicks(low, high) : linearTicks(low, high, 4)) {
      const y = this.y(tick);
      element("line", { class: "rule", x1: PAD.left, x2: width - PAD.right, y1: y, y2: y }, this.svg);
      element("text", { x: PAD.left - 6, y: y + 4, "text-anchor": "end" }, this.svg).textContent = tickText(tick);
    }
    for (const tick of linearTicks(left, right, Math.max(3, width / 80))) {
      const x = this.x(tick);
      element("line", { class: "rule", x1: x, x2: x, y1: height - PAD.bottom, y2: height - PAD.bottom + 4 }, this.svg);
      element("text", { x, y: height - 4, "text-anchor": x > width - 24 ? "end" : "middle" }, this.svg).textContent = tickText(tick);
    }
  }

  curve(line, values, usable, kind) {
    const parts = [];
    let open = false;
    values.forEach((value, i) => {
      if (!usable(value)) { open = false; return; }
      parts.push(`${open ? "L" : "M"}${this.x(line[view.x][i]).toFixed(1)} ${this.y(value).toFixed(1)}`);
      open = true;
    });
    element("path", { class: kind, d: parts.join(""), stroke: colour(line.style), "stroke-dasharray": kind === "curve" ? dash(line.style) : "" }, this.svg);
  }

  /* Markers: every point of a short line, about seven of a long one, always the last. */
  spots(line, usable) {
    const count = line.drawn.length, every = count <= 14 ? 1 : Math.ceil(count / 7);
    for (let i = count - 1; i >= 0; i -= every)
      if (usable(line.drawn[i])) this.spot(line, i, this.svg);
  }

  spot(line, i, parent) {
    const place = `translate(${this.x(line[view.x][i]).toFixed(1)} ${this.y(line.drawn[i]).toFixed(1)})`;
    element("path", { class: "spot", d: marker(line.style), fill: colour(line.style), transform: place }, parent);
  }

  say(width, height, text) {
    element("text", { x: (PAD.left + width) / 2, y: height / 2, "text-anchor": "middle" }, this.svg).textContent = text;
  }

  point(event) {
    const box = this.svg.getBoundingClientRect(), { left, right } = this.range;
    const share = (event.clientX - box.left - PAD.left) / (box.width - PAD.left - PAD.right);
    readOut(left + Math.min(1, Math.max(0, share)) * (right - left));
  }

  key(event) {
    const line = this.shown()[0];
    if (!line || !["ArrowLeft", "ArrowRight", "Home", "End", "Escape"].includes(event.key)) return;
    event.preventDefault();
    const xs = line[view.x], last = xs.length - 1;
    const here = view.at === null ? last + 1 : nearest(xs, view.at);
    const next = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last }[event.key];
    readOut(event.key === "Escape" ? null : xs[Math.min(last, Math.max(0, next))]);
    const said = this.buttons.map((b) => b.textContent.trim().replace(/\s+/g, " ")).join(", ");
    document.getElementById("spoken").textContent = `${this.at.textContent}: ${said}`;
  }

  /* Values at the crosshair (or the last ones) into the legend, and the crosshair itself. */
  read() {
    const lines = this.shown();
    this.cross?.replaceChildren();
    const first = lines[0];
    const mean = lines.some((line) => line.drawn && line.drawn !== line.values) ? " · smoothed" : "";
    this.at.textContent = (view.x === "images" ? "images seen" : "minutes of training") + mean;
    if (first && view.at !== null) {
      const i = nearest(first[view.x], view.at);
      this.at.textContent = `${figure(first.images[i])} images seen · ${figure(first.minutes[i])} min${mean}`;
      if (this.cross && this.x) {
        const x = this.x(first[view.x][i]);
        element("line", { class: "cross", x1: x, x2: x, y1: PAD.top, y2: this.svg.clientHeight - PAD.bottom }, this.cross);
      }
    }
    this.lines.forEach((line, index) => {
      const xs = line[view.x];
      let i = view.at === null ? line.values.findLastIndex((v) => v !== null) : nearest(xs, view.at);
      const off = view.at !== null && (view.at < xs[0] - this.reach() || view.at > xs.at(-1) + this.reach());
      const value = off || !lines.includes(line) ? null : line.drawn?.[i] ?? line.values[i];
      const cell = this.buttons[index].querySelector(".value");
      cell.textContent = figure(value);
      cell.title = value === null ? "" : String(value);
      const drawable = value !== null && (!this.log || value > 0);
      if (view.at !== null && drawable && this.cross && line.drawn) this.spot(line, i, this.cross);
    });
  }

  /* How far beside a line's ends its end values are still read out. */
  reach() {
    return (this.range.right - this.range.left) * 0.03;
  }
}

/* A line of one run is switched in its panel; a run, where there are several, everywhere. */
function toggle(panel, line) {
  const several = panels.some((p) => p.lines.some((l) => l.run !== panels[0].lines[0].run));
  const set = several ? view.hiddenRuns : panel.hidden, what = several ? line.run : line;
  if (!set.delete(what)) set.add(what);
  for (const one of several ? panels : [panel]) {
    one.lines.forEach((l, i) =>
      one.buttons[i].setAttribute("aria-pressed", !one.hidden.has(l) && !view.hiddenRuns.has(l.run)));
    one.draw();
  }
}

function readOut(x) {
  view.at = x;
  for (const panel of panels) if (panel.svg.clientWidth) panel.read();
}

document.querySelectorAll(".swatch").forEach(drawSwatch);
const panels = [...document.querySelectorAll(".panel")].map(
  (root) => new Panel(root, data.panels[Number(root.dataset.panel)]));

for (const radio of document.querySelectorAll("input[name=x]"))
  radio.addEventListener("change", () => {
    view.x = radio.value;
    view.at = null;
    panels.forEach((panel) => panel.draw());
  });
document.getElementById("smooth")?.addEventListener("input", (event) => {
  view.smooth = Number(event.target.value);
  event.target.setAttribute("aria-valuetext", view.smooth ? `level ${view.smooth}` : "none");
  panels.forEach((panel) => panel.draw());
});
