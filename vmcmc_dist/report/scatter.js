/* Scatters of trials: the course of the search, slices over a dial, the front of two metrics. */

class Scatter extends TrialChart {
  /* Subclasses say: xAxis(), yAxis(), spotsOf(trial) → [[x, y], …] (y null: diverged). */
  draw(width, height) {
    const x = this.xAxis(), y = this.yAxis(), trials = this.trials();
    if (!x || !y) return;
    const strip = trials.some((trial) => this.spotsOf(trial).some(([, v]) => v === null)) ? LOST : 0;
    const [top, bottom] = y.mode === "max" ? [PAD.top + 4, height - PAD.bottom - 4 - strip] : [PAD.top + 4 + strip, height - PAD.bottom - 4];
    this.lostY = y.mode === "max" ? height - PAD.bottom - 9 : PAD.top + 7;
    this.px = (v) => PAD.left + 9 + x.place(v) * (width - PAD.left - PAD.right - 18);
    this.py = (v) => (v === null ? this.lostY : bottom - y.place(v) * (bottom - top));
    this.frame(width, height, x, y);
    if (strip) this.aside = () => element("text", { class: "halo aside", x: width - PAD.right, y: this.lostY + (y.mode === "max" ? 4 : 3), "text-anchor": "end" }, this.svg).textContent = "diverged";
    this.places = new Map();
    const layer = element("g", {}, this.svg);
    const size = trials.length > 300 ? 2.4 : trials.length > 80 ? 3.2 : 4.2;
    for (const trial of drawOrder(trials)) {
      const spots = this.spotsOf(trial).map(([a, b]) => [this.px(a), this.py(b)]);
      if (!spots.length) continue;
      this.places.set(trial, spots);
      this.nodes.set(trial, this.body(trial, spots, size, layer));
    }
    this.decorate(width, height);
    if (strip) this.aside();
  }

  trials() { return shownTrials().filter((trial) => this.spotsOf(trial).length); }

  frame(width, height, x, y) {
    for (const tick of y.ticks(4)) {
      const at = this.py(tick);
      if (at < PAD.top - 2 || at > height - PAD.bottom + 2) continue;
      element("line", { class: "rule", x1: PAD.left, x2: width - PAD.right, y1: at, y2: at }, this.svg);
      element("text", { x: PAD.left - 6, y: at + 4, "text-anchor": "end" }, this.svg).textContent = y.tick(tick);
    }
    element("line", { class: "rule", x1: PAD.left, x2: width - PAD.right, y1: height - PAD.bottom, y2: height - PAD.bottom }, this.svg);
    let free = -Infinity;
    for (const tick of x.ticks(Math.max(3, width / 90))) {
      const at = this.px(tick), text = x.tick(tick), half = text.length * 3.2;
      if (at < PAD.left - 1 || at > width - PAD.right + 1 || at - half < free) continue;
      free = at + half + 4;
      element("line", { class: "rule", x1: at, x2: at, y1: height - PAD.bottom, y2: height - PAD.bottom + 4 }, this.svg);
      element("text", { x: Math.min(at, width - half), y: height - 4, "text-anchor": "middle" }, this.svg).textContent = text;
    }
  }

  body(trial, [[x, y]], size, layer) { return dot(trial, x, y, size, layer); }

  decorate() {}

  locate(event) {
    if (!this.places) return null;
    const box = this.svg.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let best = null, reach = NEAR;
    for (const [trial, spots] of this.places) {
      if (!chosen(trial)) continue;
      for (const [a, b] of spots) {
        const far = Math.hypot(a - x, b - y);
        if (far <= reach) { reach = far; best = trial; }
      }
    }
    return best;
  }

  highlight(trial) {
    const spots = this.places?.get(trial);
    if (!spots) return;
    if (spots.length > 1) {
      element("path", { class: "strand under", d: path(spots) }, this.over);
      element("path", { class: "strand picked", d: path(spots), style: `stroke:${hue(trial)}` }, this.over);
    }
    const [x, y] = spots.at(-1);
    element("circle", { class: "ring", cx: x, cy: y, r: 8 }, this.over);
    dot(trial, x, y, 5, this.over);
  }
}

/* ● of full length, ○ of fewer images, × diverged. */
function dot(trial, x, y, size, parent) {
  if (lost(trial)) {
    const r = size * 0.8;
    return element("path", { class: "dot", d: `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}`, style: "stroke:var(--faint);stroke-width:1.5" }, parent);
  }
  const fill = trial.full ? `fill:${hue(trial)};stroke:var(--paper);stroke-width:.7` : `fill:var(--paper);stroke:${hue(trial)};stroke-width:1.5`;
  return element("circle", { class: "dot", cx: x.toFixed(1), cy: y.toFixed(1), r: trial.full ? size : size * 0.85, style: fill }, parent);
}

const upTo = (high, whole) => new Axis({ scale: "linear", low: 0, high: high || 1, whole, choices: [], mode: "" });

