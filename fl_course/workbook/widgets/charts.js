// One class draws every kind of chart: lines over x, bars, grey pictures, a plane, a timeline. One unit of the drawing is one pixel, so
// text keeps its size on a narrow page.

const TOP = 10, RIGHT = 12, BOTTOM = 44, DOTS = 60;                        // dots on lines of at most so many points

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

function extent(lists, log) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) for (const v of list) if (v !== null && (!log || v > 0)) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  if (low > high) return log ? [1, 10] : [0, 1];
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

// What the runs hold of the chart's names of one kind, the current run first, each with a label that tells it apart: among
// several names "FedAvg, pin 1" (the table says how that was set), else what differs, "pin 1: C = 0.5".
function named(names, runs, kind) {
  const of = (run) => (runs.length < 2 ? "" : names.length > 1 ? run.label.split(":")[0] : run.label);
  return runs.flatMap((run) => names.map((name) => ({
    label: [names.length > 1 ? name : "", of(run)].filter(Boolean).join(", ") || name,
    value: run[kind][name], now: run === runs[0], total: run.points[name] ?? 0,
  })));
}

const SYMBOLS = [                                                          // of single points, about 14 pixels wide
  "M0-8 2.4-2.6 8-2.6 3.6 1 5 7 0 3.4-5 7-3.6 1-8-2.6-2.4-2.6Z", "M-6-4-4-6 0-2 4-6 6-4 2 0 6 4 4 6 0 2-4 6-6 4-2 0Z",
  "M-2-7H2V-2H7V2H2V7H-2V2H-7V-2H-2Z", "M0-7.5 6 0 0 7.5-6 0Z", "M-5-5H5V5H-5Z", "M0 6.5-6.5-5H6.5Z"];
const symbol = (n, x, y, fill) => svg("path", { d: SYMBOLS[n % SYMBOLS.length], transform: `translate(${x} ${y})`, fill, class: "flx-symbol" });

class ChartView {
  constructor(spec, look, say, handles = {}) {                             // handles: of the controls, by name: {get, put}
    Object.assign(this, { spec, palette: look.palette, dashes: look.dashes, say, handles, wide: {}, at: -1, W: 420 });
    this.svg = svg("svg", { role: "application", "aria-roledescription": "chart", tabindex: "0",
      "aria-label": `${spec.title}. ${spec.drag ? `The arrow keys move ${spec.drag.mark}, Page Up and Page Down read the` : "The arrow keys read its"} points, Escape closes.` });
    this.tip = el("div", { class: "flx-tip", hidden: "", "aria-hidden": "true" });
    this.legend = el("ul", { class: "flx-legend" });
    this.note = el("div", { class: "flx-note" });
    this.node = el("figure", { class: "flx-chart" }, el("figcaption", {}, spec.title),
      el("div", { class: "flx-plot" }, this.svg, this.tip), this.legend, this.note);
    const follow = (event) => {
      const box = this.svg.getBoundingClientRect(), part = this.W / box.width;
      (this.held ? this.drop : this.near).call(this, (event.clientX - box.left) * part, (event.clientY - box.top) * part);
    };
    this.svg.addEventListener("pointermove", follow);
    if (spec.drag) this.dragged(follow);
    this.svg.addEventListener("pointerleave", () => this.point(-1));
    this.svg.addEventListener("blur", () => this.point(-1));
    this.svg.takes = (key) => this.key(key);
    this.watch = new ResizeObserver(() => {
      const width = Math.round(Math.min(580, Math.max(220, this.node.clientWidth)));
      if (this.node.clientWidth && width !== this.W) { this.W = width; if (this.frame) this.draw(this.frame); }
    });
    this.watch.observe(this.node);
  }

  key(key) {                                                               // true: the key was for this chart
    const last = this.marks().length - 1, steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    const open = this.at >= 0;
    if (key === "Escape") { this.point(-1); if (open) this.say("closed", true); return open; }
    if (this.spec.drag && /^Arrow/.test(key)) return this.nudge({ ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key]);
    const to = key === "Home" ? 0 : key === "End" ? last : key in steps ? (open ? this.at + steps[key] : 0) : null;
    if (to === null) return false;
    this.point(Math.max(0, Math.min(last, to)));
    if (this.at >= 0) this.say(this.marks()[this.at].text.join(", "), true);
    return true;
  }

