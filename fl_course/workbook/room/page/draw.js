// From a drawing to 8 × 8 numbers, as the data set was made: a bitmap of 32 × 32, centred and as large as fits, of which each
// number counts the ink in a block of 4 × 4, from 0 to 16; here divided by 16. And the network's forward pass, to guess a drawing.

// ink: (side, side) true where there is ink. Returns Float32Array(64), or null if there is none.
function toDigit(ink, side) {
  let left = side, right = -1, top = side, bottom = -1;
  for (let i = 0; i < ink.length; i++) if (ink[i]) {
    const row = Math.floor(i / side), column = i % side;
    left = Math.min(left, column); right = Math.max(right, column); top = Math.min(top, row); bottom = Math.max(bottom, row);
  }
  if (right < 0) return null;
  const reach = Math.max(right - left, bottom - top) + 1, middle = [(top + bottom + 1) / 2, (left + right + 1) / 2], digit = new Float32Array(64);
  for (let r = 0; r < 32; r++) for (let c = 0; c < 32; c++) {
    const row = Math.floor(middle[0] + ((r + 0.5) / 32 - 0.5) * reach), column = Math.floor(middle[1] + ((c + 0.5) / 32 - 0.5) * reach);
    if (row >= 0 && row < side && column >= 0 && column < side && ink[row * side + column]) digit[(r >> 2) * 8 + (c >> 2)] += 1 / 16;
  }
  return digit;
}

// The class that the model theta (d,) of a network of these sizes finds most likely for x.
function likeliest(theta, sizes, x) {
  let at = 0, h = Array.from(x);
  for (let l = 0; l + 1 < sizes.length; l++) {
    const inputs = sizes[l], outputs = sizes[l + 1], next = [];
    for (let o = 0; o < outputs; o++) {
      let sum = theta[at + inputs * outputs + o];
      for (let i = 0; i < inputs; i++) sum += theta[at + o * inputs + i] * h[i];
      next.push(l + 2 < sizes.length ? Math.max(0, sum) : sum);
    }
    at += outputs * (inputs + 1);
    h = next;
  }
  return h.indexOf(Math.max(...h));
}

// Numbers 0 … 1 (or -1 … 1: red and blue) as a picture of side × side.
function paint(canvas, numbers, signed = false) {
  const side = Math.sqrt(numbers.length), ctx = canvas.getContext("2d"), picture = ctx.createImageData(side, side);
  const most = Math.max(1e-12, ...Array.from(numbers, Math.abs));
  numbers.forEach((v, i) => {
    const share = signed ? v / most : Math.max(0, Math.min(1, v)), light = 255 * (1 - Math.abs(share));
    picture.data.set(signed ? (share > 0 ? [light, light, 255, 255] : [255, light, light, 255]) : [light, light, light, 255], 4 * i);
  });
  canvas.width = canvas.height = side;
  ctx.putImageData(picture, 0, 0);
}
