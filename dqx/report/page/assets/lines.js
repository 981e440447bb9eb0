"use strict";
// Lines over steps: thick ones with bands by uPlot, the seeds behind them straight on its canvas.

const NEAR = 60; // pixels within which the pointer means a seed

function lineChart(host, chart) {
  const place = element("div", { class: "chart", tabindex: 0, role: "slider" });
  place.setAttribute("aria-label", `${chart.name}. Left and right move along, up and down choose a seed.`);
  host.append(place);
  const tip = tipIn(place);
  let plot = null;
  drawnIn(place, (width) => {
    if (plot) plot.destroy();
    tip.hide();
    place.style.height = `${heightOf(chart, width)}px`; // uPlot takes it a moment later
    plot = plotOf(place, chart, width, tip);
    place.plot = plot;
  });
  place.addEventListener("keydown", (event) => moved(event, plot));
  place.addEventListener("blur", () => plot && plot.setCursor({ left: -10, top: -10 }));
  return place;
}

// The more bands lie on each other, the fainter each.
const bandShare = (count) => (count > 4 ? 0.07 : count > 2 ? 0.13 : 0.22);

const heightOf = (chart, width) => chart.height || (width < 500 ? 270 : 360);

function joined(lines) {
  const x = [...new Set(lines.flatMap((line) => Array.from(line.steps)))].sort((a, b) => a - b);
  const place = new Map(x.map((value, i) => [value, i]));
  const columns = lines.flatMap((line) =>
    [1, 2, 0].map((part) => {
      const column = new Array(x.length).fill(null);
      line.steps.forEach((step, i) => (column[place.get(step)] = line.center[part][i]));
      return column;
    }),
  );
  return [x, ...columns];
}

function plotOf(place, chart, width, tip) {
  const data = joined(chart.lines);
  const few = data[0].length <= 40;
  const series = [{}];
  const bands = [];
  chart.lines.forEach((line, i) => {
    const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
    if (chart.stepped) edge.paths = uPlot.paths.stepped({ align: 1 });
    series.push({ ...edge }, { ...edge });
    series.push({
      ...edge, stroke: line.color, width: chart.thin ? 1.6 : 2.4,
      points: { show: few && !chart.stepped && !chart.thin, size: 6, fill: line.color },
    });
    if (chart.bands !== false) {
      bands.push({ series: [3 * i + 2, 3 * i + 1], fill: faded(line.color, bandShare(chart.lines.length)) });
    }
  });
  const state = { chart, tip, place, keyed: null, overlay: null };
  const text = cssColor("--text");
  const axis = { stroke: text, grid: { stroke: cssColor("--grid"), width: 1 }, ticks: { stroke: cssColor("--rule"), width: 1, size: 5 } };
  const font = "12px system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
  const xText = chart.xText || stepsText;
  const room = nameRoom(chart, width, font);
  const plot = new uPlot(
    {
      width, height: heightOf(chart, width), series, bands,
      legend: { show: false },
      padding: [10, room ? room + 12 : 14, 0, 0],
      cursor: { drag: { x: true, y: false }, points: { show: false }, y: false },
      scales: { x: { time: false, range: (u, low, high) => (data[0].length === 1 ? aroundOne(chart, data[0][0]) : wide(chart, low, high)) }, y: { range: () => yRange(chart, data) } },
      axes: [
        { ...axis, font, labelFont: font, space: 62, label: chart.xLabel, labelSize: 20, size: 34, values: (u, at) => at.map(xText) },
        { ...axis, font, labelFont: font, space: 36, label: chart.yLabel, labelSize: 22, size: (u, values) => axisSize(u, values, font), values: (u, at) => at.map(chart.yText || tickText) },
      ],
      hooks: {
        drawAxes: [(u) => chart.seeds && drawSeeds(u, chart.seeds), (u) => data[0].length === 1 && chart.bands !== false && drawInterval(u, chart)],
        draw: [(u) => room && drawNames(u, chart, font)],
        setCursor: [(u) => pointed(u, state)],
      },
    },
    data,
    place,
  );
  state.overlay = element("canvas", { class: "overlay" });
  plot.over.append(state.overlay);
  plot.over.addEventListener("mouseleave", () => { state.keyed = null; quiet(state); });
  plot.state = state;
  return plot;
}

// How wide names at the ends of lines are; 0 where they do not fit, and the legend must do.
function nameRoom(chart, width, font) {
  if (chart.named === false || chart.lines.length < 2 || chart.lines.length > 8 || width < 640) return 0;
  const ctx = document.createElement("canvas").getContext("2d");
  ctx.font = font;
  const widest = Math.ceil(Math.max(...chart.lines.map((line) => ctx.measureText(line.label).width)));
  return widest <= 0.16 * width ? widest : 0;
}

