// Messages ⇄ bytes, as wire/messages.py has them: "FLC" | 1 | msgpack [kind, body] | CRC-32. What the byte counts count.
//
// A body is plain: null, booleans, whole numbers, Real (msgpack tells 12 from 12.0, JavaScript does not), strings, bytes
// (Uint8Array), lists, dictionaries, and Float32Array (d,). Payloads that are smaller than their d numbers are stages.js's; how
// they travel is here.

class Real { constructor(value) { this.value = value; } }

const CRC = Int32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xEDB88320 : n >>> 1;
  return n;
});
function crc32(bytes, end) {
  let crc = -1;
  for (let i = 0; i < end; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

const text8 = new TextEncoder();
const LONG = {                                                   // msgpack's codes for lengths of 1, 2 and 4 bytes
  bytes: [0xc4, 0xc5, 0xc6], array: [0xc7, 0xc8, 0xc9], string: [0xd9, 0xda, 0xdb], list: [0, 0xdc, 0xdd], dict: [0, 0xde, 0xdf],
};
const SHORT = { string: [0xa0, 32], list: [0x90, 16], dict: [0x80, 16] };

// Calls put(code, number of bytes behind it, their value) and write(bytes) for all that the value is made of.
function pack(x, put, write) {
  const head = (kind, n) => {
    const [fix, limit] = SHORT[kind] ?? [0, 0];
    if (n < limit) put(fix | n, 0, 0);
    else if (n < 256 && LONG[kind][0]) put(LONG[kind][0], 1, n);
    else if (n < 65536) put(LONG[kind][1], 2, n);
    else put(LONG[kind][2], 4, n);
  };
  if (x instanceof Float32Array) {                               // the numbers, then shape, dimensions and dtype
    head("array", 4 * x.length + 6);
    write([1]);
    write(new Uint8Array(x.buffer, x.byteOffset, 4 * x.length));
    write([x.length & 255, (x.length >>> 8) & 255, (x.length >>> 16) & 255, x.length >>> 24, 1, 0]);
  } else if (x instanceof Uint8Array) { head("bytes", x.length); write(x); }
  else if (Array.isArray(x)) { head("list", x.length); for (const part of x) pack(part, put, write); }
  else if (typeof x === "string") { const bytes = text8.encode(x); head("string", bytes.length); write(bytes); }
  else if (x === null || typeof x === "boolean") put(x === null ? 0xc0 : x ? 0xc3 : 0xc2, 0, 0);
  else if (x instanceof Real) put(0xcb, 8, x.value);
  else if (typeof x === "number") {
    if (x < 128) put(x, 0, 0);
    else if (x < 65536) x < 256 ? put(0xcc, 1, x) : put(0xcd, 2, x);
    else x < 2 ** 32 ? put(0xce, 4, x) : put(0xcf, 7, x);
  } else {
    const all = Object.entries(x);
    head("dict", all.length);
    for (const pair of all) for (const part of pair) pack(part, put, write);
  }
}

// The length of a message, without making it.
function messageSize(kind, body) {
  let size = 8;                                                  // magic, format and checksum
  pack([kind, body], (code, n) => { size += 1 + (n === 7 ? 8 : n); }, (bytes) => { size += bytes.length; });
  return size;
}

function encode(kind, body) {
  const out = new Uint8Array(messageSize(kind, body)), view = new DataView(out.buffer);
  out.set([70, 76, 67, 1]);
  let at = 4;
  const put = (code, n, value) => {
    out[at++] = code;
    if (n === 1) view.setUint8(at, value);
    else if (n === 2) view.setUint16(at, value);
    else if (n === 4) view.setUint32(at, value);
    else if (n === 7) view.setBigUint64(at, BigInt(value));      // a whole number beyond 32 bits
    else if (n === 8) view.setFloat64(at, value);
    at += n === 7 ? 8 : n;
  };
  pack([kind, body], put, (bytes) => { out.set(bytes, at); at += bytes.length; });
  view.setUint32(at, crc32(out, at), true);
  return out;
}

// [kind, body] of a message; an Error in words for bytes that are none. Arrays must be float32 of one dimension.
function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), end = bytes.length - 4;
  const refuse = (why) => { throw new Error(why); };
  if (end < 5 || view.getUint32(0) !== 0x464c4301) refuse("these bytes are no message of this course, format 1");
  if (crc32(bytes, end) !== view.getUint32(end, true)) refuse("the checksum does not match: the message was altered on its way");
  let at = 4;
  const cut = (n) => {
    if (at + n > end) refuse("the message ends too soon");
    at += n;
    return bytes.subarray(at - n, at);
  };
  const number = (n) => cut(n).reduce((sum, byte) => 256 * sum + byte, 0);
  const list = (n) => { const all = []; while (n-- > 0) all.push(read()); return all; };
  const dict = (n) => { const all = {}; while (n-- > 0) all[read()] = read(); return all; };
  const string = (n) => new TextDecoder().decode(cut(n));
  const array = (n) => {
    if (cut(1)[0] !== 1) refuse("the message has a field of an unknown kind");
    const data = cut(n);
    if (n < 6 || data[n - 1] !== 0 || data[n - 2] !== 1) refuse("the message holds an array that is not (d,) float32");
    return new Float32Array(data.slice(0, n - 6).buffer);
  };
  function read() {
    const code = number(1), kinds = { bytes: cut, array, string, list, dict };
    if (code < 0x80) return code;
    if (code >= 0xe0) return code - 256;
    if (code < 0x90) return dict(code & 15);
    if (code < 0xa0) return list(code & 15);
    if (code < 0xc0) return string(code & 31);
    for (const [kind, codes] of Object.entries(LONG)) {
      if (codes.includes(code)) return kinds[kind](number([1, 2, 4][codes.indexOf(code)]));
    }
    if (code === 0xc0) return null;
    if (code === 0xc2 || code === 0xc3) return code === 0xc3;
    if (code === 0xcb) { cut(8); return view.getFloat64(at - 8); }
    if (code >= 0xcc && code <= 0xcf) return number(1 << (code - 0xcc));
    return refuse(`byte ${code} begins nothing that a page reads`);
  }
  const message = read();
  if (at !== end || !Array.isArray(message) || message.length !== 2) refuse("the message is not a kind and a body");
  return message;
}

