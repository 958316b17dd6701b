// What happens to an update between a client and the sum: small frozen objects with a client half and a server half.
//
//   topK(ratio, feedback)      compression/sparse.py        the largest numbers; what is not sent waits in the drawer
//   rounding(bits)             compression/quantisation.py  unbiased, 2^bits - 1 levels
//   signs(feedback)            likewise                     one bit: sign(x)·mean|x|
//   clipAndNoise(clip, z)      privacy/central.py           L2 norm at most clip; N(0, (z·clip)²) on the sum
//
// A payload is a Float32Array, or {codes, levels, scale} on a grid, or {size, positions, values}, whose values are one of these.

const GRID = new Map();
function grid(levels) {                                          // -1 … 1
  if (!GRID.has(levels)) GRID.set(levels, Float32Array.from({ length: levels }, (_, c) => (2 * c) / (levels - 1) - 1));
  return GRID.get(levels);
}

// (d,) what the server reads: exactly what the client knows that it will.
function numbers(payload) {
  if (payload instanceof Float32Array) return payload;
  if (payload.codes) {
    const steps = grid(payload.levels);
    return Float32Array.from(payload.codes, (c) => steps[c] * payload.scale);
  }
  const vector = new Float32Array(payload.size), values = numbers(payload.values), { positions } = payload;
  for (let i = 0; i < positions.length; i++) vector[positions[i]] = values[i];
  return vector;
}

// `change` the numbers that travel: all of an array, those that a sparse payload holds.
const onValues = (payload, change) => (payload.positions ? { ...payload, values: change(payload.values) } : change(payload));

const bitsOf = (levels) => 32 - Math.clz32(levels - 1);
const float32 = (x) => new Uint8Array(Float32Array.from(x).buffer);
function onWire(payload, inside = false) {                       // as wire/payloads.py writes it
  if (payload instanceof Float32Array) return inside ? float32(payload) : payload;
  if (payload.codes) {
    const { codes, levels, scale } = payload, n = codes.length;
    const packed = levels === 3 ? packTernary(codes) : packBits(codes, bitsOf(levels));
    return ["quantised", n, levels, Math.max(1, n), float32(n ? [scale] : []), packed];
  }
  return ["sparse", payload.size, ...packPositions(payload.positions, payload.size), onWire(payload.values, true)];
}

// k positions of the largest magnitudes, rising; among equal ones the first. The bits of a float without its sign rise with
// it, so the k-th is found digit by digit: of those that share its digits so far, how many have which next one?
const COUNTS = new Uint32Array(2048);
function largest(x, k) {
  if (k >= x.length) return Int32Array.from(x, (_, i) => i);
  const d = x.length, bits = new Uint32Array(x.slice().buffer), chosen = new Int32Array(k);
  let least = 0, known = 0, left = k;
  for (let i = 0; i < d; i++) bits[i] &= 0x7fffffff;
  for (const [shift, digits] of [[20, 2047], [10, 1023], [0, 1023]]) {
    COUNTS.fill(0);
    for (let i = 0; i < d; i++) if ((bits[i] & known) === least) COUNTS[(bits[i] >>> shift) & digits]++;
    let digit = digits;
    while (COUNTS[digit] < left) left -= COUNTS[digit--];
    least |= digit << shift;
    known |= digits << shift;
  }
  for (let i = 0, n = 0; i < d; i++) if (bits[i] > least || (bits[i] === least && left-- > 0)) chosen[n++] = i;
  return chosen;
}

// The number of `ratio` of d, at least one; halves to the even number, as Python rounds.
function roundEven(x) {
  const down = Math.floor(x), rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2) ? down + 1 : down;
}

const topK = (ratio, feedback) => ({
  feedback,
  client(x) {
    const positions = largest(x, Math.min(x.length, Math.max(1, roundEven(ratio * x.length))));
    return { size: x.length, positions, values: Float32Array.from(positions, (p) => x[p]) };
  },
});

// A number that lies a share f of a step above a level goes up with probability f: its mean is itself (Alistarh et al. 2017).
const rounding = (bits) => ({
  client: (payload, roll) => onValues(payload, (x) => {
    const levels = Math.max(2, 2 ** bits - 1), half = (levels - 1) / 2, codes = new Uint16Array(x.length);
    const scale = x.reduce((top, v) => Math.max(top, Math.abs(v)), 0), step = scale ? half / scale : 0;
    for (let i = 0; i < x.length; i++) codes[i] = Math.min(levels - 1, Math.floor(x[i] * step + half + roll.random()));
    return { codes, levels, scale };
  }),
});

