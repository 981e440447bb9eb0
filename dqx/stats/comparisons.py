"""Two algorithms side by side: differences, how often one beats the other, profiles."""

import math

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import public
from dqx.stats.bootstrap import drawn_counts, percentiles, resampled
from dqx.stats.intervals import (
    ends,
    normal_quantile,
    scale_of,
    wilson_ends,
    without_width,
)
from dqx.stats.samples import (
    Estimate,
    FloatArray,
    Interval,
    NanPolicy,
    Statistic,
    applied,
    check_level,
    check_pairs,
    check_resamples,
    clean,
    finite_of,
    generator,
    iqm,
    ranks_among,
    vector,
)
from dqx.stats.tasks import improvement_over_tasks


@public
def difference(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    statistic: Statistic = iqm,
    *,
    paired: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> Estimate:
    """How far `x` lies above `y`, with its interval.

    Unpaired: statistic(x) - statistic(y). Paired: the statistic of the differences seed by seed,
    which is narrower where a seed's luck is shared (initial weights, initial states). For the mean
    both estimate the same quantity, for the IQM they do not.

    The interval of the IQM and of the mean is that of `interval`: paired, of the differences;
    unpaired, the hull of the percentile bootstrap, both sides resampled independently, and of both
    sides' intervals put together (each end's distances squared, summed and rooted). Of any other
    statistic it is the percentile bootstrap alone, too narrow with few seeds.

    Args:
        x: real numbers [Sx, ...], axis 0 the seeds.
        y: real numbers [Sy, ...]; paired: the shape of `x`, seeds in the same order.
        statistic: see `bootstrap_interval`.
        paired: whether row i of both is the same seed; "drop" then drops whole pairs.
        level: see the package, as for `resamples`, `seed` and `nan`.

    Returns:
        value, low, high: float64 [...]; the ends NaN where a side has fewer than two seeds or, for
        the IQM and the mean, no `interval` of its own; paired, where the differences have none.

    Raises:
        ValueError: as `bootstrap_interval`, and for shapes that do not fit.

    Source: Zou and Donner 2008, "Construction of confidence limits about effect measures" (putting
    two intervals together).
    """
    check_level(level)
    check_resamples(resamples)
    rng = generator(seed)
    a, b = clean(x, nan), clean(y, nan)
    known = statistic is iqm or statistic is np.mean
    if paired:
        check_pairs(a, b)
        gaps = a - b
        value = applied(gaps, statistic)
        if known:
            around = ends(gaps, statistic, level, resamples, seed)
        else:
            around = percentiles(resampled(gaps, statistic, resamples, rng), level)
    else:
        if a.shape[1:] != b.shape[1:]:
            raise ValueError(
                f"x has shape {list(a.shape)}, y {list(b.shape)}: only axis 0 (seeds) may differ"
            )
        value = applied(a, statistic) - applied(b, statistic)
        replicates = resampled(a, statistic, resamples, rng)
        replicates -= resampled(b, statistic, resamples, rng)
        around = percentiles(replicates, level)
        if known:
            around = hull(around, _put_together(a, b, statistic, level, resamples, seed))
    if known:
        around = Interval(*without_width(*around, np.maximum(scale_of(a), scale_of(b))))
    return Estimate(value, *around)


def _put_together(
    a: FloatArray, b: FloatArray, statistic: Statistic, level: float, resamples: int, seed: int
) -> Interval:
    """The interval of a difference from those of both sides: [Sa, ...], [Sb, ...] -> [...].

    NaN where a side has none: middle seeds that agree do not say that its IQM is known exactly.
    """
    x, y = applied(a, statistic), applied(b, statistic)
    of_x, of_y = (
        Interval(*without_width(*ends(side, statistic, level, resamples, seed), scale_of(side)))
        for side in (a, b)
    )
    return Interval(
        x - y - np.hypot(x - of_x.low, of_y.high - y),
        x - y + np.hypot(of_x.high - x, y - of_y.low),
    )


def hull(one: Interval, other: Interval) -> Interval:
    """The smallest interval that holds both; NaN where either has no ends."""
    return Interval(np.minimum(one.low, other.low), np.maximum(one.high, other.high))


@public
def probability_of_improvement(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    paired: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> Estimate:
    """How likely a seed of `x` beats a seed of `y`: P(X > Y) + P(X = Y) / 2, with its interval.

    Unpaired: over all Sx * Sy pairs (Mann-Whitney U over its maximum). Paired: over seeds that both
    have. It says how often, not by how much. Of scores on several tasks it is the mean over tasks,
    see `improvement_over_tasks`.

    The interval is the hull of the percentile bootstrap, which resamples x and y independently, or
    pairs, and of a score interval, which has a width even where all of x lie above all of y:
    Newcombe's for unpaired, Wilson's for paired seeds, and for unpaired ones where one side always
    wins, which of 3 seeds a side happens to equals one time in ten.

    Args:
        x: real numbers [Sx], or [Sx, T] on T tasks.
        y: real numbers [Sy]; paired: [Sx], seeds in the same order.
        paired: whether entry i of both is the same seed; "drop" then drops whole pairs.
        level: see the package, as for `resamples`, `seed` and `nan`.

    Returns:
        value, low, high: float64 scalars in 0..1; the ends NaN where a side has fewer than two
        seeds.

    Raises:
        ValueError: as `bootstrap_interval`, for shapes that do not fit, and where "drop" leaves
            no seed.

    Sources: Agarwal et al. 2021, section 4.3 (here for one task); Newcombe 2006, "Confidence
    intervals for an effect size measure based on the Mann-Whitney statistic", part 2, method 5.
    """
    check_level(level)
    check_resamples(resamples)
    if np.ndim(x) == 2 and not paired:
        return improvement_over_tasks(x, y, level=level, resamples=resamples, seed=seed, nan=nan)
    rng = generator(seed)
    a, b = vector(x, nan, "x"), vector(y, nan, "y")
    if paired:
        check_pairs(a, b)
        gaps = finite_of(a - b, "x - y")
        wins = (np.sign(gaps) + 1) / 2
        value = wins.ravel().mean(axis=0)
        around = percentiles(resampled(wins, np.mean, resamples, rng), level)
        return Estimate(value, *hull(around, wilson_ends(value, gaps.size, level)))
    a, b = finite_of(a, "x"), finite_of(b, "y")
    below, upto = ranks_among(a, b)
    pairs = a.size * b.size
    value = ((below + upto) / 2).sum(axis=0) / pairs
    if min(a.size, b.size) < 2:
        none: FloatArray = np.full((), np.nan)[()]
        return Estimate(value, none, none)
    counts_a, counts_b = (drawn_counts(rng, n, resamples) for n in (a.size, b.size))
    # Seeds of `b` below each of `a`, as often as they were drawn: whole numbers and halves, exact.
    beaten = np.zeros((resamples, b.size + 1))
    np.cumsum(counts_b[:, np.argsort(b, kind="stable")], axis=1, out=beaten[:, 1:])
    beaten = (beaten[:, below] + beaten[:, upto]) / 2
    replicates = (counts_a * beaten).sum(axis=1) / pairs
    around = percentiles(replicates, level)
    around = hull(around, _newcombe_ends(float(value), a.size, b.size, level))
    if value in (0.0, 1.0):
        around = hull(around, wilson_ends(value, min(a.size, b.size), level))
    return Estimate(value, *around)


def _newcombe_ends(share: float, m: int, n: int, level: float) -> Interval:
    """A score interval of P(X > Y) from `m` and `n` seeds, by bisection."""
    z, rest = normal_quantile(level), (m + n) / 2 - 1

    def distance(p: float) -> float:
        """How many standard errors at `p` the share lies from it, rising in distance."""
        spread = p * (1 - p) * (1 + rest * ((1 - p) / (2 - p) + p / (1 + p))) / (m * n)
        return abs(share - p) / math.sqrt(spread) if spread > 0 else math.inf

    found = []
    for outer in (0.0, 1.0):
        inner = share
        if inner != outer:
            for _ in range(50):
                middle = (inner + outer) / 2
                inner, outer = (middle, outer) if distance(middle) < z else (inner, middle)
        found.append(inner)
    low, high = np.array(found)
    return Interval(low, high)


@public
def performance_profile(
    values: npt.ArrayLike,
    thresholds: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> Estimate:
    """Fraction of seeds strictly above each threshold, with pointwise intervals.

    Strictly, as in the source: at a threshold equal to an environment's highest return it is 0.
    The interval is the hull of the percentile bootstrap and Wilson's.

    Args:
        values: real numbers [S], one score a seed.
        thresholds: finite numbers [T], in the scores' unit.
        level: see the package, as for `resamples`, `seed` and `nan`.

    Returns:
        value, low, high: float64 [T] in 0..1; the ends NaN for a single seed.

    Raises:
        ValueError: as `bootstrap_interval`, for shapes that do not fit, and where "drop" leaves
            no seed.

    Source: Agarwal et al. 2021, section 4.2 (here for one task).
    """
    check_level(level)
    check_resamples(resamples)
    scores = finite_of(vector(values, nan, "values"), "values")
    taus = vector(thresholds, "raise", "thresholds")
    above = (scores[:, None] > taus).astype(np.float64)
    share = above.mean(axis=0)
    around = percentiles(resampled(above, np.mean, resamples, generator(seed)), level)
    return Estimate(share, *hull(around, wilson_ends(share, scores.size, level)))
