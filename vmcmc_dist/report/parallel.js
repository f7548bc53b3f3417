/* Parallel coordinates: an axis a dial and a metric, a line a trial, ranges dragged along axes. */

class Parallel extends TrialChart {
  constructor(svg) {
    super(svg);
    this.axes = [
      ...dials.map((axis, index) => ({ axis, value: (trial) => trial.dials[index] })),
      ...metrics.map((axis, index) => ({ axis, lost: anyLost, value: (trial) => (lost(trial) ? null : trial.values[index] ?? null) })),
    ];
    for (const one of this.axes) one.at = (trial) => this.at(one, trial);
    svg.addEventListener("pointerdown", (event) => this.begin(event));
    svg.addEventListener("pointermove", (event) => this.drag(event));
    svg.addEventListener("pointerup", (event) => this.end(event));
    svg.addEventListener("pointercancel", () => { this.dragged = null; });
    svg.addEventListener("click", (event) => {
      if (this.moved) event.stopImmediatePropagation();
      this.moved = false;
    }, { capture: true });
  }

  /* 0 … 1 along an axis; diverged trials lie beyond the worst end of a metric. */
  at(one, trial) {
    if (one.lost && lost(trial)) return one.axis.mode === "max" ? 0 : 1;
    const value = one.value(trial);
    if (value === null) return null;
    const place = one.axis.place(value);
    if (!one.lost) return place;
    return one.axis.mode === "max" ? 0.1 + 0.9 * place : 0.9 * place;
  }

  draw(width, height) {
    this.narrow = width < 560;
    const wanted = this.narrow ? `${this.axes.length * 62 + 20}px` : "26rem";
    if (this.svg.style.height !== wanted) this.svg.style.height = wanted; // drawn again when it is
    const count = this.axes.length, across = this.narrow ? height - 58 : width - 120;
    const [start, length] = this.narrow ? [12, width - 36] : [height - 14, -(height - 66)];
    this.spot = (index, share) => {
      const along = (this.narrow ? 34 : 56) + (count > 1 ? (across * index) / (count - 1) : across / 2);
      return this.narrow ? [start + 6 + share * length, along] : [along, start + share * length];
    };
    this.share = (x, y) => (this.narrow ? (x - start - 6) / length : (y - start) / length);
    this.lines = new Map();
    const opacity = Math.max(0.25, Math.min(0.85, 60 / shownTrials().length));
    const group = element("g", {}, this.svg);
    for (const trial of drawOrder(shownTrials())) {
      const spots = this.axes.map((one, index) => {
        const share = this.at(one, trial);
        return share === null ? null : this.spot(index, share);
      });
      this.lines.set(trial, spots);
      const kind = lost(trial) ? "lost" : trial.full ? "" : "short";
      const rest = (goodness.get(trial) ?? 1) < 0.1 ? 0.95 : opacity;
      const attributes = { class: `strand ${kind}`, d: path(spots), style: `stroke:${hue(trial)};opacity:${rest.toFixed(2)}` };
      this.nodes.set(trial, element("path", attributes, group));
    }
    this.axes.forEach((one, index) => this.rule(one, index));
  }

  rule(one, index) {
    const group = element("g", { class: "axis" }, this.svg);
    const [[x1, y1], [x2, y2]] = [this.spot(index, 0), this.spot(index, 1)];
    element("line", { class: "bar", x1, y1, x2, y2 }, group);
    const ends = one.lost ? (one.axis.mode === "max" ? [0.1, 0.9] : [0, 0.9]) : [0, 1];
    let free = -Infinity;
    for (const tick of one.axis.ticks(this.narrow ? 4 : 6)) {
      const place = one.axis.place(tick);
      if (place < -0.001 || place > 1.001) continue;
      const [x, y] = this.spot(index, ends[0] + place * ends[1]);
      const label = one.axis.tick(tick), half = label.length * 3.3;
      if (this.narrow && x - half < free) continue;
      free = x + half + 4;
      if (this.narrow) element("line", { class: "notch", x1: x, x2: x, y1: y, y2: y + 4 }, group);
      else element("line", { class: "notch", x1: x - 4, x2: x, y1: y, y2: y }, group);
      const anchor = this.narrow ? { x: Math.max(half, Math.min(x, this.svg.clientWidth - half)), y: y + 15, "text-anchor": "middle" } : { x: x - 7, y: y + 4, "text-anchor": "end" };
      element("text", { class: "halo", ...anchor }, group).textContent = label;
    }
    if (one.lost) {
      const [x, y] = this.spot(index, one.axis.mode === "max" ? 0 : 1);
      const anchor = this.narrow ? { x: Math.min(x, this.svg.clientWidth - 2), y: y + 15, "text-anchor": "end" } : { x: x - 7, y: y + 4, "text-anchor": "end" };
      element("text", { class: "halo", ...anchor }, group).textContent = this.narrow ? "×" : "diverged";
    }
    this.title(one, index, group);
    const range = state.ranges.get(one.at);
    if (range) this.range(index, range, group);
  }