const COURSES = { order: "trials ended", images: "images of all trials until then", minutes: "minutes of all trials until then" };

class Course extends Scatter {
  by() { return document.querySelector("input[name=course]:checked").value; }
  at(trial) { return this.by() === "order" ? trial.order : trial.spent[this.by()]; }
  xAxis() { return upTo(Math.max(...data.trials.map((trial) => this.at(trial))), this.by() !== "minutes"); }
  yAxis() { return metrics[state.metric]; }
  spotsOf(trial) { return lost(trial) || valueOf(trial) !== null ? [[this.at(trial), valueOf(trial)]] : []; }

  /* The best of full length until then, as a step line. */
  decorate(width) {
    const sign = metrics[state.metric].mode === "max" ? -1 : 1;
    let best = null, d = "";
    for (const trial of state.ranked.filter((t) => t.full).sort((a, b) => a.order - b.order)) {
      const value = valueOf(trial);
      if (best !== null && sign * (value - best) >= 0) continue;
      const x = this.px(this.at(trial)).toFixed(1), y = this.py(value).toFixed(1);
      d += best === null ? `M${x} ${y}` : `H${x}V${y}`;
      best = value;
    }
    if (d) this.svg.insertBefore(element("path", { class: "best-line", d: `${d}H${width - PAD.right}` }), this.svg.lastChild);
  }
}

class Training extends Scatter {
  history(trial) { return trial.history.filter(([, values]) => (values[state.metric] ?? null) !== null); }
  xAxis() { return upTo(Math.max(...data.trials.flatMap((trial) => trial.history.map(([images]) => images))), true); }
  yAxis() { return metrics[state.metric]; }
  spotsOf(trial) { return lost(trial) ? [] : this.history(trial).map(([images, values]) => [images, values[state.metric]]); }

  body(trial, spots, size, layer) {
    const group = element("g", {}, layer);
    const opacity = Math.max(0.3, Math.min(0.9, 60 / data.trials.length));
    element("path", { class: "strand", d: path(spots), style: `stroke:${hue(trial)};opacity:${opacity.toFixed(2)}` }, group);
    dot(trial, ...spots.at(-1), size * 0.8, group);
    return group;
  }
}

class Slice extends Scatter {
  constructor(svg) { super(svg); this.dial = Number(svg.dataset.dial); }
  xAxis() { return dials[this.dial]; }
  yAxis() { return metrics[state.metric]; }
  spotsOf(trial) {
    const x = trial.dials[this.dial], y = data.compared[state.metric]?.[trial.id];
    return x === null || y === undefined ? [] : [[x, y]];
  }

  decorate(width, height) {
    const { base } = dials[this.dial];
    if (base !== null) {
      const x = this.px(base);
      if (x > PAD.left && x < width - PAD.right) element("line", { class: "event", x1: x, x2: x, y1: PAD.top, y2: height - PAD.bottom }, this.svg);
    }
    for (const [from, to, median] of data.medians[state.metric]?.[dials[this.dial].name] ?? []) {
      const room = to > from ? 0 : 9, y = this.py(median);
      element("path", { class: "median", d: `M${this.px(from) - room} ${y}H${this.px(to) + room}` }, this.svg);
    }
  }
}

class Front extends Scatter {
  constructor(svg) { super(svg); this.other = Number(svg.dataset.other); }
  xAxis() { return metrics[0]; }
  yAxis() { return metrics[this.other]; }
  spotsOf(trial) {
    const [x, y] = [trial.values[0] ?? null, trial.values[this.other] ?? null];
    return lost(trial) || x === null || y === null ? [] : [[x, y]];
  }

  decorate() {
    const spots = data.front.map((id) => this.places.get(byId.get(id))?.[0]).filter(Boolean).sort((a, b) => a[0] - b[0]);
    this.svg.insertBefore(element("path", { class: "best-line", d: path(spots) }), this.svg.lastChild);
    for (const [cx, cy] of spots) element("circle", { class: "ring", cx, cy, r: 6 }, this.svg);
  }
}

for (const svg of document.querySelectorAll("[data-chart]"))
  new { course: Course, training: Training, slice: Slice, front: Front, parallel: Parallel }[svg.dataset.chart](svg);
for (const svg of document.querySelectorAll(".key")) {
  const style = { full: "fill:var(--good)", short: "fill:none;stroke:var(--good);stroke-width:1.5" }[svg.dataset.key];
  if (style) element("circle", { cx: 7, cy: 7, r: 4, style }, svg);
  else element("path", { d: "M4 4L10 10M4 10L10 4", style: "stroke:var(--faint);stroke-width:1.5" }, svg);
}
for (const radio of document.querySelectorAll("input[name=course]"))
  radio.addEventListener("change", () => {
    document.querySelector("[data-course]").textContent = COURSES[radio.value];
    charts.filter((chart) => chart instanceof Course).forEach((chart) => chart.redraw());
  });
show();
