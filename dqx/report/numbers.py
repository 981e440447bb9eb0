"""The statistics that pictures and the page show, each in one place.

Everything comes from `dqx.stats`; what is decided here is which of its answers is shown, how much
resampling a page may cost, and what is said where there is no interval.
"""

import math
from typing import NamedTuple

import numpy as np

from dqx import stats

LEVEL = 0.95
# Products of one resampling that may be done; with more seeds fewer resamples are taken.
_MOST_PRODUCTS = 2_000_000_000


class Center(NamedTuple):
    """The IQM of one number a seed, with its interval.

    Attributes:
        n: seeds.
        iqm: NaN without any seed.
        low: end of the interval; NaN where there is none.
        high: the other end.
        note: why there is no interval; empty if there is one.
    """

    n: int
    iqm: float
    low: float
    high: float
    note: str


def center(values: np.ndarray) -> Center:
    """The IQM over seeds ``[S]`` and its interval."""
    if values.size == 0:
        return Center(0, math.nan, math.nan, math.nan, "no seed is finished")
    found = stats.summarize(values, level=LEVEL)
    return Center(found.n, found.iqm, found.low, found.high, found.note)


def curve(values: np.ndarray) -> np.ndarray:
    """The IQM over seeds at each step and the ends of its band: ``[S, K] -> [3, K]``.

    NaN where no seed has a number; the ends also where there is no interval.
    """
    return np.stack(stats.interval(values, level=LEVEL, nan="drop", resamples=1000))


def improvement(x: np.ndarray, y: np.ndarray) -> stats.Estimate:
    """How likely a seed of ``x [Sx]`` beats one of ``y [Sy]``, with its interval."""
    resamples = int(np.clip(_MOST_PRODUCTS / (x.size * y.size), 200, 2000))
    return stats.probability_of_improvement(x, y, level=LEVEL, resamples=resamples)


def profile(values: np.ndarray, thresholds: np.ndarray) -> stats.Estimate:
    """The share of seeds above each threshold, with its interval."""
    resamples = int(np.clip(_MOST_PRODUCTS / (values.size * thresholds.size), 200, 1000))
    return stats.performance_profile(values, thresholds, level=LEVEL, resamples=resamples)


def quartiles(values: np.ndarray) -> np.ndarray:
    """Median, lower and upper quartile over seeds, of those with a number: ``[S, K] -> [3, K]``."""
    rising = np.sort(values, axis=0)  # NaN last
    count = np.isfinite(rising).sum(axis=0)
    found = np.full((3, values.shape[1]), np.nan)
    for row, share in enumerate((0.5, 0.25, 0.75)):
        place = share * (count - 1).clip(0)
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, (count - 1).clip(0))
        columns = np.arange(values.shape[1])
        one, two = rising[below, columns], rising[above, columns]
        # The same number twice may be infinite, whose difference is none.
        found[row] = np.where(one == two, one, one + (place - below) * (two - one))
    found[:, count == 0] = np.nan
    return found


def reached(steps: np.ndarray, curves: np.ndarray, threshold: float) -> np.ndarray:
    """The first of ``steps [K]`` at which each seed of ``[S, K]`` is at or above a threshold.

    NaN for a seed that never was: it is censored at the last step.
    """
    above = curves >= threshold
    return np.where(above.any(axis=1), steps[above.argmax(axis=1)].astype(float), np.nan)
