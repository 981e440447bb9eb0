"""The picture of a search: every candidate with its interval, and what fresh seeds say."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dqx.report import plots, style
from dqx.study.tuning.search import Candidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dqx.study.tuning.results import Tuned

_BLUE, _ORANGE, _GREEN = style.LIGHT[:3]
_GREY = style.GREY
_GAP = 1.5  # candidates' widths between two generations
SIZE = (10.0, 5.0)  # inches


def draw(path: Path, tuned: "Tuned") -> Path:
    """Writes the picture of a finished search as a PNG of 1500 x 750 pixels, whole or not at all.

    Raises:
        OSError: when it cannot be written.
    """
    return plots.write(figure(tuned), path)


def figure(tuned: "Tuned") -> "Figure":
    """Draws candidates over generations on the left, the winner on fresh seeds on the right.

    A candidate stands at its interquartile mean over the seeds that it has seen, with its interval,
    which may reach out of the picture; those that were dropped are faint.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=SIZE, dpi=plots.DPI, layout="constrained", facecolor="white")
    left, right = made.subplots(1, 2, sharey=True, width_ratios=[4, 1.25])
    for axes in (left, right):
        axes.grid(True, axis="y", color=style.GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    count = len(tuned.tune.seeds)
    trained = sum(bool(one.history) for one in tuned.candidates)
    entries = _candidates(left, tuned)
    _fresh(right, tuned)
    left.set_title(
        f"{tuned.tune.name}: {trained} candidates on {tuned.tune.rungs[0]} to {count} seeds",
        loc="left", fontsize=11.5, fontweight="bold", parse_math=False,
    )  # fmt: skip
    right.set_title(
        f"{len(tuned.tune.fresh)} fresh seeds", loc="left", fontsize=11.5, fontweight="bold"
    )
    left.set_xlabel(
        textwrap.fill(f"winner: {tuned.winner.name}", 88), fontsize=9.5, parse_math=False
    )
    left.set_ylabel(
        f"IQM of the scores, {100 * tuned.tune.level:g} % interval", fontsize=11, parse_math=False
    )
    left.set_ylim(_limits(tuned))
    legend = made.legend(
        *zip(*entries, strict=True), loc="outside lower center", ncols=len(entries),
        frameon=False, fontsize=10,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return made


def _candidates(axes: "Axes", tuned: "Tuned") -> list[tuple[Any, str]]:
    """One marker with its interval a candidate; the entries of the legend."""
    places = {
        one.number: one.number + _GAP * one.generation for one in tuned.candidates if one.history
    }
    kinds: dict[str, list[Candidate]] = {"dropped": [], "finished": [], "winner": []}
    for one in tuned.candidates:
        if one.history:
            kind = "winner" if one is tuned.winner else one.state
            kinds[kind].append(one)
    looks = {
        "dropped": ("dropped, on the seeds that it had", _GREY, "o", 4.0, 0.45, 2),
        "finished": (f"trained on all {len(tuned.tune.seeds)} seeds", _BLUE, "o", 5.0, 0.9, 3),
        "winner": ("the winner, on the seeds that chose it", _ORANGE, "D", 7.5, 1.0, 4),
    }
    entries = []
    for kind, (words, color, marker, size, alpha, order) in looks.items():
        if kinds[kind]:
            found = np.array([_numbers(one) for one in kinds[kind]])
            handle = _bars(axes, [places[one.number] for one in kinds[kind]], found, color, marker,
                           size, alpha, order)  # fmt: skip
            entries.append((handle, words))
    middles = []
    for generation in range(tuned.tune.generations):
        of = [one.number for one in tuned.candidates if one.generation == generation]
        middles.append((of[0] + of[-1]) / 2 + _GAP * generation)
        if generation:
            axes.axvline(of[0] + _GAP * generation - (1 + _GAP) / 2, color="#d0d0d0", linewidth=1)
    words = "generation " if len(middles) <= 6 else ""
    names = [f"{words if number else 'generation '}{number + 1}" for number in range(len(middles))]
    axes.set_xticks(middles, names)
    axes.tick_params(axis="x", length=0)
    return entries


def _numbers(one: Candidate) -> tuple[float, float, float]:
    last = one.history[-1]
    return last.value, last.low, last.high


def _bars(
    axes: "Axes",
    x: Any,
    found: np.ndarray,
    color: str,
    marker: str,
    size: float,
    alpha: float,
    order: float,
) -> Any:
    """Markers with intervals ``[n, 3]``: value, low, high; an unbounded one has none."""
    value, low, high = found.T
    known = np.isfinite(low) & np.isfinite(high)
    reach = np.where(known, [value - low, high - value], 0.0).clip(0)
    axes.errorbar(
        x, value, yerr=reach, fmt="none", ecolor=color, elinewidth=1.3, alpha=0.55 * alpha,
        zorder=order,
    )  # fmt: skip
    (handle,) = axes.plot(
        x, value, linestyle="", marker=marker, markersize=size, color=color, alpha=alpha,
        markeredgecolor="white", markeredgewidth=0.5, zorder=order + 0.1,
    )  # fmt: skip
    return handle


def _fresh(axes: "Axes", tuned: "Tuned") -> None:
    """The winner on the seeds of the search beside the winner on fresh seeds."""
    scores = tuned.fresh_scores[np.isfinite(tuned.fresh_scores)]
    spread = np.random.default_rng(0).uniform(-0.22, 0.22, scores.size)  # so that equals are seen
    axes.plot(1 + spread, scores, ".", color=_GREY, alpha=0.5, markersize=5, zorder=2)
    shown = [(0, tuned.search_value, _ORANGE, "D"), (1, tuned.score, _GREEN, "s")]
    for x, estimate, color, marker in shown:
        _bars(axes, [x], np.array([estimate]), color, marker, 8, 1.0, 4)
    axes.plot(
        [0, 1], [tuned.search_value.value, tuned.score.value], color=_GREY, linewidth=1,
        linestyle=(0, (4, 3)), zorder=3,
    )  # fmt: skip
    axes.set_xticks([0, 1], ["search", "fresh"])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, 1.6)
    axes.set_xlabel(
        f"score {tuned.score.value:.1f}, optimism {tuned.optimism.value:+.1f}", fontsize=10
    )


def _limits(tuned: "Tuned") -> tuple[float, float]:
    """The range of all scores, a little more on both sides: intervals may reach further."""
    scores = [score for one in tuned.candidates for score in one.scores]
    every = np.array([*scores, *tuned.fresh_scores])
    every = every[np.isfinite(every)]
    low, high = float(every.min()), float(every.max())
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad
