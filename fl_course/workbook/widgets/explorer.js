// The page side of Explorer (widgets.py). It draws the trait `frame` and sends what the reader does; it computes nothing.
// No dependency and no request: this module and explorer.css are all there is.

const SVG = "http://www.w3.org/2000/svg";
const W = 420, H = 260, LEFT = 56, RIGHT = 12, TOP = 10, BOTTOM = 44;      // of a chart, in its own units
let count = 0;                                                             // makes ids unique in the page

function put(node, attributes, ...children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const el = (tag, attributes = {}, ...children) => put(document.createElement(tag), attributes, ...children);
const svg = (tag, attributes = {}, ...children) => put(document.createElementNS(SVG, tag), attributes, ...children);

export function show(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(size >= 1000 ? 6 : 4)));
}

// Round numbers inside [low, high]: steps of 1, 2 or 5 times a power of ten, or the powers of ten on a log axis.
// `whole`: of whole numbers (rounds), so never finer than 1.
export function ticks(low, high, log, whole = false) {
  if (log) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high) + 1e-9; e++)
      for (const m of high / low > 300 ? [1] : [1, 2, 5]) found.push(Number(`${m}e${e}`));
    return found.filter((t) => t >= low * 0.999 && t <= high * 1.001);
  }
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const round = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999), step = whole ? Math.max(1, round) : round;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
    found.push(Number((i * step).toPrecision(12)) + 0);                    // + 0: no minus zero
  return found;
}

function extent(values, log) {
  const good = values.filter((v) => v !== null && (!log || v > 0));
  if (!good.length) return log ? [1, 10] : [0, 1];
  const [low, high] = [Math.min(...good), Math.max(...good)];
  if (low < high) return [low, high];
  const half = (Math.abs(low) || 1) / 2;
  return log ? [low / 2, low * 2] : [low - half, low + half];
}

// The declared ends of an axis, where there are any, instead of the measured ones.
function clamp([low, high], fixed) {
  [low, high] = [fixed?.[0] ?? low, fixed?.[1] ?? high];
  return low < high ? [low, high] : [low, low + Math.abs(low || 1)];
}

function scale([low, high], from, to, log) {
  const f = log ? Math.log10 : (v) => v;
  return (v) => (v === null || (log && v <= 0) ? null : from + ((f(v) - f(low)) / (f(high) - f(low))) * (to - from));
}

// Lines of all runs on one chart: the current run first. Colour and dashes go with the number of the line.
function linesOf(spec, runs) {
  return runs.flatMap((run) => spec.lines.map((name) => ({
    label: [spec.lines.length > 1 ? name : "", runs.length > 1 ? run.label : ""].filter(Boolean).join(", "),
    points: run.lines[name] ?? [], now: run === runs[0],
  })));
}

