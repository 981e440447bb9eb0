"""Whole learning curves: the area under them, and bands that hold for all steps at once."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import public
from dqx.stats.bootstrap import draw_ranks, rank_counts
from dqx.stats.intervals import interval, normal_quantile
from dqx.stats.samples import (
    FloatArray,
    NanPolicy,
    Statistic,
    check_level,
    check_resamples,
    clean,
    generator,
    iqm,
)

_BLOCK = 4_000_000


class Band(NamedTuple):
    """A statistic over seeds along a curve, with two bands around it, all float64 [K].

    `low` and `high` hold the whole curve with probability `level`; `point_low` and `point_high`
    each point. NaN where there is no interval. `point_level` is the pointwise level that the whole
    curve asks for.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    point_low: FloatArray
    point_high: FloatArray
    point_level: float


@public
def area_under_curve(
    steps: npt.ArrayLike, values: npt.ArrayLike, *, nan: NanPolicy = "raise"
) -> FloatArray:
    """Mean height of each seed's curve over its steps, by the trapezoid rule.

    The area is divided by the span, so that the unit is that of the values: the average return on
    the way, which rewards learning early.

    Args:
        steps: environment steps [K], rising, at least two.
        values: real numbers [S, K].
        nan: "raise" or a number; dropping points of a curve would change what is averaged.

    Returns:
        float64 [S].

    Raises:
        ValueError: shapes that do not fit, steps that do not rise, or non-finite values.
    """
    x, y = curves_of(steps, values, nan)
    if x.size < 2:
        raise ValueError("steps hold one number: an area needs at least two")
    found: FloatArray = ((y[:, 1:] + y[:, :-1]) / 2 @ np.diff(x)) / (x[-1] - x[0])
    return found


@public
def simultaneous_band(
    values: npt.ArrayLike,
    statistic: Statistic = iqm,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> Band:
    """The band that holds a whole curve, next to the pointwise one.

    Whole seeds are resampled, curves and all; the farthest that such a curve strays from the one
    at hand, in standard errors of each point, says which pointwise level makes the whole band hold
    with probability `level`; `interval` at that level makes the band. Points whose seeds all agree
    have no interval and no part in it.

    Args:
        values: real numbers [S, K], axis 0 the seeds.
        statistic: `iqm` or `np.mean`.
        level: see the package, as for `resamples` and `seed`.
        nan: "raise" or a number; a seed is resampled with its whole curve.

    Raises:
        ValueError: as `interval`, and for other shapes.

    Source: Montiel Olea and Plagborg-Moller 2019, "Simultaneous confidence bands: theory,
    implementation, and an application to SVARs" (the sup-t band).
    """
    check_level(level)
    check_resamples(resamples)
    if nan == "drop":
        raise ValueError("nan is 'drop': a band over whole curves needs every point; give a number")
    array = clean(values, nan)
    if array.ndim != 2:
        raise ValueError(f"values have shape {list(array.shape)}: give [seeds, points]")
    value, low, high = interval(array, statistic, level=level, seed=seed)
    if array.shape[0] < 2 or np.isnan(low).all():
        return Band(value, low, high, low, high, level)
    strayed = _whole_curves(array, statistic, resamples, generator(seed)) - value
    spread = strayed.std(axis=0)
    moves = spread > 1e-12 * np.abs(array).max(axis=0)
    farthest = np.abs(strayed[:, moves] / spread[moves]).max(axis=1)
    far = max(float(np.quantile(farthest, level)), normal_quantile(level))
    wide = min(math.erf(far / math.sqrt(2)), 1 - 1e-9)  # its pointwise level
    _, whole_low, whole_high = interval(
        array, statistic, level=wide, seed=seed, resamples=max(2000, math.ceil(10 / (1 - wide)))
        if wide < 0.999 else 10_000,
    )  # fmt: skip
    return Band(value, whole_low, whole_high, low, high, wide)


def curves_of(
    steps: npt.ArrayLike, values: npt.ArrayLike, nan: NanPolicy
) -> tuple[FloatArray, FloatArray]:
    """Check steps [K] and values [S, K], and apply the NaN policy."""
    if nan == "drop":
        raise ValueError("nan is 'drop': points of a curve cannot be left out; give a number")
    x, y = np.asarray(steps, np.float64), clean(values, nan)
    if x.ndim != 1 or y.ndim != 2 or y.shape[1] != x.size:
        raise ValueError(
            f"steps have shape {list(x.shape)}, values {list(y.shape)}: give [K] and [seeds, K]"
        )
    if not (np.isfinite(x).all() and (np.diff(x) > 0).all()):
        raise ValueError("steps must be finite and rise from each to the next")
    return x, y


def _whole_curves(
    array: FloatArray, statistic: Statistic, resamples: int, rng: np.random.Generator
) -> FloatArray:
    """The statistic of resampled seeds, the same seeds at all points: [S, K] -> [R, K]."""
    n, points = array.shape
    cut = n // 4 if statistic is iqm else 0
    out = np.empty((resamples, points))
    order = np.argsort(array, axis=0)
    rising = np.take_along_axis(array, order, axis=0)
    rows = max(1, _BLOCK // n)
    for start in range(0, resamples, rows):
        counts = rank_counts(draw_ranks(rng, n, min(rows, resamples - start)))
        if not cut:
            out[start : start + rows] = counts @ array / n
            continue
        for point in range(points):
            # A sorted resample holds a seed's value at places total[i-1]..total[i].
            total = np.cumsum(counts[:, order[:, point]], axis=1).clip(cut, n - cut)
            kept = np.diff(total, axis=1, prepend=cut)
            out[start : start + rows, point] = kept @ rising[:, point] / (n - 2 * cut)
    return out
