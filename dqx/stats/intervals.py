"""Intervals that keep their word with few seeds.

The percentile bootstrap is too narrow there: of nominal 95 % intervals around the IQM of 3 seeds
three quarters hold the truth. Student's t with the scale of a trimmed mean holds it, but has no
width where most seeds tie at the highest return. So the interval that is shown everywhere is the
hull of both; `docs/statistics.md` has what it was measured to hold, for several truths, and how
much wider it is.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import public
from dqx.stats.bootstrap import percentiles, resampled
from dqx.stats.samples import (
    Estimate,
    FloatArray,
    Interval,
    NanPolicy,
    Statistic,
    applied,
    by_count,
    check_level,
    check_resamples,
    checked_bounds,
    clean,
    finite_of,
    generator,
    iqm,
    num_columns,
    vector,
)

ONE_SEED = "one seed, no interval"
AGREE = "all middle seeds agree, no interval"

# Ends that differ by less than this share of the largest value differ by rounding alone.
_ROUNDING = 1e-12

# From so many seeds on the IQM's interval stays within the values: the truth is at most the upper
# quartile, so it lies above all of n seeds with probability 0.75^n or less, 0.3 % for 20.
_WITHIN = 20


class Summary(NamedTuple):
    """One number a seed, in short.

    `low` and `high` are the interval of `iqm`, both NaN where there is none, and `note` says why
    there is none, or is empty; `std` is the sample standard deviation (divisor n - 1), NaN for a
    single seed.
    """

    n: int
    mean: float
    std: float
    iqm: float
    low: float
    high: float
    min: float
    max: float
    note: str = ""

    def interval_text(self, digits: int = 1) -> str:
        """The interval as a person reads it: ``475.7 to 500.0``, or why there is none."""
        return self.note or f"{self.low:.{digits}f} to {self.high:.{digits}f}"


@public
def interval(
    values: npt.ArrayLike,
    statistic: Statistic = iqm,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """The IQM (or mean) over seeds and the interval to show around it, pointwise.

    Both ends are the farther of two: those of the percentile bootstrap, and those of Student's t
    around the trimmed mean (Tukey and McLaughlin 1963) with two changes that 3 to 7 seeds ask for:
    the scale is that of the values winsorized by one seed fewer at each end than the statistic
    trims, so that a seed just outside the middle counts, and of n seeds it takes n - 1/2, for
    skewed truths. From 20 seeds on the IQM's ends stay within the values. What is covered is the
    statistic of the distribution that seeds are drawn from, which for skewed truths differs a
    little from the mean IQM of n seeds.

    Where both ends fall on the value there is no interval, and it is not a width of zero that is
    given: the seeds that the statistic looks at are all equal, which tells nothing about how far
    others would be. Two modes far apart of which a sample shows one cannot be told from one mode,
    by any interval: of 3 seeds 34 % are so where 30 % of all seeds fail.

    Args:
        values: real numbers [S, ...], axis 0 the seeds.
        statistic: `iqm` or `np.mean`; others have `bootstrap_interval`.
        level: see the package, as for `resamples`, `seed` and `nan`.
        bounds: what a value can be at least and at most, if that is known, such as (0, 500) for
            returns of CartPole-v1: the ends are clipped to it.

    Returns:
        value, low, high: float64 [...]; the ends NaN where fewer than two seeds have a value, or
        all middle seeds agree (`why_none` tells which).

    Raises:
        ValueError: no seeds, non-finite values under "raise", or an argument out of range.
    """
    check_level(level)
    check_resamples(resamples)
    _check_statistic(statistic)
    array = clean(values, nan)
    bounds = _bounds_of(bounds, array)
    low, high = ends(array, statistic, level, resamples, seed)
    value = applied(array, statistic)
    low, high = without_width(np.clip(low, *bounds), np.clip(high, *bounds), scale_of(array))
    return Estimate(value, low, high)


@public
def summarize(
    values: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> Summary:
    """Sum up one number a seed.

    Args:
        values: real numbers [S]; `n` of the summary counts those that "drop" leaves.
        level: of the IQM's `interval`; see the package, as for `resamples`, `seed` and `nan`.

    Raises:
        ValueError: as `interval`, and where "drop" leaves no seed.
    """
    present = finite_of(vector(values, nan, "values"), "values")
    value, low, high = interval(present, level=level, resamples=resamples, seed=seed)
    return Summary(
        n=present.size,
        mean=float(present.mean()),
        std=float(present.std(ddof=1)) if present.size > 1 else float("nan"),
        iqm=float(value),
        low=float(low),
        high=float(high),
        min=float(present.min()),
        max=float(present.max()),
        note=why_none(present.size, float(low)),
    )


@public
def why_none(n: int, low: float) -> str:
    """Say why an interval over `n` seeds has no ends; "" if `low` is a number."""
    if not math.isnan(low):
        return ""
    return ONE_SEED if n < 2 else AGREE


def ends(
    array: FloatArray, statistic: Statistic, level: float, resamples: int, seed: int
) -> Interval:
    """The hull of percentile and t interval, width zero included: [S, ...] -> [...] twice."""
    low, high = percentiles(resampled(array, statistic, resamples, generator(seed)), level)
    around = np.stack([low, high]).reshape(2, num_columns(array))
    for chosen, rising in by_count(array):
        if rising.shape[0] > 1:
            t = _student_ends(rising, statistic, level)
            around[0, chosen] = np.minimum(around[0, chosen], t.low)
            around[1, chosen] = np.maximum(around[1, chosen], t.high)
    return Interval(*around.reshape(2, *array.shape[1:]))


def without_width(
    low: npt.ArrayLike, high: npt.ArrayLike, scale: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Put NaN for both ends where nothing but rounding lies between them."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    none = ~(high - low > _ROUNDING * np.asarray(scale))
    return np.where(none, np.nan, low)[()], np.where(none, np.nan, high)[()]


def scale_of(array: FloatArray) -> FloatArray:
    """The largest absolute value of each column: [S, ...] -> [...]."""
    found: FloatArray = np.max(np.abs(np.where(np.isfinite(array), array, 0.0)), axis=0)
    return found


def _student_ends(rising: FloatArray, statistic: Statistic, level: float) -> Interval:
    """Student's t around a trimmed mean of n >= 2 rising values a column: [n, k] -> [k] twice."""
    n = rising.shape[0]
    middle, error, freedom = center_and_error(rising, statistic)
    half = student_quantile(level, freedom) * error
    if statistic is iqm and n >= _WITHIN:
        return Interval(np.maximum(middle - half, rising[0]), np.minimum(middle + half, rising[-1]))
    return Interval(middle - half, middle + half)


