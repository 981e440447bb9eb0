"""What is kept of the studies that compare variants, and its tables and picture.

`scripts/compare_variants.py` trains them. One file a game and variant holds the settings, and the
scores and thinned curves of all seeds; everything here is made from these files alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kept import MOST_POINTS, read_table, settings_of, write_table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import dqx.study
from dqx import stats
from dqx.compute.score import score_metric
from dqx.files import whole_file
from dqx.report import findings, numbers, style
from dqx.report.cases import Case
from dqx.report.compare import p_words
from dqx.report.findings import Group
from dqx.report.pairs import ERROR, pairs_can_tell, sign_told
from dqx.report.terminal import markdown
from dqx.settings import evaluates_at, show

PLAIN = "plain"
_KIND = "variants"

Ends = Mapping[str, tuple[float, float] | None]


class Kept(NamedTuple):
    """What is kept of one variant on one game.

    Attributes:
        name: ``GAME/VARIANT``.
        facts: environment, metric, steps in all, settings, and what the bits hang on.
        seeds: ``[S]``.
        steps: ``[K]``.
        curves: ``[S, K]``, NaN where a seed has diverged; the last column is the scores.
    """

    name: str
    facts: dict[str, Any]
    seeds: np.ndarray
    steps: np.ndarray
    curves: np.ndarray

    @property
    def game(self) -> str:
        """Its game."""
        return self.name.partition("/")[0]


def keep(study: dqx.study.Study, folder: Path) -> None:
    """Writes the thinned curves of a finished study, whose last points are its scores."""
    (name,) = study.configs
    config, hyper = study.point(name)
    metric = score_metric(config)
    values = study.to_arrays(metric)[0]
    measured = np.flatnonzero([evaluates_at(config, int(step)) for step in study.steps])
    places = measured[findings.thinned(measured.size, MOST_POINTS)]
    curves = values[:, places].astype(np.float32)
    curves[:, -1] = study.scores(name)
    facts = {
        "name": name,
        "env": config.env,
        "metric": metric,
        "total_steps": config.total_steps,
        "settings": settings_of(config, hyper),
        "identity": study.plan["identity"],
    }
    columns = {
        "seed": np.repeat(np.array(study.seeds, np.int32), places.size),
        "step": np.tile(study.steps[places].astype(np.int32), len(study.seeds)),
        "value": curves.ravel(),
    }
    write_table(folder / f"{name.replace('/', '-')}.parquet", columns, _KIND, facts)


def kept_in(folder: Path) -> dict[str, Kept]:
    """All variants that a folder holds, by name.

    Raises:
        ConfigError: if a file there is none of these.
    """
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        table, facts = read_table(path, _KIND, "holds no variant")
        seed, step, value = (table.column(name).to_numpy() for name in ("seed", "step", "value"))
        seeds = seed[step == step[0]]
        curves = value.reshape(len(seeds), -1).astype(float)
        one = Kept(facts["name"], facts, seeds, step[: curves.shape[1]], curves)
        found[one.name] = one
    return found


def groups(kept: Sequence[Kept]) -> list[Group]:
    """The games, each with its variants in the order given."""
    return [group for group in findings.groups([_case(one) for one in kept]) if group.cases]


def _case(one: Kept) -> Case:
    """A case that has what tables and picture read."""
    return Case(
        label=one.name,
        study=0,
        name=one.name,
        env=one.facts["env"],
        metric=one.facts["metric"],
        planned=one.seeds.size,
        total_steps=one.facts["total_steps"],
        varied={},
        seeds=one.seeds.astype(np.int64),
        diverged_at=np.where(np.isfinite(one.curves[:, -1]), -1, 0),
        scores=one.curves[:, -1],
        steps=one.steps.astype(np.int64),
        curves=one.curves,
        rows=np.zeros(0, np.int64),
        panels={},
        episode_steps=np.zeros(0),
        episodes=np.zeros((one.seeds.size, 0)),
    )


def game_of(group: Group) -> str:
    """The name of a group's game."""
    return group.cases[0].name.partition("/")[0]


