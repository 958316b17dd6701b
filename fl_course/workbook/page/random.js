// Named randomness, to the bit the library's own: core.py (stream) and engine/batches.py (shuffles). The files of this folder
// are read one after the other as one script (widgets/recipe_page.py: engine); none imports, none asks a server for anything.
//
//   name → SHA-256 → Philox 4×64-10 → NumPy's doubles and permutations      who takes part, a model's first values
//   (client, version, epoch, example) → splitmix64 → a sort                 who sees which examples in which batch
//   name → SHA-256 → sfc32                                                  rounding and noise: NumPy's own dice are not here

const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((p) => n % p)) PRIMES.push(n);
const fraction32 = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
const SHA_START = PRIMES.slice(0, 8).map((p) => fraction32(Math.sqrt(p))), SHA_ROUND = PRIMES.map((p) => fraction32(Math.cbrt(p)));

// SHA-256 (FIPS 180-4) of a text, as a DataView of 32 bytes. crypto.subtle is missing on a page that came over http://.
function sha256(text) {
  const data = new TextEncoder().encode(text), n = data.length, turn = (x, k) => (x >>> k) | (x << (32 - k));
  const padded = new DataView(new ArrayBuffer(((n + 72) >> 6) << 6)), h = [...SHA_START], w = new Int32Array(64);
  data.forEach((byte, i) => padded.setUint8(i, byte));
  padded.setUint8(n, 128);
  padded.setUint32(padded.byteLength - 4, 8 * n);
  for (let block = 0; block < padded.byteLength; block += 64) {
    let [a, b, c, d, e, f, g, q] = h;
    for (let i = 0; i < 64; i++) {
      const u = w[i - 15], v = w[i - 2];
      w[i] = i < 16 ? padded.getInt32(block + 4 * i)
        : w[i - 16] + w[i - 7] + (turn(u, 7) ^ turn(u, 18) ^ (u >>> 3)) + (turn(v, 17) ^ turn(v, 19) ^ (v >>> 10));
      const s = (q + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + SHA_ROUND[i] + w[i]) | 0;
      const t = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [q, g, f, e, d, c, b, a] = [g, f, e, (d + s) | 0, c, b, a, (s + t) | 0];
    }
    [a, b, c, d, e, f, g, q].forEach((x, i) => { h[i] = (h[i] + x) | 0; });
  }
  const out = new DataView(new ArrayBuffer(32));
  h.forEach((x, i) => out.setInt32(4 * i, x));
  return out;
}

