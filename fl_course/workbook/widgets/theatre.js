// The page side of Theatre (theatre.py): it shows the trait `scene`, one message at a time, and asks for another play.
// No dependency and no request: this module and the two style sheets are all there is.

const SVG = "http://www.w3.org/2000/svg";
let count = 0;                                                             // makes ids unique in the page

function put(node, attributes, ...children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const el = (tag, attributes = {}, ...children) => put(document.createElement(tag), attributes, ...children);
const svg = (tag, attributes = {}, ...children) => put(document.createElementNS(SVG, tag), attributes, ...children);

// Where everybody stands: the server above, the clients in a row below.
export function place(name, clients) {
  const i = clients.indexOf(name);
  return i < 0 ? [210, 34] : [42 + (i * 336) / (clients.length - 1), 170];
}

// What the reader is told about step `at` of a scene, as one sentence.
export function sentence(scene, at) {
  const step = scene.steps[at];
  if (!step) return scene.outcome;
  const end = at === scene.steps.length - 1 ? ` ${scene.outcome}` : "";
  return `Message ${at + 1} of ${scene.steps.length}, stage ${step.stage}: ${step.from} to ${step.to}, ${step.kind}, `
    + `${step.bytes} bytes: ${step.why}.${end}`;
}

// The table: who, the truth, what the server holds by now, which secret it asks for.
export function rows(scene, at) {
  const last = at >= scene.steps.length - 1;
  const all = scene.clients.map((c) => [
    c.name + (c.gone >= 0 && at >= c.gone ? " (gone)" : ""), c.truth.join(" "),
    c.uploaded >= 0 && at >= c.uploaded ? c.seen.join(" ") : "nothing yet",
    c.asking >= 0 && at >= c.asking ? c.asked : "–"]);
  return [...all, ["sum", last && scene.truth ? scene.truth.join(" ") : "–", last && scene.sum ? scene.sum.join(" ") : "–", "–"]];
}

function drawing(scene, at, clients) {
  const g = svg("svg", { viewBox: "0 0 420 210", "aria-hidden": "true" }), step = scene.steps[at];
  g.append(svg("defs", {}, svg("marker", { id: "flt-tip", viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 5, markerHeight: 5,
    orient: "auto" }, svg("path", { d: "M0 0L8 4L0 8z", fill: "context-stroke" }))));
  for (const name of ["server", ...clients]) {
    const [x, y] = place(name, clients), c = scene.clients.find((client) => client.name === name);
    const gone = c && c.gone >= 0 && at >= c.gone;
    g.append(svg("g", { class: gone ? "flt-node flt-gone" : "flt-node" }, svg("circle", { cx: x, cy: y, r: name === "server" ? 27 : 19 }),
      svg("text", { x, y: y + 4 }, name), ...(gone ? [svg("text", { x, y: y + 34 }, "gone")] : [])));
  }
  if (step) {
    const [[ax, ay], [bx, by]] = [place(step.from, clients), place(step.to, clients)];
    const length = Math.hypot(bx - ax, by - ay), [ux, uy] = [(bx - ax) / length, (by - ay) / length];
    const [r, s] = [step.from === "server" ? 29 : 21, step.to === "server" ? 31 : 23];
    g.append(svg("path", { class: "flt-arrow", "marker-end": "url(#flt-tip)",
      d: `M${ax + ux * r} ${ay + uy * r}L${bx - ux * s} ${by - uy * s}` }));
  }
  return g;
}

function choice(label, options, value, act) {
  const id = `flt-${count++}`, select = el("select", { id });
  for (const [key, text] of options) select.append(el("option", { value: key }, text));
  select.value = value;
  select.addEventListener("keydown", (event) => event.stopPropagation());  // JupyterLab would take the arrow keys
  select.addEventListener("change", act);
  return { select, node: el("div", { class: "flx-control" }, el("label", { for: id }, label), select) };
}

function render({ model, el: host }) {
  const spec = model.get("spec");
  let at = 0, move = 0, watch = null;
  const ask = () => {
    const drops = Object.fromEntries(spec.clients.map((name, i) => [name, stay[i].select.value]).filter(([, stage]) => stage));
    clearTimeout(watch);
    watch = setTimeout(() => { outcome.textContent = "The kernel has not answered. Run the cell again to play with it."; }, 5000);
    try {
      model.send({ do: "play", drops, lie: lie.select.value, move: ++move });
    } catch {
      outcome.textContent = "This page has no kernel. Run the cell again to play with it.";
    }
  };
  const go = (to) => { at = Math.max(0, Math.min(model.get("scene").steps.length - 1, to)); draw(); };
  const button = (text, hint, to) => {
    const node = el("button", { type: "button", title: hint }, text);
    node.addEventListener("click", () => go(to(model.get("scene").steps)));
    return node;
  };
  const stays = [["", "stays"], ...spec.stages.map((stage) => [stage, `vanishes before ${stage}`])];
  const stay = spec.clients.map((name) => choice(`client ${name}`, stays, spec.drops[name] ?? "", ask));
  const lie = choice("who lies?", spec.lies, spec.lie, ask);
  const id = `flt-${count++}`, range = el("input", { id, type: "range", min: 0, step: 1 });
  range.addEventListener("keydown", (event) => event.stopPropagation());
  range.addEventListener("input", () => go(Number(range.value)));
  const back = button("◀ back", "one message back", () => at - 1);
  const on = button("next ▶", "one message on", () => at + 1);
  const stage = button("next stage", "the first message of the next stage", (steps) => {
    const found = steps.findIndex((step, i) => i > at && step.stage !== steps[at].stage);
    return found < 0 ? steps.length - 1 : found;
  });
  const end = button("end", "the last message", (steps) => steps.length - 1);
  const picture = el("div"), words = el("p", { class: "flx-text", "aria-live": "polite" }), bytes = el("p", { class: "flt-bytes" });
  const events = el("div", { role: "status" }), table = el("div", { class: "flx-table" }), outcome = el("p", { class: "flx-text" });
  const root = el("section", { class: "flx flt", "aria-label": "Secure aggregation, message by message" },
    el("div", { class: "flx-title" }, `Secure aggregation, message by message (${spec.clients.length} clients, threshold ${spec.threshold})`),
    el("div", { class: "flx-controls" }, ...stay.map((c) => c.node), lie.node),
    el("div", { class: "flx-actions" }, back, on, stage, end,
      el("div", { class: "flx-control flx-range" }, el("label", { for: id }, "message"), range)),
    el("div", { class: "flt-stage" }, picture, el("div", {}, words, bytes, events)), table, outcome);

  const draw = () => {
    const scene = model.get("scene"), step = scene.steps[at], text = sentence(scene, at);
    range.max = Math.max(0, scene.steps.length - 1);
    range.value = at;
    range.setAttribute("aria-valuetext", `${at + 1} of ${scene.steps.length}`);
    [back.disabled, on.disabled] = [at === 0, at >= scene.steps.length - 1];
    picture.replaceChildren(drawing(scene, at, spec.clients));
    words.textContent = text;
    bytes.textContent = step ? `first bytes: ${step.first} …` : "";
    const news = [...(at === 0 ? scene.before : []), ...(step?.events ?? [])];
    events.replaceChildren(...news.map((event) => el("div", { class: "flt-event" }, event)));
    const head = ["client", "the truth (never sent)", "what the server holds", "what it asks the others for"];
    table.replaceChildren(el("table", {}, el("caption", {}, "Four numbers modulo 65536 a client"),
      el("thead", {}, el("tr", {}, ...head.map((t) => el("th", { scope: "col" }, t)))),
      el("tbody", {}, ...rows(scene, at).map(([name, ...cells]) => el("tr", {}, el("th", { scope: "row" }, name),
        ...cells.map((c, i) => el("td", i < 2 ? { class: "flt-numbers" } : {}, c)))))));
    outcome.textContent = `How this round ends: ${scene.outcome}`;
    root.dataset.move = scene.move;
  };
  const update = () => { clearTimeout(watch); go(at); };
  host.append(root);
  draw();
  model.on("change:scene", update);
  return () => { clearTimeout(watch); model.off("change:scene", update); };
}

export default { render };
