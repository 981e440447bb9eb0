"use strict";
// Of a search: what its winner is worth on fresh seeds, how much better it looked, and all candidates.

function search(main) {
  const here = DATA.search;
  if (!here) return;
  const percent = `${100 * here.level} %`;
  const part = section(main, "search", "The search",
    "The winner was chosen because it did best on the seeds of the search, so its value there flatters it. It was trained again on fresh seeds that no candidate saw: only that is its score.");
  part.append(element("p", { class: "answer" },
    "On fresh seeds the winner has a score of ", element("b", {}, numberText(here.score.iqm)),
    ` (${percent} interval ${intervalText(here.score)}); on the ${counted(here.chosen.n, "seed")} that chose it it had ${numberText(here.chosen.iqm)}. `,
    "The search made it look ", element("b", {}, `${numberText(Math.abs(here.optimism.iqm))} ${here.optimism.iqm < 0 ? "worse" : "better"}`),
    ` (difference ${numberText(here.optimism.iqm)}, ${percent} interval ${intervalText(here.optimism)}).`));
  const row = (label, color, center, scores) => ({
    label, color: palette()[color], center,
    points: scores.filter(([, value]) => value !== null).map(([seed, value]) => ({ value, name: `seed ${seed}: ${numberText(value)}` })),
  });
  const rows = [row("on the seeds that chose it", 1, here.chosen, here.chosenScores), row("on fresh seeds: its score", 2, here.score, here.freshScores)];
  const label = `${group().label} (sum of rewards an episode)`;
  rowChart(part, { name: "The winner", rows, label, ...padded(rows.flatMap((one) => one.points.map((point) => point.value))) });
  candidates(part, here, percent);
}

function candidates(part, here, percent) {
  const trained = here.candidates.filter((one) => one.n);
  const columns = [
    { name: "Candidate", number: true, value: (one) => one.number },
    { name: "Generation", number: true, value: (one) => one.generation },
    { name: "Seeds", number: true, value: (one) => one.n || 0 },
    { name: "IQM", number: true, value: (one) => (one.n ? one.iqm : null), show: (one) => (one.n ? numberText(one.iqm) : "") },
    { name: `${percent} interval`, number: true, value: (one) => (one.n ? one.low : null), show: (one) => (one.n ? intervalText(one) : "") },
    { name: "State", css: "name", value: (one) => one.state },
    ...here.fields.map((name, i) => ({ name, number: true, value: (one) => one.values[i] })),
  ];
  const best = [...here.candidates].sort((a, b) => (b.number === here.winner) - (a.number === here.winner) || (b.n || 0) - (a.n || 0) || (b.iqm ?? -Infinity) - (a.iqm ?? -Infinity));
  part.append(element("h3", {}, `${counted(here.candidates.length, "candidate")}, ${trained.length.toLocaleString("en")} of them trained`));
  sortingTable(part, { name: "Candidates, those with most seeds first", columns, rows: best, tall: true });
}
