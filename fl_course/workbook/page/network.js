// Dense networks with ReLU and softmax, and their SGD: what engine/sgd.py says, for one client after the other.
//
// A model is theta (d,): of each layer the weights (outputs, inputs), row by row, then the biases. While it is trained, a layer
// lies input by input instead, (inputs + 1, width): one row for all that an input does, the biases last, width rounded up to
// the kernels' lanes. So an input that is zero (most pixels, half of the units behind a ReLU) costs nothing: an example
// is a list of what is not, and each kernel goes through a list.
//
//   F  numbers (Float32Array, or Float64Array to compare with)      I  where a list's rows begin      by position in both: take()

// The three kernels in plain JavaScript, four outputs at a time. A list: n row offsets from I[rows], n values from F[values].
const plainKernels = (F, I) => ({
  forward(w, rows, values, n, z, width) {                        // z = Σ value·row
    for (let o = 0; o < width; o += 4) {
      let a = 0, b = 0, c = 0, d = 0;
      for (let k = 0; k < n; k++) {
        const r = w + I[rows + k] + o, v = F[values + k];
        a += v * F[r]; b += v * F[r + 1]; c += v * F[r + 2]; d += v * F[r + 3];
      }
      F[z + o] = a; F[z + o + 1] = b; F[z + o + 2] = c; F[z + o + 3] = d;
    }
  },
  backward(w, rows, n, e, width, out) {                          // out[unit of the row] = row·e
    for (let k = rows; k < rows + n; k++) {
      let sum = 0;
      for (let o = 0, r = w + I[k]; o < width; o++) sum += F[r + o] * F[e + o];
      F[out + I[k] / width] = sum;
    }
  },
  update(w, rows, values, n, e, width, scale) {                  // row += scale·value·e
    for (let o = 0; o < width; o += 4) {
      const a = scale * F[e + o], b = scale * F[e + o + 1], c = scale * F[e + o + 2], d = scale * F[e + o + 3];
      for (let k = 0; k < n; k++) {
        const r = w + I[rows + k] + o, v = F[values + k];
        F[r] += v * a; F[r + 1] += v * b; F[r + 2] += v * c; F[r + 3] += v * d;
      }
    }
  },
});

