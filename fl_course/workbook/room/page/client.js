// A client of the room: says hello, holds its examples, obeys orders, and tells how the model does on its own drawings.
"use strict";
const $ = (id) => document.getElementById(id), SIMD = FL.simdKernels(KERNELS), MEMORY = `federation seat ${location.pathname}`;
const page = { drawn: [], dealt: [], rules: null, theta: null, socket: null, drawers: new Map(), sent: 0, asked: 0, digit: null, gone: false };

function say(text, sorry = false) { $("voice").textContent = text; $("voice").classList.toggle("sorry", sorry); }
// What a reload keeps, as long as the tab is open: {token, drawn}.
function stored() { try { return JSON.parse(sessionStorage.getItem(MEMORY)) ?? {}; } catch { return {}; } }        // a browser may refuse
function store() { try { sessionStorage.setItem(MEMORY, JSON.stringify({ token: page.token, drawn: page.drawn })); } catch { /* then a reload is a new seat */ } }
function count() { if (page.socket.readyState === 1) page.socket.send(JSON.stringify({ say: "drawings", count: page.drawn.length })); }

// --- the talk -----------------------------------------------------------------------------------------------------------

function come(name, tries = 0) {
  const socket = new WebSocket(location.href.replace(/^http/, "ws").replace(/[/#?]*$/, "") + "/ws");
  socket.binaryType = "arraybuffer";
  page.socket = socket;
  socket.onopen = () => socket.send(JSON.stringify({ say: "hello", page: PAGE, name, token: stored().token }));
  socket.onmessage = ({ data }) => { tries = 0; (typeof data === "string" ? told : bytes)(typeof data === "string" ? JSON.parse(data) : new Uint8Array(data)); };
  socket.onclose = () => {
    if (page.gone || page.socket !== socket) return;
    say("The connection is lost. Trying again …", true);
    setTimeout(() => come(name, tries + 1), Math.min(8000, 500 * 2 ** tries));
  };
}

function told(message) {
  if (message.say === "welcome") {
    Object.assign(page, { client: message.client, rules: message.rules, token: message.token });
    store();
    count();                                                                  // the seat may be a new one, the drawings are not
    $("come").hidden = true;
    $("in").hidden = false;
    say(`Welcome, ${message.name}. You are client ${message.client}. Draw, or wait for the first round.`);
  } else if (message.say === "rules") {
    page.rules = message.rules;
    page.drawers.clear();
    say("A run begins.");
  } else if (message.say === "pause") say("The run is over. Look at the wall.");
  else if (message.say === "sorry") { page.gone = true; say(message.why, true); $("come").hidden = false; }
  facts();
}

function bytes(data) {
  const [kind, body] = FL.decode(data);
  if (kind === "share") {
    const [count, pixels, labels] = body;
    page.dealt = labels.slice(0, count).map((y, i) => ({ x: pixels.slice(64 * i, 64 * i + 64), y }));
  } else if (kind === "orders") body.forEach(obey);
  else if (kind === "measure") measure(body[0], FL.decode(body[1])[1][1]);
  facts();
}

// My drawings first, then dealt digits, at most as many as the server expects.
function examples() { return [...page.drawn, ...page.dealt].slice(0, page.rules.most); }

function trainer() {
  const mine = examples(), x = new Float32Array(64 * mine.length);
  mine.forEach((example, i) => x.set(example.x, 64 * i));
  return FL.trainer(page.rules.sizes, x, mine.map((example) => example.y), page.rules.batch, SIMD);
}

function obey([ticket, client, , model, drawer]) {
  const { rules } = page, [, [version, theta]] = FL.decode(model), t = trainer(), mine = { ...(page.drawers.get(drawer) ?? {}) };
  page.asked++;
  page.theta = theta;
  t.set(theta);
  const stages = FL.pipeline({ keep: rules.keep, bits: rules.bits || 32, feedback: rules.feedback, clip: rules.clip || Infinity });
  const rows = [...examples().keys()], said = FL.answer(t, client, rows, version, rules, stages, mine);
  const update = FL.encode("update", said.body), keeps = Object.keys(mine).length > 0;
  if (keeps) { page.drawers = new Map([[drawer, page.drawers.get(drawer)], [ticket, mine]].filter(([, kept]) => kept)); }
  page.sent += update.length;
  page.socket.send(FL.encode("answers", [[ticket, update, "", false, keeps, {}]]));
  say(`Round ${version + 1}: trained on ${rows.length} digits, sent ${update.length.toLocaleString("en")} bytes.`);
}

function measure(version, theta) {
  page.theta = theta;
  const right = page.drawn.filter(({ x, y }) => likeliest(theta, page.rules.sizes, x) === y).length;
  page.socket.send(JSON.stringify({ say: "measured", version, right, of: page.drawn.length }));
  guess();
}

// --- drawing --------------------------------------------------------------------------------------------------------------

const pad = $("pad"), pen = pad.getContext("2d", { willReadFrequently: true });
function wipe() { pen.fillStyle = "#fff"; pen.fillRect(0, 0, pad.width, pad.height); look(); }
function drawing() {
  const { data } = pen.getImageData(0, 0, pad.width, pad.height), ink = new Uint8Array(pad.width * pad.height);
  for (let i = 0; i < ink.length; i++) ink[i] = data[4 * i] < 128 ? 1 : 0;
  return toDigit(ink, pad.width);
}
function look() { paint($("small"), Array.from(drawing() ?? new Float32Array(64))); guess(); }
function guess() {
  const x = drawing();
  $("guess").textContent = x && page.theta ? `The shared network reads a ${likeliest(page.theta, page.rules.sizes, x)}.` : "";
}
function place(event) {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
}
pad.onpointerdown = (event) => { pad.setPointerCapture(event.pointerId); pen.beginPath(); pen.moveTo(...place(event)); page.pen = true; stroke(event); };
pad.onpointermove = (event) => page.pen && stroke(event);
pad.onpointerup = pad.onpointercancel = () => { page.pen = false; look(); };
function stroke(event) {
  Object.assign(pen, { lineWidth: 22, lineCap: "round", lineJoin: "round", strokeStyle: "#000" });
  pen.lineTo(...place(event));
  pen.stroke();
}

for (let d = 0; d < 10; d++) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", textContent: d, onclick: () => choose(d) });
  button.setAttribute("aria-pressed", "false");
  $("digits").append(button);
}
function choose(d) { page.digit = d; [...$("digits").children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === d))); }
$("wipe").onclick = wipe;
$("keep").onclick = () => {
  const x = drawing();
  if (!x) return say("There is nothing to keep yet: draw a digit first.", true);
  if (page.digit === null) return say("Please say which digit it is.", true);
  if (page.drawn.length >= page.rules.most) page.drawn.shift();               // the oldest goes
  page.drawn.push({ x: Array.from(x), y: page.digit });
  store();
  say(`Kept: a ${page.digit}. It stays in this page.`);
  count();
  choose(null);
  wipe();
  facts();
};

function facts() {
  if (!page.rules) return;
  const mine = examples().length - Math.min(page.drawn.length, page.rules.most);
  const rows = [["digits of yours", page.drawn.length], ["digits that you were dealt and train on", mine], ["asked to train", page.asked],
                ["engine", SIMD ? "JavaScript with WebAssembly" : "plain JavaScript"], ["bytes sent, all updates", page.sent.toLocaleString("en")]];
  $("facts").replaceChildren(...rows.map((row) => { const line = document.createElement("tr"); row.forEach((cell) => { line.insertCell().textContent = cell; }); return line; }));
}

$("come").onsubmit = (event) => { event.preventDefault(); page.gone = false; come($("name").value); };
wipe();
page.drawn = stored().drawn ?? [];
if (stored().token) come("");                                                       // back after a reload: the token knows the name
