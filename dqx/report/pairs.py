"""Two configurations side by side: how far apart they lie, and whether their seeds can tell."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dqx import stats
from dqx.report import numbers
from dqx.report.findings import Group
from dqx.study.results import Study

ERROR = 1 - numbers.LEVEL  # of all pairs of an environment together
POWER = 0.8
MOST_SEEDS = 1000  # that a plan looks for
_RESAMPLES = 1000  # of a plan
_PERMUTATIONS = 10_000  # of a test at least
_MOST_WORK = 1_000_000_000  # seeds that are rearranged for all pairs, beyond that


class Pair(NamedTuple):
    """What is known of two configurations, by their places in the group.

    Attributes:
        a: the one with the higher IQM.
        b: the other.
        shared: seeds that both have, if the difference is paired by them; else 0.
        gap: how far `a` lies above `b`, and its interval.
        improvement: P(a seed of `a` beats one of `b`), and its interval.
        delta: Cliff's.
        effect: difference of IQMs in standard deviations of a seed.
        p: of the permutation test.
        holm: the same, corrected for all pairs of the environment.
        least: the smallest p that so few seeds could give.
        needed: seeds a side that would tell such a difference; None above `MOST_SEEDS`.
        better: 1 if `a` is better, -1 if `b` is, 0 if these seeds cannot tell.
    """

    a: int
    b: int
    shared: int
    gap: stats.Estimate
    improvement: stats.Estimate
    delta: float
    effect: float
    p: float
    holm: float
    least: float
    needed: int | None
    better: int


def measured(
    group: Group, studies: Sequence[Study], a: int, b: int, pairs: int, permutations: int
) -> Pair:
    """What the seeds of two places say, before the correction for all ``pairs``."""
    x, y = group.scores[a], group.scores[b]
    shared = _shared(group, studies, a, b, pairs)
    if len(shared):
        left, right = (_of_seeds(group, place, shared) for place in (a, b))
    else:
        left, right = x, y
    paired = bool(len(shared))
    test = stats.permutation_test(left, right, paired=paired, permutations=permutations)
    needed = None
    if min(left.size, right.size) >= 2:
        needed = stats.seeds_needed(
            left, right, POWER, level=1 - ERROR / pairs, paired=paired, most=MOST_SEEDS,
            resamples=_RESAMPLES,
        )  # fmt: skip
    return Pair(
        a=a,
        b=b,
        shared=len(shared),
        gap=stats.difference(left, right, paired=paired, level=numbers.LEVEL),
        improvement=numbers.improvement(x, y),
        delta=stats.cliffs_delta(x, y),
        effect=stats.robust_effect(x, y),
        p=test.p,
        holm=math.nan,
        least=test.least,
        needed=needed,
        better=0,
    )


def _shared(group: Group, studies: Sequence[Study], a: int, b: int, pairs: int) -> np.ndarray:
    """Seeds that both have; none where they share too few, or their draws have other roots.

    Too few are also those whose signs alone could never tell, after the correction for all pairs,
    however far apart they lie: rearranged freely, as few seeds often can.
    """
    one, two = group.cases[a], group.cases[b]
    roots = {studies[case.study].plan["root_seed"] for case in (one, two)}
    both = np.intersect1d(one.seeds, two.seeds)
    fewest = min(one.seeds.size, two.seeds.size)
    enough = both.size >= fewest / 2 and pairs_can_tell(both.size, pairs)
    return both if len(roots) == 1 and enough else both[:0]


def pairs_can_tell(seeds: int, pairs: int) -> bool:
    """Whether signs of so many shared seeds can tell, corrected for all pairs of configurations."""
    return 2.0 ** (1 - seeds) * pairs <= ERROR


def permutations_for(pairs: int, looked_at: int, seeds: int) -> int:
    """So many that the least p can tell after the correction, as far as that takes moments."""
    most = max(_PERMUTATIONS, _MOST_WORK // max(looked_at * seeds, 1))
    return int(np.clip(2 * pairs / ERROR, _PERMUTATIONS, most))


def _of_seeds(group: Group, place: int, seeds: np.ndarray) -> np.ndarray:
    known = dict(zip(group.cases[place].seeds.tolist(), group.scores[place], strict=True))
    return np.array([known[seed] for seed in seeds.tolist()])


def decided(group: Group, pair: Pair) -> Pair:
    """Who is better, if the corrected test and the interval both say so.

    Where middle seeds agree there is no interval, and the test decides; a single seed tells
    nothing.
    """
    fewest = min(group.scores[place].size for place in (pair.a, pair.b))
    return pair._replace(better=sign_told(pair.gap, pair.holm) if fewest >= 2 else 0)


def sign_told(gap: stats.Estimate, p: float) -> int:
    """The sign of a difference where its corrected p and its interval tell it, else 0.

    Where there is no interval, p tells.
    """
    value, low, high = (float(number) for number in gap)
    beyond = math.isnan(low) or low > 0 or high < 0
    return int(np.sign(value)) if p <= ERROR and beyond else 0