def center_and_error(
    rising: FloatArray, statistic: Statistic
) -> tuple[FloatArray, FloatArray, int]:
    """The IQM or mean of n >= 2 rising values a column, its standard error, and how free that is.

    [n, k] -> [k], [k] and the degrees of freedom. See `interval` for the two changes to Tukey and
    McLaughlin's error.
    """
    n = rising.shape[0]
    trimmed = n // 4 if statistic is iqm else 0
    kept = max(trimmed - 1, 0)  # winsorized at each end for the scale
    wide = n - 2 * kept
    held = rising.clip(rising[kept], rising[n - kept - 1])
    # Rounding must not give equal values a spread.
    spread = np.where(held[0] == held[-1], 0.0, held.std(axis=0, ddof=1))
    middle: FloatArray = rising[trimmed : n - trimmed].mean(axis=0)
    return middle, spread * n / (wide * math.sqrt(n - 0.5)), wide - 1


def student_quantile(level: float, freedom: int) -> float:
    """The t that Student's distribution exceeds in absolute value with probability 1 - level.

    By bisection of the closed form for whole degrees of freedom.

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.
    """
    odd = freedom % 2
    # Factors of the series in powers of cos^2: 2/3, 4/5, ... or 1/2, 3/4, ...
    factors = np.array([(i - 1) / i for i in range(2 + odd, freedom - 1, 2)])
    weights = np.concatenate([[1.0], np.cumprod(factors)])

    def inside(angle: float) -> float:
        cosine = math.cos(angle)
        series = float(weights @ (cosine ** (2.0 * np.arange(len(weights)))))
        if not odd:
            return math.sin(angle) * series
        return 2 / math.pi * (angle + (math.sin(angle) * cosine * series if freedom > 1 else 0))

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < level else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def normal_quantile(level: float) -> float:
    """The z that a standard normal value exceeds in absolute value with probability 1 - level."""
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson_ends(shares: FloatArray, n: int, level: float) -> Interval:
    """Wilson's score interval of shares among `n` seeds, never of width zero.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z2 = normal_quantile(level) ** 2
    middle = (shares + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (shares * (1 - shares) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Interval((middle - half).clip(0.0, 1.0), (middle + half).clip(0.0, 1.0))


def _check_statistic(statistic: Statistic) -> None:
    if statistic is not iqm and statistic is not np.mean:
        raise ValueError(
            f"statistic is {getattr(statistic, '__name__', statistic)!r}: `interval` takes "
            "dqx.stats.iqm or numpy.mean; `bootstrap_interval` takes any"
        )


def _bounds_of(bounds: tuple[float, float], array: FloatArray) -> tuple[float, float]:
    low, high = checked_bounds(bounds)
    there = array[np.isfinite(array)]
    if there.size and (there.min() < low or there.max() > high):
        raise ValueError(
            f"values reach from {there.min():g} to {there.max():g}, beyond the bounds {low:g} to "
            f"{high:g}: give bounds that hold for all"
        )
    return low, high
