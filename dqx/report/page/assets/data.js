"use strict";
// What the page shows is JSON beside this script; texts in it reach the page as text, never as HTML.

function unpacked(part) {
  const bytes = atob(part.data);
  const [rows, columns] = part.shape;
  const step = (part.high - part.low) / 65534;
  const found = [];
  for (let i = 0, at = 0; i < rows; i++) {
    const row = new Float32Array(columns);
    for (let k = 0; k < columns; k++, at += 2) {
      const code = bytes.charCodeAt(at) | (bytes.charCodeAt(at + 1) << 8);
      row[k] = code === 65535 ? NaN : part.low + code * step;
    }
    found.push(row);
  }
  return found;
}

// --- Elements.

function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function shape(tag, options = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(options)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

// --- Numbers as a person reads them.

const SIZES = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];

function stepsText(value) {
  for (const [size, letter] of SIZES) {
    if (Math.abs(value) >= size) return String(+(value / size).toPrecision(4)) + letter;
  }
  return String(+value.toPrecision(4));
}

function numberText(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "n/a";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e7) return value.toExponential(2).replace("e+", "e");
  const digits = Math.min(6, Math.max(0, 3 - Math.floor(Math.log10(size))));
  if (size >= 1000) return value.toLocaleString("en", { maximumFractionDigits: 1 });
  return value.toLocaleString("en", { minimumFractionDigits: Math.min(digits, 1), maximumFractionDigits: digits });
}

function tickText(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e12) return stepsText(value);
  if (size < 1e-4) return value.toExponential(1).replace(".0e", "e");
  return String(+value.toPrecision(5));
}

function intervalText(part) {
  return part.low === null || part.low === undefined
    ? part.note || "no interval"
    : `${numberText(part.low)} to ${numberText(part.high)}`;
}

function counted(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}

function ticks(low, high, most) {
  const span = high - low || 1;
  const rough = span / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) {
    found.push(+(at * step).toPrecision(12));
  }
  return found;
}

// --- Colours.

const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function mixed(colors, share) {
  const at = Math.min(Math.max(share, 0), 1) * (colors.length - 1);
  const from = Math.min(Math.floor(at), colors.length - 2);
  const parts = [0, 1, 2].map((i) => {
    const [a, b] = [from, from + 1].map((c) => parseInt(colors[c].slice(1 + 2 * i, 3 + 2 * i), 16));
    return Math.round(a + (b - a) * (at - from));
  });
  return parts;
}

const rgb = (parts) => `rgb(${parts.join(",")})`;
const inkOn = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 150 ? "#14161a" : "#ffffff");

// --- A text beside the pointer.

function tipIn(host) {
  const tip = element("div", { class: "tip", hidden: true });
  host.append(tip);
  return {
    show(lines, x, y) {
      tip.replaceChildren(
        ...lines.map(([text, strong]) => element("div", {}, strong ? element("b", {}, text) : text)),
      );
      tip.hidden = false;
      const width = host.clientWidth;
      const left = x > width / 2 ? x - tip.offsetWidth - 14 : x + 14;
      tip.style.left = `${Math.min(Math.max(0, left), Math.max(0, width - tip.offsetWidth))}px`;
      tip.style.top = `${Math.max(0, y - tip.offsetHeight / 2)}px`;
    },
    hide() {
      tip.hidden = true;
    },
  };
}

// Draws again when the place gets another width.
const watched = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const width = Math.round(target.clientWidth);
    if (width && target.drawnWidth !== width) {
      target.drawnWidth = width;
      target.redraw(width);
    }
  }
});

function drawnIn(host, redraw) {
  host.redraw = redraw;
  host.drawnWidth = Math.round(host.clientWidth);
  if (host.drawnWidth) redraw(host.drawnWidth);
  watched.observe(host);
}
