// Two kinds of chart more (charts.js): grey pictures, and a timeline.

// Each picture is a paper with its tiles; one path for each of 32 greys, not one node a tile.
ChartView.prototype.images = function (g, legend, { runs }) {
  const tiles = named(this.spec.images, runs, "images").filter(({ value }) => value?.length), { W } = this;
  const across = Math.max(1, Math.min(tiles.length, W < 330 && tiles.length > 4 ? 2 : Math.ceil(Math.sqrt(tiles.length * 1.6))));
  const side = Math.min(W / across - 16, 0.62 * W - 30), down = Math.ceil(tiles.length / across) || 1;
  this.H = Math.round(down * (side + 30) + 6);
  put(this.svg, { viewBox: `0 0 ${W} ${this.H}` });
  const places = tiles.map((tile, i) => [(W - across * (side + 16)) / 2 + (i % across) * (side + 16) + 8, 4 + Math.floor(i / across) * (side + 30)]);
  tiles.forEach(({ label, value }, i) => {
    const [left, top] = places[i], step = side / Math.max(value.length, value[0].length), greys = new Map();
    value.forEach((row, r) => row.forEach((grey, c) => {
      const level = Math.round(31 * Math.min(1, Math.max(0, grey ?? 0)));
      if (level) greys.set(level, `${greys.get(level) ?? ""}M${(left + c * step).toFixed(2)} ${(top + r * step).toFixed(2)}h${step}v${step}h${-step}z`);
    }));
    g.append(svg("rect", { x: left, y: top, width: value[0].length * step, height: value.length * step, class: "flx-paper", "data-image": i }));
    for (const [level, d] of greys) g.append(svg("path", { d, fill: `rgb(${[0, 0, 0].fill(Math.round(255 - (255 * level) / 31)).join(" ")})`, class: "flx-tile" }));
    g.append(svg("text", { x: left + side / 2, y: top + side + 17, "text-anchor": "middle" }, label));
  });
  this.find = () => tiles.map(({ label, value }, i) => ({ x: places[i][0] + side / 2, y: places[i][1] + side / 2,
    text: [label, `a picture of ${value.length} by ${value[0].length} grey tiles, ${show(100 * value.flat().reduce((a, b) => a + (b ?? 0), 0) / value.flat().length)} % black`] }));
};

// Who did what when, of the current run: a row a name, each job's phases one after the other, hollow with a cross where it came
// to nothing; a job on no row is a line from top to bottom.
ChartView.prototype.timeline = function (g, legend, { runs }) {
  const { spec, W } = this, { rows, phases, fine } = spec, jobs = runs[0].jobs[spec.title] ?? [];
  this.H = Math.max(this.H, TOP + BOTTOM + 13 * rows.length);
  put(this.svg, { viewBox: `0 0 ${W} ${this.H}` });
  this.left = 24 + 6.2 * Math.max(2, ...rows.map((name) => name.length));
  const xr = clamp(extent(jobs.map((job) => job[1]), false), spec.xRange), x = scale(xr, this.left, W - RIGHT, false);
  const each = (this.H - TOP - BOTTOM) / rows.length, middle = (row) => TOP + each * (rows.indexOf(row) + 0.5);
  let xs = ticks(...xr, false);
  if (xs.length * 44 > W - this.left) xs = xs.filter((_, i) => i % 2 === 0);
  const inside = this.axes(g, xr, null, xs.map((t) => [x(t), show(t)]), [], null), cross = "M-3.5-3.5 3.5 3.5M-3.5 3.5 3.5-3.5";
  for (const name of rows) g.append(svg("text", { x: this.left - 6, y: middle(name) + 4, "text-anchor": "end" }, name));
  const tint = (n) => this.palette[(n + phases.length - 1) % phases.length];               // the long phase in the middle is blue
  const look = (n, full) => ({ fill: full ? tint(n) : "none", stroke: tint(n), "stroke-width": full ? 0 : 1 });
  for (const [row, at, end] of jobs) {
    const full = fine.includes(end);
    if (!rows.includes(row)) { inside.prepend(svg("line", { x1: x(at[0]), x2: x(at[0]), y1: TOP, y2: this.H - BOTTOM, class: "flx-instant" })); continue; }
    phases.forEach((_, n) => {
      const high = each * (n === Math.floor(phases.length / 2) ? 0.76 : 0.42), wide = x(at[n + 1]) - x(at[n]);
      if (wide > 0) inside.append(svg("rect", { x: x(at[n]).toFixed(1), y: (middle(row) - high / 2).toFixed(1), width: wide.toFixed(1), height: high.toFixed(1), "data-phase": n, ...look(n, full) }));
    });
    if (!full) inside.append(svg("path", { d: cross, transform: `translate(${x(at[at.length - 1])} ${middle(row)})`, class: "flx-axis", "data-cross": end }));
  }
  phases.forEach((name, n) => legend.push(this.entry(svg("rect", { x: 9, y: 3, width: 16, height: 8, ...look(n, true) }), name)));
  if (jobs.some(([row, , end]) => rows.includes(row) && !fine.includes(end)))
    legend.push(this.entry(svg("path", { d: cross, transform: "translate(17 7)", class: "flx-axis" }), "not used"));
  if (jobs.some(([row]) => !rows.includes(row)))
    legend.push(this.entry(svg("line", { x1: 17, x2: 17, y1: 0, y2: 14, class: "flx-instant" }), spec.instant));
  this.find = () => jobs.filter(([, at]) => at[0] >= xr[0] && at[0] <= xr[1]).map(([row, at, , text]) => {
    const [from, to] = [x(at[0]), Math.min(W - RIGHT, x(at[at.length - 1]))];
    return rows.includes(row) ? { x: (from + to) / 2, y: middle(row), from, to, high: each, text } : { x: from, y: TOP, text };
  });
};