function axes(g, spec, x, y, xs, ys) {
  for (const t of ys) g.append(
    svg("line", { x1: LEFT, x2: W - RIGHT, y1: y(t), y2: y(t), class: "flx-grid" }),
    svg("text", { x: LEFT - 6, y: y(t) + 4, "text-anchor": "end" }, show(t)));
  for (const [at, text] of xs) g.append(
    svg("line", { x1: at, x2: at, y1: H - BOTTOM, y2: H - BOTTOM + 4, class: "flx-axis" }),
    svg("text", { x: at, y: H - BOTTOM + 16, "text-anchor": "middle" }, text));
  g.append(
    svg("line", { x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM, class: "flx-axis" }),
    svg("line", { x1: LEFT, x2: LEFT, y1: TOP, y2: H - BOTTOM, class: "flx-axis" }),
    svg("text", { x: (LEFT + W - RIGHT) / 2, y: H - 8, "text-anchor": "middle", class: "flx-label" }, spec.x),
    svg("text", { x: -(TOP + H - BOTTOM) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle", class: "flx-label" }, spec.y));
}

class ChartView {
  constructor(spec, palette, dashes) {
    Object.assign(this, { spec, palette, dashes, wide: {}, marks: [] });
    this.svg = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: "0", "aria-label": spec.title });
    this.tip = el("div", { class: "flx-tip", hidden: "" });
    this.legend = el("ul", { class: "flx-legend" });
    this.node = el("figure", { class: "flx-chart" }, el("figcaption", {}, spec.title),
      el("div", { class: "flx-plot" }, this.svg, this.tip), this.legend);
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      this.point(((event.clientX - box.left) / box.width) * W);
    });
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.svg.addEventListener("blur", () => this.point(null));
    this.svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step || !this.marks.length) return;
      event.preventDefault(); event.stopPropagation();
      const at = this.marks.findIndex((mark) => mark.x === this.at);
      this.point(this.marks[Math.max(0, Math.min(this.marks.length - 1, at < 0 ? 0 : at + step))].x);
    });
  }

  look(n) {                                                // the last colour, black, is the text's own in a dark theme
    const colour = this.palette[n % this.palette.length];
    return { stroke: colour === "#000000" ? "currentColor" : colour, "stroke-dasharray": this.dashes[n % this.dashes.length] };
  }

  key(shape, label) {                                   // an entry of the legend
    return el("li", {}, svg("svg", { viewBox: "0 0 34 10", class: "flx-key" }, shape), label);
  }

  draw(frame) {
    const [g, legend] = [svg("g"), []];
    this.marks = [];                                       // what hovering can find: {x, text}
    if (this.spec.kind === "bars") this.drawBars(g, legend, frame.runs); else this.drawLines(g, legend, frame);
    this.guide = svg("line", { y1: TOP, y2: H - BOTTOM, class: "flx-guide", visibility: "hidden" });
    g.append(this.guide);
    this.svg.replaceChildren(g);
    this.legend.replaceChildren(...(legend.length > 1 ? legend : []));
    if (this.at !== undefined && this.at !== null) this.point(this.at);
  }

  drawLines(g, legend, frame) {
    const { spec } = this, lines = linesOf(spec, frame.runs), running = frame.status === "running";
    const range = (fixed, index, log) => {                 // while a run grows the axes only widen, so they do not tremble
      const now = extent(lines.flatMap((line) => line.points.map((p) => p[index])), log), old = this.wide[index];
      this.wide[index] = running && old ? [Math.min(now[0], old[0]), Math.max(now[1], old[1])] : now;
      return clamp(this.wide[index], fixed);
    };
    const [xr, yr] = [range(spec.xRange, 0, spec.xLog), range(spec.yRange, 1, spec.yLog)];
    const x = scale(xr, LEFT, W - RIGHT, spec.xLog), y = scale(yr, H - BOTTOM, TOP, spec.yLog);
    const whole = lines.every((line) => line.points.every((p) => p[0] === null || Number.isInteger(p[0])));
    axes(g, spec, x, y, ticks(...xr, spec.xLog, whole).map((t) => [x(t), show(t)]), ticks(...yr, spec.yLog));
    const found = new Map();
    lines.forEach((line, n) => {
      const look = this.look(n);
      let path = "", pen = "M";
      for (const [a, b] of line.points) {
        const [px, py] = [x(a), y(b)];
        if (px === null || py === null) { pen = "M"; continue; }
        path += `${pen}${px.toFixed(1)} ${py.toFixed(1)}`;
        pen = "L";
        found.set(a, [...(found.get(a) ?? []), `${line.label || spec.y}: ${show(b)}`]);
        const r = line.points.length > 60 ? 1.2 : 2.2;
        if (line.now) g.append(svg("circle", { cx: px.toFixed(1), cy: py.toFixed(1), r, fill: look.stroke }));
      }
      g.prepend(svg("path", { d: path, class: line.now ? "flx-line" : "flx-line flx-pinned", "data-line": n, ...look }));
      legend.push(this.key(svg("line", { x1: 1, x2: 33, y1: 5, y2: 5, class: "flx-line", ...look }), line.label));
    });
    this.marks = [...found].map(([a, texts]) => ({ x: x(a), text: [`${spec.x} ${show(a)}`, ...texts] }));
    this.marks.sort((p, q) => p.x - q.x);
    this.describe(lines.map((line) =>
      `${line.label || spec.y}: ${line.points.length} points, last ${show(line.points.at(-1)?.[1])}`));
  }

  drawBars(g, legend, runs) {
    const { spec } = this, groups = runs.map((run) => ({ label: run.label, bars: run.bars[spec.title] ?? [] }));
    const names = [...new Set(groups.flatMap((group) => group.bars.map((bar) => bar[0])))];
    const yr = clamp(extent([0, ...groups.flatMap((group) => group.bars.map((bar) => bar[1]))], false), spec.yRange);
    const y = scale(yr, H - BOTTOM, TOP, false), each = (W - LEFT - RIGHT) / Math.max(names.length, 1);
    const wide = (each * 0.8) / groups.length, base = y(Math.max(yr[0], Math.min(yr[1], 0)));
    axes(g, spec, null, y, names.map((name, i) => [LEFT + each * (i + 0.5), name]), ticks(...yr, false));
    const texts = names.map((name) => [name]);
    groups.forEach((group, n) => {
      const look = { ...this.look(n), fill: n ? "none" : this.look(0).stroke, "stroke-width": 1.5 };
      for (const [name, height] of group.bars) {
        if (height === null) continue;
        const i = names.indexOf(name), top = y(height);
        g.append(svg("rect", { x: LEFT + each * (i + 0.1) + wide * n, width: wide * 0.9, y: Math.min(top, base),
          height: Math.abs(base - top), "data-bar": n, ...look }));
        texts[i].push(`${groups.length > 1 ? group.label : spec.y}: ${show(height)}`);
      }
      legend.push(this.key(svg("rect", { x: 9, y: 1, width: 16, height: 8, ...look }), group.label));
    });
    this.marks = texts.map((text, i) => ({ x: LEFT + each * (i + 0.5), text }));
    this.describe(texts.map((text) => text.join(", ")));
  }

  describe(words) { this.svg.setAttribute("aria-label", `${this.spec.title}. ${words.join("; ")}`); }

  point(x) {                                               // show the values nearest to x (chart units), or hide them
    const mark = x === null ? null : this.marks.reduce((best, m) => (!best || Math.abs(m.x - x) < Math.abs(best.x - x) ? m : best), null);
    this.at = mark ? mark.x : null;
    this.tip.hidden = !mark;
    this.guide?.setAttribute("visibility", mark ? "visible" : "hidden");
    if (!mark) return;
    put(this.guide, { x1: mark.x, x2: mark.x });
    this.tip.replaceChildren(...mark.text.map((line) => el("div", {}, line)));
    put(this.tip, { style: mark.x > W / 2 ? `right:${100 - (mark.x / W) * 100 + 2}%` : `left:${(mark.x / W) * 100 + 2}%` });
  }
}

