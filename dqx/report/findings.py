"""What a report shows, as arrays: comparable configurations, and what follows from them."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dqx.report import numbers
from dqx.report.cases import Case
from dqx.report.numbers import Center
from dqx.settings import show

LABELS = {
    "exact_return": "exact greedy return over all starts",
    "eval_return": "greedy return",
    "episode_return": "return of training episodes",
}
# What goes on inside training, in the order of panels; other metrics follow by their names.
PANELS = {
    "loss": "loss",
    "q_mean": "Q of actions taken, mean of the batch",
    "q_max": "largest Q of the batch",
    "td_error_abs": "size of the TD error",
    "grad_norm": "norm of the gradient",
    "weight_norm": "norm of the weights",
    "epsilon": "epsilon",
    "eval_q_max": "mean of the largest Q of fixed states",
    "eval_length": "steps of greedy episodes",
    "episode_length": "steps of training episodes",
    "regret": "regret",
    "optimal_share": "share of optimal actions",
    "q_error": "max |Q - Q*|",
    "overestimation": "largest Q of first states less what follows",
    "dormant_units": "share of dormant units",
    "dead_units": "share of units that are always 0",
    "effective_rank": "effective rank of the features",
    "replay_age": "age of sampled transitions (steps)",
    "target_distance": "distance of the target network",
}
# Values of a varied field that stand apart; numbers beyond that are put together in bins.
_MAX_VALUES = 10
_BINS = 5
# Fields whose pairs make a heat map.
_MAX_FIELDS = 6
_MOST_SETS = 100  # of values that meet, which are tried
_THRESHOLDS = (0.5, 0.75, 0.9, 1.0)
_PROFILE_POINTS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Configurations whose scores can be compared: one environment, one kind of score.

    Attributes:
        env: name of the environment.
        metric: that runs are judged by.
        cases: those with a finished run.
        waiting: labels of those without.
        worst: the lowest number of any run and step, which counts where a run has none; NaN if no
            run has any.
        scores: of each case, finite float64 ``[S]``.
        curves: of each case, float64 ``[S, K]``; NaN only where no training episode ended.
        lost: of each case, how many scores count as the worst.
        centers: of each case.
    """

    env: str
    metric: str
    cases: tuple[Case, ...]
    waiting: tuple[str, ...]
    worst: float
    scores: tuple[np.ndarray, ...]
    curves: tuple[np.ndarray, ...]
    lost: tuple[int, ...]
    centers: tuple[Center, ...]

    @property
    def label(self) -> str:
        """What the scores are."""
        return LABELS[self.metric]

    @property
    def ranking(self) -> list[int]:
        """Places of the cases, the best IQM first."""
        return sorted(range(len(self.cases)), key=lambda i: -self.centers[i].iqm)


def groups(cases: Sequence[Case]) -> list[Group]:
    """Puts together what can be compared, in the order of the plan."""
    keys = dict.fromkeys((case.env, case.metric) for case in cases)
    return [_group(key, [c for c in cases if (c.env, c.metric) == key]) for key in keys]


def _group(key: tuple[str, str], cases: Sequence[Case]) -> Group:
    present = [case for case in cases if len(case.seeds)]
    known = [values[np.isfinite(values)] for c in present for values in (c.scores, c.curves)]
    worst = min((float(values.min()) for values in known if values.size), default=float("nan"))
    if np.isnan(worst):
        present = []
    scores = [np.where(np.isfinite(case.scores), case.scores, worst) for case in present]
    return Group(
        env=key[0],
        metric=key[1],
        cases=tuple(present),
        waiting=tuple(case.label for case in cases if case not in present),
        worst=worst,
        scores=tuple(scores),
        curves=tuple(_counted(case, worst) for case in present),
        lost=tuple(int((~np.isfinite(case.scores)).sum()) for case in present),
        centers=tuple(numbers.center(values) for values in scores),
    )


def _counted(case: Case, worst: float) -> np.ndarray:
    """The curves of a case, with the worst where a diverged run has no number."""
    missing = ~np.isfinite(case.curves)
    if case.metric == "episode_return":
        # An interval without the end of an episode has no number either, and is no fault.
        at = case.diverged_at[:, None]
        missing &= (at >= 0) & (case.steps >= at)
    kept = np.where(np.isfinite(case.curves), case.curves, np.nan)
    return np.where(missing, worst, kept)


