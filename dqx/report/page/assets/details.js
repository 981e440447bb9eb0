"use strict";
// What stands behind the answer: speed of learning, training, seeds, records, methods.

const MOST_ROWS = 5000; // of a table of runs

function thresholds(main) {
  const here = group();
  if (!here.thresholds.length) return;
  const part = section(main, "threshold", "Steps to a score", "The share of seeds that have once been measured at or above a score. A seed that never was is counted too, as one that needs more (Kaplan and Meier): it keeps the line below 100 %. Bands are pointwise.");
  const last = here.thresholds.length - 1;
  const at = chosen.threshold === null ? Math.max(0, last - 1) : Math.min(chosen.threshold, last);
  const options = here.thresholds.map((one, i) => element("option", { value: i }, numberText(one.score)));
  const select = element("select", { id: "threshold-score", onchange: (event) => { chosen.threshold = +event.target.value; render(); } }, options);
  select.value = at;
  part.append(element("div", { class: "controls" }, element("label", { for: "threshold-score" }, here.label), select));
  legend(part, shown());
  const { score, cases } = here.thresholds[at];
  const some = cases.filter((one) => shown().includes(one.case));
  lineChart(part, { name: `Steps to a score of ${numberText(score)}`, what: "share", stepped: true, fromZero: true, xLabel: "environment steps", yLabel: "share of seeds", yText: (value) => `${Math.round(100 * value)} %`, yRange: [-0.02, 1.02], lines: linesOf(some) });
  const columns = [
    { name: "Configuration", value: (row) => labelOf(row.case) },
    { name: "Reached", number: true, value: (row) => row.reached / here.cases[row.case].n, show: (row) => `${row.reached} of ${here.cases[row.case].n}` },
    { name: "Steps of half of all seeds", number: true, value: (row) => row.half[0], show: (row) => reachedText(row.half[0]) },
    { name: `${100 * DATA.level} % interval`, number: true, value: (row) => row.half[1], show: (row) => (row.half[1] === null ? "not reached" : `${stepsText(row.half[1])} to ${row.half[2] === null ? "more than trained" : stepsText(row.half[2])}`) },
    { name: "Fastest seed", number: true, value: (row) => row.fastest, show: (row) => reachedText(row.fastest) },
  ];
  sortingTable(part, { name: `Steps to a score of ${numberText(score)}`, columns, rows: some });
}

const reachedText = (steps) => (steps === null ? "not reached" : stepsText(steps));

function episodes(main) {
  const here = group();
  const part = section(main, "episodes", "Training episodes", `The mean return of a seed's last ${DATA.window} finished episodes (fewer at first), exploration included: median over seeds, and the middle half of them.`);
  legend(part, shown());
  lineChart(part, { name: "Training episodes", what: "median", xLabel: "environment steps", yLabel: "return of training episodes", fromZero: true, lines: linesOf(here.episodes) });
}

function panels(main) {
  const here = group();
  const some = here.panels.map((panel) => ({ ...panel, lines: linesOf(panel.lines) })).filter((panel) => panel.lines.length);
  if (!some.length) return;
  const part = section(main, "panels", "Inside training", "Over environment steps: the median over seeds, and the middle half of them.");
  legend(part, shown().filter((place) => here.panels.some((panel) => panel.lines.some((line) => line.case === place))));
  const grid = element("div", { class: "panels" });
  part.append(grid);
  for (const panel of some) {
    const { name } = panel;
    const cell = element("div", {}, element("h3", {}, name));
    grid.append(cell);
    lineChart(cell, { name, what: "median", thin: true, fromZero: true, height: 190, lines: panel.lines });
  }
}

function seeds(main) {
  const here = group();
  const part = section(main, "seeds", "Best, median and worst seed", "By score. A seed that diverged cannot be played, so dqx play takes the nearest that can. A look at one seed is no answer: the figures above are.");
  const rows = shown().flatMap((place) => ["best", "median", "worst"].map((kind) => ({ place, kind, i: here.cases[place].extremes[kind] })));
  const of = (row) => here.cases[row.place];
  const columns = [
    { name: "Configuration", value: (row) => of(row).label },
    { name: "Which", value: (row) => row.kind },
    { name: "Seed", number: true, value: (row) => of(row).seeds[row.i] },
    { name: "Score", number: true, value: (row) => of(row).scores[row.i], show: (row) => numberText(of(row).scores[row.i]) },
  ];
  sortingTable(part, { name: "Best, median and worst seed", columns, rows });
  films(part, here);
  const all = here.curves.flatMap((curve) => here.cases[curve.case].seeds.map((seed, i) => ({ place: curve.case, i, seed })));
  const listed = all.slice(0, MOST_ROWS);
  const few = listed.length < all.length ? `, of which the first ${MOST_ROWS.toLocaleString("en")} are listed` : "";
  later(part, "every", `Every run (${all.length.toLocaleString("en")}${few})`, (host) => sortingTable(host, {
    name: "Every run", tall: true, rows: listed, columns: [columns[0], columns[2], columns[3],
      { name: "Diverged at", number: true, value: (row) => (of(row).divergedAt[row.i] < 0 ? null : of(row).divergedAt[row.i]), show: (row) => (of(row).divergedAt[row.i] < 0 ? "" : of(row).divergedAt[row.i].toLocaleString("en")) }],
  }));
  diverged(main, here);
}

