// The host of an explorer that has no kernel: it stands where Jupyter's model stands for explorer.js, plays what `Live`
// (widgets/live.py) does there, and has the training done by FL.workshop in a Worker, or in this thread where none may be.

const MAX_PINS = 6;

// A workshop: {ask(message)}. heard(message) is called with what it posts; where, with the place in words.
function employ(heard, script) {
  const here = () => { const hear = FL.workshop(heard); return { ask: hear, where: "on this page’s own thread" }; };
  try {
    const listen = "const hear = FL.workshop((message) => postMessage(message)); onmessage = ({ data }) => hear(data);";
    const worker = new Worker(URL.createObjectURL(new Blob([script, listen]))), sent = [];
    let alive = false;                                           // until it has spoken, what it is asked is kept
    const ask = (message) => { if (!alive) sent.push(message); worker.postMessage(message); }, shop = { ask, where: "in a Worker" };
    worker.onmessage = ({ data }) => { alive = true; heard(data); };
    worker.onerror = (event) => {                                // refused after all, by a policy that speaks late
      event.preventDefault();
      if (alive) return heard({ failed: event.message });
      worker.terminate();
      Object.assign(shop, here());
      sent.forEach((message) => shop.ask(message));
    };
    return shop;
  } catch {
    return here();
  }
}

// What Jupyter's widget model is for explorer.js: get, on, off, send.
function hostedModel({ spec, frame, recipe }, script, simd, say) {
  const listeners = {}, settings = spec.controls.filter((c) => c.kind !== "button");
  const curves = spec.charts.filter((chart) => chart.kind === "lines").flatMap((chart) => chart.lines);
  let ticket = 0, pins = [], at = { ...frame.at }, status = frame.status, error = "", move = "";
  let shown = { ...frame.runs[0], at: { ...frame.at }, text: frame.text }, growing = null;
  const described = (run, controls) => controls.map((c) => `${c.label} = ${c.texts[run.at[c.name]]}`).join(", ");
  const starts = () => ({ ...frame.at, ...Object.fromEntries(settings.map((c) => [c.name, c.start])) });
  const model = {
    get: (name) => (name === "spec" ? spec : frame),
    on: (name, act) => (listeners[name] ??= []).push(act),
    off: (name, act) => { listeners[name] = (listeners[name] ?? []).filter((other) => other !== act); },
    send: (message) => verbs[message.do](message),
  };
  function tell() {
    const runs = [shown, ...pins], telling = settings.filter((c) => new Set(runs.map((run) => run.at[c.name])).size > 1);
    frame = {
      move, at: { ...at }, status, text: shown.text, progress: null, error, number: frame.number + 1,
      runs: runs.map((run, i) => {
        const name = i ? `pin ${i}` : "now", differs = described(run, telling);
        const ends = curves.map((curve) => show(run.lines[curve]?.at(-1)?.[1]));
        return { ...run, label: name + (differs && `: ${differs}`), row: [name, described(run, settings), ...ends] };
      }),
    };
    (listeners["change:frame"] ?? []).forEach((act) => act());
  }
  function wish() {
    [status, error] = ["running", ""];
    growing = null;                                              // the old curve stays until the new one has its first point
    shop.ask({ ticket: ++ticket, at: { ...at } });
    tell();
  }
  const verbs = {
    move(message) { move = message.move; at = { ...at, ...message.at }; wish(); },
    reset(message) { move = message.move; pins = []; at = starts(); wish(); },
    pin(message) {
      move = message.move;
      if (Object.keys(shown.lines).length) pins = [...pins, structuredClone(shown)].slice(-MAX_PINS);
      tell();
    },
    stop(message) {
      move = message.move;
      if (status === "running") { status = "stopping"; shop.ask({ ticket: ++ticket, stop: true }); }
      tell();
    },
  };
  function heard(message) {
    if (message.ready) return say(`${message.ready} kernels ${shop.where}`);
    if (message.failed) { [status, error] = ["error", `This page cannot train here. ${message.failed}`]; return tell(); }
    if (message.ticket !== ticket) return;
    if (message.end) {
      [status, error] = [message.end, message.error ?? ""];
      if (message.end === "done") say(null, message.ms);
      return tell();
    }
    const { lines, bars, images, text } = message.point;
    growing ??= { at: { ...at }, lines: {}, points: {}, bars: {}, images: {}, marks: {}, outlines: {}, jobs: {}, text: "" };
    for (const [name, place] of Object.entries(lines)) growing.lines[name] = [...(growing.lines[name] ?? []), place];
    shown = growing = { ...growing, lines: { ...growing.lines }, bars, images, text: text || growing.text };
    tell();
  }
  const shop = employ(heard, script);
  shop.ask({ recipe, simd, at, counts: Object.fromEntries(spec.controls.map((c) => [c.name, c.texts.length])) });
  if (!Object.keys(shown.lines).length) wish();                  // the notebook holds no run yet
  return model;
}

// Each place of the page that holds a recipe: its picture gives way to the explorer.
function enliven() {
  const script = document.getElementById("flx-engine").textContent, simd = document.getElementById("flx-engine").dataset.simd;
  for (const place of document.querySelectorAll(".flx-living")) {
    const page = JSON.parse(place.querySelector("script").textContent), engine = el("span"), time = el("span"), root = el("div");
    const say = (words, ms) => {
      if (words) engine.textContent = ` (${words})`;
      if (ms !== undefined) time.textContent = `The last run took ${Math.round(ms)} ms. `;
    };
    const model = hostedModel(page, script, simd, say);
    const note = el("details", { class: "flx-how" },
      el("summary", {}, "Trained in this page, without Python", engine, ": what differs"), el("p", {}, time, page.how));
    render({ model, el: root });
    const section = root.querySelector(".flx");
    section.append(note);
    place.append(root);
    place.querySelector("img")?.remove();
  }
}

enliven();
