"""The atlas's page, from the Parquet files that it keeps: nothing is trained.

Distributions, the share of seeds that fail, where published numbers fall among our seeds, and how
often few seeds name the wrong winner. `scripts/atlas.py` writes both.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from kept import read_table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dqx import stats
from dqx.files import whole_file
from dqx.report import style
from dqx.report.terminal import markdown
from dqx.settings import preset_about

# What counts as failing: Gymnasium's thresholds of what is solved, where it has one.
FAILING = {
    "CartPole-v0": (195.0, "below 195"),
    "CartPole-v1": (475.0, "below 475"),
    "MountainCar-v0": (-110.0, "below -110"),
    "Acrobot-v1": (-100.0, "below -100"),
    "Taxi-v4": (7.0, "below 7, of an optimum of 7.93"),
    "WallDodge-v0": (48.0, "below 48, of an optimum of 50"),
}
SMALL = (3, 5, 10, 20)
DRAWS = 20_000


class Claim(NamedTuple):
    """A number that a source published.

    Attributes:
        value: the number.
        runs: how many runs it is the mean of.
        kind: ``"greedy"``, ``"training"`` or ``"episodes"`` until solved.
        step: at which it was measured; None: at the end.
        text: as the preset has it.
    """

    value: float
    runs: int
    kind: str
    step: int | None
    text: str


class Kept(NamedTuple):
    """What is kept of a preset.

    Attributes:
        name: of the preset.
        facts: environment, metric, steps, and what was verified.
        seeds: ``[S]``.
        scores: ``[S]``, NaN of a seed that diverged.
        compared: ``[S]``, what the source's number is compared with; NaN: no such number.
    """

    name: str
    facts: dict[str, object]
    seeds: np.ndarray
    scores: np.ndarray
    compared: np.ndarray

    @property
    def env(self) -> str:
        """Its environment."""
        return str(self.facts["env"])


def claim_of(name: str) -> Claim | None:
    """The number that a preset's source published; None if there is none."""
    text = preset_about(name).claim
    episodes = re.match(r"solved after (\d+) episodes \((\d+) runs?\)", text)
    if episodes is not None:
        return Claim(float(episodes[1]), int(episodes[2]), "episodes", None, text)
    found = re.match(
        r"(-?[\d.]+)(?: ± [\d.]+)? \((\d+) runs?(, in training)?(?:, at ([\d,]+) steps)?\)", text
    )
    if found is None:
        return None
    step = None if found[4] is None else int(found[4].replace(",", ""))
    return Claim(float(found[1]), int(found[2]), "training" if found[3] else "greedy", step, text)


def kept_in(folder: Path) -> list[Kept]:
    """All presets that a folder holds."""
    found = []
    for path in sorted(folder.glob("*-scores.parquet")):
        table, facts = read_table(path, "atlas", "is none of the atlas")
        columns = [table.column(name).to_numpy() for name in ("seed", "score", "compared")]
        seeds, scores, compared = columns
        found.append(
            Kept(facts["preset"], facts, seeds, scores.astype(float), compared.astype(float))
        )
    return found


def lacking(kept: Sequence[Kept], names: Sequence[str]) -> list[str]:
    """The presets of the atlas that are not there yet."""
    return [name for name in names if name not in {one.name for one in kept}]


def counted_scores(one: Kept, kept: Sequence[Kept]) -> np.ndarray:
    """Scores; a seed without one counts as the lowest of its environment."""
    same = np.concatenate([other.scores for other in kept if other.env == one.env])
    finite = same[np.isfinite(same)]
    worst = finite.min() if finite.size else 0.0
    return np.where(np.isfinite(one.scores), one.scores, worst)


def percentile(claim: Claim, values: np.ndarray, seed: int = 0) -> float:
    """Where a published number falls among means of as many of our seeds, from 0 to 100.

    It counts those below the number, and half of those equal to it. What was published of one run
    is set among single seeds; of several, among means of so many seeds drawn with replacement. A
    seed that never solves the task does so after all others.
    """
    if claim.kind == "episodes":
        values = np.where(np.isfinite(values), values, np.inf)
    if claim.runs > 1:
        rng = np.random.default_rng(seed)
        values = rng.choice(values, (DRAWS, claim.runs)).mean(axis=1)
    below, equal = np.mean(values < claim.value), np.mean(values == claim.value)
    return float(100 * (below + equal / 2))


def page(kept: Sequence[Kept], missing: Sequence[str], stale: Sequence[str] = ()) -> list[str]:
    """The lines of the page; ``stale`` were trained with settings that they no longer have."""
    lines = [
        "# The atlas: what one run says, told by many",
        "",
        "Made by `python scripts/atlas.py`, from seeds that nothing was tuned on; "
        "scores and curves of all seeds lie in `benchmarks/results/atlas`.",
        "",
        "## Distributions",
        "",
        *markdown([_row(one, kept) for one in kept]),
        "",
        "Seeds that diverge count as the lowest score of their environment. Percentiles are those "
        "of seeds. Fails: "
        + "; ".join(f"{FAILING[env][1]} ({env})" for env in _envs(kept) if env in FAILING)
        + ".",
        "",
        "![Share of seeds at or below each score](atlas.png)",
        "",
    ]
    if missing:
        lines += [f"Not trained yet: {', '.join(f'`{name}`' for name in missing)}.", ""]
    if stale:
        names = ", ".join(f"`{name}`" for name in stale)
        lines += [f"Trained with settings that the preset has no longer: {names}.", ""]
    return [*lines, *_claims(kept), *_winners(kept)]


def _envs(kept: Sequence[Kept]) -> list[str]:
    return list(dict.fromkeys(one.env for one in kept))


