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

// The curve of one release: rho at each of ORDERS. rate: of the Poisson cohort, 1 if everybody counts; sigma: deviation over
// sensitivity.
function renyi(rate, sigma) {
  if (!(sigma > 0)) return ORDERS.map(() => Infinity);
  if (rate >= 1) return ORDERS.map((alpha) => alpha / sigma / sigma / 2);
  const between = momentsBetween(rate, sigma, 15.9);
  const moment = (alpha) => (Number.isInteger(alpha) ? wholeMoment(rate, sigma, alpha) : between(alpha));
  return ORDERS.map((alpha) => Math.max(0, moment(alpha)) / (alpha - 1));
}

// The smallest epsilon at this delta of `rounds` such releases: curves add up (Canonne, Kamath & Steinke 2020, proposition 12).
function epsilon(curve, rounds, delta) {
  if (!curve.some((rho) => rho > 0) || !rounds) return 0;
  let least = Infinity;
  ORDERS.forEach((alpha, i) => {
    least = Math.min(least, rounds * curve[i] + Math.log1p(-1 / alpha) - (Math.log(delta) + Math.log(alpha)) / (alpha - 1));
  });
  return Math.max(0, least);
}

// The smallest noise multiplier (to 1e-4, from above) for so many rounds within (budget, delta); at least 0.01. Each order alone
// demands some noise, and the least of these will do: so take the order that is best at a guess, solve for it, and look again.
function noiseFor(budget, delta, rounds, rate) {
  const price = (alpha, rho) => rounds * rho + Math.log1p(-1 / alpha) - (Math.log(delta) + Math.log(alpha)) / (alpha - 1);
  function release(alpha, sigma) {
    if (rate >= 1) return alpha / sigma / sigma / 2;
    const moment = Number.isInteger(alpha) ? wholeMoment(rate, sigma, alpha) : momentsBetween(rate, sigma, alpha)(alpha);
    return Math.max(0, moment) / (alpha - 1);
  }
  let noise = 2 ** 12;
  for (let known = -1; noise > 0.01; ) {
    const prices = renyi(rate, noise).map((rho, i) => price(ORDERS[i], rho)), best = prices.indexOf(Math.min(...prices));
    if (best === known || prices[best] > budget) break;
    known = best;
    let [low, high] = [0.01, noise];
    while (high > low * (1 + 5e-5)) {
      const middle = Math.sqrt(low * high);
      if (price(ORDERS[best], release(ORDERS[best], middle)) <= budget) high = middle; else low = middle;
    }
    noise = high;
  }
  return noise;
}