  title(one, index, group) {
    const better = { min: " ↓", max: " ↑" }[one.axis.mode] ?? "";
    if (this.narrow) {
      const [, y] = this.spot(index, 0);
      element("text", { class: "title halo", x: 4, y: y - 8 }, group).textContent = one.axis.name + better;
      return;
    }
    const [x] = this.spot(index, 1), cut = one.axis.name.lastIndexOf(".") + 1;
    const room = this.svg.clientWidth / this.axes.length, metric = one.axis.mode !== "";
    const words = metric ? broken(one.axis.name + better, room) : [one.axis.name.slice(0, cut), one.axis.name.slice(cut)];
    const place = index === 0 && x < 60 ? "middle" : index === this.axes.length - 1 ? "end" : "middle";
    words.filter(Boolean).slice(-2).forEach((word, line, all) => {
      const dx = place === "end" ? x + 60 : x;
      element("text", { class: "title", x: dx, y: 14 + 15 * (line + 2 - all.length), "text-anchor": place }, group).textContent = word;
    });
  }

  range(index, [low, high], group) {
    const [[x1, y1], [x2, y2]] = [this.spot(index, low), this.spot(index, high)];
    element("rect", { class: "range", x: Math.min(x1, x2) - (this.narrow ? 0 : 7), y: Math.min(y1, y2) - (this.narrow ? 7 : 0), width: Math.abs(x2 - x1) + (this.narrow ? 0 : 14), height: Math.abs(y2 - y1) + (this.narrow ? 14 : 0), rx: 3 }, group);
  }

  inside(event) {
    const box = this.svg.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /* The axis within reach of the pointer. */
  axisAt([x, y]) {
    return this.axes.findIndex((_, index) => {
      const [ax, ay] = this.spot(index, 0);
      return Math.abs(this.narrow ? y - ay : x - ax) < 12;
    });
  }

  begin(event) {
    const at = this.inside(event), index = this.axisAt(at);
    this.moved = false;
    if (index < 0 || (event.pointerType === "touch" && !this.narrow)) return;
    this.dragged = { index, from: at, begun: this.share(...at) };
    this.svg.setPointerCapture(event.pointerId);
  }

  drag(event) {
    if (!this.dragged) return;
    const at = this.inside(event), { from, index, begun } = this.dragged;
    if (Math.hypot(at[0] - from[0], at[1] - from[1]) < 5) return;
    this.moved = true;
    const [low, high] = [begun, this.share(...at)].sort((a, b) => a - b);
    state.ranges.set(this.axes[index].at, [Math.max(0, low), Math.min(1, high)]);
    point(null);
    this.redraw();
    choose();
  }

  end() {
    const dragged = this.dragged;
    this.dragged = null;
    if (!dragged || this.moved || !state.ranges.delete(this.axes[dragged.index].at)) return;
    this.moved = true; // a click on an axis with a range takes the range away, and keeps no trial
    this.redraw();
    choose();
  }

  locate(event) {
    if (!this.lines || this.dragged) return null;
    const [x, y] = this.inside(event), [main, side] = this.narrow ? [y, x] : [x, y];
    let best = null, reach = NEAR;
    for (const [trial, spots] of this.lines) {
      if (!chosen(trial)) continue;
      for (let i = 1; i < spots.length; i++) {
        if (!spots[i - 1] || !spots[i]) continue;
        const [a, b] = this.narrow ? [[spots[i - 1][1], spots[i - 1][0]], [spots[i][1], spots[i][0]]] : [spots[i - 1], spots[i]];
        if (main < a[0] - 8 || main > b[0] + 8) continue;
        const share = Math.min(1, Math.max(0, (main - a[0]) / (b[0] - a[0])));
        const slope = (b[1] - a[1]) / (b[0] - a[0]);
        const far = Math.abs(a[1] + share * (b[1] - a[1]) - side) / Math.hypot(1, slope);
        if (far <= reach) { reach = far; best = trial; }
      }
    }
    return best;
  }

  highlight(trial) {
    const spots = this.lines?.get(trial);
    if (!spots) return;
    element("path", { class: "strand under", d: path(spots) }, this.over);
    element("path", { class: `strand picked ${lost(trial) ? "lost" : ""}`, d: path(spots), style: `stroke:${hue(trial)}` }, this.over);
    for (const spot of spots) if (spot) element("circle", { class: "spot", cx: spot[0], cy: spot[1], r: 4, style: `fill:${hue(trial)}` }, this.over);
  }
}

/* A long name of a metric on two lines, cut at an underscore. */
function broken(name, room) {
  const most = Math.max(8, Math.floor(room / 6.2));
  if (name.length <= most) return ["", name];
  const cut = name.lastIndexOf("_", most) > 0 ? name.lastIndexOf("_", most) : name.lastIndexOf("_");
  return cut > 0 ? [name.slice(0, cut + 1), name.slice(cut + 1)] : ["", name];
}

/* Straight pieces through the spots; a missing one is a gap. */
function path(spots) {
  let open = false;
  return spots.map((spot) => {
    const step = spot ? `${open ? "L" : "M"}${spot[0].toFixed(1)} ${spot[1].toFixed(1)}` : "";
    open = spot !== null;
    return step;
  }).join("");
}