def _variant(name: str) -> str:
    return name.partition("/")[2]


def _scores(group: Group) -> list[tuple[str, np.ndarray]]:
    return [(c.name, values) for c, values in zip(group.cases, group.scores, strict=True)]


def page(kept: Sequence[Kept], ends: Ends, against: str = PLAIN) -> list[str]:
    """The lines of all tables; those of games compare with the variant ``against``."""
    lines, found = [], groups(kept)
    for group in found:
        lines += [f"## {game_of(group)}", "", *sentences(group, against), ""]
        lines += [*markdown(table(group, against)), ""]
        lines += changes([one for one in kept if one.game == game_of(group)])
    everywhere = over_games(found, ends)
    if everywhere:
        names = [game_of(group) for group in found if ends[game_of(group)] is not None]
        lines += [f"## Over {', '.join(names)}", "", *_scales(names, ends), ""]
        lines += [*markdown(everywhere), ""]
    return lines


def changes(kept: Sequence[Kept]) -> list[str]:
    """What each variant of a game has set otherwise than plain; nothing where plain is missing."""
    of = {_variant(one.name): one.facts["settings"] for one in kept}
    if PLAIN not in of or len(of) == 1:
        return []
    lines = [f"Set otherwise than in `{PLAIN}`:", ""]
    for name, settings in of.items():
        names = dict.fromkeys([*settings, *of[PLAIN]])
        texts = [
            f"{field}={settings.get(field, 'its default')}"
            for field in names
            if settings.get(field) != of[PLAIN].get(field)
        ]
        lines += [f"- `{name}`: {', '.join(texts)}"] if name != PLAIN else []
    return [*lines, ""]


def sentences(group: Group, against: str = PLAIN) -> list[str]:
    """What the table of a game shows."""
    counts = sorted({case.total_steps for case in group.cases})
    seeds = sorted({(case.seeds.size, int(case.seeds.min())) for case in group.cases})
    return [
        f"{group.env}: {group.label} after {' or '.join(f'{n:,}' for n in counts)} steps, "
        f"{' or '.join(f'{n} seeds from {first:,} on' for n, first in seeds)}. "
        f"P(> {against}): how likely a seed beats one of {against}; p: of the difference, seed by "
        "seed where both have the same seeds, after Holm's correction; the verdict is that of p "
        "and of the difference's interval. While learning: IQM of the mean of each seed's "
        "evaluations."
    ]


def table(group: Group, against: str = PLAIN) -> list[dict[str, object]]:
    """The rows of a game, the best IQM first.

    A seed without a finite score counts as the worst number that is kept of any seed and step.
    """
    names = [_variant(case.name) for case in group.cases]
    base = names.index(against) if against in names else None
    others = [] if base is None else [i for i in range(len(names)) if i != base]
    differences = {i: _against(group, i, base) for i in others}
    tests = [found.p for found in differences.values()]
    corrected = dict(zip(others, stats.holm(tests).tolist() if tests else [], strict=True))
    rows: list[dict[str, object]] = []
    for i in group.ranking:
        center, scores = group.centers[i], group.scores[i]
        row: dict[str, object] = {
            "variant": names[i],
            "IQM": f"{center.iqm:.2f}",
            "95 % interval": center.note or f"{center.low:.2f} to {center.high:.2f}",
            "mean": f"{scores.mean():.2f}",
            "least": f"{scores.min():.2f}",
            "while learning": f"{stats.iqm(group.curves[i].mean(axis=1)):.2f}",
            f"P(> {against})": "",
            "p": "",
            "verdict": "",
        }
        if i in corrected:
            gap, p = differences[i].gap, corrected[i]
            row[f"P(> {against})"] = _words(numbers.improvement(scores, group.scores[base]))
            row["p"] = p_words(p).removeprefix("= ")
            row["verdict"] = {1: "better", -1: "worse", 0: "cannot tell"}[sign_told(gap, p)]
        rows.append(row)
    return rows


class _Against(NamedTuple):
    """How far a variant lies above another, and the p of a permutation test of that."""

    gap: stats.Estimate
    p: float


