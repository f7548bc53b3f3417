/* A sweep's charts share their axes, their colours, the trial that is pointed at, and the choice. */

const NEAR = 16;
const LOST = 18;

class Axis {
  constructor(spec) { Object.assign(this, spec); }

  /* 0 … 1 from the low to the high end. */
  place(value) {
    if (this.scale === "choice") return (value + 0.5) / Math.max(1, this.choices.length);
    if (this.high === this.low) return 0.5;
    if (this.scale === "log") return Math.log(value / this.low) / Math.log(this.high / this.low);
    return (value - this.low) / (this.high - this.low);
  }

  ticks(count) {
    if (this.scale === "choice") return this.choices.map((_, index) => index);
    if (this.high === this.low) return [+this.low.toPrecision(4)];
    const ticks = this.scale === "log" ? logTicks(this.low, this.high) : linearTicks(this.low, this.high, count);
    const whole = this.whole ? ticks.filter(Number.isInteger) : ticks;
    const every = Math.ceil(whole.length / (count + 2));
    return whole.filter((_, index) => index % every === 0);
  }

  tick(value) { return this.scale === "choice" ? this.choices[value] : tickText(value); }

  text(value) { return value !== null && this.scale === "choice" ? this.choices[value] : figure(value); }
}

const dials = data.dials.map((spec) => new Axis(spec));
const metrics = data.metrics.map((spec) => new Axis(spec));
const byId = new Map(data.trials.map((trial) => [trial.id, trial]));
const state = { metric: 0, pointed: null, kept: null, ranges: new Map() };
const charts = [];

const lost = (trial) => trial.status === "diverged";
const valueOf = (trial) => (lost(trial) ? null : trial.values[state.metric] ?? null);
const anyLost = data.trials.some(lost);
const shownTrials = () => data.trials.filter((trial) => lost(trial) || valueOf(trial) !== null);

/* Trial → 0 (best) … 1 (worst) by rank, diverged ones 1. */
const goodness = new Map();

function rank() {
  const sign = metrics[state.metric]?.mode === "max" ? -1 : 1;
  const judged = data.trials.filter((trial) => valueOf(trial) !== null);
  judged.sort((a, b) => b.full - a.full || sign * (valueOf(a) - valueOf(b)));
  state.ranked = judged;
  const byValue = [...judged].sort((a, b) => sign * (valueOf(a) - valueOf(b)));
  goodness.clear();
  byValue.forEach((trial, index) => goodness.set(trial, byValue.length > 1 ? index / (byValue.length - 1) : 0));
}

function hue(trial) {
  if (lost(trial)) return "var(--faint)";
  return `color-mix(in oklab, var(--bad) ${((goodness.get(trial) ?? 1) * 100).toFixed(0)}%, var(--good))`;
}

/* Worst first, so that the best lie on top. */
const drawOrder = (trials) => [...trials].sort((a, b) => (goodness.get(b) ?? 2) - (goodness.get(a) ?? 2));

function chosen(trial) {
  return [...state.ranges].every(([axis, [low, high]]) => {
    const at = axis(trial);
    return at !== null && at >= low && at <= high;
  });
}

/* One chart: finds the trial under the pointer, and marks the one that any chart points at. */
class TrialChart {
  constructor(svg) {
    this.svg = svg;
    this.nodes = new Map();
    svg.addEventListener("pointermove", (event) => point(this.locate(event), event));
    svg.addEventListener("pointerleave", () => point(null));
    svg.addEventListener("click", (event) => keep(this.locate(event)));
    svg.addEventListener("keydown", (event) => this.key(event));
    svg.addEventListener("blur", () => point(null));
    new ResizeObserver(() => this.redraw()).observe(svg);
    charts.push(this);
  }

  redraw() {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    this.svg.replaceChildren();
    this.nodes.clear();
    if (!width || !height) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.draw(width, height);
    this.over = element("g", { class: "over" }, this.svg);
    this.choose();
    this.mark();
  }

  choose() {
    for (const [trial, node] of this.nodes) node.classList.toggle("off", !chosen(trial));
  }

  mark() {
    if (!this.over) return;
    this.over.replaceChildren();
    for (const trial of new Set([state.kept, state.pointed])) if (trial) this.highlight(trial);
  }

