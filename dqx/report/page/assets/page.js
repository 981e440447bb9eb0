"use strict";
// The page: sections in the order of their weight, drawn anew when what is chosen changes.

const MOST_SHOWN = 8; // configurations at a time, which is as many as there are colours
let DATA = JSON.parse(document.getElementById("data").textContent);
const chosen = { group: 0, shown: {}, seeds: true, band: "point", threshold: null, map: {}, open: {} };

const group = () => DATA.groups[Math.min(chosen.group, DATA.groups.length - 1)];
const palette = () => DATA.palette[isDark() ? "dark" : "light"];

// Places of those shown: what was ticked, by label, since places change while a study runs; before
// that all, or of many the best five and the worst three.
function shown() {
  const here = group();
  const possible = here.curves.map((curve) => curve.case);
  const ticked = chosen.shown[shownKey()];
  const kept = ticked ? ticked.map((label) => possible.find((place) => here.cases[place].label === label)).filter((place) => place !== undefined) : [];
  if (kept.length) return kept;
  return possible.length <= MOST_SHOWN ? possible : [...possible.slice(0, 5), ...possible.slice(-3)];
}

const shownKey = () => `${group().env} ${group().metric}`;

function colorOf(place) {
  const slot = shown().indexOf(place);
  return slot < 0 ? "#888888" : palette()[slot % MOST_SHOWN];
}

const labelOf = (place) => group().cases[place].label;

function section(main, id, title, ...paragraphs) {
  const part = element("section", { id, "aria-labelledby": `${id}-title` }, element("h2", { id: `${id}-title` }, title));
  part.append(...paragraphs.filter(Boolean).map((text) => element("p", { class: "note" }, text)));
  main.append(part);
  return part;
}

function legend(host, places) {
  if (places.length < 2) return;
  host.append(element("ul", { class: "legend" }, places.map((place) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = colorOf(place);
    return element("li", {}, swatch, labelOf(place));
  })));
}

// The line with the band that is asked for; some have none that holds the whole curve.
function banded(center) {
  const none = center[0].map(() => null);
  if (chosen.band === "none") return [center[0], none, none];
  return chosen.band === "whole" && center.length > 3 ? [center[0], center[3], center[4]] : center.slice(0, 3);
}

function linesOf(parts, steps) {
  return parts.filter((part) => shown().includes(part.case)).map((part) => ({
    label: labelOf(part.case), color: colorOf(part.case), steps: steps || part.steps, center: banded(part.center),
  }));
}

// --- Sections.

function header() {
  const head = document.getElementById("head");
  head.replaceChildren(element("h1", {}, DATA.title));
  for (const one of DATA.studies) {
    const words = DATA.studies.length > 1 ? `${one.title}: ${one.state}` : one.state;
    head.append(element("p", { class: one.finished ? "note" : "warn", role: one.finished ? null : "status" }, words));
  }
  if (DATA.groups.length > 1) {
    const options = DATA.groups.map((one, i) => element("option", { value: i }, `${one.env} (${one.label})`));
    const select = element("select", { id: "group", onchange: (event) => { chosen.group = +event.target.value; render(); } }, options);
    select.value = chosen.group;
    head.append(element("div", { class: "controls" }, element("label", { for: "group" }, "Environment"), select));
  }
}

function answer(main) {
  const here = group();
  const part = section(main, "answer", `Scores on ${here.env}`);
  const best = here.cases[here.ranking[0]];
  const percent = `${100 * DATA.level} %`;
  const about = best.note ? best.note : `${percent} interval ${intervalText(best)}`;
  part.append(element("p", { class: "answer" },
    here.cases.length > 1 ? "The highest interquartile mean (IQM) is that of " : "The interquartile mean (IQM) of ",
    element("b", {}, best.label), here.cases.length > 1 ? ": " : " is ", element("b", {}, numberText(best.iqm)),
    ` (${about}${best.n > 1 ? `; ${counted(best.n, "seed")}` : ""}). `, here.cases.length > 1 ? beside(here) : "",
    `A score is the last ${here.label} of a run, the sum of rewards an episode.`));
  if (here.verdict) part.append(element("p", {}, element("b", {}, "Verdict: "), `${here.verdict}.`));
  for (const text of warnings(here)) part.append(element("p", { class: "warn" }, text));
  scoreTable(part, here);
}

