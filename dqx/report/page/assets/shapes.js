"use strict";
// Figures as SVG: scores of every seed in rows, and lines over parallel axes.

const DOT = 3.2;
const MOST_DOTS = 1500; // of a row; more seeds are drawn as bars

function shortened(text, width) {
  const most = Math.max(8, Math.floor(width / 6.6));
  if (text.length <= most) return text;
  const half = Math.floor((most - 1) / 2);
  return `${text.slice(0, half)}…${text.slice(-half)}`;
}

function rowChart(host, { name, rows, label, low, high }) {
  const place = element("div", { class: "chart" });
  host.append(place);
  const tip = tipIn(place);
  drawnIn(place, (width) => {
    for (const old of place.querySelectorAll("svg")) old.remove();
    place.prepend(rowsDrawn({ name, rows, label, low, high, width, tip, place }));
  });
}

function rowsDrawn({ name, rows, label, low, high, width, tip, place }) {
  const pad = 12;
  const heights = rows.map((row) => (row.points ? 84 : 46));
  const total = heights.reduce((sum, h) => sum + h, 0) + 44;
  const span = high - low || 1;
  const x = (value) => pad + Math.min(1, Math.max(0, (value - low) / span)) * (width - 2 * pad);
  const svg = shape("svg", { width, height: total, viewBox: `0 0 ${width} ${total}`, role: "img" });
  svg.setAttribute("aria-label", `${name}: ${rows.map((row) => `${row.label} ${centerText(row.center)}`).join("; ")}`);
  const bottom = total - 40;
  const marks = ticks(low, high, Math.max(2, Math.floor(width / 90)));
  for (const mark of marks) {
    const middle = Math.min(Math.max(x(mark), 14), width - 14);
    svg.append(
      shape("line", { x1: x(mark), x2: x(mark), y1: 2, y2: bottom, class: "grid" }),
      textAt(tickText(mark), middle, bottom + 16, { anchor: "middle" }),
    );
  }
  svg.append(
    shape("line", { x1: pad, x2: width - pad, y1: bottom, y2: bottom, class: "axis" }),
    textAt(label, width / 2, bottom + 34, { anchor: "middle" }),
  );
  let top = 4;
  rows.forEach((row, i) => {
    svg.append(...rowDrawn(row, top, heights[i], width, x));
    top += heights[i];
  });
  svg.addEventListener("pointermove", (event) => {
    const dot = event.target.closest("[data-tip]");
    if (!dot) return tip.hide();
    const box = place.getBoundingClientRect();
    tip.show([[dot.dataset.tip, false]], event.clientX - box.left, event.clientY - box.top);
  });
  svg.addEventListener("pointerleave", () => tip.hide());
  return svg;
}

function centerText(center) {
  return center.iqm === null ? center.note : `${numberText(center.iqm)} (${intervalText(center)})`;
}

function textAt(text, x, y, { anchor = "start", css = "", full = "" } = {}) {
  const made = shape("text", { x, y, "text-anchor": anchor, class: css }, text);
  if (full && full !== text) made.append(shape("title", {}, full));
  return made;
}

function rowDrawn(row, top, height, width, x) {
  const value = centerText(row.center);
  const room = width - 24 - 6.8 * value.length;
  const parts = [
    textAt(shortened(row.label, room), 12, top + 14, { full: row.label, css: "halo" }),
    textAt(value, width - 12, top + 14, { anchor: "end", css: "quiet halo" }),
  ];
  const middle = row.points ? top + height - 16 : top + 20 + (height - 26) / 2;
  if (row.points) parts.push(...dots(row, top + 20 + (height - 46) / 2, (height - 54) / 2, x));
  const { iqm, low, high } = row.center;
  if (iqm === null) return parts;
  const tip = `${row.label}: IQM ${value}`;
  const ink = row.points ? "var(--text)" : row.color;
  if (low !== null) {
    parts.push(
      shape("line", { x1: x(low), x2: x(high), y1: middle, y2: middle, stroke: ink, "stroke-width": 3, "stroke-linecap": "round", "data-tip": tip }),
    );
  }
  const at = x(iqm), size = 6;
  const corner = `M${at - size},${middle}L${at},${middle - size}L${at + size},${middle}L${at},${middle + size}Z`;
  parts.push(shape("path", { d: corner, fill: ink, stroke: "var(--ground)", "stroke-width": 1.5, "data-tip": tip }));
  return parts;
}

function dots(row, middle, room, x) {
  const columns = new Map();
  for (const point of row.points) {
    const column = Math.round(x(point.value) / (2 * DOT));
    if (!columns.has(column)) columns.set(column, []);
    columns.get(column).push(point);
  }
  const tallest = Math.max(...[...columns.values()].map((points) => points.length));
  if (row.points.length > MOST_DOTS) return bars(row, columns, tallest, middle, room);
  const step = Math.min(2 * DOT, (2 * room) / Math.max(1, tallest - 1));
  const made = [];
  for (const points of columns.values()) {
    points.forEach((point, i) => {
      const y = middle + step * (i - (points.length - 1) / 2);
      made.push(
        shape("circle", { cx: x(point.value), cy: y, r: DOT, fill: row.color, "fill-opacity": 0.7, "data-tip": point.name }),
      );
    });
  }
  return made;
}

function bars(row, columns, tallest, middle, room) {
  return [...columns].map(([column, points]) => {
    const height = Math.max(1.5, (2 * room * points.length) / tallest);
    return shape("rect", {
      x: 2 * DOT * (column - 0.5), width: 2 * DOT - 0.6, y: middle - height / 2, height, fill: row.color,
      "fill-opacity": 0.6, "data-tip": `${row.label}: ${counted(points.length, "seed")} near ${numberText(points[0].value)}`,
    });
  });
}

// --- Parallel axes: one for each varied field, and the score as the last.

function parallelChart(host, { name, axes, lines, colors }) {
  const scroll = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name });
  const place = element("div", { class: "chart" });
  scroll.append(place);
  host.append(scroll);
  place.style.minWidth = `${axes.length * 104}px`;
  const tip = tipIn(place);
  drawnIn(place, (width) => {
    for (const old of place.querySelectorAll("svg")) old.remove();
    place.prepend(parallelDrawn({ name, axes, lines, colors, width, tip, place }));
  });
}

function placedOn(axis) {
  const numeric = axis.values.every((value) => typeof value === "number");
  if (!numeric) {
    const names = [...new Set(axis.values.map(String))];
    const at = (value) => (names.length === 1 ? 0.5 : names.indexOf(String(value)) / (names.length - 1));
    return { at, marks: names.map((one) => [at(one), one]) };
  }
  const low = Math.min(...axis.values), high = Math.max(...axis.values);
  const isLog = low > 0 && high / low > 50;
  const scale = isLog ? Math.log10 : (value) => value;
  const span = scale(high) - scale(low) || 1;
  const at = (value) => (scale(value) - scale(low)) / span;
  const different = [...new Set(axis.values)].sort((a, b) => a - b);
  const within = isLog
    ? ticks(Math.ceil(scale(low)), Math.floor(scale(high)), 4).filter(Number.isInteger).map((p) => 10 ** p)
    : ticks(low, high, 5);
  const apart = different.every((value, i) => i === 0 || at(value) - at(different[i - 1]) > 0.06);
  const marks = different.length <= 6 && apart ? different : within.length > 1 ? within : [low, high];
  return { at, marks: marks.map((mark) => [at(mark), tickText(mark)]) };
}

function parallelDrawn({ name, axes, lines, colors, width, tip, place }) {
  const height = 330, top = 34, bottom = height - 14, left = 50, right = 56;
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label", `${name}: ${counted(lines.length, "configuration")}; the numbers are in the table of scores`);
  const x = (i) => left + (i * (width - left - right)) / (axes.length - 1);
  const placed = axes.map(placedOn);
  const y = (i, value) => bottom - placed[i].at(value) * (bottom - top);
  const made = lines.map((line) => {
    const points = line.values.map((value, i) => `${x(i)},${y(i, value)}`).join(" ");
    const ink = rgb(mixed(colors, line.share));
    const path = shape("polyline", { points, fill: "none", stroke: ink, "stroke-width": 1.6, opacity: Math.min(0.75, Math.max(0.15, 8 / Math.sqrt(lines.length))) });
    const wide = shape("polyline", { points, fill: "none", stroke: "transparent", "stroke-width": 9 });
    wide.line = line;
    wide.path = path;
    svg.append(path);
    return wide;
  });
  placed.forEach((axis, i) => {
    svg.append(
      shape("line", { x1: x(i), x2: x(i), y1: top, y2: bottom, stroke: "var(--quiet)" }),
      textAt(shortened(axes[i].name, 100), x(i), 16, { anchor: "middle", full: axes[i].name }),
    );
    for (const [at, mark] of axis.marks) {
      const level = bottom - at * (bottom - top);
      svg.append(
        shape("line", { x1: x(i) - 4, x2: x(i) + 4, y1: level, y2: level, stroke: "var(--quiet)" }),
        textAt(shortened(mark, 60), x(i) + 7, level + 4, { css: "halo", full: mark }),
      );
    }
  });
  svg.append(...made);
  svg.addEventListener("pointermove", (event) => {
    const { line, path } = event.target;
    for (const one of made) {
      one.path.setAttribute("stroke-width", one.path === path ? 4 : 1.6);
    }
    if (!line) return tip.hide();
    const box = place.getBoundingClientRect();
    tip.show([[line.label, true], [line.text, false]], event.clientX - box.left, event.clientY - box.top);
  });
  svg.addEventListener("pointerleave", () => tip.hide());
  return svg;
}
