// The page side of Theatre (theatre.py): it shows the trait `scene`, one message at a time, and asks for another play.

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
    + `${step.bytes} bytes: ${step.why}.${step.lie ? " This message lies." : ""}${end}`;
}

// The lie of this play as of step `at`, in one sentence that stays: what is coming, what was told, who caught it.
export function lieOf(scene, at) {
  if (!scene.lie) return "";
  const { text, at: told, caught } = scene.lie, known = caught.filter(([, step]) => step <= at);
  const who = `${/^is honest/.test(text) ? "The server" : "The lie: the server"} ${text}`;
  const when = told < 0 ? "before the first message" : `at message ${told + 1}`;
  if (at < told) return `${who}. That comes ${when}.`;
  if (!known.length) return `${who} (${when}). Nobody has noticed yet.`;
  const [, step, why] = known[0], names = known.map(([name]) => name.replace("client ", ""));
  return `${who} (${when}). Caught by ${names.join(", ")} at message ${step + 1}: ${why}.`;
}

// The table: who, the truth, what the server holds by now, which secret it asks for.
export function rows(scene, at) {
  const last = at >= scene.steps.length - 1;
  const all = scene.clients.map((c) => [
    c.name + (c.gone >= 0 && at >= c.gone ? (c.left ? " (left)" : " (gone)") : ""), c.truth.join(" "),
    c.uploaded >= 0 && at >= c.uploaded ? c.seen.join(" ") : "nothing yet",
    c.asking >= 0 && at >= c.asking ? c.asked : "–"]);
  return [...all, ["sum", last && scene.truth ? scene.truth.join(" ") : "–", last && scene.sum ? scene.sum.join(" ") : "–", "–"]];
}

function drawing(scene, at, clients) {
  const g = svg("svg", { viewBox: "0 0 420 210", "aria-hidden": "true" }), step = scene.steps[at];
  for (const name of ["server", ...clients]) {
    const [x, y] = place(name, clients), c = scene.clients.find((client) => client.name === name);
    const gone = c && c.gone >= 0 && at >= c.gone;
    g.append(svg("g", { class: gone ? "flt-node flt-gone" : "flt-node" }, svg("circle", { cx: x, cy: y, r: name === "server" ? 27 : 19 }),
      svg("text", { x, y: y + 4 }, name), ...(gone ? [svg("text", { x, y: y + 34 }, c.left ? "left" : "gone")] : [])));
  }
  if (step) {
    const [[ax, ay], [bx, by]] = [place(step.from, clients), place(step.to, clients)];
    const length = Math.hypot(bx - ax, by - ay), [ux, uy] = [(bx - ax) / length, (by - ay) / length];
    const [r, s] = [step.from === "server" ? 29 : 21, step.to === "server" ? 31 : 23];
    const [tx, ty] = [bx - ux * s, by - uy * s], head = (side) => `L${tx - 13 * ux + side * 6 * uy} ${ty - 13 * uy - side * 6 * ux}`;
    g.append(svg("g", { class: step.lie ? "flt-arrow flt-lie" : "flt-arrow" },
      svg("path", { d: `M${ax + ux * r} ${ay + uy * r}L${tx - 9 * ux} ${ty - 9 * uy}` }),
      svg("path", { d: `M${tx} ${ty}${head(1)}${head(-1)}Z`, class: "flt-head" })));
  }
  return g;
}

function choice(label, options, value, act) {
  const select = el("select");
  fill(select, options);
  select.value = value;
  select.addEventListener("change", act);
  return { select, node: labelled("choice", label, select) };
}

