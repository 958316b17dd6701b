// The wall: who is here, how it goes, the rules of the next run, and what the server has seen of one client.
"use strict";
const $ = (id) => document.getElementById(id);
const WORDS = {
  rounds: "rounds", fraction: "share of clients asked", epochs: "passes over the digits", lr: "learning rate", batch: "digits a step", deadline: "deadline, seconds",
  over: "asked in excess, share", buffer: "answers a step (0: rounds)", keep: "share of numbers sent", bits: "bits a number (0: 32)", clip: "clip bound (0: off)", noise: "noise, in clip bounds",
};
let socket = null, rounds = [], shown = null;

function connect() {
  socket = new WebSocket(location.href.replace(/^http/, "ws").replace(/[/#?]*$/, "") + "/ws");
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.say === "view") view(message);
    else if (message.say === "seen") seen(message);
    else if (message.say === "sorry") { $("voice").textContent = message.why; $("voice").classList.add("sorry"); }
  };
  socket.onclose = () => setTimeout(connect, 2000);
}

// New children, if there is anything new: what somebody has open or has scrolled stays as it is.
function refill(parent, things, child, key = (thing) => thing) {
  const now = JSON.stringify(things.map(key));
  if (parent.dataset.now === now) return false;
  parent.dataset.now = now;
  parent.replaceChildren(...things.map(child));
  return true;
}
function cells(row, values) { values.forEach((value) => { row.insertCell().textContent = value; }); return row; }

function view(now) {
  rounds = [...rounds.slice(0, now.known), ...now.rounds];                                           // known: so many of this run are here
  const { seats, settings, running } = now, done = rounds.at(-1), drawn = seats.filter((seat) => seat.here && seat.measured[2]);
  $("seats").replaceChildren(...seats.map((seat) => {
    const row = cells(document.createElement("tr"), [seat.client, seat.here ? seat.name : `${seat.name} (gone)`, seat.drawings, `${seat.answered} of ${seat.asked}`,
                                                     seat.measured[2] ? `${seat.measured[1]} of ${seat.measured[2]}` : "–"]);
    row.classList.toggle("gone", !seat.here);
    return row;
  }));
  const right = drawn.reduce((sum, seat) => sum + seat.measured[1], 0), of = drawn.reduce((sum, seat) => sum + seat.measured[2], 0);
  $("numbers").textContent = done ? `After ${done.version} steps and ${done.clock.toFixed(1)} s: ${percent(done.accuracy)} of the held-out digits` +
    (of ? `, ${percent(right / of)} of the ${of} drawn here` : "") + `. ${(done.up / 1000).toFixed(1)} kB up in the last step, from ${done.clients} clients.` : "No round yet.";
  chart(rounds);
  const happened = rounds.flatMap((round) => round.events.map((text) => `step ${round.version}: ${text}`)).slice(-40).reverse();
  refill($("events"), happened, (text) => Object.assign(document.createElement("li"), { textContent: text }));
  if (!$("settings").children.length) fields(settings);
  const who = $("who").value;
  if (refill($("who"), seats.filter((seat) => seat.answered), (seat) => new Option(seat.name, seat.client), (seat) => seat.client + seat.name) && who) $("who").value = who;
  $("start").disabled = running;
  $("stop").disabled = !running;
  const chosen = seats.find((seat) => String(seat.client) === $("who").value), latest = chosen && `${chosen.client} ${chosen.answered}`;
  if (latest !== shown) { shown = latest; look(); }                                                  // it has answered again, or is another one
}

const percent = (share) => (share == null ? "–" : `${(100 * share).toFixed(1)} %`);

function chart(rounds) {
  const known = rounds.filter((round) => round.accuracy != null), W = 460, H = 240, L = 44, B = 30, most = Math.max(1, ...known.map((round) => round.version));
  const x = (version) => L + ((W - L - 8) * version) / most, y = (share) => 8 + (H - B - 8) * (1 - share);
  const grid = [0, 0.25, 0.5, 0.75, 1].map((share) => `<line x1="${L}" x2="${W - 8}" y1="${y(share)}" y2="${y(share)}" stroke="currentColor" opacity="0.2"/>` +
    `<text x="${L - 6}" y="${y(share) + 4}" text-anchor="end" font-size="12" fill="currentColor">${100 * share} %</text>`).join("");
  const path = known.map((round) => `${x(round.version).toFixed(1)},${y(round.accuracy).toFixed(1)}`).join(" ");
  $("chart").innerHTML = `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="Accuracy on held-out digits after each step; the last: ${percent(known.at(-1)?.accuracy)}">` +
    `${grid}<text x="${(W + L) / 2}" y="${H - 6}" text-anchor="middle" font-size="12" fill="currentColor">server steps, to ${most}</text>` +
    `<polyline points="${path}" fill="none" stroke="var(--blue)" stroke-width="3"/></svg>`;
}

function fields(settings) {
  for (const [name, words] of Object.entries(WORDS)) {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { name, type: "number", step: "any", value: settings[name] });
    label.append(words, input);
    $("settings").append(label);
  }
}

function look() {
  if ($("who").value && socket.readyState === 1) socket.send(JSON.stringify({ say: "look", client: Number($("who").value) }));
}
function seen({ client, moves, read }) {
  if (String(client) !== $("who").value) return;
  const tiles = (pictures, signed) => pictures.map((numbers) => { const canvas = document.createElement("canvas"); paint(canvas, numbers, signed); return canvas; });
  $("moves").replaceChildren(...tiles(moves, true));
  $("read").replaceChildren(...tiles(read, false));
}

$("rules").onsubmit = (event) => {
  event.preventDefault();
  $("voice").textContent = "";
  $("voice").classList.remove("sorry");
  const settings = Object.fromEntries([...$("settings").querySelectorAll("input")].map((input) => [input.name, Number(input.value)]));
  socket.send(JSON.stringify({ say: "start", settings }));
};
$("stop").onclick = () => socket.send(JSON.stringify({ say: "stop" }));
$("who").onchange = look;
$("qr").innerHTML = QR;
$("address").append(URL_OF_ROOM.replace(/[^/]*$/, ""), document.createElement("wbr"), URL_OF_ROOM.replace(/.*\//, ""));   // the code in one piece
connect();
