"""The statistics that pictures and the page show, each in one place.

Everything comes from `dqx.stats`; what is decided here is which of its answers is shown, how much
resampling a page may cost, and what is said where there is no interval.
"""

import math
from typing import NamedTuple

import numpy as np

from dqx import stats
from dqx.report.terminal import counted

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


def curve(values: np.ndarray, whole: bool = False) -> np.ndarray:
    """The IQM over seeds at each step and its bands: ``[S, K] -> [5, K]``.

    Rows are the IQM, the ends of its pointwise interval, and those of the band that holds the
    whole curve: NaN unless ``whole``, and where a seed has a gap. NaN where no seed has a number;
    ends also where there is no interval.
    """
    if whole and np.isfinite(values).all():
        band = stats.simultaneous_band(values, level=LEVEL)
        return np.stack([band.value, band.point_low, band.point_high, band.low, band.high])
    found = np.stack(stats.interval(values, level=LEVEL, nan="drop", resamples=1000))
    return np.concatenate([found, np.full((2, values.shape[1]), np.nan)])


def at_bar(values: np.ndarray, bar: float) -> str:
    """How many seeds ``[S]`` are at a bar or above, and their share with its interval."""
    share, low, high = (100 * float(x) for x in share_at(values, bar))
    return (
        f"{round(share * values.size / 100):,} of {counted(values.size, 'seed')} end at {bar:g} or "
        f"better: {share:.2f} %, 95 % interval {low:.2f} to {high:.2f}"
    )


def share_at(values: np.ndarray, bar: float) -> stats.Estimate:
    """The share of seeds ``[S]`` at a bar or above, with its interval.

    In float32, as scores are computed: 7.93 reaches 7.93.
    """
    return stats.share_reaching(np.float32(values), float(np.float32(bar)), level=LEVEL)


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


class Reaching(NamedTuple):
    """When seeds first reach a score, those that never do counted as needing more steps.

    Attributes:
        steps: from 0 to the last step of training, float64 ``[E]``, where the share changes.
        share: of seeds that have got there by then, with its interval: ``[3, E]``.
        reached: how many seeds got there.
        fastest: steps of the first seed; infinite if none got there.
        half: steps of half of all seeds, with its interval; infinite if fewer got there.
    """

    steps: np.ndarray
    share: np.ndarray
    reached: int
    fastest: float
    half: tuple[float, float, float]


def reaching(steps: np.ndarray, curves: np.ndarray, threshold: float, until: float) -> Reaching:
    """When seeds with ``curves [S, K]`` on ``steps [K]`` reach a threshold; trained ``until``."""
    times = stats.steps_to_threshold(steps, curves, threshold)
    found = stats.survival_curve(*times, level=LEVEL)
    share = 1 - np.stack([found.value, found.high, found.low])
    share = np.concatenate([np.full((3, 1), [[0.0], [np.nan], [np.nan]]), share], axis=1)
    at = np.concatenate([[0.0], found.steps])
    if at[-1] < until:
        at, share = np.append(at, until), np.concatenate([share, share[:, -1:]], axis=1)
    half = stats.median_steps(*times, level=LEVEL)
    fastest = float(found.steps[0]) if found.steps.size else math.inf
    middle, low, high = (float(value) for value in half)
    return Reaching(at, share, int(times.reached.sum()), fastest, (middle, low, high))
