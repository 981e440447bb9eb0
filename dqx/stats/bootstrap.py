"""Resampling of seeds, and the plain percentile interval."""

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import applied_to, public
from dqx.stats.samples import (
    FloatArray,
    Interval,
    NanPolicy,
    Statistic,
    by_count,
    check,
    clean,
    generator,
    iqm,
    num_columns,
)

# Elements of one temporary array (32 MB of float64): bounds memory however many seeds and points.
_BLOCK = 4_000_000


@public
def bootstrap_interval(
    values: npt.ArrayLike,
    statistic: Statistic = iqm,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> Interval:
    """Percentile bootstrap interval of a statistic over seeds, pointwise.

    Seeds are drawn with replacement `resamples` times; the ends are the (1 - level) / 2 and
    (1 + level) / 2 quantiles of the statistic over these samples. Columns are resampled by rank,
    the same ranks for all: each has exactly its own bootstrap distribution, and a curve costs one
    matrix product.

    With few seeds intervals are too narrow: of nominal 95 % intervals of the IQM of normal values
    50 % hold the truth with 2 seeds, 75 % with 3, 88 % with 4, 91 % with 5, 94 % with 10, 95 % with
    32. Width zero says that the middle seeds agree, not that the truth is known.

    Args:
        values: real numbers [S, ...], axis 0 the seeds.
        statistic: called as `statistic(array, axis=i)`; reduces that axis and treats columns
            apart, as NumPy's reductions do. `iqm` and `np.mean` are fast.
        level: see the module, as for `resamples`, `seed` and `nan`.

    Returns:
        low, high: float64 [...]; NaN where fewer than two seeds have a value, since one seed
        tells nothing about spread.

    Raises:
        ValueError: no seeds, non-finite values under "raise", or an argument out of range.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    check(level, resamples)
    return percentiles(resampled(clean(values, nan), statistic, resamples, generator(seed)), level)


def resampled(
    values: FloatArray, statistic: Statistic, resamples: int, rng: np.random.Generator
) -> FloatArray:
    """Apply a statistic to bootstrap samples: [S, ...] -> [R, ...], NaN for fewer than 2 seeds."""
    out = np.full((resamples, num_columns(values)), np.nan)
    for chosen, present in by_count(values):
        n = present.shape[0]
        if n < 2:
            continue
        ranks = draw_ranks(rng, n, resamples)
        if statistic is iqm or statistic is np.mean:
            out[:, chosen] = _trimmed_means(present, ranks, n // 4 if statistic is iqm else 0)
        else:
            out[:, chosen] = _apply(statistic, present, ranks)
    return out.reshape(resamples, *values.shape[1:])


def percentiles(replicates: FloatArray, level: float) -> Interval:
    """Cut the same share off both ends of the replicates: [R, ...] -> [...] twice."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(low, high)


def draw_ranks(rng: np.random.Generator, n: int, resamples: int) -> npt.NDArray[np.int32]:
    """Draw bootstrap samples as ranks of n seeds: [R, n]."""
    return rng.integers(n, size=(resamples, n), dtype=np.int32)


def rank_counts(ranks: npt.NDArray[np.int32]) -> FloatArray:
    """How often each of n ranks occurs in every row: [R, n] -> [R, n]."""
    rows, n = ranks.shape
    flat = ranks + np.arange(rows, dtype=np.int64)[:, None] * n
    return np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _trimmed_means(rising: FloatArray, ranks: npt.NDArray[np.int32], cut: int) -> FloatArray:
    """Mean of each resample without `cut` values at both ends: [n, k] and [R, n] -> [R, k]."""
    n, k = rising.shape
    out = np.empty((ranks.shape[0], k))
    rows = max(1, _BLOCK // n)
    for start in range(0, ranks.shape[0], rows):
        # A sorted resample holds rank i at places total[i-1]..total[i]; cut..n-cut are kept.
        total = np.cumsum(rank_counts(ranks[start : start + rows]), axis=1).clip(cut, n - cut)
        weights = np.diff(total, axis=1, prepend=cut) / (n - 2 * cut)
        out[start : start + rows] = weights @ rising
    # Rounding must not give equal values an interval that leaves them out.
    return out.clip(rising[0], rising[-1])


def _apply(statistic: Statistic, present: FloatArray, ranks: npt.NDArray[np.int32]) -> FloatArray:
    """Apply any statistic to resamples of columns: [n, k] and [R, n] -> [R, k]."""
    n, k = present.shape
    out = np.empty((ranks.shape[0], k))
    columns = max(1, min(k, _BLOCK // n))
    rows = max(1, _BLOCK // (n * columns))
    for left in range(0, k, columns):
        for start in range(0, ranks.shape[0], rows):
            sample = present[ranks[start : start + rows], left : left + columns]
            out[start : start + rows, left : left + columns] = applied_to(statistic, sample, 1)
    return out