  key(event) {
    const ranked = state.ranked.filter(chosen), last = ranked.length - 1;
    if (event.key === "Escape") { keep(null); point(null); return; }
    if (event.key === "Enter") { keep(state.pointed); return; }
    if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key) || last < 0) return;
    event.preventDefault();
    const here = ranked.indexOf(state.pointed ?? state.kept);
    const next = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last }[event.key];
    const box = this.svg.getBoundingClientRect();
    point(ranked[Math.min(last, Math.max(0, next))], { clientX: box.left + 60, clientY: box.top });
    document.getElementById("spoken").textContent = `rank ${ranked.indexOf(state.pointed) + 1} of ${ranked.length}: ${tip.innerText}`;
  }
}

const tip = document.body.appendChild(document.createElement("div"));
tip.id = "tip";
tip.hidden = true;
const spoken = document.body.appendChild(document.createElement("p"));
Object.assign(spoken, { id: "spoken", className: "visually-hidden" });
spoken.setAttribute("role", "status");

function tell(trial) {
  const rows = [
    ...metrics.map((axis, index) => [axis.name, lost(trial) ? "diverged" : figure(trial.values[index] ?? null)]),
    ["images", trial.images.toLocaleString("en-US")],
    ...dials.map((axis, index) => [axis.name, axis.text(trial.dials[index])]),
  ];
  const head = document.createElement("b"), list = document.createElement("dl");
  head.textContent = `trial ${trial.id} · ${trial.status}`;
  for (const [name, value] of rows) {
    list.append(document.createElement("dt"), document.createElement("dd"));
    list.children[list.children.length - 2].textContent = name;
    list.lastChild.textContent = value;
  }
  tip.replaceChildren(head, list);
}

function point(trial, at) {
  tip.hidden = !trial;
  if (trial) {
    if (trial !== state.pointed) tell(trial);
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const left = at.clientX + 18 + width > innerWidth ? at.clientX - width - 14 : at.clientX + 18;
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - width - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(at.clientY + 14, innerHeight - height - 4))}px`;
  }
  if (trial === state.pointed) return;
  state.pointed = trial;
  charts.forEach((chart) => chart.mark());
}

function keep(trial) {
  state.kept = trial === state.kept ? null : trial;
  charts.forEach((chart) => chart.mark());
  for (const row of document.querySelectorAll("[data-trial]")) {
    const kept = row.dataset.trial === state.kept?.id;
    row.classList.toggle("kept", kept);
    row.querySelector(".pick")?.setAttribute("aria-pressed", kept);
  }
}

function choose() {
  charts.forEach((chart) => chart.choose());
  const all = shownTrials(), in_ = all.filter(chosen);
  const count = document.getElementById("count"), reset = document.getElementById("reset");
  if (!count) return;
  const some = state.ranges.size > 0;
  count.textContent = some ? `${in_.length} of ${all.length} trials chosen` : `${all.length} trials`;
  reset.hidden = !some;
  const ids = new Set(in_.map((trial) => trial.id));
  for (const row of document.querySelectorAll("#all-trials tbody tr"))
    row.classList.toggle("outside", some && !ids.has(row.dataset.trial));
}

document.getElementById("reset")?.addEventListener("click", () => {
  state.ranges.clear();
  charts.forEach((chart) => chart.redraw());
  choose();
});
for (const button of document.querySelectorAll(".pick"))
  button.addEventListener("click", () => keep(byId.get(button.closest("[data-trial]").dataset.trial)));
for (const radio of document.querySelectorAll("input[name=metric]"))
  radio.addEventListener("change", () => {
    state.metric = Number(radio.value);
    show();
  });

/* Everything by the metric that is chosen. */
function show() {
  rank();
  const axis = metrics[state.metric];
  for (const unit of document.querySelectorAll("[data-metric]"))
    unit.textContent = axis ? `${axis.name} ${axis.mode === "max" ? "↑ higher" : "↓ lower"} is better` : "";
  for (const part of document.querySelectorAll("[data-of]")) part.hidden = Number(part.dataset.of) !== state.metric;
  charts.forEach((chart) => chart.redraw());
  choose();
}