function drawNames(plot, chart, font) {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio || 1, gap = 14 * ratio;
  const names = chart.lines.map((line, i) => {
    const column = plot.data[3 * i + 3];
    const last = column.findLastIndex((value) => value !== null && value !== undefined);
    return { line, y: last < 0 ? bbox.top : plot.valToPos(column[last], "y", true) };
  });
  names.sort((a, b) => a.y - b.y);
  const bottom = bbox.top + bbox.height;
  names.forEach((name, i) => (name.y = Math.max(name.y, i ? names[i - 1].y + gap : bbox.top)));
  for (let i = names.length - 1, most = bottom; i >= 0; i--, most -= gap) names[i].y = Math.min(names[i].y, most);
  ctx.save();
  ctx.font = font.replace("12px", `${12 * ratio}px`);
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  for (const { line, y } of names) {
    ctx.fillStyle = line.color;
    ctx.fillText(line.label, bbox.left + bbox.width + 7 * ratio, y);
  }
  ctx.restore();
}

function axisSize(plot, values, font) {
  if (!values) return 44;
  plot.ctx.save();
  plot.ctx.font = font;
  const widest = Math.max(...values.map((value) => plot.ctx.measureText(value || "").width));
  plot.ctx.restore();
  return Math.ceil(widest) + 16;
}

function faded(color, share) {
  return `rgba(${[1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)).join(",")},${share})`;
}

// Of a single step: from the start of training where that is shown.
function aroundOne(chart, at) {
  return chart.fromZero && at > 0 ? [0, 1.05 * at] : [at - 1, at + 1];
}

// At a single step a band has no width, so its ends are joined by a line.
function drawInterval(plot, chart) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineWidth = 2 * (devicePixelRatio || 1);
  for (const { color, steps, center } of chart.lines) {
    const [, low, high] = center.map((part) => part[0]);
    if (!Number.isFinite(low) || !Number.isFinite(high)) continue;
    const x = plot.valToPos(steps[0], "x", true);
    ctx.strokeStyle = faded(color, 0.6);
    ctx.beginPath();
    ctx.moveTo(x, plot.valToPos(low, "y", true));
    ctx.lineTo(x, plot.valToPos(high, "y", true));
    ctx.stroke();
  }
  ctx.restore();
}

function wide(chart, low, high) {
  if (low === null) return [0, 1];
  const from = chart.fromZero && low >= 0 && low <= 0.25 * (high - low || low || 1) ? 0 : low;
  return from === high ? [from - 1, high + 1] : [from, high];
}

function yRange(chart, data) {
  if (chart.yRange) return chart.yRange;
  let low = Infinity, high = -Infinity;
  const see = (value) => {
    if (value !== null && Number.isFinite(value)) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  };
  for (const column of data.slice(1)) column.forEach(see);
  for (const bundle of chart.seeds || []) for (const row of bundle.rows) row.forEach(see);
  if (low > high) return [0, 1];
  const pad = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1;
  return [low - pad, high + pad];
}

function drawSeeds(plot, bundles) {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  const count = bundles.reduce((sum, bundle) => sum + bundle.rows.length, 0);
  ctx.globalAlpha = Math.min(0.5, Math.max(0.06, 2 / Math.sqrt(count)));
  ctx.lineWidth = ratio * (count > 64 ? 0.7 : 0.9);
  for (const bundle of bundles) {
    ctx.strokeStyle = bundle.color;
    for (const row of bundle.rows) traced(ctx, plot, bundle.steps, row, true);
  }
  ctx.restore();
}

function traced(ctx, plot, steps, row, onCanvas) {
  ctx.beginPath();
  let down = false;
  if (row.length === 1 && !Number.isNaN(row[0])) { // a line of one point cannot be seen
    const size = 2.5 * (onCanvas ? devicePixelRatio || 1 : 1);
    ctx.arc(plot.valToPos(steps[0], "x", onCanvas), plot.valToPos(row[0], "y", onCanvas), size, 0, 2 * Math.PI);
  }
  for (let k = 0; k < row.length; k++) {
    if (row.length === 1 || Number.isNaN(row[k])) continue;
    const x = plot.valToPos(steps[k], "x", onCanvas), y = plot.valToPos(row[k], "y", onCanvas);
    if (down) ctx.lineTo(x, y);
    else ctx.moveTo(x, y);
    down = true;
  }
  ctx.stroke();
}

