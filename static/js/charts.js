// A line chart with direct labels and yardsticks, in the colours of the page's theme.
//
// spec: { title, note, series: [{ key, label, color, heldOut, exact, quiet }], bands: [{ from, to, text }], lines: [{ value, text }],
//         suffix(series, value), when(step), at(step), nothing }
// heldOut: few points, drawn as dots. exact: no running mean. quiet: the running mean alone. bars: counts, drawn as bars.
// when: what a step is called, where steps are times; at: where they are counts of something.
// rows: [{ step, … }] in order of step.

const HEIGHT = 200;
const LABEL_GAP = 14;
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 500000];
const SMOOTH_FROM = 20; // points; fewer are drawn as they are

export function formatValue(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 100) return value.toFixed(0).replace("-", "−");
  if (size >= 0.01) return value.toFixed(2).replace("-", "−");
  return value.toExponential(1).replace("e-", "e−").replace(/^-/, "−");
}

// Tokens are light-dark() pairs, which a canvas does not understand: let the browser resolve them.
function resolveColors(names) {
  const probe = document.createElement("span");
  document.body.append(probe);
  const colors = {};
  for (const name of names) {
    probe.style.color = `var(--${name})`;
    colors[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return colors;
}

function smooth(values, share = 12) {
  const known = values.filter((value) => value !== null).length;
  if (known < SMOOTH_FROM) return values;
  const weight = 2 / (Math.max(5, known / share) + 1);
  let mean = null;
  return values.map((value) => {
    if (value === null) return null;
    mean = mean === null ? value : mean + weight * (value - mean);
    return mean;
  });
}

function lastKnown(values) {
  for (let index = values.length - 1; index >= 0; index -= 1) if (values[index] !== null) return index;
  return -1;
}

export class Chart {
  constructor(spec) {
    this.spec = spec;
    this.rows = [];
    this.element = document.createElement("section");
    this.element.className = "card chart";
    this.element.innerHTML = '<h2 class="card-title"></h2><div class="chart-plot" role="img"></div><p class="card-note"></p>';
    [this.title, this.plotArea, this.note] = this.element.children;
    this.title.textContent = spec.title;
    this.note.textContent = spec.note;
    this.resizing = new ResizeObserver(() => {
      const width = this.plotArea.clientWidth;
      if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
    });
    this.resizing.observe(this.plotArea);
  }

  hasData(rows) {
    return this.spec.series.some(({ key }) => rows.some((row) => typeof row[key] === "number"));
  }

  show(rows, totalSteps) {
    this.rows = rows;
    this.totalSteps = totalSteps;
    const used = this.spec.series.filter(({ key }) => rows.some((row) => typeof row[key] === "number"));
    const names = used.map(({ key }) => key).join();
    if (!this.plot || names !== this.usedNames) {
      this.used = used;
      this.usedNames = names;
      this.rebuild();
    } else {
      this.plot.setData(this.columns());
    }
    this.describe();
  }

  rebuild() {
    if (!this.used) return;
    this.plot?.destroy();
    this.colors = resolveColors(["accent", "warning", "soft", "line", "surface", "accent-wash"]);
    this.plot = new window.uPlot(this.options(), this.columns(), this.plotArea);
  }

  // step, then for each series what was logged and its running mean
  columns() {
    const columns = [this.rows.map((row) => row.step)];
    for (const { key, heldOut, exact, quiet, bars } of this.used) {
      const logged = this.rows.map((row) => (typeof row[key] === "number" ? row[key] : null));
      columns.push(logged, heldOut || exact || bars ? logged : smooth(logged, quiet ? 5 : 12));
    }
    return columns;
  }

  describe() {
    if (this.spec.when) {
      const counts = this.plot.data[2].filter((count) => count !== null);
      const total = counts.reduce((sum, count) => sum + count, 0);
      this.plotArea.setAttribute("aria-label", `${this.spec.title}: ${total}, ${Math.max(...counts)}`);
      return;
    }
    const values = this.labels(this.plot.data).map(({ text }) => text);
    this.plotArea.setAttribute("aria-label", `${this.spec.title}: ${values.join(", ")}`);
  }

  options() {
    const { colors } = this;
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const series = [{}];
    for (const { color, heldOut, exact, quiet, bars } of this.used) {
      const faint = !(heldOut || exact || quiet || bars);
      series.push({ stroke: colors[color], alpha: 0.25, width: 1, points: { show: false }, spanGaps: true, show: faint });
      series.push({
        stroke: colors[color],
        ...(bars && { fill: colors[color], paths: window.uPlot.paths.bars({ size: [0.7, 40] }) }),
        width: bars ? 0 : 2,
        spanGaps: true,
        points: heldOut ? { show: true, size: 7, fill: colors[color] } : { show: false },
      });
    }
    const axis = { stroke: colors.soft, font, ticks: { show: false }, grid: { stroke: colors.line, width: 1 } };
    return {
      width: this.plotArea.clientWidth || 320,
      height: HEIGHT,
      padding: [14, () => this.room(), 0, 4],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: false, range: (_, low, high) => this.reach(high) },
        y: { range: (_, low, high) => this.range(low, high) },
      },
      series,
      axes: [
        { ...axis, grid: { show: false }, size: 28, space: this.spec.when ? 110 : 60, ...(this.spec.when && { values: (_, ticks) => ticks.map(this.spec.when) }), incrs: WHOLE },
        { ...axis, size: 48, space: 34, ...(this.used.some(({ bars }) => bars) ? { incrs: WHOLE, values: (_, ticks) => ticks } : { values: (_, ticks) => ticks.map((tick) => formatValue(Number(tick.toPrecision(6)))) }) },
      ],
      hooks: {
        drawClear: [(plot) => this.drawYardsticks(plot)],
        draw: [(plot) => this.drawLabels(plot, font)],
        setCursor: [(plot) => this.tell(plot.cursor.idx)],
      },
    };
  }

  // Room right of the plot: what the longest label needs beyond the end of its line.
  room() {
    const width = (this.plotArea.clientWidth || 320) - 60;
    const last = this.rows.at(-1)?.step ?? 0;
    const reached = Math.min(1, last / Math.max(this.totalSteps || 0, last, 1));
    const longest = Math.max(0, ...this.labels(this.columns()).map(({ text }) => text.length)) * 6.2 + 12;
    return Math.max(8, Math.min(longest, width - (width - longest) / Math.max(reached, 0.01)));
  }

  labels(columns) {
    return this.used.map((one, index) => {
      const column = columns[2 * index + 2];
      const last = lastKnown(column);
      const value = column[last];
      return { one, last, value, text: `${one.label} ${formatValue(value)}${this.spec.suffix?.(one, value) ?? ""}`.trim() };
    }).filter(({ one }) => !one.bars); // bars are read against the axis
  }

  // Bars at the ends stick out by half their width.
  reach(high) {
    const last = Math.max(this.totalSteps || 0, high || 1);
    return this.used.some(({ bars }) => bars) ? [-0.6, last + 0.6] : [0, last];
  }

  range(low, high) {
    if (this.used.some(({ bars }) => bars)) return [0, (high || 1) * 1.08];
    const marks = [
      ...(this.spec.lines ?? []).map(({ value }) => value),
      ...(this.spec.bands ?? []).flatMap(({ from, to }) => [from, to]),
    ];
    const from = Math.min(low ?? 0, ...marks);
    const to = Math.max(high ?? 1, ...marks);
    const margin = (to - from || Math.abs(to) || 1) * 0.08;
    return [from === 0 ? 0 : from - margin, to + margin];
  }

  drawYardsticks(plot) {
    const { ctx, bbox } = plot;
    const ratio = window.devicePixelRatio || 1;
    ctx.save();
    ctx.fillStyle = this.colors["accent-wash"];
    for (const { from, to } of this.spec.bands ?? []) {
      const top = Math.max(bbox.top, plot.valToPos(to, "y", true));
      const bottom = Math.min(bbox.top + bbox.height, plot.valToPos(from, "y", true));
      ctx.fillRect(bbox.left, top, bbox.width, Math.max(0, bottom - top));
    }
    ctx.strokeStyle = this.colors.soft;
    ctx.setLineDash([4 * ratio, 4 * ratio]);
    for (const { value } of this.spec.lines ?? []) {
      const y = plot.valToPos(value, "y", true);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
  }

  drawLabels(plot, font) {
    const { ctx, bbox } = plot;
    const ratio = window.devicePixelRatio || 1;
    const write = (text, x, y, color) => {
      ctx.strokeText(text, x, y); // a rim in the card's colour keeps it legible over the lines
      ctx.fillStyle = color;
      ctx.fillText(text, x, y);
    };
    ctx.save();
    ctx.font = font.replace("11px", `${11 * ratio}px`);
    ctx.strokeStyle = this.colors.surface;
    ctx.lineWidth = 3 * ratio;
    ctx.lineJoin = "round";
    ctx.textBaseline = "bottom";
    // Beside the lines while they are short, at their beginning once they reach across.
    const atEnd = plot.valToPos(this.rows.at(-1).step, "x", true) < bbox.left + bbox.width * 0.45;
    ctx.textAlign = atEnd ? "right" : "left";
    const edge = atEnd ? bbox.left + bbox.width - 6 * ratio : bbox.left + 6 * ratio;
    for (const { from, text } of this.spec.bands ?? []) {
      const y = Math.min(bbox.top + bbox.height, plot.valToPos(from, "y", true)) - 3 * ratio;
      ctx.fillStyle = this.colors.soft;
      ctx.fillText(text, edge, y);
    }
    for (const { value, text } of this.spec.lines ?? []) {
      if (text) write(text, edge, plot.valToPos(value, "y", true) - 2 * ratio, this.colors.soft);
    }
    const labels = this.labels(plot.data).map(({ one, last, value, text }) => ({
      text,
      color: this.colors[one.color],
      x: plot.valToPos(plot.data[0][last], "x", true) + 8 * ratio,
      y: plot.valToPos(value, "y", true),
    }));
    labels.sort((one, other) => one.y - other.y);
    for (let index = 1; index < labels.length; index += 1) {
      labels[index].y = Math.max(labels[index].y, labels[index - 1].y + LABEL_GAP * ratio);
    }
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    for (const { text, color, x, y } of labels) write(text, x, y, color);
    ctx.restore();
  }

  // What was logged at the step under the pointer, in the place of the note.
  tell(index) {
    const row = index === null || index === undefined ? null : this.rows[index];
    if (!row) {
      this.note.textContent = this.spec.note;
      return;
    }
    const values = this.used
      .filter(({ key }) => typeof row[key] === "number")
      .map(({ key, label, bars }) => `${label} ${bars ? row[key] : formatValue(row[key])}`.trim());
    const place = this.spec.when?.(row.step) ?? this.spec.at?.(row.step) ?? row.step;
    this.note.textContent = `${place}: ${values.join(", ") || (this.spec.nothing ?? "–")}`;
  }
}