// One labelled native control; `act(press)` is called when the reader moves it.
function control(spec, act) {
  const id = `flx-${count++}`;
  if (spec.kind === "button") {
    const button = el("button", { type: "button", "data-control": spec.name }, spec.label);
    button.addEventListener("click", () => act(spec.name));
    return { node: button };
  }
  const label = el("label", { for: id }, spec.label), value = el("output", { for: id });
  let input, get, set;
  if (spec.kind === "choice") {
    input = el("select", { id }, ...spec.texts.map((text, i) => el("option", { value: i }, text)));
    [get, set] = [() => Number(input.value), (i) => { input.value = i; }];
  } else if (spec.kind === "switch") {
    input = el("input", { id, type: "checkbox", role: "switch" });
    [get, set] = [() => Number(input.checked), (i) => { input.checked = i === 1; }];
  } else {
    input = el("input", { id, type: "range", min: 0, max: spec.texts.length - 1, step: 1 });
    get = () => Number(input.value);
    set = (i) => { input.value = i; value.textContent = spec.texts[i]; input.setAttribute("aria-valuetext", spec.texts[i]); };
  }
  input.dataset.control = spec.name;
  input.addEventListener("keydown", (event) => event.stopPropagation());   // JupyterLab would take the arrow keys
  input.addEventListener(spec.kind === "range" ? "input" : "change", () => { set(get()); act(""); });
  return { node: el("div", { class: `flx-control flx-${spec.kind}` }, label, input, value), get, set };
}

function table(spec, frame) {
  const moved = spec.controls.filter((c) => c.kind !== "button").map((c) => c.label);
  const lines = spec.charts.flatMap((c) => c.lines), bars = spec.charts.filter((c) => c.kind === "bars").map((c) => c.title);
  const last = (point) => (point ? `${show(point[1])} at ${show(point[0])}` : "–");
  const list = (pairs) => (pairs ?? []).map(([name, height]) => `${name} ${show(height)}`).join(", ") || "–";
  const row = (run) => [...run.values, Math.max(0, ...Object.values(run.lines).map((line) => line.length)),
    ...lines.map((name) => last(run.lines[name]?.at(-1))), ...bars.map((name) => list(run.bars[name]))];
  return el("table", {}, el("caption", {}, "Last values of each run"),
    el("thead", {}, el("tr", {}, ...["run", ...moved, "points", ...lines, ...bars].map((t) => el("th", { scope: "col" }, t)))),
    el("tbody", {}, ...frame.runs.map((run, n) => el("tr", {}, el("th", { scope: "row" }, n ? `pin ${n}` : "now"),
      ...row(run).map((value) => el("td", {}, value))))));
}