// --- The pointer and the keys.

function nearestStep(steps, at) {
  let low = 0, high = steps.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] < at) low = middle;
    else high = middle;
  }
  return at - steps[low] <= steps[high] - at ? low : high;
}

function nearestSeed(plot, at, top) {
  let best = null;
  for (const bundle of plot.state.chart.seeds || []) {
    const k = nearestStep(bundle.steps, at);
    bundle.rows.forEach((row, i) => {
      const far = Math.abs(plot.valToPos(row[k], "y") - top);
      if (far < NEAR && (!best || far < best.far)) best = { bundle, i, k, far };
    });
  }
  return best;
}

function pointed(plot, state) {
  const { left, top, idx } = plot.cursor;
  if (idx === null || idx === undefined || left < 0) return quiet(state);
  const at = plot.posToVal(left, "x");
  const seed = state.keyed || nearestSeed(plot, at, top);
  if (state.keyed && seed) seed.k = nearestStep(seed.bundle.steps, at);
  highlight(plot, state, seed);
  const { chart } = state;
  const lines = [[`${chart.xName || "step"} ${(chart.xText || stepsText)(plot.data[0][idx])}: ${chart.what}`, true]];
  if (seed) {
    const value = seed.bundle.rows[seed.i][seed.k];
    lines.push([`seed ${seed.bundle.names[seed.i]} of ${seed.bundle.label}: ${numberText(value)}`, true]);
  }
  const values = [];
  chart.lines.forEach((line, i) => {
    const [low, high, middle] = [1, 2, 3].map((part) => plot.data[3 * i + part][idx]);
    if (middle === null || middle === undefined) return;
    const span = low === null || low === undefined ? "" : ` (${numberText(low)} to ${numberText(high)})`;
    values.push([middle, `${line.label}: ${numberText(middle)}${span}`]);
  });
  values.sort(([a], [b]) => b - a);
  // There is little room on a small screen: what is nearest to the pointer is shown.
  const near = ([value]) => Math.abs(plot.valToPos(value, "y") - top);
  const few = plot.width < 500 ? values.sort((a, b) => near(a) - near(b)).slice(0, 2) : values;
  lines.push(...few.map(([, text]) => [text, false]));
  state.tip.show(lines, plot.over.offsetLeft + left, plot.over.offsetTop + Math.max(top, 0));
  const { place } = state;
  place.setAttribute("aria-valuemin", plot.data[0][0]);
  place.setAttribute("aria-valuemax", plot.data[0].at(-1));
  place.setAttribute("aria-valuenow", plot.data[0][idx]);
  place.setAttribute("aria-valuetext", lines.map(([line]) => line).join("; "));
}

function highlight(plot, state, seed) {
  const { overlay } = state;
  const ratio = devicePixelRatio || 1;
  const [width, height] = [plot.over.clientWidth, plot.over.clientHeight];
  overlay.width = width * ratio;
  overlay.height = height * ratio;
  overlay.style.width = `${width}px`;
  overlay.style.height = `${height}px`;
  if (!seed) return;
  const ctx = overlay.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.strokeStyle = cssColor("--text");
  ctx.lineWidth = 1.8;
  traced(ctx, plot, seed.bundle.steps, seed.bundle.rows[seed.i], false);
}

function quiet(state) {
  state.tip.hide();
  if (state.overlay) state.overlay.width = state.overlay.width; // clears it
}

function moved(event, plot) {
  const sides = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: 1, ArrowDown: -1 };
  if (!plot || !(event.key in sides)) return;
  event.preventDefault();
  const { state } = plot;
  const x = plot.data[0];
  let idx = plot.cursor.left >= 0 && Number.isInteger(plot.cursor.idx) ? plot.cursor.idx : -1;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    idx = Math.min(x.length - 1, Math.max(0, idx + sides[event.key]));
  } else {
    idx = Math.max(0, idx);
    state.keyed = nextSeed(state, sides[event.key]);
  }
  plot.setCursor({ left: plot.valToPos(x[idx], "x"), top: plot.over.clientHeight / 2 });
}

function nextSeed({ chart, keyed }, side) {
  const all = (chart.seeds || []).flatMap((bundle) => bundle.rows.map((_, i) => ({ bundle, i, k: 0 })));
  if (!all.length) return null;
  const at = keyed ? all.findIndex((one) => one.bundle === keyed.bundle && one.i === keyed.i) : side > 0 ? -1 : 0;
  return all[(at + side + all.length) % all.length];
}
