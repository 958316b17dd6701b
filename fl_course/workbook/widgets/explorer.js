// The page side of Explorer (explorer.py). It draws the trait `frame` and sends what the reader does; it computes nothing.

// One labelled native control; `act(press)` is called when the reader moves it.
function control(spec, act) {
  if (spec.kind === "button") {
    const button = el("button", { type: "button", "data-control": spec.name }, spec.label);
    button.addEventListener("click", () => act(spec.name));
    return { node: button };
  }
  const value = el("span", { class: "flx-value", "aria-hidden": "true" });
  let input, get, set;
  if (spec.kind === "choice") {
    input = el("select", {}, ...spec.texts.map((text, i) => el("option", { value: i }, text)));
    [get, set] = [() => Number(input.value), (i) => { input.value = i; }];
  } else if (spec.kind === "switch") {
    input = el("input", { type: "checkbox", role: "switch" });
    [get, set] = [() => Number(input.checked), (i) => { input.checked = i === 1; }];
  } else {
    input = el("input", { type: "range", min: 0, max: spec.texts.length - 1, step: 1 });
    get = () => Number(input.value);
    set = (i) => { input.value = i; value.textContent = spec.texts[i]; input.setAttribute("aria-valuetext", spec.texts[i]); };
  }
  input.dataset.control = spec.name;
  input.addEventListener(spec.kind === "range" ? "input" : "change", () => { set(get()); act(""); });
  return { node: labelled(spec.kind, spec.label, input, value), get, set };
}

function table(head, runs) {
  return el("table", {}, el("caption", {}, "Where each run ended"),
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...runs.map(({ row: [name, ...cells] }) =>
      el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell))))));
}

// Sentences, each with a link behind it. A list that has not changed stays as it is, so that a link keeps the focus.
function annotate(list, notes) {
  const told = JSON.stringify(notes);
  list.hidden = !notes.length;
  if (list.dataset.told === told) return;
  list.dataset.told = told;
  list.replaceChildren(...notes.map(([text, name, link]) =>
    el("li", {}, `${text} `, link ? el("a", { href: link, target: "_blank", rel: "noopener" }, name) : name)));
}

// The frame `old` with the news of a growing run (explorer.py: growth); null if they are not news of this frame.
export function grown(old, news) {
  if (news?.after !== old.number || !news.lines) return null;
  const first = { ...old.runs[0], ...news.rest, lines: { ...old.runs[0].lines } };
  for (const name of news.gone) delete first.lines[name];
  for (const [name, [stay, points]] of Object.entries(news.lines))
    first.lines[name] = [...(first.lines[name] ?? []).slice(0, stay), ...points];
  const runs = [first, ...old.runs.slice(1)].map((run, i) => ({ ...run, label: news.labels[i] }));
  return { ...news, runs };
}

const NEWS = { running: "training …", stopping: "stopping after this step …", done: "done", stopped: "stopped", error: "failed", idle: "" };
const SILENCE = "The kernel has not answered yet. It is busy with another cell, or it is gone: then run this cell again.";
const LOST = "This explorer has lost its kernel, which was restarted or shut down: run its cell again.";