def thinned(count: int, most: int) -> np.ndarray:
    """Places of at most ``most`` of ``count`` points, evenly, the first and the last among them."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def panels(group: Group, places: Sequence[int]) -> dict[str, str]:
    """The metrics of panels, with their names in words."""
    there = dict.fromkeys(name for i in places for name in group.cases[i].panels)
    known = {name: words for name, words in PANELS.items() if name in there}
    return known | {name: name.replace("_", " ") for name in there if name not in known}


class Extremes(NamedTuple):
    """Places of three seeds by their scores; of equal ones the first, of the worst the last."""

    best: int
    median: int
    worst: int


def extremes(scores: np.ndarray) -> Extremes:
    """The best, the upper median and the worst of scores ``[S]``.

    `dqx play` picks the same, but passes over seeds that diverged, which cannot be played.
    """
    falling = np.argsort(-scores, kind="stable")
    return Extremes(int(falling[0]), int(falling[(len(scores) - 1) // 2]), int(falling[-1]))


class Profiles(NamedTuple):
    """Performance profiles: thresholds ``[T]``, and share, low and high of each case ``[3, T]``."""

    thresholds: np.ndarray
    shares: list[np.ndarray]


def profiles(group: Group, places: Sequence[int]) -> Profiles:
    """The share of seeds above each score between the lowest and the highest."""
    values = np.concatenate([group.scores[i] for i in places])
    low, high = float(values.min()), float(values.max())
    pad = 0.02 * (high - low) or 0.02 * abs(high) or 1.0
    thresholds = np.linspace(low - pad, high, _PROFILE_POINTS)
    return Profiles(
        thresholds, [np.stack(numbers.profile(group.scores[i], thresholds)) for i in places]
    )


def improvements(group: Group, places: Sequence[int]) -> np.ndarray:
    """How likely a seed of one case beats one of another: ``[n, n, 3]`` value, low and high.

    Row over column; NaN on the diagonal.
    """
    found = np.full((len(places), len(places), 3), np.nan)
    for a, b in itertools.combinations(range(len(places)), 2):
        estimate = numbers.improvement(group.scores[places[a]], group.scores[places[b]])
        found[a, b] = estimate
        found[b, a] = 1 - np.array(estimate)[[0, 2, 1]]
    return found


class Threshold(NamedTuple):
    """When seeds first reach a score, of each case."""

    score: float
    cases: list[numbers.Reaching]


def thresholds(group: Group, places: Sequence[int]) -> list[Threshold]:
    """Steps to scores between where curves begin and the best that an IQM gets to."""
    curves = [group.curves[i] for i in places]
    middles = [numbers.stats.iqm(rows, nan="drop") for rows in curves]
    middles = [middle[np.isfinite(middle)] for middle in middles]
    known = [middle for middle in middles if middle.size]
    if not known:
        return []
    low, high = min(m[0] for m in known), max(m.max() for m in known)
    between = dict.fromkeys(float(f"{low + share * (high - low):.3g}") for share in _THRESHOLDS)
    return [
        Threshold(
            score,
            [
                numbers.reaching(group.cases[i].steps, rows, score, group.cases[i].total_steps)
                for i, rows in zip(places, curves, strict=True)
            ],
        )
        for score in between
        if low < score <= high
    ]


# --- Varied fields of one study.


class Level(NamedTuple):
    """One value of a varied field, or a bin of values.

    Attributes:
        name: the value as text.
        center: of the scores of its configurations, averaged seed by seed first.
        configs: how many these are.
    """

    name: str
    center: Center
    configs: int


class Effect(NamedTuple):
    """What a varied field does, the other varied fields averaged over.

    Attributes:
        field: its name.
        binned: whether its values are put together in bins.
        levels: its values or bins.
        left_out: configurations that are not averaged, since not every value is there with their
            settings of the other fields.
        matched: whether each value is averaged over the same settings of the others; else over
            whatever they were set to or drawn.
    """

    field: str
    binned: bool
    levels: list[Level]
    left_out: int
    matched: bool


class Cells(NamedTuple):
    """Two varied fields together: ``cells[i][j]`` of value i of the first and j of the second.

    Attributes:
        fields: their names.
        names: their values.
        cells: of configurations that have both.
        left_out: as of `Effect`.
        matched: as of `Effect`.
    """

    fields: tuple[str, str]
    names: tuple[list[str], list[str]]
    cells: list[list[Center]]
    left_out: int
    matched: bool


def effects(group: Group, study: int) -> list[Effect]:
    """The marginal effect of each varied field of a study."""
    places = [i for i, case in enumerate(group.cases) if case.study == study]
    found, fields = [], _fields(group, places)
    for field in fields:
        parts, binned = _levels([group.cases[i].varied[field] for i in places])
        level_of = {places[k]: name for name, members in parts.items() for k in members}
        # Bins are of values that were drawn, which meet others' by chance.
        kept, matched = (
            (places, len(fields) == 1) if binned else _matched(group, level_of, (field,))
        )
        levels = [
            Level(name, _pooled(group, members), len(members))
            for name in parts
            for members in [[i for i in kept if level_of[i] == name]]
            if members
        ]
        if len(levels) > 1:
            found.append(Effect(field, binned, levels, len(places) - len(kept), matched))
    return found


def heat_maps(group: Group, study: int) -> list[Cells]:
    """Every pair of varied fields with few values, other fields averaged over."""
    places = [i for i, case in enumerate(group.cases) if case.study == study]
    found = []
    for pair in itertools.combinations(_fields(group, places)[:_MAX_FIELDS], 2):
        one, two = (_levels([group.cases[i].varied[field] for i in places]) for field in pair)
        if one[1] or two[1] or min(len(one[0]), len(two[0])) < 2:
            continue
        cell_of = {
            places[k]: (a, b)
            for a, rows in one[0].items()
            for b, columns in two[0].items()
            for k in rows
            if k in columns
        }
        kept, matched = _matched(group, cell_of, pair)
        cells = [
            [_pooled(group, [i for i in kept if cell_of[i] == (a, b)]) for b in two[0]]
            for a in one[0]
        ]
        names = (list(one[0]), list(two[0]))
        found.append(Cells(pair, names, cells, len(places) - len(kept), matched))
    return found


def _matched(group: Group, levels: dict[int, Any], fields: Sequence[str]) -> tuple[list[int], bool]:
    """The places that are averaged, and whether each level meets the same settings of the others.

    A case beside a grid differs from its points in several fields at once. So levels are averaged
    over settings of the other fields in which all of them are there: those levels and settings that
    hold most places. Where there are none, as of values that are drawn, all places count.
    """
    varied = {place: group.cases[place].varied for place in levels}
    # What is set in some only has no meaning for the rest.
    others = [
        name
        for name in dict.fromkeys(name for one in varied.values() for name in one)
        if name not in fields and all(one.get(name) is not None for one in varied.values())
    ]
    around = {p: tuple(show(one[name]) for name in others) for p, one in varied.items()}
    settings: dict[tuple[str, ...], set[Any]] = {}
    for place, level in levels.items():
        settings.setdefault(around[place], set()).add(level)
    met = collections.Counter(frozenset(found) for found in settings.values() if len(found) > 1)
    if not met:
        return sorted(levels), False

    def held(some: frozenset[Any]) -> int:
        return len(some) * sum(count for found, count in met.items() if some <= found)

    best = max((found for found, _ in met.most_common(_MOST_SETS)), key=lambda f: (held(f), len(f)))
    kept = [p for p, level in levels.items() if level in best and best <= settings[around[p]]]
    return sorted(kept), True


def _fields(group: Group, places: Sequence[int]) -> list[str]:
    """The fields that differ among these configurations, and are set in all of them."""
    rows = [group.cases[i].varied for i in places]
    names = dict.fromkeys(name for row in rows for name in row)
    return [
        name
        for name in names
        if len({show(row.get(name)) for row in rows}) > 1
        and all(row.get(name) is not None for row in rows)
    ]


def _levels(values: Sequence[Any]) -> tuple[dict[str, list[int]], bool]:
    """Places of equal values by their text, rising; of many numbers, by bins of equal counts."""
    is_number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    order: Callable[[Any], Any] = float if is_number else show
    different = {show(value): value for value in sorted(values, key=order)}
    if not is_number or len(different) <= _MAX_VALUES:
        texts = [show(value) for value in values]
        return {name: [i for i, t in enumerate(texts) if t == name] for name in different}, False
    numbers_of = np.array(values, float)
    rising = np.sort(numbers_of)
    # Equal values stay together, in the bin of the first of them.
    first = np.searchsorted(rising, numbers_of)
    ends = np.cumsum([part.size for part in np.array_split(rising, _BINS)])
    of = np.searchsorted(ends, first, side="right")
    parts = [np.flatnonzero(of == i).tolist() for i in range(_BINS) if (of == i).any()]
    for digits in range(3, 18):  # as many as tell the bins apart
        named = {_span(numbers_of[part], digits): part for part in parts}
        if len(named) == len(parts):
            break
    return named, True


def _span(values: np.ndarray, digits: int) -> str:
    low, high = f"{values.min():.{digits}g}", f"{values.max():.{digits}g}"
    return low if low == high else f"{low} to {high}"


def _pooled(group: Group, places: Sequence[int]) -> Center:
    """The score of several configurations: averaged over them for every seed that all have."""
    if not places:
        return numbers.center(np.zeros(0))
    tables = [
        dict(zip(group.cases[i].seeds.tolist(), group.scores[i], strict=True)) for i in places
    ]
    common = [seed for seed in tables[0] if all(seed in table for table in tables)]
    return numbers.center(np.array([np.mean([t[seed] for t in tables]) for seed in common]))