def _against(group: Group, i: int, base: int) -> _Against:
    """Paired by seed, as `dqx compare` does, if both have the same and these can tell."""
    x, y = group.scores[i], group.scores[base]
    same = np.array_equal(group.cases[i].seeds, group.cases[base].seeds)
    paired = same and pairs_can_tell(x.size, len(group.cases) - 1)
    test = stats.permutation_test(x, y, paired=paired)
    return _Against(stats.difference(x, y, paired=paired, level=1 - ERROR), float(test.p))


def _words(estimate: stats.Estimate) -> str:
    value, low, high = (float(number) for number in estimate)
    return f"{value:.2f} ({low:.2f} to {high:.2f})" if np.isfinite(low) else f"{value:.2f}"


def normalised(found: Sequence[Group], ends: Ends) -> dict[str, np.ndarray]:
    """Scores ``[S, T]`` of the variants that all games with known ends have, 1 at the best."""
    scores: dict[str, list[np.ndarray]] = {}
    known = [group for group in found if ends[game_of(group)] is not None]
    for group in known:
        low, high = ends[game_of(group)] or (np.nan, np.nan)
        for name, values in _scores(group):
            scores.setdefault(_variant(name), []).append(stats.normalize(values, low, high))
    return {
        name: np.stack(columns, axis=1)
        for name, columns in scores.items()
        if len(columns) == len(known) and len({column.size for column in columns}) == 1
    }


def over_games(found: Sequence[Group], ends: Ends) -> list[dict[str, object]]:
    """The rows over all games with known ends, the best IQM first; none of a single game."""
    scores = normalised(found, ends)
    if PLAIN not in scores or scores[PLAIN].shape[1] < 2:
        return []
    estimates = stats.get_interval_estimates(scores, stats.aggregate_iqm)
    iqms = {name: float(value[0]) for name, value in estimates.point_estimates.items()}
    rows: list[dict[str, object]] = []
    for name in sorted(iqms, key=lambda name: -iqms[name]):
        low, high = estimates.interval_estimates[name][:, 0]
        better = stats.improvement_over_tasks(scores[name], scores[PLAIN])
        rows.append(
            {
                "variant": name,
                "normalised IQM": f"{iqms[name]:.3f}",
                "95 % interval": f"{low:.3f} to {high:.3f}",
                "P(> plain)": "" if name == PLAIN else _words(better),
            }
        )
    return rows


def _scales(games: Sequence[str], ends: Ends) -> list[str]:
    texts = (f"{name} {show(a)} to {show(b)}" for name in games for a, b in [ends[name] or ()])
    return [f"Scores normalised: {', '.join(texts)}; intervals resample the seeds of each game."]


def picture(found: Sequence[Group], path: Path, against: str = PLAIN) -> None:
    """Writes IQMs with their intervals and every seed, a panel a game, as a PNG; one is marked."""
    most = max(len(group.cases) for group in found)
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    size = (4.4 * columns, (0.9 + 0.24 * most) * rows)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, group in zip(panels, found, strict=False):
        _panel(axes, group, against)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})


def _panel(axes: Axes, group: Group, against: str) -> None:
    order = group.ranking[::-1]  # the best on top
    for height, i in enumerate(order):
        center, scores = group.centers[i], group.scores[i]
        color = style.RED if _variant(group.cases[i].name) == against else style.BLUE
        axes.plot(scores, np.full(scores.size, height), ".", color=color, alpha=0.25, markersize=4)
        if np.isfinite(center.low):
            axes.plot([center.low, center.high], [height, height], color=color, linewidth=2)
        axes.plot(center.iqm, height, "o", color=color, markersize=5)
        if _variant(group.cases[i].name) == against:
            axes.axvline(center.iqm, color=color, linestyle=(0, (4, 3)), linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(order)), [_variant(group.cases[i].name) for i in order], fontsize=9)
    axes.set_title(game_of(group), loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(group.label, fontsize=10)
    axes.grid(True, axis="x", color=style.GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