function render({ model, el: host }) {
  const spec = model.get("spec"), me = Math.random().toString(36).slice(2);                // this view's name in its messages
  let frame = model.get("frame"), sent = 0, quiet = 0, told = 0, dead = 0; // this view's last message; times of move, table, loss
  let later = null, watch = null, drawing = null;                          // timers

  const fail = (words) => {
    if (problem.textContent !== words) problem.textContent = words;
    problem.hidden = !words;
    if (words) speech.say(words);
  };
  const alone = (words) => {                                               // nobody answers: nothing that is shown is going on
    clearTimeout(watch);
    [status.textContent, root.dataset.status, stop.disabled, bar.hidden] = ["", "alone", true, true];
    fail(words);
  };
  const send = (message) => {
    root.dataset.settled = "false";
    clearTimeout(watch);
    watch = setTimeout(() => alone(SILENCE), 5000);
    try {
      model.send({ ...message, move: `${me}:${++sent}` });
    } catch {
      alone(LOST);
    }
  };
  const act = (press) => {
    quiet = Date.now();
    status.textContent = NEWS.running;
    const at = spec.controls.map((c, i) => [c.name, controls[i].get?.()]).filter(([, index]) => index !== undefined);
    send({ do: "move", at: Object.fromEntries(at), press });
  };
  const action = (text, verb, hint) => {
    const button = el("button", { type: "button", title: hint, "data-do": verb }, text);
    button.addEventListener("click", () => send({ do: verb }));
    return button;
  };

  const speech = voice();
  const controls = spec.controls.map((c) => control(c, act));
  const place = (at) => { spec.controls.forEach((c, i) => at[c.name] !== undefined && controls[i].set(at[c.name])); act(""); };
  const handles = Object.fromEntries(spec.controls.map((c, i) => [c.name, { get: controls[i].get, put: place }]));
  const charts = spec.charts.map((c) => new ChartView(c, spec, speech.say, handles));
  const pin = action("Pin", "pin", "keep this run on the charts to compare");
  const reset = action("Reset", "reset", "drop the pins, go back to the start");
  const stop = action("Stop", "stop", "end this run, keep what is drawn");
  const status = el("span", { class: "flx-status" });
  const bar = el("progress", { max: 1, "aria-label": "progress of this run" });
  const problem = el("div", { class: "flx-error" });
  const text = el("p", { class: "flx-text" }), notes = el("ul", { class: "flx-notes", "aria-label": "Notes" });
  const numbers = el("div", { class: "flx-table", role: "region", tabindex: 0, "aria-label": "Where each run ended" });
  const root = el("section", { class: "flx", "aria-label": spec.title || "Explorer" },
    ...(spec.title ? [el("div", { class: "flx-title" }, spec.title)] : []),
    el("div", { class: "flx-controls" }, ...controls.map((c) => c.node)),
    el("div", { class: "flx-actions" }, pin, reset, stop, status, bar), problem,
    el("div", { class: "flx-charts" }, ...charts.map((c) => c.node)), text, notes, numbers, speech.node);

  const tabulate = () => {
    told = Date.now();
    clearTimeout(later);
    later = null;
    numbers.replaceChildren(table(spec.table, frame.runs));
  };
  const draw = () => {
    drawing = null;
    if (Date.now() - dead < 2000) return;                  // the last words of a kernel that is gone by now
    const running = frame.status === "running" || frame.status === "stopping", mine = frame.move === `${me}:${sent}`;
    clearTimeout(watch);
    if (mine || Date.now() - quiet > 1000)                 // never pull a control from under the hand that moves it
      spec.controls.forEach((c, i) => controls[i].set?.(frame.at[c.name]));
    charts.forEach((chart) => chart.draw(frame));
    status.textContent = frame.end || NEWS[frame.status];
    root.dataset.status = frame.status;
    root.dataset.settled = String(!running && (mine || sent === 0));       // for tests: all is answered
    stop.disabled = frame.status !== "running";
    bar.hidden = frame.progress === null;
    bar.value = frame.progress ?? 0;
    fail(frame.error);
    text.textContent = frame.text;
    annotate(notes, frame.notes ?? []);
    if (sent && !frame.error) speech.say(`${status.textContent}. ${frame.text}`);
    if (!running || Date.now() - told > 1000) tabulate();
    else later ??= setTimeout(tabulate, 1000);
  };
  // Frames that arrive faster than the page can paint are skipped: only the newest is drawn.
  const update = () => { drawing ??= document.hidden ? setTimeout(draw) : requestAnimationFrame(draw); };
  const whole = () => { frame = model.get("frame"); update(); };
  const news = (message) => { const next = grown(frame, message); if (next) { frame = next; update(); } };
  const lost = () => { dead = Date.now(); alone(LOST); };
  const free = guard(root);
  host.append(root);
  dress(root);
  draw();
  model.on("change:frame", whole);
  model.on("msg:custom", news);
  model.on("comm_live_update", lost);
  return () => {
    clearTimeout(later);
    clearTimeout(watch);
    speech.end();
    free();
    charts.forEach((chart) => chart.watch.disconnect());
    model.off("change:frame", whole);
    model.off("msg:custom", news);
    model.off("comm_live_update", lost);
  };
}

export default { render };