const signs = (feedback) => ({
  feedback,
  client: (payload) => onValues(payload, (x) => {
    const scale = Math.fround(x.reduce((sum, v) => sum + Math.abs(v), 0) / Math.max(1, x.length));
    return { codes: Uint8Array.from(x, (v) => (v >= 0 ? 1 : 0)), levels: 2, scale };
  }),
});

// Clip over all numbers together, rounded towards zero so that float32 is never longer; then noise on the sum, and a public
// denominator: the cohort that was planned, whoever came.
const clipAndNoise = (clip, noise) => ({
  noisy: noise > 0,
  client: (payload) => onValues(payload, (x) => {
    let squares = 0;
    for (let i = 0; i < x.length; i++) squares += x[i] * x[i];
    if (!(Math.sqrt(squares) > clip)) return x;
    const factor = (clip * (1 - 1e-12)) / Math.sqrt(squares), shorter = new Float32Array(x.length);
    for (let i = 0; i < x.length; i++) {
      const exact = x[i] * factor, near = Math.fround(exact);
      shorter[i] = Math.abs(near) > Math.abs(exact) ? near * (1 - 2 ** -23) : near;
    }
    return shorter;
  }),
  server({ total }, planned, roll) {
    if (noise) for (let i = 0; i < total.length; i++) total[i] += noise * clip * roll.normal();
    return { total, weight: planned };
  },
});

function plus(x, y, sign) {
  const sum = new Float32Array(x.length);
  for (let i = 0; i < x.length; i++) sum[i] = x[i] + sign * y[i];
  return sum;
}

// First to last. Behind a stage with feedback, what a later one takes away waits in the same residual (federation/stages.py).
function clientHalf(stages, x, drawer, roll) {
  let payload = x, keeps = false;
  for (const stage of stages) {
    const given = stage.feedback && drawer.residual ? plus(numbers(payload), drawer.residual, 1) : payload;
    payload = stage.client(given, roll);
    if (stage.feedback || keeps) {                               // a new array: the old one may belong to somebody's state
      const lost = plus(numbers(given), numbers(payload), -1);
      drawer.residual = stage.feedback ? lost : plus(drawer.residual, lost, 1);
    }
    keeps ||= stage.feedback;
  }
  return payload;
}

// Last to first, on the sum.
function serverHalf(stages, sum, planned, roll) {
  for (const stage of [...stages].reverse()) if (stage.server) sum = stage.server(sum, planned, roll);
  return sum;
}

// (d,) in [0, 1]: what an attacker reads off the noisy update of a client that holds this one image, from a softmax regression
// of zeros: the row of W over the entry of b, where b moved most (widgets/sandwich.py, attacked).
function readOff(image, label, classes, clip, noise, roll) {
  const d = image.length, update = new Float32Array(classes * (d + 1));
  for (let c = 0; c < classes; c++) {
    const error = 1 / classes - (c === label ? 1 : 0);
    for (let i = 0; i < d; i++) update[c * d + i] = -error * image[i];
    update[classes * d + c] = -error;
  }
  const sent = Float64Array.from(clipAndNoise(clip, 0).client(update), (v) => v + noise * clip * roll.normal());
  const bias = sent.subarray(classes * d);
  const row = bias.reduce((best, b, c) => (Math.abs(b) > Math.abs(bias[best]) ? c : best), 0);
  return Array.from(sent.subarray(row * d, (row + 1) * d), (w) => (bias[row] ? Math.min(1, Math.max(0, w / bias[row])) : 0));
}

// Bytes of a payload: what papers count for it, what no code can go below (Shannon 1948), and what it really takes.
function weigh(payload) {
  const log2Choose = (d, k) => {
    let sum = 0;
    for (let i = 0; i < Math.min(k, d - k); i++) sum += Math.log2((d - i) / (i + 1));
    return sum;
  };
  const plain = payload instanceof Float32Array, encoded = messageSize("", onWire(payload)) - messageSize("", 0) + 1;
  if (plain) return { formula: 4 * payload.length, bound: 4 * payload.length, encoded };
  if (payload.codes) {
    const counts = new Map(), n = payload.codes.length;
    payload.codes.forEach((c) => counts.set(c, (counts.get(c) ?? 0) + 1));
    const entropy = [...counts.values()].reduce((sum, m) => sum - m * Math.log2(m / n), 0);
    return { formula: (n * Math.log2(payload.levels)) / 8 + 4, bound: entropy / 8 + 4, encoded };
  }
  const inner = weigh(payload.values), k = payload.positions.length, d = payload.size;
  const formula = inner.formula + (k * Math.ceil(Math.log2(Math.max(2, d)))) / 8;
  return { formula, bound: inner.bound + log2Choose(d, k) / 8, encoded };
}