function beside(here) {
  const [first, second] = here.improvements.cases;
  const [value, low, high] = here.improvements.table[0][1];
  if (low === null) return `One seed each says nothing of how it compares with ${labelOf(second)}. `;
  const words = `A seed of it beats one of the second, ${labelOf(second)}, with probability ${value.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
  const rest = here.verdict ? "" : "dqx compare says whether these seeds can tell them apart. ";
  return `${words}, which ${low > 0.5 ? "leaves out" : "holds"} one half. ${rest}`;
}

function warnings(here) {
  const found = [];
  const lost = here.cases.reduce((sum, one) => sum + one.lost, 0);
  const diverged = here.cases.reduce((sum, one) => sum + one.diverged, 0);
  if (diverged) {
    found.push(`${counted(diverged, "run")} diverged and ${diverged === 1 ? "is" : "are"} counted, not dropped: where a run has no finite number, the worst of any run and step counts, ${numberText(here.worst)}${lost ? ` (${counted(lost, "score")})` : ""}.`);
  } else if (lost) {
    found.push(`${counted(lost, "run")} without a finite score: each counts as the worst of any run, ${numberText(here.worst)}.`);
  }
  if (here.waiting.length) found.push(`Without a finished run yet: ${here.waiting.slice(0, 10).join("; ")}${here.waiting.length > 10 ? `; and ${here.waiting.length - 10} more` : ""}.`);
  const unequal = new Set(here.cases.map((one) => one.n)).size > 1;
  if (unequal) found.push("Configurations have different numbers of finished runs.");
  if (here.cases.some((one) => one.n === 1)) found.push("Of a single seed there is no interval: it says nothing about other seeds.");
  if (new Set(here.cases.map((one) => one.total)).size > 1) found.push("Configurations were trained for different numbers of steps; scores are those at the end of each.");
  for (const text of [here.tasks, DATA.software]) if (text) found.push(`${text[0].toUpperCase()}${text.slice(1)}.`);
  return found;
}

function scoreTable(part, here) {
  const columns = [
    { name: "Configuration", value: (row) => row.label },
    { name: "Seeds", number: true, value: (row) => row.n, show: (row) => (row.n === row.planned ? row.n : `${row.n} of ${row.planned}`) },
    { name: "IQM", number: true, value: (row) => row.iqm, show: (row) => numberText(row.iqm) },
    { name: `${100 * DATA.level} % interval`, number: true, value: (row) => row.low, show: (row) => intervalText(row) },
    ...[["Mean", "mean"], ["SD", "std"], ["Lowest", "min"], ["Highest", "max"]].map(([name, key]) => (
      { name, number: true, value: (row) => row[key], show: (row) => numberText(row[key]) })),
    { name: "Diverged", number: true, value: (row) => row.diverged },
  ];
  const possible = here.curves.map((curve) => curve.case);
  if (here.cases.length > 1) columns.unshift({ name: "Show", css: "tick", show: (row) => shownBox(here.cases.indexOf(row), possible) });
  sortingTable(part, { name: "Scores of every configuration, the best IQM first", columns, rows: here.ranking.map((i) => here.cases[i]), tall: here.cases.length > 16 });
}

function shownBox(place, possible) {
  const on = shown().includes(place);
  const box = element("input", { type: "checkbox", id: `show-${place}`, "aria-label": `show ${labelOf(place)} in the figures` });
  box.checked = on;
  box.disabled = !possible.includes(place) || (!on && shown().length >= MOST_SHOWN) || (on && shown().length === 1);
  box.addEventListener("change", () => {
    const others = shown().filter((other) => other !== place);
    chosen.shown[shownKey()] = (box.checked ? [...others, place] : others).map(labelOf);
    render();
  });
  return box;
}

function curves(main) {
  const here = group();
  const several = here.cases.length > 1;
  const measured = Math.max(...here.curves.map((curve) => curve.measured));
  const drawn = Math.max(...here.curves.map((curve) => curve.seedSteps.length));
  const few = shown().length < here.cases.length ? `${shown().length} of ${here.cases.length} configurations are shown; choose others in the table above.` : "";
  const part = section(main, "curves", "Learning curves",
    `Thick: IQM over seeds in its band. Thin: every seed. ${drawn < measured ? `Of a seed ${drawn} of ${measured} measured points are drawn. ` : ""}${few} Drag to enlarge, double-click to go back.`);
  const box = element("input", { type: "checkbox", id: "every-seed", onchange: (event) => { chosen.seeds = event.target.checked; render(); } });
  box.checked = chosen.seeds;
  const bands = [["point", `at each step, ${100 * DATA.level} %`], ["whole", `over the whole curve, ${100 * DATA.level} %`], ["none", "none"]];
  const select = element("select", { id: "bands", onchange: (event) => { chosen.band = event.target.value; render(); } }, bands.map(([value, text]) => element("option", { value }, text)));
  select.value = chosen.band;
  part.append(element("div", { class: "controls" }, element("label", { for: "every-seed" }, box, "every seed"), element("label", { for: "bands" }, "bands", select)));
  const bare = here.curves.filter((curve) => shown().includes(curve.case) && here.cases[curve.case].n > 1 && curve.center[3].every((end) => end === null));
  if (chosen.band === "whole" && bare.length) part.append(element("p", { class: "note" }, `Without a band over the whole curve, which the best configurations have where no seed has a gap: ${bare.map((curve) => labelOf(curve.case)).join("; ")}.`));
  legend(part, shown());
  const bundles = here.curves.filter((curve) => shown().includes(curve.case)).map((curve) => {
    curve.rows ||= unpacked(curve.seeds);
    return { label: labelOf(curve.case), color: several ? colorOf(curve.case) : cssColor("--quiet"), steps: curve.seedSteps, rows: curve.rows, names: here.cases[curve.case].seeds };
  });
  lineChart(part, { name: "Learning curves", what: "IQM", xLabel: "environment steps", yLabel: here.label, fromZero: true, yRange: seedRange(bundles), lines: linesOf(here.curves), seeds: chosen.seeds ? bundles : null });
}

// With two or three seeds a band is many times as wide as all that they did.
function seedRange(bundles) {
  let low = Infinity, high = -Infinity;
  for (const { rows } of bundles) for (const row of rows) for (const value of row) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const ends = padded([low, high]);
  return [ends.low, ends.high];
}

function distribution(main) {
  const here = group();
  const part = section(main, "scores", "Final scores", "A dot is a seed; the diamond is the IQM, the line its interval.");
  const rows = shown().map((place) => {
    const one = here.cases[place];
    return {
      label: one.label, color: colorOf(place), center: one,
      points: one.scores.map((value, i) => ({ value, name: `seed ${one.seeds[i]} of ${one.label}: ${numberText(value)}${one.divergedAt[i] >= 0 ? ` (diverged at ${stepsText(one.divergedAt[i])})` : ""}` })),
    };
  });
  const values = rows.flatMap((row) => row.points.map((point) => point.value));
  rowChart(part, { name: "Final scores", rows, label: `${here.label} (sum of rewards an episode)`, ...around(values, rows) });
}

// Of values and of the ends of intervals, unless these lie far away, as those of two seeds do.
function around(values, rows) {
  const { low, high } = padded(values);
  const far = 0.3 * (high - low);
  const ends = rows.flatMap(({ center }) => [center.low, center.high]).filter((end) => end !== null);
  return padded([...values, ...ends.map((end) => Math.min(Math.max(end, low - far), high + far))]);
}

function padded(values) {
  if (!values.some(Number.isFinite)) return { low: 0, high: 1 };
  const low = values.reduce((a, b) => Math.min(a, b), Infinity), high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const pad = 0.03 * (high - low) || 0.05 * Math.abs(high) || 1;
  return { low: low - pad, high: high + pad };
}

function profiles(main) {
  const here = group();
  const part = section(main, "profiles", "Performance profiles", `The share of seeds whose score is above each value, with pointwise ${100 * DATA.level} % bands: higher and further right is better.`);
  legend(part, shown());
  lineChart(part, { name: "Performance profiles", what: "share", named: false, xName: "score above", xLabel: here.label, yLabel: "share of seeds", xText: tickText, yText: (value) => `${Math.round(100 * value)} %`, yRange: [-0.02, 1.02], lines: linesOf(here.profiles.lines, here.profiles.thresholds) });
}

function improvements(main) {
  const here = group();
  const { cases, table } = here.improvements;
  if (cases.length < 2) return;
  const part = section(main, "improvement", "Probability of improvement", `How likely a seed of the row scores higher than one of the column (ties count half), with its ${100 * DATA.level} % interval.${cases.length < here.cases.length ? ` The ${cases.length} best by IQM are compared.` : ""}`);
  const names = cases.map(labelOf);
  const cells = table.map((row, i) => row.map(([value, low, high], j) => (i === j ? null : {
    text: value.toFixed(2), share: value, small: low === null ? "no interval" : `${low.toFixed(2)} to ${high.toFixed(2)}`, title: `${names[i]} over ${names[j]}`,
  })));
  mapTable(part, { name: "Row over column", corner: "", rows: names, columns: names, cells, colors: DATA.palette.diverging });
}
