// Federated averaging (McMahan et al. 2017, algorithm 1), the loop of federation/coordinator.py in its simplest form: everybody
// answers. select → broadcast → train → client halves → bytes → sum → server halves → step → evaluate.

// Who takes part in this version: exactly m of n, or in `poisson` cohorts each by a coin of its own (federation/sampling.py).
function select(n, m, seed, version, poisson) {
  const rng = stream(seed, "select", version, 0);
  if (poisson) return Array.from({ length: n }, (_, k) => k).filter(() => rng.random() * n < m);
  return Array.from(rng.permutation(n).subarray(0, m)).sort((a, b) => a - b);
}

// The stages of a setting, in the order of the pipeline. keep: share of the numbers that is sent; bits: of each; clip: Infinity
// for none; noise: in clip bounds, on the sum.
function pipeline({ keep = 1, bits = 32, feedback = false, clip = Infinity, noise = 0 }) {
  const stages = [];
  if (clip < Infinity) stages.push(clipAndNoise(clip, noise));
  if (keep < 1) stages.push(topK(keep, feedback));
  if (bits < 32) stages.push(bits === 1 ? signs(feedback && !(keep < 1)) : rounding(bits));
  return stages;
}

// One client's answer to this version of the model: {body, payload, weight, report}. drawer: what it keeps for itself.
function answer(t, client, rows, version, { epochs, lr, batch, seed = 0, uniform = false }, stages, drawer) {
  const report = t.train(rows, batchKey(client, seed, version), epochs, lr, batch ?? t.slots), delta = t.change();
  const weight = uniform ? 1 : report.examples, weighed = uniform ? delta : delta.map((v) => v * weight);
  const payload = clientHalf(stages, weighed, drawer, stages.length ? dice(seed, "page rounding", version, client) : null);
  return { payload, weight, report, body: updateBody(client, version, onWire(payload), weight, report) };
}

function planned(fed, fraction) {                                // m of n: the cohort, and who could be asked
  const there = fed.train.reduce((n, rows) => n + (rows.length > 0), 0);
  return [Math.min(there, Math.max(1, roundEven(fraction * there))), there];
}

// A generator of records; whoever wants to stop asks no more.
//
//   t        of trainer(): holds the examples                fed    {ids, train, test, held}: rows of each client, and held out
//   setting  {sizes, fraction, epochs, lr, batch, rounds} and, where they are not the usual ones, {seed, poisson, uniform},
//            and what `pipeline` reads
function* federation(t, fed, setting, theta = firstModel(setting.sizes, setting.seed ?? 0)) {
  const { fraction, rounds, seed = 0, poisson = false } = setting, stages = pipeline(setting), noisy = stages.some((s) => s.noisy);
  const clients = [...fed.ids.keys()].filter((k) => fed.train[k].length), [m] = planned(fed, fraction), drawers = new Map();
  let up = 0, down = 0;
  theta = theta.slice();
  for (let version = 0; version < rounds; version++) {
    const cohort = select(clients.length, m, seed, version, poisson).map((place) => clients[place]);
    const model = messageSize("model", modelBody(version, theta));
    let total = new Float64Array(theta.length), weight = 0;
    t.set(theta);
    for (const k of cohort) {
      if (!drawers.has(k)) drawers.set(k, {});
      const said = answer(t, fed.ids[k], fed.train[k], version, setting, stages, drawers.get(k));
      const sent = numbers(said.payload);
      for (let i = 0; i < total.length; i++) total[i] += sent[i];
      weight += said.weight;
      down += model;
      up += messageSize("update", said.body);
    }
    // Noise goes the way of a full round, or the release would tell that nobody came.
    const roll = noisy ? dice(seed, "page noise", version) : null;
    if (cohort.length || noisy) ({ total, weight } = serverHalf(stages, { total, weight }, m, roll));
    if (weight > 0) for (let i = 0; i < theta.length; i++) theta[i] += Math.fround(total[i] / weight);
    t.set(theta);
    const own = fed.test.filter((rows) => rows.length).map((rows) => t.right(rows) / rows.length);
    yield {
      version: version + 1, clients: cohort.map((k) => fed.ids[k]), up, down, theta: theta.slice(),
      accuracy: t.right(fed.held) / fed.held.length, client_accuracy: own.reduce((sum, a) => sum + a, 0) / own.length,
    };
  }
}

const FL = {
  sha256, fingerprint, stream, dice, shuffle, batchKey, simdKernels, trainer, firstModel,
  Real, encode, decode, messageSize, modelBody, updateBody, packBits, packTernary, packPositions,
  numbers, onWire, largest, topK, rounding, signs, clipAndNoise, clientHalf, serverHalf, readOff, weigh,
  ORDERS, renyi, epsilon, noiseFor, select, planned, pipeline, answer, federation,
};
