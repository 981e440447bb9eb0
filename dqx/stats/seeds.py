"""One number a seed, from other sides than its middle: quantiles, the worst seeds, a target."""

import math

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import public
from dqx.stats.intervals import wilson_ends
from dqx.stats.samples import (
    Estimate,
    FloatArray,
    NanPolicy,
    applied,
    check_finite,
    check_level,
    clean,
    finite_of,
    seeds_first,
    vector,
)


@public
def median(values: npt.ArrayLike, axis: int = 0, *, nan: NanPolicy = "raise") -> FloatArray:
    """Median over seeds.

    Args:
        values: real numbers [S, ...], seeds along `axis`.
        axis: the seeds' axis.
        nan: see the package.

    Returns:
        float64 [...], without `axis`; NaN where "drop" leaves no seed.

    Raises:
        ValueError: no seeds, or non-finite values under "raise".
    """
    return applied(clean(seeds_first(values, axis), nan), np.median)


@public
def quantile(
    values: npt.ArrayLike, share: float, *, level: float = 0.95, nan: NanPolicy = "raise"
) -> Estimate:
    """Value below which a share of the seeds lies, with an interval that assumes no distribution.

    The ends are values of seeds: whether a value lies below the true quantile is a coin with
    probability `share`, so the ranks of the ends are quantiles of a binomial distribution. An end
    is infinite where there are too few seeds for it; the median needs 6 for 95 %.

    Args:
        values: real numbers [S], one a seed.
        share: between 0 and 1; 0.5 is the median, 0.1 what a tenth of the seeds stays below.
        level: at least so often the interval holds the quantile.
        nan: see the package.

    Returns:
        value (linear between seeds), low, high: float64 scalars.

    Raises:
        ValueError: as `iqm`, where "drop" leaves no seed, and for a share out of range.

    Source: David and Nagaraja 2003, "Order Statistics", section 7.1.
    """
    check_level(level)
    _check_share(share)
    rising = np.sort(finite_of(vector(values, nan, "values"), "values"))
    n = rising.size
    chances = _binomial(n, share)
    most = np.cumsum(chances)  # at most k of n lie below
    tail = (1 - level) / 2 * (1 + 1e-9)  # what rounding alone sets apart is equal
    below = int((most <= tail).sum())  # P(fewer than `below` lie below) <= tail
    above = n - int((np.cumsum(chances[::-1]) <= tail).sum()) + 1
    low = rising[below - 1] if below > 0 else -np.inf
    high = rising[above - 1] if above <= n else np.inf
    ends: FloatArray = np.array([np.quantile(rising, share), low, high])
    return Estimate(*ends)


@public
def cvar(values: npt.ArrayLike, share: float = 0.25, *, nan: NanPolicy = "raise") -> FloatArray:
    """Mean of the worst share of the seeds (conditional value at risk): how bad a bad seed is.

    Where the share is no whole number of seeds, the last of them counts in part.

    Args:
        values: real numbers [S, ...], axis 0 the seeds.
        share: of the lowest seeds, above 0 and at most 1; 1 gives the mean.
        nan: see the package.

    Returns:
        float64 [...]; NaN where "drop" leaves no seed.

    Raises:
        ValueError: as `iqm`, and for a share out of range.

    Source: Rockafellar and Uryasev 2000, "Optimization of conditional value-at-risk".
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: give the part of the seeds, such as 0.25")

    def worst(rising: FloatArray, axis: int) -> FloatArray:
        n = rising.shape[axis]
        weights = np.clip(share * n - np.arange(n), 0.0, 1.0) / (share * n)
        found: FloatArray = weights @ rising
        return found

    return applied(clean(values, nan), worst)


@public
def optimality_gap(
    values: npt.ArrayLike, target: float = 1.0, axis: int = 0, *, nan: NanPolicy = "raise"
) -> FloatArray:
    """How far seeds fall short of a target in the mean; what lies above it counts as reaching it.

    Args:
        values: real numbers [S, ...], seeds along `axis`.
        target: in the values' unit, such as the optimum; rliable calls it gamma.
        axis: the seeds' axis.
        nan: see the package.

    Returns:
        float64 [...], without `axis`, 0 or more; NaN where "drop" leaves no seed.

    Raises:
        ValueError: as `iqm`.

    Source: Agarwal et al. 2021, section 4.3.
    """
    check_finite(target=target)
    array = clean(seeds_first(values, axis), nan)
    return applied((target - array).clip(min=0.0), np.mean)


@public
def share_reaching(
    values: npt.ArrayLike, bar: float, *, level: float = 0.95, nan: NanPolicy = "raise"
) -> Estimate:
    """Share of seeds at a bar or above, with Wilson's interval, which all or none have too.

    Args:
        values: real numbers [S], one score a seed.
        bar: in the scores' unit; unlike in `performance_profile` a score that equals it reaches it.
        level: see the package, as for `nan`.

    Returns:
        value, low, high: float64 [], in 0..1.

    Raises:
        ValueError: as `iqm`, and where "drop" leaves no seed.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    check_level(level)
    check_finite(bar=bar)
    scores = finite_of(vector(values, nan, "values"), "values")
    share: FloatArray = np.array(np.mean(scores >= bar))
    return Estimate(share, *wilson_ends(share, scores.size, level))


def _binomial(n: int, share: float) -> FloatArray:
    """How likely 0 to n of n coins fall on the side that each does with probability `share`.

    By logarithms: with a thousand seeds a factor alone is beyond what a float holds.
    """
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        + k * math.log(share) + (n - k) * math.log1p(-share)
        for k in range(n + 1)
    ]  # fmt: skip
    found: FloatArray = np.exp(logs)
    return found


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share is {share}: give a number between 0 and 1, such as 0.5")