// A word as Python's repr writes it: whole numbers and strings (a client's id may be either).
function repr(word) {
  if (typeof word !== "string") return String(word);
  const quote = word.includes("'") && !word.includes('"') ? '"' : "'";
  const plain = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", [quote]: `\\${quote}` };
  return quote + word.replace(/[\\\n\r\t'"]/g, (c) => plain[c] ?? c) + quote;
}

const fingerprint = (...words) => sha256(`(${words.map(repr).join(", ")}${words.length === 1 ? "," : ""})`);

const U64 = (x) => BigInt.asUintN(64, x);

// NumPy's Generator(Philox(key)), Salmon et al. 2011: what of it the course needs.
function stream(...name) {
  const key = fingerprint(...name), first = [key.getBigUint64(0, true), key.getBigUint64(8, true)];
  let counter = 0n, block = [], spare = null;
  function next() {                                              // 64 bits
    if (!block.length) {
      let [a, b, c, d] = [++counter, 0n, 0n, 0n], [k, l] = first;
      for (let i = 0; i < 10; i++) {
        const p = a * 0xD2E7470EE14C6C93n, q = c * 0xCA5A826395121157n;
        [a, b, c, d] = [(q >> 64n) ^ b ^ k, U64(q), (p >> 64n) ^ d ^ l, U64(p)];
        [k, l] = [U64(k + 0x9E3779B97F4A7C15n), U64(l + 0xBB67AE8584CAA73Bn)];
      }
      block = [a, b, c, d];
    }
    return block.shift();
  }
  function next32() {                                            // the lower half of 64 bits, then the upper one
    if (spare !== null) { const half = spare; spare = null; return half; }
    const both = next();
    spare = Number(both >> 32n);
    return Number(both & 0xffffffffn);
  }
  return {
    random: () => Number(next() >> 11n) * 2 ** -53,              // in [0, 1)
    permutation(n) {                                             // Fisher and Yates, with masked rejection
      const order = Uint32Array.from({ length: n }, (_, i) => i);
      for (let i = n - 1; i > 0; i--) {
        const mask = 2 ** (32 - Math.clz32(i)) - 1, x = order[i];
        let j;
        do j = (next32() & mask) >>> 0; while (j > i);
        order[i] = order[j];
        order[j] = x;
      }
      return order;
    },
  };
}

// Dice of this page: sfc32 (Doty-Humphrey), keyed by a name, so that the same setting draws the same noise again.
function dice(...name) {
  const key = fingerprint(...name);
  let a = key.getInt32(0), b = key.getInt32(4), c = key.getInt32(8), count = 1;
  function bits() {                                              // 32 of them
    const t = (((a + b) | 0) + count++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    return t >>> 0;
  }
  for (let i = 0; i < 12; i++) bits();
  const random = () => (bits() + 0.5) * 2 ** -32;
  let spare = null;
  function normal() {                                            // N(0, 1) by Box and Muller; never beyond 6.7
    if (spare !== null) { const half = spare; spare = null; return half; }
    const size = Math.sqrt(-2 * Math.log(random())), angle = 2 * Math.PI * random();
    spare = size * Math.sin(angle);
    return size * Math.cos(angle);
  }
  return { bits, random, normal };
}

// --- splitmix64 in 32-bit halves, (high, low); BigInt would take thirty times as long ---------------------------------------

let high = 0, low = 0;                                           // the result of the last step

function add(ah, al, bh, bl) {
  const sum = al + bl;
  [high, low] = [(ah + bh + (sum > 0xffffffff ? 1 : 0)) >>> 0, sum >>> 0];
}

function multiply(bh, bl) {                                      // (high, low) ← (high, low)·(bh, bl), the lower 64 bits
  const a0 = low & 65535, a1 = low >>> 16, b0 = bl & 65535, b1 = bl >>> 16, x = a0 * b0, y = a0 * b1, z = a1 * b0;
  const middle = (x >>> 16) + (y & 65535) + (z & 65535), cross = Math.imul(high, bl) + Math.imul(low, bh);
  high = (a1 * b1 + (y >>> 16) + (z >>> 16) + (middle >>> 16) + cross) >>> 0;
  low = ((x & 65535) | (middle << 16)) >>> 0;
}

function fold(k) {                                               // x ^ (x >> k)
  low = (low ^ ((low >>> k) | (high << (32 - k)))) >>> 0;
  high = (high ^ (high >>> k)) >>> 0;
}

function splitmix(h, l) {
  add(h >>> 0, l >>> 0, 0x9E3779B9, 0x7F4A7C15);
  fold(30); multiply(0xBF58476D, 0x1CE4E5B9); fold(27); multiply(0x94D049BB, 0x133111EB); fold(31);
}

const NUMBERS = [];                                              // splitmix of 0, 1, 2 …
function numberHash(i) {
  while (NUMBERS.length <= i) { splitmix(0, NUMBERS.length); NUMBERS.push([high, low]); }
  return NUMBERS[i];
}

// 64 bits of a name's fingerprint; a round asks for the same few again and again.
const KEYS = new Map();
function key64(...name) {
  const word = name.map(repr).join(", ");
  if (!KEYS.has(word)) {
    const print = fingerprint(...name);
    KEYS.set(word, [print.getUint32(4, true), print.getUint32(0, true)]);
  }
  return KEYS.get(word);
}

// The key of one client's batches when it starts from this version of the model.
function batchKey(id, seed, version) {
  const client = key64("client", id), round = key64(seed, "batches", version);
  splitmix(client[0] ^ round[0], client[1] ^ round[1]);
  return [high, low];
}

const draws = [];
// order[0 … size) ← this epoch's permutation of 0 … size - 1: the places sorted by their random numbers. (Of these, 53 of 64
// bits are compared: two of them are equal once in 10^15.)
function shuffle(key, epoch, size, order) {
  const e = numberHash(epoch + 1);
  add(key[0], key[1], e[0], e[1]);
  splitmix(high, low);
  const eh = high, el = low;
  for (let i = 0; i < size; i++) {
    const h = numberHash(i);
    add(eh, el, h[0], h[1]);
    splitmix(high, low);
    const draw = high * 2 ** 21 + (low >>> 11);
    let j = i;
    for (; j > 0 && draws[j - 1] > draw; j--) { draws[j] = draws[j - 1]; order[j] = order[j - 1]; }
    draws[j] = draw;
    order[j] = i;
  }
}
