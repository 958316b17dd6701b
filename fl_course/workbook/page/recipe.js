// A recipe (widgets/recipe.py) and where the controls stand → the points of a run. For a Worker, or for the page's own thread.

async function inflate(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Everything of a recipe that is the same wherever the controls stand.
async function unpack(recipe, simd) {
  const bytes = await inflate(recipe.x), y = await inflate(recipe.y), planes = await inflate(recipe.deals), half = planes.length / 2;
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

// A line of text as Python's str.format writes it: {accuracy:.1%}, {MB:.2f}, {message:,.0f}, {clients}.
function fillIn(text, values) {
  return text.replace(/\{(\w+)(?::(,?)(?:\.(\d+))?([f%]?))?\}/g, (_, name, comma, digits, kind) => {
    const value = values[name];
    if (digits === undefined && !kind && !comma) return String(value);
    const options = kind || digits ? { minimumFractionDigits: Number(digits ?? 6), maximumFractionDigits: Number(digits ?? 6) } : { maximumFractionDigits: 20 };
    return Number.isFinite(value) ? (kind === "%" ? 100 * value : value).toLocaleString("en-US", { ...options, useGrouping: Boolean(comma) }) + (kind === "%" ? "%" : "") : "∞";
  });
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
  const { recipe } = world, setting = settingAt(world, at, counts), fed = deal(world, at, counts), [m, there] = planned(fed, setting.fraction);
  const slots = setting.batch ?? fed.train.reduce((most, rows) => Math.max(most, rows.length), 1), t = trainerFor(world, setting.sizes, slots);
  const bars = {}, wanted = new Set(Object.values(recipe.lines).flat());
  let curve = null, last = {}, up = 0;
  const place = (value) => (Number.isFinite(value) ? Number(value.toPrecision(6)) : null);
  const lines = (has) => Object.fromEntries(Object.entries(recipe.lines).filter(([, pair]) => pair.includes("plain_accuracy") === has)
    .map(([name, pair]) => [name, pair.map((q) => place(typeof q === "string" ? last[q] : q))]));
  if (setting.budget !== null) setting.noise = noiseFor(setting.budget, setting.delta, setting.rounds, m / there);
  const words = {};
  if (Object.keys(recipe.bars).length || /\{(message|encoded|formula|bound)\W/.test(recipe.text)) {
    const first = fed.train.findIndex((rows) => rows.length);
    t.set(firstModel(setting.sizes, setting.seed));
    const said = answer(t, fed.ids[first], fed.train[first], 0, setting, pipeline(setting), {});
    Object.assign(words, weigh(said.payload), { message: messageSize("update", said.body) });
    for (const [title, quantities] of Object.entries(recipe.bars)) bars[title] = quantities.map((quantity) => [quantity, place(words[quantity])]);
  }
  let images = {};
  if (recipe.picture) {
    const d = setting.sizes[0], image = Array.from(world.x.subarray(0, d)), noise = dice(setting.seed, "page attack");
    const guess = readOff(image, world.y[0], setting.sizes.at(-1), setting.clip, setting.noise, noise);
    const error = image.reduce((sum, v, i) => sum + (v - guess[i]) ** 2, 0) / d, side = Math.sqrt(d);
    const square = (flat) => Array.from({ length: side }, (_, r) => flat.slice(r * side, (r + 1) * side).map((v) => Number(v.toPrecision(3))));
    words.psnr = error < 1e-10 ? 99 : Math.min(99, -10 * Math.log10(error));
    images = Object.fromEntries(recipe.picture.map((name, i) => [name, square(i ? guess : image)]));
  }
  for (const record of federation(t, fed, setting)) {
    if (wanted.has("epsilon") || recipe.text.includes("{epsilon")) curve ??= renyi(m / there, setting.noise);
    last = { ...setting, ...words, planned: m, round: record.version, accuracy: record.accuracy, client_accuracy: record.client_accuracy, clients: record.clients.length,
      MB: (record.up + record.down) / 1e6, MB_up: record.up / 1e6, MB_down: record.down / 1e6, epsilon: curve && epsilon(curve, record.version, setting.delta) };
    yield { lines: lines(false), bars, images, text: fillIn(recipe.text, last) };
  }
  if (!wanted.has("plain_accuracy")) return;
  for (const [i, accuracy] of twin(world, t, fed, setting, index(recipe.deal, at, counts))) {
    last = { round: i + 1, plain_accuracy: accuracy };
    yield { lines: lines(true), bars, images, text: "" };
  }
}

// Trains what it is asked for, the latest wish first. Hears {recipe, counts, simd}, {ticket, at} or {ticket, stop}; posts {ready},
// {ticket, point}, {ticket, end}. Between two rounds it listens; a run that is no longer wanted ends there.
function workshop(post) {
  const channel = new MessageChannel();
  const breathe = () => new Promise((go) => { channel.port1.onmessage = go; channel.port2.postMessage(0); });
  let world = null, counts = null, wanted = null, busy = false;
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
        post({ failed: `${error.name}: ${error.message}` });
      }
    } else wanted = message;
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
