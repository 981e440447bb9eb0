"""What all statistics stand on: seeds as arrays, checks, the NaN policy, the interquartile mean."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import (
    MOST_DRAWS,
    FloatArray,
    NanPolicy,
    Statistic,
    applied_to,
    public,
)


class Interval(NamedTuple):
    """The two ends of a confidence interval; both NaN where fewer than two seeds have a value."""

    low: FloatArray
    high: FloatArray


class Estimate(NamedTuple):
    """A statistic of the seeds at hand and the ends of the interval around it."""

    value: FloatArray
    low: FloatArray
    high: FloatArray


@public
def iqm(values: npt.ArrayLike, axis: int = 0, *, nan: NanPolicy = "raise") -> FloatArray:
    """Interquartile mean: the mean of the middle half of the seeds.

    Of S values the floor(S / 4) lowest and as many highest are cut, whole values only, as
    `scipy.stats.trim_mean(values, 0.25)` and rliable do. So where 4 does not divide S a little
    more than half stays, and below 4 seeds this is the plain mean.

    Args:
        values: real numbers [S, ...], seeds along `axis`.
        axis: the seeds' axis.
        nan: see the module.

    Returns:
        float64 [...], without `axis`; NaN where "drop" leaves no seed.

    Raises:
        ValueError: no seeds, or non-finite values under "raise".

    Source: Agarwal et al. 2021, section 4.3.
    """
    return applied(clean(seeds_first(values, axis), nan), trimmed_mean)


def check_level(level: float) -> None:
    """Raise ValueError for a level that makes no sense."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: give a probability between 0 and 1, such as 0.95")


def check_resamples(resamples: int) -> None:
    """Raise ValueError for a number of resamples that makes no sense."""
    if not 1 <= resamples <= MOST_DRAWS:
        raise ValueError(
            f"resamples is {resamples}: give at least 1 and at most {MOST_DRAWS:,}; 2000 suits "
            "95 % intervals"
        )


def check_finite(**numbers: float) -> None:
    """Raise ValueError for a number that is NaN or infinite."""
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number}: give a finite number")


def checked_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    """The least and the greatest value that there can be; raise ValueError if out of order."""
    low, high = (float(end) for end in bounds)
    if not low < high:
        raise ValueError(f"bounds are {low:g} and {high:g}: the lower must come first")
    return low, high


def seeds_first(values: npt.ArrayLike, axis: int) -> npt.NDArray[Any]:
    """The array with `axis` in the first place."""
    array = np.asarray(values)
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(f"axis is {axis}: values of shape {list(array.shape)} have no such axis")
    return np.moveaxis(array, axis, 0)


def check_pairs(x: FloatArray, y: FloatArray) -> None:
    """Raise ValueError for arrays whose seeds cannot be pairs."""
    if x.shape != y.shape:
        raise ValueError(
            f"x has shape {list(x.shape)}, y {list(y.shape)}: paired seeds need equal shapes"
        )


def ranks_among(
    a: FloatArray, b: FloatArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many of `b` lie below each of `a`, and how many not above it: [Sa] and [Sb] -> [Sa]."""
    rising = np.sort(b)
    return np.searchsorted(rising, a, "left"), np.searchsorted(rising, a, "right")


def generator(seed: int) -> np.random.Generator:
    """Make the random generator that `seed` decides alone."""
    if seed < 0:
        raise ValueError(f"seed is {seed}: give an integer of at least 0")
    return np.random.default_rng(int(seed))


def clean(values: npt.ArrayLike, nan: NanPolicy) -> FloatArray:
    """Copy values to float64 [S, ...] with the NaN policy applied; the dropped stay as NaN."""
    array = np.array(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[0] == 0:
        raise ValueError(f"values have shape {list(array.shape)}: axis 0 must hold seeds")
    if isinstance(nan, str):
        if nan not in ("raise", "drop"):
            raise ValueError(f"nan is {nan!r}: allowed are 'raise', 'drop' or a number")
        replacement = np.nan
    else:
        replacement = float(nan)
        if not np.isfinite(replacement):
            raise ValueError(f"nan is {nan}: the number to count instead must be finite")
    bad = ~np.isfinite(array)
    if nan == "raise" and bad.any():
        seeds = int(bad.reshape(array.shape[0], -1).any(axis=1).sum())
        raise ValueError(
            f"{int(bad.sum())} of {bad.size} values are NaN or infinite, in {seeds} of "
            f"{array.shape[0]} seeds (diverged?): decide with nan='drop' to leave them out, or "
            "nan=<number> to count each as, say, the environment's lowest return"
        )
    array[bad] = replacement
    return array


def vector(values: npt.ArrayLike, nan: NanPolicy, name: str) -> FloatArray:
    """Copy one number a seed to float64 [S], with the NaN policy applied."""
    array = clean(values, nan)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {list(array.shape)}: give one axis, a number a seed")
    return array


def finite_of(vector: FloatArray, name: str) -> FloatArray:
    """Leave the finite values of a vector: [S] -> [n]."""
    present = vector[np.isfinite(vector)]
    if present.size == 0:
        raise ValueError(f"{name}: no finite value is left; nan=<number> counts each as a number")
    return present


def by_count(values: FloatArray) -> Iterator[tuple[npt.NDArray[np.bool_], FloatArray]]:
    """Yield (mask of columns [K], their n present values, rising [n, k]) for each n there is."""
    flat = values.reshape(values.shape[0], num_columns(values))
    columns = np.sort(flat, axis=0)  # NaN sorts last
    present = np.isfinite(columns).sum(axis=0)
    for n in np.unique(present):
        yield present == n, columns[:n, present == n]


def num_columns(values: FloatArray) -> int:
    """Count what is beside the seeds in [S, ...]."""
    return int(np.prod(values.shape[1:], dtype=np.int64))


def trimmed_mean(rising: FloatArray, axis: int) -> FloatArray:
    """Average the middle half of rising values: [n, k] -> [k]."""
    assert axis == 0
    cut = rising.shape[0] // 4
    return np.asarray(rising[cut : rising.shape[0] - cut].mean(axis=0))


def applied(values: FloatArray, statistic: Statistic) -> FloatArray:
    """Apply a statistic to the present seeds of each column: [S, ...] -> [...]."""
    out = np.full(num_columns(values), np.nan)
    for chosen, present in by_count(values):
        if present.shape[0] > 0:
            out[chosen] = applied_to(statistic, present, 0)
    result: FloatArray = out.reshape(values.shape[1:])[()]
    return result
