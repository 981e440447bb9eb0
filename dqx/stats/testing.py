"""Whether two algorithms differ and by how much: permutation tests, effect sizes, Holm's rule."""

import functools
import itertools
import math
import statistics
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import MOST_DRAWS, applied_to, public
from dqx.stats.bootstrap import drawn_signs
from dqx.stats.intervals import center_and_error
from dqx.stats.samples import (
    FloatArray,
    NanPolicy,
    Statistic,
    check_pairs,
    finite_of,
    generator,
    iqm,
    ranks_among,
    vector,
)

_BLOCK = 16_000_000  # signs that are drawn at a time
_SMALL = 100_000  # numbers that are sorted at a time: as many as a processor has beside it
# Samples that say how far winsorizing narrows a normal one, of so few seeds that theory does not.
_NORMAL_SAMPLES = 20_000
_THEORY_FROM = 100
# Winsorizing makes some rearrangements equal, among them, where seeds tie, the one that sets all of
# one side apart and others that do not. So much of the plain variance tells them apart.
_TIE_BREAK = 0.01


class Permutation(NamedTuple):
    """What a permutation test found.

    `value` is statistic(x) - statistic(y), or the statistic of the differences where they are
    paired; `p` the two-sided p-value; `exact` whether all rearrangements were tried; `least` the
    smallest p that any data of this size could have given: above 0.05 nothing can be told.
    """

    value: float
    p: float
    exact: bool
    least: float


@public
def permutation_test(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    statistic: Statistic = iqm,
    *,
    paired: bool = False,
    permutations: int = 10_000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> Permutation:
    """Test whether `x` and `y` come from one distribution, by the difference of a statistic.

    Unpaired: all seeds are dealt anew to both sides. Paired: the two scores of a seed change sides.
    Of the IQM and the mean it is the difference in its own standard errors (those of `interval`)
    that is set against the rearrangements: an IQM alone does not see the seeds that it trims, so
    that even sides apart in every seed would look like many others; and errors of their own keep
    the level, with many seeds, where sides differ in spread but not in their IQM.

    All rearrangements are tried where there are at most `permutations`, else as many are drawn, and
    the arrangement at hand counts as one of them, so that p is never 0 and the test keeps its
    level.

    Args:
        x: real numbers [Sx].
        y: real numbers [Sy]; paired: [Sx], seeds in the same order.
        statistic: `iqm`, `np.mean`, or any that is called as `statistic(array, axis=i)`.
        paired: whether entry i of both is the same seed; "drop" then drops whole pairs.
        permutations: how many rearrangements at most.
        seed: of the draws.
        nan: see the package.

    Raises:
        ValueError: as `bootstrap_interval`, and for shapes that do not fit.

    Sources: Good 2005, "Permutation, Parametric and Bootstrap Tests of Hypotheses"; Phipson and
    Smyth 2010, "Permutation p-values should never be zero"; Chung and Romano 2013, "Exact and
    asymptotically robust permutation tests" (the standard errors).
    """
    if not 1 <= permutations <= MOST_DRAWS:
        raise ValueError(
            f"permutations is {permutations}: give at least 1 and at most {MOST_DRAWS:,}; 10000 "
            "suits most"
        )
    rng = generator(seed)
    a, b = vector(x, nan, "x"), vector(y, nan, "y")
    if paired:
        check_pairs(a, b)
        gaps = finite_of(a - b, "x - y")
        total = 2**gaps.size
        exact = total <= permutations
        blocks = _signs(gaps, total if exact else permutations, None if exact else rng)
        found = [_distance(block, None, statistic) for block in blocks]
        here = _distance(gaps[None], None, statistic)
        value = _value(gaps, statistic)
    else:
        a, b = finite_of(a, "x"), finite_of(b, "y")
        total = math.comb(a.size + b.size, a.size)
        exact = total <= permutations
        pool = np.concatenate([a, b])
        orders = _deals(pool.size, a.size, permutations, None if exact else rng)
        found = [
            _distance(pool[order[:, : a.size]], pool[order[:, a.size :]], statistic)
            for order in orders
        ]
        here = _distance(a[None], b[None], statistic)
        value = _value(a, statistic) - _value(b, statistic)
    replicates = np.concatenate(found)
    # Rearrangements that only rounding sets apart are as far as the one at hand, and so are those
    # of which a statistic makes no number.
    far = int((~(replicates < here * (1 - 1e-9))).sum())
    p = far / replicates.size if exact else (far + 1) / (replicates.size + 1)
    least = min(1.0, (2 if paired or a.size == b.size else 1) / total)
    return Permutation(value, p, exact, least)


@public
def cliffs_delta(x: npt.ArrayLike, y: npt.ArrayLike, *, nan: NanPolicy = "raise") -> float:
    """How much more often a seed of `x` beats one of `y` than the other way: -1 to 1.

    It is 2 P(X > Y) - 1 with ties as half; 0.11, 0.28 and 0.43 are called small, medium and large.

    Args:
        x: real numbers [Sx].
        y: real numbers [Sy].
        nan: see the package.

    Raises:
        ValueError: as `iqm`, and where "drop" leaves no seed.

    Sources: Cliff 1993, "Dominance statistics"; Vargha and Delaney 2000 for the words.
    """
    a = finite_of(vector(x, nan, "x"), "x")
    b = finite_of(vector(y, nan, "y"), "y")
    below, upto = ranks_among(a, b)
    return float((below + upto - b.size).sum() / (a.size * b.size))


@public
def robust_effect(x: npt.ArrayLike, y: npt.ArrayLike, *, nan: NanPolicy = "raise") -> float:
    """Difference of IQMs in standard deviations of a seed: Cohen's d for trimmed means.

    The deviation is the pooled one of values winsorized at their quartiles, scaled so that for
    normal values, of few seeds as of many, it estimates what Cohen's d does; 0.2, 0.5 and 0.8 are
    small, medium and large.

    Args:
        x: real numbers [Sx].
        y: real numbers [Sy].
        nan: see the package.

    Returns:
        The effect; 0 where nothing differs, infinite where all middle seeds of both sides agree on
        different values, NaN where both have one seed.

    Raises:
        ValueError: as `iqm`, and where "drop" leaves no seed.

    Source: Algina, Keselman and Penfield 2005, "An alternative to Cohen's standardized mean
    difference effect size".
    """
    sides = [finite_of(vector(side, nan, name), name) for side, name in ((x, "x"), (y, "y"))]
    gap = float(iqm(sides[0]) - iqm(sides[1]))
    squares, free = 0.0, 0
    for side in sides:
        squares += float(_winsorized_squares(side)) / _winsorized_normal(side.size)
        free += side.size - 1
    if free == 0:
        return math.nan
    if gap == 0:
        return 0.0
    return gap / math.sqrt(squares / free) if squares > 0 else math.copysign(math.inf, gap)


def _winsorized_squares(values: FloatArray) -> FloatArray:
    """Squares ``[...]`` around the mean of ``[S, ...]`` winsorized at its quartiles, summed."""
    rising = np.sort(values, axis=0)
    cut = len(rising) // 4
    held = rising.clip(rising[cut], rising[len(rising) - cut - 1])
    return ((held - held.mean(axis=0)) ** 2).sum(axis=0)


@functools.cache
def _winsorized_normal(seeds: int) -> float:
    """What winsorizing leaves of the variance of normal values."""
    cut = seeds // 4
    if not cut:
        return 1.0  # below 4 seeds nothing is winsorized
    if seeds < _THEORY_FROM:
        samples = np.random.default_rng(seeds).normal(size=(seeds, _NORMAL_SAMPLES))
        return float(_winsorized_squares(samples).mean()) / (seeds - 1)
    normal = statistics.NormalDist()
    share = cut / seeds
    end = -normal.inv_cdf(share)
    return 1 - 2 * share - 2 * end * normal.pdf(end) + 2 * share * end**2


@public
def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Adjust p-values of several tests, so that one wrong finding among all is as rare as asked.

    Args:
        p_values: numbers [M] from 0 to 1.

    Returns:
        float64 [M], in the same order: what falls below 0.05 is found at the 5 % level.

    Raises:
        ValueError: numbers that are no probabilities.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p = np.array(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values are {p.tolist()}: give one axis of numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)).clip(max=1.0)
    return adjusted


