// A recipe (widgets/recipe.py) and where the controls stand → the points of a run. For a Worker, or for the page's own thread.

async function inflate(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Everything of a recipe that is the same wherever the controls stand.
async function unpack(recipe, simd) {
  const [bytes, y, planes] = await Promise.all([recipe.x, recipe.y, recipe.deals].map(inflate)), half = planes.length / 2;
  const x = recipe.scale ? Float32Array.from(bytes, (v) => v / recipe.scale) : new Float32Array(bytes.buffer);
  const deals = Uint16Array.from({ length: half }, (_, i) => planes[i] | (planes[half + i] << 8));
  const ids = recipe.ids ?? Array.from({ length: recipe.clients }, (_, k) => k);
  const held = Array.from({ length: y.length - recipe.pool }, (_, i) => recipe.pool + i);
  return { recipe, x, y, deals, ids, held, simd, opened: new Map(), trainers: new Map(), twins: new Map() };
}

// Where a table is read: the last control moves fastest.
const index = (names, at, counts) => names.reduce((i, name) => i * counts[name] + at[name], 0);

function settingAt({ recipe }, at, counts) {
  const now = { ...recipe.constant };
  for (const [name, table] of Object.entries(recipe.tables)) now[name] = table.at[index(table.controls, at, counts)];
  return { ...now, batch: now.batch_size, clip: now.clip ?? Infinity };
}

function deal({ recipe, deals, ids, held, opened }, at, counts) {
  const which = index(recipe.deal, at, counts);
  if (!opened.has(which)) {
    const train = ids.map(() => []), test = ids.map(() => []);
    deals.subarray(which * recipe.pool, (which + 1) * recipe.pool).forEach((owner, row) => {
      if (owner !== 0xffff) (owner & 0x8000 ? test : train)[owner & 0x7fff].push(row);
    });
    opened.set(which, { ids, train, test, held });
  }
  return opened.get(which);
}

function trainerFor({ trainers, x, y, simd }, sizes, slots) {
  if (!trainers.has(slots)) trainers.set(slots, trainer(sizes, x, y, slots, simd));
  return trainers.get(slots);
}

// A line of text as Python's str.format writes it: {accuracy:.1%}, {MB:.2f}, {message:,.0f}, {clients:,}, {round}.
function fillIn(text, values) {
  return text.replace(/\{(\w+)(?::(,?)(?:\.(\d+))?([f%]?))?\}/g, (_, name, comma, digits, kind) => {
    const value = kind === "%" ? 100 * values[name] : values[name];
    if (!comma && !digits && !kind) return String(value);
    if (!Number.isFinite(value)) return "∞";
    const places = digits || kind ? Number(digits ?? 6) : undefined;
    const options = { minimumFractionDigits: places, maximumFractionDigits: places, useGrouping: comma === "," };
    return value.toLocaleString("en-US", options) + (kind === "%" ? "%" : "");
  });
}

// Bytes of the first update of the first client.
function firstUpdate(t, fed, setting) {
  const first = fed.train.findIndex((rows) => rows.length);
  t.set(firstModel(setting.sizes, setting.seed));
  const said = answer(t, fed.ids[first], fed.train[first], 0, setting, pipeline(setting), {});
  return { ...weigh(said.payload), message: messageSize("update", said.body) };
}

// The first example and what is read off one noisy update of it, as rows of greys; psnr: how well, in dB.
function attackFirst({ x, y }, { sizes: [d, classes], clip, noise, seed }) {
  const image = Array.from(x.subarray(0, d)), guess = readOff(image, y[0], classes, clip, noise, dice(seed, "page attack"));
  const error = image.reduce((sum, v, i) => sum + (v - guess[i]) ** 2, 0) / d, side = Math.sqrt(d);
  const row = (flat, r) => flat.slice(r * side, (r + 1) * side).map((v) => Number(v.toPrecision(3)));
  const pictures = [image, guess].map((flat) => Array.from({ length: side }, (_, r) => row(flat, r)));
  return { pictures, psnr: error < 1e-10 ? 99 : Math.min(99, -10 * Math.log10(error)) };
}

// The accuracies of the same run without clip and noise, by round. Trained once: no slider of the noise changes it.
function* twin({ twins }, t, fed, { clip, noise, budget, ...setting }, dealt) {
  const name = JSON.stringify([dealt, setting]), known = twins.get(name) ?? { found: [], more: federation(t, fed, setting) };
  twins.set(name, known);
  for (let i = 0; i < setting.rounds; i++) {
    if (known.found.length <= i) known.found.push(known.more.next().value.accuracy);
    yield [i, known.found[i]];
  }
}

// One run, as its experiment in Python yields it: after each round {lines: {name: [x, y]}, bars, images, text}.
function* play(world, at, counts) {
  const { recipe } = world, setting = settingAt(world, at, counts), fed = deal(world, at, counts);
  const t = trainerFor(world, setting.sizes, setting.batch ?? Math.max(...fed.train.map((rows) => rows.length)));
  const [m, there] = planned(fed, setting.fraction), told = Object.entries(recipe.lines);
  const spoken = JSON.stringify([told.map(([, pair]) => pair), Object.values(recipe.bars), recipe.text]);
  if (setting.budget !== null) setting.noise = noiseFor(setting.budget, setting.delta, setting.rounds, m / there);
  const shown = (value) => (Number.isFinite(value) ? Number(value.toPrecision(6)) : null);
  const lines = (now, twins) => Object.fromEntries(told.filter(([, pair]) => pair.includes("plain_accuracy") === twins)
    .map(([name, pair]) => [name, pair.map((q) => shown(typeof q === "string" ? now[q] : q))]));

  const known = { ...setting, planned: m }, images = {}, bars = {};                       // what is the same in all rounds
  if (/message|encoded|formula|bound/.test(spoken)) Object.assign(known, firstUpdate(t, fed, setting));
  for (const [title, some] of Object.entries(recipe.bars)) bars[title] = some.map((q) => [q, shown(known[q])]);
  if (recipe.picture) {
    const { pictures, psnr } = attackFirst(world, setting);
    recipe.picture.forEach((name, i) => { images[name] = pictures[i]; });
    known.psnr = psnr;
  }
  let curve = null;
  for (const { version, clients, up, down, accuracy, client_accuracy } of federation(t, fed, setting)) {
    const bytes = { MB: (up + down) / 1e6, MB_up: up / 1e6, MB_down: down / 1e6 };
    const now = { ...known, ...bytes, round: version, accuracy, client_accuracy, clients: clients.length };
    if (spoken.includes("epsilon")) now.epsilon = epsilon(curve ??= renyi(m / there, setting.noise), version, setting.delta);
    yield { lines: lines(now, false), bars, images, text: fillIn(recipe.text, now) };
  }
  if (!spoken.includes("plain_accuracy")) return;
  for (const [i, plain_accuracy] of twin(world, t, fed, setting, index(recipe.deal, at, counts))) {
    yield { lines: lines({ round: i + 1, plain_accuracy }, true), bars, images, text: "" };
  }
}

// Trains what it is asked for, the latest wish first. Hears {recipe, counts, simd}, {ticket, at} or {ticket, stop}; posts {ready},
// {ticket, point}, {ticket, end}. Between two rounds it listens; a run that is no longer wanted ends there.
function workshop(post) {
  const channel = new MessageChannel();
  const breathe = () => new Promise((go) => { channel.port1.onmessage = go; channel.port2.postMessage(0); });
  let world = null, counts = null, wanted = null, busy = false, failed = null;
  async function work({ ticket, at, stop }) {
    const began = performance.now();
    try {
      if (!stop) for (const point of play(world, at, counts)) {
        post({ ticket, point });
        await breathe();
        if (wanted) return;
      }
      post({ ticket, end: stop ? "stopped" : "done", ms: performance.now() - began });
    } catch (error) {
      post({ ticket, end: "error", error: `${error.name}: ${error.message}` });
    }
  }
  return async function hear(message) {
    if (message.recipe) {
      counts = message.counts;
      const simd = simdKernels(message.simd);
      try {
        world = await unpack(message.recipe, simd);
        const first = play(world, message.at, counts);           // a rehearsal: the first wish shall not wait for the compiler
        for (let round = 0; round < 3; round++) first.next();
        post({ ready: simd ? "SIMD" : "plain" });
      } catch (error) {
        failed = `${error.name}: ${error.message}`;
      }
    } else wanted = message;
    if (failed) return post({ failed });                         // … to every wish, or its reader would wait for ever
    if (busy || !world) return;
    busy = true;
    while (wanted) {
      const mine = wanted;
      wanted = null;
      await work(mine);
    }
    busy = false;
  };
}

FL.workshop = workshop;
FL.play = play;
FL.unpack = unpack;
