"use strict";
// What the varied fields of a study do: one by one, two together, and all at once.

function fields(main) {
  const here = group();
  here.fields.forEach((part, number) => {
    const title = DATA.studies.length > 1 ? `Varied fields of ${DATA.studies[part.study].title}` : "Varied fields";
    const host = section(main, number ? `fields-${number}` : "fields", title, "Each value with the IQM of its configurations, averaged over all other varied fields seed by seed, so that the seed stays the unit; the line is the interval.");
    part.effects.forEach((effect) => effectChart(host, here, effect));
    if (part.maps.length) maps(host, part, number);
    if (part.names.length > 1) parallel(host, here, part);
  });
}

function effectChart(host, here, effect) {
  host.append(element("h3", {}, effect.field));
  if (effect.binned) host.append(element("p", { class: "note" }, "Many values: put together in bins of about equal counts."));
  averaged(host, effect);
  const known = effect.levels.flatMap((level) => [level.iqm, level.low, level.high]).filter((value) => value !== null);
  const rows = effect.levels.map((level) => ({
    label: `${level.name}${level.configs > 1 ? ` (${level.configs} configurations)` : ""}`, color: palette()[0], center: level,
  }));
  rowChart(host, { name: `Effect of ${effect.field}`, rows, label: here.label, ...padded(known) });
}

// Over what other settings values are averaged, where it is not simply all.
function averaged(host, found) {
  const count = `${found.leftOut} ${found.leftOut === 1 ? "configuration is" : "configurations are"}`;
  if (found.leftOut) host.append(element("p", { class: "note" }, `${count} left out, since not every value is there with the same settings of the other fields.`));
  if (!found.matched) host.append(element("p", { class: "note" }, "Averaged over whatever other fields are set to, which is not the same for each value."));
}

function maps(host, part, number) {
  host.append(element("h3", {}, "Two fields together"));
  const place = element("div");
  const at = Math.min(chosen.map[number] || 0, part.maps.length - 1);
  if (part.maps.length > 1) {
    const id = `map-${number}`;
    const options = part.maps.map((one, i) => element("option", { value: i }, one.fields.join(" x ")));
    const select = element("select", { id, onchange: (event) => { chosen.map[number] = +event.target.value; render(); } }, options);
    select.value = at;
    host.append(element("div", { class: "controls" }, element("label", { for: id }, "Fields"), select));
  }
  host.append(place);
  const { fields: pair, names, cells } = part.maps[at];
  averaged(place, part.maps[at]);
  const known = cells.flat().map((cell) => cell.iqm).filter((value) => value !== null);
  const { low, high } = { low: Math.min(...known), high: Math.max(...known) };
  mapTable(place, {
    name: `IQM by ${pair[0]} (down) and ${pair[1]} (across)`, corner: `${pair[0]} \\ ${pair[1]}`, rows: names[0], columns: names[1], colors: DATA.palette.sequential,
    cells: cells.map((row) => row.map((cell) => (cell.iqm === null ? null : {
      text: numberText(cell.iqm), small: intervalText(cell), title: counted(cell.n, "seed"), share: high > low ? (cell.iqm - low) / (high - low) : 0.5,
    }))),
  });
}

function parallel(host, here, part) {
  host.append(element("h3", {}, "All fields together"));
  const iqms = part.points.map((point) => here.cases[point.case].iqm);
  const low = Math.min(...iqms), high = Math.max(...iqms);
  const share = (value) => (high > low ? (value - low) / (high - low) : 0.5);
  const [bad, , good] = DATA.palette.diverging;
  const colors = isDark() ? [DATA.palette.dark[1], "#8a8f98", DATA.palette.dark[0]] : [bad, "#9aa0a8", good];
  const lines = part.points.map((point, i) => ({
    values: [...point.values, iqms[i]], share: share(iqms[i]), label: labelOf(point.case), text: `IQM ${centerText(here.cases[point.case])}`,
  }));
  lines.sort((a, b) => a.share - b.share); // the best lie on top
  const names = [...part.names, "IQM"];
  const axes = names.map((name, i) => ({ name, values: lines.map((line) => line.values[i]) }));
  parallelChart(host, { name: "Varied fields and the IQM, a line a configuration", axes, lines, colors });
}