def _value(values: FloatArray, statistic: Statistic) -> float:
    return float(applied_to(statistic, values[None], 1)[0])


def _distance(left: FloatArray, right: FloatArray | None, statistic: Statistic) -> FloatArray:
    """How far the sides of each row are apart: [B, n] and [B, m], or differences [B, n] -> [B]."""
    sides = [left] if right is None else [left, right]
    if statistic is not iqm and statistic is not np.mean:
        middles = [applied_to(statistic, side, 1) for side in sides]
        gap = np.abs(middles[0] - (middles[1] if len(sides) > 1 else 0.0))
        return np.where(gap > 1e-12 * np.abs(left).max(), gap, 0.0)
    gap, squares = np.zeros(left.shape[0]), np.zeros(left.shape[0])
    for sign, side in zip((1, -1), sides, strict=False):
        rising = np.sort(side, axis=1).T
        if rising.shape[0] < 2:  # the other side's error has to do
            gap += sign * rising[0]
            continue
        middle, error, _ = center_and_error(rising, statistic)
        gap += sign * middle
        spread = np.where(rising[0] == rising[-1], 0.0, rising.var(axis=0, ddof=1))
        squares += error**2 + _TIE_BREAK * spread / rising.shape[0]
    gap = np.where(np.abs(gap) > 1e-12 * max(float(np.abs(s).max()) for s in sides), gap, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap == 0, 0.0, np.abs(gap) / np.sqrt(squares))


def _signs(gaps: FloatArray, count: int, rng: np.random.Generator | None) -> Iterator[FloatArray]:
    """Yield the differences with sides changed, all ways without `rng`: [B, n] at a time."""
    n = gaps.size
    rows, few = max(1, _BLOCK // n), max(1, _SMALL // n)
    for start in range(0, count, rows):
        size = min(rows, count - start)
        if rng is None:
            signs = 1 - 2 * (np.arange(start, start + size)[:, None] >> np.arange(n) & 1)
        else:
            signs = drawn_signs(rng, n, size)
        for first in range(0, size, few):
            yield gaps * signs[first : first + few]


def _deals(
    n: int, first: int, count: int, rng: np.random.Generator | None
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield orders of n seeds whose `first` go to one side, all ways without `rng`: [B, n]."""
    rows = max(1, _SMALL // n)
    if rng is None:
        chosen = np.array(list(itertools.combinations(range(n), first)), np.int64)
        rest = np.ones((len(chosen), n), bool)
        np.put_along_axis(rest, chosen, False, axis=1)
        others = np.nonzero(rest)[1].reshape(len(chosen), n - first)
        yield np.concatenate([chosen, others], axis=1)
        return
    for start in range(0, count, rows):
        yield np.argsort(rng.random((min(rows, count - start), n)), axis=1)