function films(part, here) {
  const some = (here.films || []).filter((film) => shown().includes(film.case));
  if (!some.length) return;
  part.append(element("div", { class: "films" }, some.map((film) => {
    const words = `${film.kind} seed, ${film.seed}, of ${labelOf(film.case)}: ${film.words}`;
    return element("figure", {}, element("img", { src: film.source, alt: `Film of a greedy episode: ${words}` }), element("figcaption", {}, words));
  })));
}

function diverged(main, here) {
  const rows = here.curves.flatMap((curve) => {
    const one = here.cases[curve.case];
    return one.seeds.map((seed, i) => ({ one, seed, i, at: one.divergedAt[i] })).filter((row) => row.at >= 0);
  });
  if (!rows.length) return;
  const part = section(main, "diverged", "Diverged seeds", "Loss or parameters became non-finite at this step. The score is that of what was left, or the worst of any run where there is none.");
  sortingTable(part, { name: "Diverged seeds", tall: rows.length > 15, rows, columns: [
    { name: "Configuration", value: (row) => row.one.label },
    { name: "Seed", number: true, value: (row) => row.seed },
    { name: "At step", number: true, value: (row) => row.at, show: (row) => row.at.toLocaleString("en") },
    { name: "Score", number: true, value: (row) => row.one.scores[row.i], show: (row) => numberText(row.one.scores[row.i]) },
  ] });
}

// Something long, made when it is opened.
function later(part, id, title, make) {
  const host = element("div");
  const fold = element("details", { id }, element("summary", {}, title), host);
  fold.addEventListener("toggle", () => {
    chosen.open[id] = fold.open;
    if (fold.open && !host.childNodes.length) make(host);
  });
  fold.open = Boolean(chosen.open[id]);
  part.append(fold);
}

function records(main) {
  const part = section(main, "ran", "What ran");
  DATA.studies.forEach((study, number) => {
    factsTable(part, study.title, study.ran);
    later(part, `settings-${number}`, `Settings of ${study.title}`, (host) => settings(host, study.settings));
  });
  const proof = section(main, "certificate", "Certificate");
  DATA.studies.forEach((study, number) => {
    const { verdict: said, words, differences, checks } = study.certificate;
    const name = DATA.studies.length > 1 ? `${study.title}: ` : "";
    proof.append(element("p", {}, name, said ? element("b", {}, `${said}. `) : null, words));
    for (const text of differences || []) proof.append(element("p", { class: "note" }, text));
    if (checks) later(proof, `checks-${number}`, "Runs that were trained again", (host) => sortingTable(host, { name: "Runs that were trained again", rows: checks, columns: ["Configuration", "Seed", "Digest", "Again", "Verdict", "Detail"].map((column, i) => ({ name: column, number: i === 1, value: (row) => row[i] })) }));
  });
}

function settings(host, { configs, more, table }) {
  const same = table.filter(([, values]) => values.length === 1).map(([name, [value]]) => [name, value]);
  const differ = table.filter(([, values]) => values.length > 1);
  if (differ.length) {
    const columns = [{ name: "Configuration", value: (row) => configs[row] }, ...differ.map(([name, values]) => ({ name, value: (row) => values[row] }))];
    sortingTable(host, { name: `Settings that differ${more ? `; ${more} more configurations are not listed` : ""}`, columns, rows: configs.map((_, i) => i), tall: true });
  }
  factsTable(host, "Settings that are the same everywhere", same);
}

function methods(main) {
  const part = section(main, "methods", "Methods, for a paper", "Check it before you print it; keys in brackets are those of the references.");
  for (const [id, name, text] of [["words", "Paragraph", DATA.methods.words], ["bibtex", "References (BibTeX)", DATA.methods.bibtex]]) {
    const box = element("pre", { id, tabindex: 0, "aria-label": name }, text);
    const button = element("button", { type: "button", class: "button", onclick: () => copied(box, button) }, "Copy");
    part.append(element("h3", {}, name), box, button);
  }
}

function copied(box, button) {
  getSelection().selectAllChildren(box);
  button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl-C";
}