def _row(one: Kept, kept: Sequence[Kept]) -> dict[str, object]:
    scores = counted_scores(one, kept)
    found = stats.summarize(scores)
    low, middle, high = np.quantile(scores, (0.05, 0.5, 0.95))
    fails = "n/a"
    if one.env in FAILING:
        fails = f"{100 * np.mean(scores < FAILING[one.env][0]):.1f} %"
    return {
        "preset": f"`{one.name}`",
        "environment": one.env,
        "seeds": len(scores),
        "from": f"{one.seeds.min():,}",
        "IQM": f"{found.iqm:.2f}",
        "95 % interval": found.interval_text(2),
        "mean": f"{found.mean:.2f}",
        "least": f"{found.min:.1f}",
        "5 %": f"{low:.1f}",
        "median": f"{middle:.1f}",
        "95 %": f"{high:.1f}",
        "most": f"{found.max:.1f}",
        "fail": fails,
        "trained again": str(one.facts["verified"]),
    }


def _claims(kept: Sequence[Kept]) -> list[str]:
    rows = []
    for one in kept:
        claim = claim_of(one.name)
        if claim is None:
            continue
        rows.append(
            {
                "preset": f"`{one.name}`",
                "published": claim.text,
                "percentile among ours": f"{percentile(claim, one.compared):.1f}",
                "our median": _median(one.compared),
                "compared with": _words(claim),
            }
        )
    if not rows:
        return []
    return [
        "## Published numbers among our seeds",
        "",
        *markdown(rows),
        "",
        "A percentile near 0 or 100 says that few of our runs, or means of as many of them as the "
        "source had, came out like that.",
        "",
    ]


def _median(values: np.ndarray) -> str:
    late = np.median(np.where(np.isfinite(values), values, np.inf))
    return f"{late:.1f}" if np.isfinite(late) else "never"


def _words(claim: Claim) -> str:
    what = {
        "episodes": "episodes before the first 100 with a mean of 195",
        "training": "the last training return",
        "greedy": "the greedy return",
    }[claim.kind]
    at = "" if claim.step is None else f" at step {claim.step:,}"
    return f"{what}{at}, " + ("of one seed" if claim.runs == 1 else f"mean of {claim.runs} seeds")


def _winners(kept: Sequence[Kept]) -> list[str]:
    rows, tied = [], []
    for i, one in enumerate(kept):
        for other in kept[i + 1 :]:
            if other.env != one.env:
                continue
            a, b = counted_scores(one, kept), counted_scores(other, kept)
            if stats.iqm(a) == stats.iqm(b):
                tied.append(_tie(one, other, a, b))
                continue
            better, worse = (one, other) if stats.iqm(a) >= stats.iqm(b) else (other, one)
            rates = stats.wrong_winner(a, b, SMALL)
            needed = stats.seeds_needed(a, b)
            rows.append(
                {
                    "better": f"`{better.name}`",
                    "worse": f"`{worse.name}`",
                    "difference of IQMs": f"{abs(float(stats.iqm(a) - stats.iqm(b))):.2f}",
                    **{
                        f"{n} seeds": f"{100 * rate:.1f} %"
                        for n, rate in zip(SMALL, rates, strict=True)
                    },
                    "seeds to tell": "over 1,000" if needed is None else f"{needed:,}",
                }
            )
    if not rows:
        return tied
    return [
        "## How often few seeds name the wrong winner",
        "",
        *markdown(rows),
        "",
        "Small studies are drawn from ours with replacement; the winner is the one with the higher "
        "IQM, ties are wrong half of the time. Each preset has its own budget of steps. Seeds to "
        "tell: a side, with a power of 0.8.",
        *(line for text in tied for line in ("", text)),
    ]


def _tie(one: Kept, other: Kept, a: np.ndarray, b: np.ndarray) -> str:
    """What tells apart two presets whose IQMs are equal, and so say nothing."""
    below = max(a.max(), b.max())
    shares = [f"{100 * np.mean(scores < below):.1f} %" for scores in (a, b)]
    return (
        f"`{one.name}` and `{other.name}` tie in the IQM, {stats.iqm(a):.2f}; below it end "
        f"{shares[0]} and {shares[1]} of their seeds."
    )


def picture(kept: Sequence[Kept], path: Path) -> None:
    """Writes the distribution of every preset, a panel an environment, as a PNG."""
    envs = _envs(kept)
    columns = min(3, len(envs))
    rows = -(-len(envs) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * rows), layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, env in zip(panels, envs, strict=False):
        _panel(axes, env, [one for one in kept if one.env == env], kept)
    for axes in panels[len(envs) :]:
        axes.set_axis_off()
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})


def _panel(axes: Axes, env: str, some: Sequence[Kept], kept: Sequence[Kept]) -> None:
    for one, color in zip(some, style.LIGHT, strict=False):
        scores = np.sort(counted_scores(one, kept))
        share = 100 * np.arange(1, len(scores) + 1) / len(scores)
        axes.step(scores, share, where="post", color=color, label=f"{one.name}, {len(scores):,}")
        claim = claim_of(one.name)
        # A number of training, or of an earlier step, is no score.
        if claim is not None and claim.kind == "greedy" and claim.step is None:
            axes.axvline(claim.value, color=color, linestyle=(0, (4, 3)), linewidth=1)
    axes.set_title(env, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("score", fontsize=10)
    axes.set_ylabel("% of seeds at or below", fontsize=10)
    axes.set_ylim(0, 102)
    axes.grid(True, color=style.GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    title = "preset, seeds" + ("; dashed: published" if len(axes.lines) > len(some) else "")
    axes.legend(fontsize=8, frameon=False, loc="best", title=title)
    axes.get_legend().get_title().set_fontsize(8)