const NEWS = { running: "training …", done: "done", stopped: "stopped", error: "failed", idle: "" };
const SILENCE = "The kernel has not answered. It is busy with another cell, or this picture has no kernel: run the cell again.";

function render({ model, el: host }) {
  const spec = model.get("spec"), me = `${Date.now()}-${count++}`;         // me: this view's name in its messages
  let sent = 0, quiet = 0, told = 0;                       // number of this view's last message; times of move and table
  let later = null, watch = null, drawing = null;          // timers

  const fail = (words) => {
    if (problem.textContent !== words) problem.textContent = words;
    problem.hidden = !words;
  };
  const say = (message) => {
    root.dataset.settled = "false";
    clearTimeout(watch);
    watch = setTimeout(() => fail(SILENCE), 5000);
    try {
      model.send({ ...message, move: `${me}:${++sent}` });
    } catch {
      fail(SILENCE);
    }
  };
  const act = (press) => {
    quiet = Date.now();
    status.textContent = NEWS.running;
    const at = spec.controls.map((c, i) => [c.name, controls[i].get?.()]).filter(([, index]) => index !== undefined);
    say({ do: "move", at: Object.fromEntries(at), press });
  };
  const action = (text, verb, hint) => {
    const button = el("button", { type: "button", title: hint, "data-do": verb }, text);
    button.addEventListener("click", () => say({ do: verb }));
    return button;
  };

  const controls = spec.controls.map((c) => control(c, act));
  const charts = spec.charts.map((c) => new ChartView(c, spec.palette, spec.dashes));
  const pin = action("Pin", "pin", "keep this run on the charts to compare");
  const reset = action("Reset", "reset", "drop the pins, go back to the start");
  const stop = action("Stop", "stop", "end this run, keep what is drawn");
  const status = el("span", { class: "flx-status" });
  const bar = el("progress", { max: 1, "aria-label": "progress of this run" });
  const problem = el("div", { class: "flx-error", role: "alert" });
  const text = el("p", { class: "flx-text" });
  const numbers = el("div", { class: "flx-table", "aria-live": "polite" });
  const root = el("section", { class: "flx", "aria-label": spec.title || "Explorer" },
    ...(spec.title ? [el("div", { class: "flx-title" }, spec.title)] : []),
    el("div", { class: "flx-controls" }, ...controls.map((c) => c.node)),
    el("div", { class: "flx-actions" }, pin, reset, stop, status, bar), problem,
    el("div", { class: "flx-charts" }, ...charts.map((c) => c.node)), text, numbers);

  const tabulate = (frame) => {
    told = Date.now();
    clearTimeout(later);
    later = null;
    numbers.replaceChildren(table(spec, frame));
  };
  const draw = () => {
    drawing = null;
    const frame = model.get("frame"), running = frame.status === "running";
    const mine = frame.move === `${me}:${sent}`;
    clearTimeout(watch);
    if (mine || Date.now() - quiet > 1000)                 // never pull a control from under the hand that moves it
      spec.controls.forEach((c, i) => controls[i].set?.(frame.at[c.name]));
    charts.forEach((chart) => chart.draw(frame));
    status.textContent = NEWS[frame.status];
    root.dataset.status = frame.status;
    root.dataset.settled = String(!running && (mine || sent === 0));       // for tests: all is answered
    stop.disabled = !running;
    bar.hidden = frame.progress === null;
    bar.value = frame.progress ?? 0;
    fail(frame.error);
    text.textContent = frame.text;
    if (!running || Date.now() - told > 1000) tabulate(frame);             // a screen reader hears one table a second
    else later ??= setTimeout(() => tabulate(model.get("frame")), 1000);
  };
  // Frames that arrive faster than the page can paint are skipped: only the newest is drawn.
  const update = () => { drawing ??= document.hidden ? setTimeout(draw) : requestAnimationFrame(draw); };
  host.append(root);
  draw();
  model.on("change:frame", update);
  return () => {
    clearTimeout(later);
    clearTimeout(watch);
    model.off("change:frame", update);
  };
}

export default { render };