// The same with SIMD (kernels.wat): base64 → a module, or null where WebAssembly is refused or too old for it.
function simdKernels(base64) {
  try {
    return new WebAssembly.Module(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
  } catch {
    return null;
  }
}

// Local training and scoring for models of these sizes (inputs, hidden …, classes) on examples x (N·inputs), labels y (N,).
// slots: the most examples in a batch; simd: of simdKernels; real: Float32Array or, with plain kernels only, Float64Array.
function trainer(sizes, x, y, slots, simd = null, real = Float32Array) {
  const L = sizes.length - 1, [inputs, classes, N] = [sizes[0], sizes[L], y.length], lanes = simd ? 16 : 4;
  const width = sizes.slice(1).map((n) => Math.ceil(n / lanes) * lanes);
  let end = 16;
  const take = (n) => { const at = end; end += Math.ceil(n / 16) * 16; return at; };
  const layer = width.map((w, l) => take(w * (sizes[l] + 1)));           // the client's model …
  const kept = width.map((w, l) => take(w * (sizes[l] + 1)));            // … and the one that it began with
  const size = kept[0] - layer[0], z = width.map((w) => take(w * slots)), error = width.map((w) => take(w * slots));
  const room = (n, l) => (l ? take((n + 1) * slots) : 0), unitRows = sizes.map(room), unitValues = sizes.map(room);
  let entries = N;
  for (let i = 0; i < x.length; i++) if (x[i]) entries++;
  const [pixelRows, pixelValues] = [take(entries), take(entries)];
  const memory = simd ? new WebAssembly.Memory({ initial: Math.ceil(end / 16384) }) : null;
  const F = memory ? new Float32Array(memory.buffer) : new real(end), I = new Int32Array(memory ? memory.buffer : end);
  const { forward, backward, update } = simd ? new WebAssembly.Instance(simd, { js: { memory } }).exports : plainKernels(F, I);

  const begin = new Int32Array(N + 1);                           // of each example's list; its last entry is the bias
  for (let r = 0, k = 0; r < N; r++) {
    for (let i = 0; i <= inputs; i++) {
      const value = i < inputs ? x[r * inputs + i] : 1;
      if (value) { I[pixelRows + k] = i * width[0]; F[pixelValues + k] = value; k++; }
    }
    begin[r + 1] = k;
  }
  const place = new Int32Array(sizes.slice(1).reduce((d, out, l) => d + out * (sizes[l] + 1), 0));      // of each number of theta
  for (let l = 0, p = 0; l < L; l++) {
    for (let o = 0; o < sizes[l + 1]; o++) for (let i = 0; i < sizes[l]; i++) place[p++] = layer[l] + i * width[l] + o;
    for (let o = 0; o < sizes[l + 1]; o++) place[p++] = layer[l] + sizes[l] * width[l] + o;
  }

  // The lists that enter each layer, for each slot of the batch: rows, values, length.
  const listRows = new Int32Array(L * slots), listValues = new Int32Array(L * slots), length = new Int32Array(L * slots);
  // Example `row` through the network, in slot e; returns where its scores are.
  function scores(row, e) {
    listRows[e] = pixelRows + begin[row]; listValues[e] = pixelValues + begin[row]; length[e] = begin[row + 1] - begin[row];
    for (let l = 0; ; l++) {
      const at = z[l] + e * width[l], s = l * slots + e;
      forward(layer[l], listRows[s], listValues[s], length[s], at, width[l]);
      if (l === L - 1) return at;
      const units = sizes[l + 1], rows = unitRows[l + 1] + e * (units + 1), values = unitValues[l + 1] + e * (units + 1);
      let k = 0;
      for (let u = 0; u < units; u++) if (F[at + u] > 0) { I[rows + k] = u * width[l + 1]; F[values + k++] = F[at + u]; }
      I[rows + k] = units * width[l + 1]; F[values + k++] = 1;
      listRows[s + slots] = rows; listValues[s + slots] = values; length[s + slots] = k;
    }
  }
  function softmax(at) {
    let top = -Infinity, sum = 0;
    for (let c = 0; c < classes; c++) if (F[at + c] > top) top = F[at + c];
    for (let c = 0; c < classes; c++) sum += F[at + c] = Math.exp(F[at + c] - top);
    for (let c = 0; c < classes; c++) F[at + c] /= sum;
  }
  function step(rows, order, from, b, lr) {                      // one batch; returns the sum of its losses
    let loss = 0;
    for (let e = 0; e < b; e++) {
      const row = rows[order[from + e]], at = scores(row, e), to = error[L - 1] + e * width[L - 1];
      softmax(at);
      loss -= Math.log(Math.max(F[at + y[row]], 1.1754944e-38));
      for (let c = 0; c < classes; c++) F[to + c] = (F[at + c] - (c === y[row] ? 1 : 0)) / b;
    }
    for (let l = L - 1; l >= 0; l--) {
      if (l) for (let e = 0; e < b; e++) {
        const to = error[l - 1] + e * width[l - 1], s = l * slots + e;
        F.fill(0, to, to + width[l - 1]);
        backward(layer[l], listRows[s], length[s] - 1, error[l] + e * width[l], width[l], to);
      }
      for (let e = 0; e < b; e++) {
        const s = l * slots + e;
        update(layer[l], listRows[s], listValues[s], length[s], error[l] + e * width[l], width[l], -lr);
      }
    }
    return loss;
  }

  const order = new Int32Array(N);
  return {
    dim: place.length, slots, kernels: simd ? "SIMD" : "plain",
    // The model that everything below is about: what the server broadcasts.
    set(theta) {
      for (let i = 0; i < place.length; i++) F[place[i] + size] = theta[i];
      F.copyWithin(layer[0], kept[0], kept[0] + size);
    },
    // E epochs of SGD on these rows of x, as ClientUpdate has it (McMahan et al. 2017). Returns what the client reports.
    train(rows, key, epochs, lr, batch = slots) {
      F.copyWithin(layer[0], kept[0], kept[0] + size);
      const examples = rows.length, loss = [0, 0];
      for (let epoch = 0; epoch < epochs; epoch++) {
        shuffle(key, epoch, examples, order);
        let seen = 0;
        for (let from = 0; from < examples; from += batch) seen += step(rows, order, from, Math.min(batch, examples - from), lr);
        if (epoch === 0) loss[0] = seen / examples;
        if (epoch === epochs - 1) loss[1] = seen / examples;
      }
      return { examples, steps: epochs * Math.ceil(examples / batch), loss_first: loss[0], loss_last: loss[1] };
    },
    // (d,) local - broadcast, after `train`.
    change() {
      const delta = new real(place.length);
      for (let i = 0; i < place.length; i++) delta[i] = F[place[i]] - F[place[i] + size];
      return delta;
    },
    // How many of these rows the broadcast model reads rightly; `set` it before.
    right(rows) {
      let n = 0;
      for (const row of rows) {
        const at = scores(row, 0);
        let best = 0;
        for (let c = 1; c < classes; c++) if (F[at + c] > F[at + best]) best = c;
        n += best === y[row];
      }
      return n;
    },
  };
}

// (d,) the first values of a model: uniform in ±1/sqrt(inputs), as engine/models.py draws them.
const BEGUN = new Map();
function firstModel(sizes, seed) {
  const name = `${sizes};${seed}`, theta = [];
  if (!BEGUN.has(name)) {
    const rng = stream(seed, "init");
    sizes.slice(1).forEach((outputs, l) => {
      const bound = 1 / Math.sqrt(sizes[l]);
      for (let i = 0; i < outputs * (sizes[l] + 1); i++) theta.push(-bound + 2 * bound * rng.random());
    });
    BEGUN.set(name, Float32Array.from(theta));
  }
  return BEGUN.get(name);
}
