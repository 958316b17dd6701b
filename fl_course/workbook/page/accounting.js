// What noise costs: Rényi DP of the Gaussian on Poisson cohorts, with the library's orders (privacy/accounting/rdp.py, whose
// docstrings have the theorems). Everything that can be computed once for all rounds is.

const ORDERS = [1.25];
for (let k = 11; k < 160; k++) if (k % 10) ORDERS.push(k / 10);
for (let k = 2; k < 513; k += k < 64 ? 1 : k < 128 ? 4 : k < 256 ? 8 : 16) ORDERS.push(k);
ORDERS.sort((a, b) => a - b);

function logSumExp(terms) {
  let top = -Infinity, sum = 0;
  for (const t of terms) if (t > top) top = t;
  if (top === -Infinity) return top;
  for (const t of terms) sum += Math.exp(t - top);
  return top + Math.log(sum);
}

const logAdd = (a, b) => Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));

// ln A(alpha) for a whole order: the binomial sum (Mironov, Talwar & Zhang 2019, section 3.3).
function wholeMoment(rate, sigma, alpha) {
  const terms = new Float64Array(alpha + 1), odds = Math.log(rate) - Math.log1p(-rate);
  for (let k = 0, logChoose = 0; k <= alpha; k++) {
    terms[k] = logChoose + k * odds + (k * (k - 1)) / sigma / sigma / 2;
    logChoose += Math.log((alpha - k) / (k + 1));
  }
  return logSumExp(terms) + alpha * Math.log1p(-rate);
}

// … and for orders between them: the trapezoidal rule, which converges exponentially fast here. → a function of the order
function momentsBetween(rate, sigma, largest) {
  if (sigma < 0.05) return (alpha) => (wholeMoment(rate, sigma, Math.ceil(alpha)) * (alpha - 1)) / (Math.ceil(alpha) - 1);
  const step = Math.min(sigma, sigma * sigma) / 3, points = Math.ceil((largest + 20 * sigma) / step);
  const ratio = new Float64Array(points), density = new Float64Array(points), terms = new Float64Array(points);
  for (let i = 0; i < points; i++) {
    const x = -10 * sigma + i * step;
    ratio[i] = logAdd(Math.log1p(-rate), Math.log(rate) + (2 * x - 1) / (2 * sigma * sigma));
    density[i] = -((x / sigma) ** 2) / 2 + Math.log(step / sigma / Math.sqrt(2 * Math.PI));
  }
  return (alpha) => { for (let i = 0; i < points; i++) terms[i] = alpha * ratio[i] + density[i]; return logSumExp(terms); };
}

// The curve of one release: rho at each of these orders. rate: of the Poisson cohort, 1 if everybody counts; sigma: deviation
// over sensitivity.
function renyi(rate, sigma, orders = ORDERS) {
  if (!(sigma > 0)) return orders.map(() => Infinity);
  if (rate >= 1) return orders.map((alpha) => alpha / sigma / sigma / 2);
  const broken = orders.filter((alpha) => !Number.isInteger(alpha));
  const between = broken.length ? momentsBetween(rate, sigma, Math.max(...broken)) : null;
  const moment = (alpha) => (Number.isInteger(alpha) ? wholeMoment(rate, sigma, alpha) : between(alpha));
  return orders.map((alpha) => Math.max(0, moment(alpha)) / (alpha - 1));
}

// The epsilon that one order proves for `rounds` releases of rho each (Canonne, Kamath & Steinke 2020, proposition 12).
const price = (alpha, rho, rounds, delta) =>
  rounds * rho + Math.log1p(-1 / alpha) - (Math.log(delta) + Math.log(alpha)) / (alpha - 1);

// The smallest epsilon at this delta of `rounds` such releases: curves add up, and the best order may be taken.
function epsilon(curve, rounds, delta) {
  if (!curve.some((rho) => rho > 0) || !rounds) return 0;
  return Math.max(0, Math.min(...ORDERS.map((alpha, i) => price(alpha, curve[i], rounds, delta))));
}

// The smallest noise multiplier (to 1e-4, from above) for so many rounds within (budget, delta); at least 0.01. Each order alone
// demands some noise, and the least of these will do: so take the order that is best at a guess, solve for it, and look again.
function noiseFor(budget, delta, rounds, rate) {
  const prices = (sigma, orders) => renyi(rate, sigma, orders).map((rho, i) => price(orders[i], rho, rounds, delta));
  let noise = 2 ** 12;
  for (let known = -1; noise > 0.01; ) {
    const all = prices(noise, ORDERS), best = all.indexOf(Math.min(...all));
    if (best === known || all[best] > budget) break;
    known = best;
    let [low, high] = [0.01, noise];
    while (high > low * (1 + 5e-5)) {
      const middle = Math.sqrt(low * high);
      if (prices(middle, [ORDERS[best]])[0] <= budget) high = middle; else low = middle;
    }
    noise = high;
  }
  return noise;
}