// The two messages of a round. theta: (d,) Float32Array; delta: a Float32Array or a payload in its wire form.
const modelBody = (version, theta) => [version, theta, {}];
function updateBody(client, version, delta, weight, report) {
  const metrics = Object.fromEntries(Object.entries(report).map(([name, value]) => [name, new Real(value)]));
  return [client, version, delta, new Real(weight), {}, metrics];
}

// --- whole numbers in few bits, and the places of a sparse vector (wire/bits.py) -------------------------------------------

// Numbers below 2^bits, one after the other, lowest bit first.
function packBits(codes, bits) {
  const out = new Uint8Array(Math.ceil((codes.length * bits) / 8));
  let at = 0, held = 0, waiting = 0;
  for (const code of codes) {
    held |= code << waiting;
    waiting += bits;
    while (waiting >= 8) { out[at++] = held; held >>>= 8; waiting -= 8; }
  }
  if (waiting) out[at] = held;
  return out;
}

function packTernary(digits) {                                   // five a byte: 3^5 = 243
  const out = new Uint8Array(Math.ceil(digits.length / 5));
  digits.forEach((digit, i) => { out[Math.floor(i / 5)] += digit * 3 ** (i % 5); });
  return out;
}

// Rising positions below size → [0, a bitmap] or [1, Rice-coded gaps], whichever is shorter; the parameter is found by trying.
function packPositions(positions, size) {
  const k = positions.length, bytes = (bits) => Math.ceil(bits / 8), gaps = new Uint32Array(k);
  for (let i = 0; i < k; i++) gaps[i] = positions[i] - (i ? positions[i - 1] : -1) - 1;
  const mean = k ? (positions[k - 1] + 1 - k) / k : 0, near = Math.min(30, Math.max(0, Math.floor(Math.log2(mean * Math.LN2 + 1))));
  let r = -1, cost = Infinity, ones = 0;
  for (let trial = Math.max(0, near - 1); trial < near + 3; trial++) {
    let long = k;
    for (let i = 0; i < k; i++) long += gaps[i] >>> trial;
    if (bytes(k * trial) + bytes(long) < cost) [r, cost, ones] = [trial, bytes(k * trial) + bytes(long), long];
  }
  if (bytes(size) < 1 + cost) {
    const bitmap = new Uint8Array(size);
    for (const p of positions) bitmap[p] = 1;
    return [0, packBits(bitmap, 1)];
  }
  const unary = new Uint8Array(ones), out = new Uint8Array(1 + cost);
  for (let i = 0, at = 0; i < k; i++) { at += gaps[i] >>> r; unary[at++] = 1; }
  out[0] = r;
  if (r) out.set(packBits(gaps.map((gap) => gap & ((1 << r) - 1)), r), 1);
  out.set(packBits(unary, 1), 1 + bytes(k * r));
  return [1, out];
}