  // A mark that the reader moves (spec.drag): the controls of its x and y are put on the positions nearest to the pointer.
  dragged(follow) {
    this.svg.classList.add("flx-drag");
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.svg.setPointerCapture(event.pointerId);
      this.point(-1);
      this.held = true;
      follow(event);
    });
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => { this.held = false; });
  }

  drop(px, py) {
    const closest = (values, v) => values.reduce((best, w, i) => (Math.abs(w - v) < Math.abs(values[best] - v) ? i : best), 0);
    this.place(["x", "y"].map((axis, k) => closest(this.spec.drag[axis].values, this.back[axis]([px, py][k]))));
  }

  nudge(step) {                                                            // always true: the key was for the mark
    this.point(-1);
    this.place(["x", "y"].map((axis, k) => {
      const { control, values } = this.spec.drag[axis];
      return Math.max(0, Math.min(values.length - 1, this.handles[control].get() + step[k]));
    }));
    return true;
  }

  place(indices) {
    const [x, y] = [this.spec.drag.x, this.spec.drag.y], old = [x, y].map(({ control }) => this.handles[control].get());
    if (indices.some((index, k) => index !== old[k])) this.handles[x.control].put({ [x.control]: indices[0], [y.control]: indices[1] });
  }

  stroke(n) { return { stroke: this.palette[n % this.palette.length], "stroke-dasharray": this.dashes[n % this.dashes.length] }; }

  entry(shape, label) {                                                    // of the legend
    return el("li", {}, svg("svg", { viewBox: "0 0 34 14", class: "flx-key", "aria-hidden": "true" }, shape), label);
  }

  draw(frame) {
    this.frame = frame;
    [this.find, this.found] = [() => [], null];                            // what hovering and keys find: {x, y, text}, on demand
    const back = svg("g", { "aria-hidden": "true" }), legend = [], kind = this.spec.kind;
    this.H = Math.round(this.W * (kind === "plane" ? 0.8 : 0.62));
    put(this.svg, { viewBox: `0 0 ${this.W} ${this.H}` });
    this.note.textContent = "";
    ({ lines: this.lines, bars: this.bars, images: this.images, plane: this.plane, timeline: this.timeline })[kind].call(this, back, legend, frame);
    this.guide = svg("g", { class: "flx-guide", visibility: "hidden" });
    back.append(this.guide);
    this.svg.replaceChildren(back);
    this.legend.replaceChildren(...(legend.length > 1 ? legend : []));
    this.point(Math.min(this.at, this.at >= 0 ? this.marks().length - 1 : -1));
  }

  marks() { return (this.found ??= this.find()); }

  // The frame of a chart: axes with their numbers; returns where the drawing goes, cut off at the axes.
  axes(g, xr, yr, xs, ys, y) {
    const { spec, W, H, left } = this;
    for (const t of ys) g.append(
      svg("line", { x1: left, x2: W - RIGHT, y1: y(t), y2: y(t), class: "flx-grid" }),
      svg("text", { x: left - 6, y: y(t) + 4, "text-anchor": "end" }, show(t)));
    const room = (W - RIGHT - left) / Math.max(1, xs.length), turned = xs.some(([, text]) => text.length * 6.4 > room - 4);
    xs.forEach(([at, text], i) => {
      g.append(svg("line", { x1: at, x2: at, y1: H - BOTTOM, y2: H - BOTTOM + 4, class: "flx-axis" }));
      const low = turned && i % 2 ? 27 : 15;                               // names that would touch stand on two lines
      g.append(svg("text", { x: at, y: H - BOTTOM + low, "text-anchor": "middle" }, text));
    });
    g.append(
      svg("line", { x1: left, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM, class: "flx-axis" }),
      svg("line", { x1: left, x2: left, y1: TOP, y2: H - BOTTOM, class: "flx-axis" }),
      svg("text", { x: (left + W - RIGHT) / 2, y: H - 3, "text-anchor": "middle", class: "flx-label" }, spec.x),
      svg("text", { x: -(TOP + H - BOTTOM) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle", class: "flx-label" }, spec.y));
    const box = [left - 4, TOP - 4, W - RIGHT - left + 8, H - BOTTOM - TOP + 8];
    const inside = svg("svg", { x: box[0], y: box[1], width: box[2], height: box[3], viewBox: box.join(" ") });
    g.append(inside);
    return inside;
  }

  leave(ys) { this.left = 28 + 6.4 * Math.max(2, ...ys.map((t) => show(t).length)); }       // room for the numbers

  path(line, x, y) {
    let d = "", pen = "M";
    for (const [a, b] of line) {
      const [px, py] = [x(a), y(b)];
      if (px === null || py === null) { pen = "M"; continue; }
      d += `${pen}${px.toFixed(1)} ${py.toFixed(1)}`;
      pen = "L";
    }
    return d;
  }

  lines(g, legend, { runs, status }) {
    const { spec, W, H } = this, lines = named(spec.lines, runs, "lines");
    const range = (fixed, index, log) => {                 // while a run grows the axes only widen, so they do not tremble
      const now = extent(lines.map(({ value }) => (value ?? []).map((p) => p[index])), log), old = this.wide[index];
      this.wide[index] = status === "running" && old ? [Math.min(now[0], old[0]), Math.max(now[1], old[1])] : now;
      return clamp(this.wide[index], fixed);
    };
    const [xr, yr] = [range(spec.xRange, 0, spec.xLog), range(spec.yRange, 1, spec.yLog)], ys = ticks(...yr, spec.yLog);
    this.leave(ys);
    const x = scale(xr, this.left, W - RIGHT, spec.xLog), y = scale(yr, H - BOTTOM, TOP, spec.yLog);
    const whole = lines.every(({ value }) => (value ?? []).every((p) => p[0] === null || Number.isInteger(p[0])));
    let xs = ticks(...xr, spec.xLog, whole);
    if (xs.length * 44 > W - this.left) xs = xs.filter((_, i) => i % 2 === 0);
    const inside = this.axes(g, xr, yr, xs.map((t) => [x(t), show(t)]), ys, y);
    lines.forEach(({ label, value = [], now, total }, n) => {
      const look = total ? { stroke: this.stroke(n).stroke } : this.stroke(n);             // dashes of a dense line cost much, show nothing
      inside.prepend(svg("path", { d: this.path(value, x, y), class: now ? "flx-line" : "flx-line flx-pinned", "data-line": n, ...look }));
      if (now && value.length <= DOTS) for (const [a, b] of value) if (x(a) !== null && y(b) !== null)
        inside.append(svg("circle", { cx: x(a).toFixed(1), cy: y(b).toFixed(1), r: 2.2, fill: look.stroke }));
      if (value.length) legend.push(this.entry(svg("line", { x1: 1, x2: 33, y1: 7, y2: 7, class: "flx-line", ...look }), label));
      if (total) this.note.textContent = `Thinned for drawing: ${value.length} of ${show(total)} points of a line.`;
    });
    this.find = () => {
      const found = new Map();
      for (const { label, value = [] } of lines) for (const [a, b] of value) if (x(a) !== null && y(b) !== null)
        found.set(a, [...(found.get(a) ?? []), `${lines.length > 1 ? label : spec.y}: ${show(b)}`]);
      return [...found].sort((p, q) => p[0] - q[0]).map(([a, texts]) => ({ x: x(a), y: null, text: [`${spec.x} ${show(a)}`, ...texts] }));
    };
  }

  bars(g, legend, { runs }) {
    const { spec, W, H } = this, groups = named(spec.bars, runs, "bars").map(({ label, value }) => ({ label, bars: value ?? [] }));
    const names = [...new Set(groups.flatMap((group) => group.bars.map((bar) => bar[0])))];
    const yr = clamp(extent([[0], ...groups.map((group) => group.bars.map((bar) => bar[1]))], false), spec.yRange), ys = ticks(...yr, false);
    this.leave(ys);
    const y = scale(yr, H - BOTTOM, TOP, false), each = (W - this.left - RIGHT) / Math.max(names.length, 1);
    const wide = (each * 0.8) / groups.length, base = y(Math.max(yr[0], Math.min(yr[1], 0))), middle = (i) => this.left + each * (i + 0.5);
    const inside = this.axes(g, null, yr, names.map((name, i) => [middle(i), name]), ys, y);
    const texts = names.map((name) => [name]);
    groups.forEach((group, n) => {
      const look = { ...this.stroke(n), fill: n ? "none" : this.stroke(0).stroke, "stroke-width": 1.5 };
      for (const [name, height] of group.bars) {
        const i = names.indexOf(name), top = y(height);
        texts[i].push(`${groups.length > 1 ? group.label : spec.y}: ${show(height)}`);
        if (height !== null) inside.append(svg("rect", { x: this.left + each * (i + 0.1) + wide * n, width: wide * 0.9,
          y: Math.min(top, base), height: Math.abs(base - top), "data-bar": n, ...look }));
      }
      legend.push(this.entry(svg("rect", { x: 9, y: 3, width: 16, height: 8, ...look }), group.label));
    });
    this.find = () => texts.map((text, i) => ({ x: middle(i), y: null, text }));
  }

  // Two parameters to the same scale: paths with a dot a step; marks, letters and outlines of the current run.
  plane(g, legend, { runs }) {
    const { spec, W, H } = this, paths = named(spec.lines, runs, "lines").map((p) => ({ ...p, value: p.value ?? [] }));
    this.leave(ticks(...spec.yRange, false));
    const [wide, high] = [W - RIGHT - this.left, H - BOTTOM - TOP];
    const unit = Math.min(wide / (spec.xRange[1] - spec.xRange[0]), high / (spec.yRange[1] - spec.yRange[0]));
    const fit = ([low, high_], pixels) => { const mid = (low + high_) / 2, half = pixels / unit / 2; return [mid - half, mid + half]; };
    const [xr, yr] = [fit(spec.xRange, wide), fit(spec.yRange, high)];
    const x = scale(xr, this.left, W - RIGHT, false), y = scale(yr, H - BOTTOM, TOP, false), now = runs[0], singles = [];
    const inside = this.axes(g, xr, yr, ticks(...xr, false).map((t) => [x(t), show(t)]), ticks(...yr, false), y);
    this.back = { x: scale([this.left, W - RIGHT], ...xr, false), y: scale([H - BOTTOM, TOP], ...yr, false) };    // pixels to numbers
    for (const name of spec.outlines) {
      const d = (now.outlines[name] ?? []).map((curve) => this.path(curve, x, y)).join("");
      const look = { d, class: "flx-outline", "stroke-dasharray": spec.outlines.indexOf(name) ? "2 3" : null };
      inside.append(svg("path", look));
      if (d) legend.push(this.entry(svg("path", { ...look, d: "M3 7a14 6 0 1 0 28 0a14 6 0 1 0 -28 0" }), name));
    }
    paths.forEach(({ label, value, now: current }, n) => {
      const look = this.stroke(n), dot = (cx, cy) => svg("circle", { cx, cy, r: 2.2, fill: look.stroke });
      inside.append(svg("path", { d: this.path(value, x, y), class: current ? "flx-line" : "flx-line flx-pinned", "data-line": n, ...look }));
      if (value.length <= DOTS) for (const [a, b] of value) if (x(a) !== null && y(b) !== null) inside.append(dot(x(a).toFixed(1), y(b).toFixed(1)));
      if (value.length) legend.push(this.entry(svg("g", {}, svg("line", { x1: 1, x2: 33, y1: 7, y2: 7, class: "flx-line", ...look }), dot(17, 7)), label));
    });
    spec.marks.forEach((name, n) => {
      const [a, b] = now.marks[name] ?? [null, null], fill = this.palette[(paths.length + n) % this.palette.length];
      if (a === null || b === null) return;
      inside.append(symbol(n, x(a), y(b), fill));
      legend.push(this.entry(symbol(n, 17, 7, fill), name));
      singles.push([name, a, b]);
    });
    for (const name of spec.letters) {
      const [a, b] = now.marks[name] ?? [null, null];
      if (a === null || b === null) continue;
      inside.append(svg("circle", { cx: x(a), cy: y(b), r: 9, class: "flx-letter" }), svg("text", { x: x(a), y: y(b) + 4, "text-anchor": "middle", class: "flx-label" }, name));
      singles.push([name, a, b]);
    }
    const say = (name, a, b) => ({ x: x(a), y: y(b), text: [name, `${spec.x} ${show(a)}`, `${spec.y} ${show(b)}`] });
    this.find = () => [...singles.map((m) => say(...m)), ...paths.flatMap(({ label, value }) =>
      value.flatMap(([a, b], i) => (a === null || b === null ? [] : [say(value.length > 1 ? `${label}, point ${i}` : label, a, b)])))];
  }

  near(px, py) {                                           // show what is nearest to the pointer: in x, or where y counts in both
    let best = -1, least = Infinity;
    this.marks().forEach((m, i) => {
      const across = m.from === undefined ? Math.abs(m.x - px) : Math.max(0, m.from - px, px - m.to);
      const far = across + (m.y === null ? 0 : Math.abs(m.y - py));
      if (far < least) [best, least] = [i, far];
    });
    this.point(best);
  }

  point(index) {                                           // show the values of one mark, or hide them: -1
    const mark = index < 0 ? null : this.marks()[index];
    this.at = mark ? index : -1;
    this.tip.hidden = !mark;
    this.guide?.setAttribute("visibility", mark ? "visible" : "hidden");
    if (!mark) return;
    this.guide.replaceChildren(mark.y === null ? svg("line", { x1: mark.x, x2: mark.x, y1: TOP, y2: this.H - BOTTOM })
      : mark.from === undefined ? svg("circle", { cx: mark.x, cy: mark.y, r: 12 })
        : svg("rect", { x: mark.from - 2, y: mark.y - mark.high / 2, width: mark.to - mark.from + 4, height: mark.high }));
    this.tip.replaceChildren(...mark.text.map((line) => el("div", {}, line)));
    const part = (mark.x / this.W) * 100 + 2;
    put(this.tip, { style: mark.x > this.W / 2 ? `right:${104 - part}%` : `left:${part}%` });
  }
}