function render({ model, el: host }) {
  const spec = model.get("spec");
  let at = 0, move = 0, watch = null;
  const alone = (words) => { outcome.textContent = words; speech.say(words); };
  const ask = () => {
    const drops = Object.fromEntries(spec.clients.map((name, i) => [name, stay[i].select.value]).filter(([, stage]) => stage));
    clearTimeout(watch);
    watch = setTimeout(() => alone("The kernel has not answered yet. It is busy with another cell, or it is gone: then run this cell again."), 5000);
    try {
      model.send({ do: "play", drops, lie: lie.select.value, move: ++move });
    } catch {
      alone("This page has no kernel. Run the cell again to play with it.");
    }
  };
  const go = (to) => { at = Math.max(0, Math.min(model.get("scene").steps.length - 1, to)); draw(); };
  const button = (text, hint, to) => {
    const node = el("button", { type: "button", title: hint }, text);
    node.addEventListener("click", () => { go(to(model.get("scene").steps)); speech.say(words.textContent, true); });
    return node;
  };
  const stays = [["", "stays"], ...spec.stages.map((stage) => [stage, `vanishes before ${stage}`])];
  const stay = spec.clients.map((name) => choice(`client ${name}`, stays, spec.drops[name] ?? "", ask));
  const lie = choice("who lies? The server …", model.get("scene").lies, spec.lie, ask);
  const range = el("input", { type: "range", min: 0, step: 1 });
  range.addEventListener("input", () => { go(Number(range.value)); speech.say(words.textContent); });
  const back = button("◀ back", "one message back", () => at - 1);
  const on = button("next ▶", "one message on", () => at + 1);
  const stage = button("next stage", "the first message of the next stage", (steps) => {
    const found = steps.findIndex((step, i) => i > at && step.stage !== steps[at].stage);
    return found < 0 ? steps.length - 1 : found;
  });
  const end = button("end", "the last message", (steps) => steps.length - 1);
  const picture = el("div"), words = el("p", { class: "flx-text flt-words" }), bytes = el("p", { class: "flt-bytes" });
  const events = el("ul", { class: "flt-events", "aria-label": "what has happened so far" }), told = el("p", { class: "flt-told" });
  const name = "Four numbers modulo 65,536 a client", table = el("div", { class: "flx-table", role: "region", tabindex: 0, "aria-label": name });
  const outcome = el("p", { class: "flx-text flt-outcome" }), speech = voice();
  const root = el("section", { class: "flx flt", "aria-label": "Secure aggregation, message by message" },
    el("div", { class: "flx-title" }, `Secure aggregation, message by message (${spec.clients.length} clients, threshold ${spec.threshold})`),
    el("div", { class: "flx-controls" }, ...stay.map((c) => c.node), lie.node),
    el("div", { class: "flx-actions" }, back, on, stage, end, labelled("range", "message", range)), told,
    el("div", { class: "flt-stage" }, picture, el("div", {}, words, bytes, events)), table, outcome, speech.node);

  const draw = () => {
    const scene = model.get("scene"), step = scene.steps[at];
    range.max = Math.max(0, scene.steps.length - 1);
    range.value = at;
    range.setAttribute("aria-valuetext", `${at + 1} of ${scene.steps.length}`);
    [back.disabled, on.disabled] = [at === 0, at >= scene.steps.length - 1];
    picture.replaceChildren(drawing(scene, at, spec.clients));
    words.textContent = sentence(scene, at);
    bytes.textContent = step ? `first bytes: ${step.first} …` : "";
    told.textContent = lieOf(scene, at);
    told.hidden = !scene.lie;
    const past = [...scene.before.map((event) => ["before", event]),
      ...scene.steps.slice(0, at + 1).flatMap(({ events: some }, i) => some.map((event) => [`message ${i + 1}`, event]))];
    events.replaceChildren(...past.map(([when, event]) => el("li", { class: "flt-event" }, `${when}: ${event}`)));
    const head = ["client", "the truth (never sent)", "what the server holds", "what it asks the others for"];
    table.replaceChildren(el("table", {}, el("caption", {}, name),
      el("thead", {}, el("tr", {}, ...head.map((t) => el("th", { scope: "col" }, t)))),
      el("tbody", {}, ...rows(scene, at).map(([first, ...cells]) => el("tr", {}, el("th", { scope: "row" }, first),
        ...cells.map((c, i) => el("td", i < 2 ? { class: "flt-numbers" } : {}, c)))))));
    outcome.textContent = `How this round ends: ${scene.outcome}`;
    root.dataset.move = scene.move;
  };
  const update = () => {
    clearTimeout(watch);
    fill(lie.select, model.get("scene").lies);
    go(at);
    speech.say(`${told.textContent} ${outcome.textContent}`);
  };
  const free = guard(root);
  host.append(root);
  dress(root);
  draw();
  model.on("change:scene", update);
  return () => { clearTimeout(watch); speech.end(); free(); model.off("change:scene", update); };
}

export default { render };
