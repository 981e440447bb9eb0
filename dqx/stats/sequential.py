"""Looking at the seeds after each one, and stopping when they tell enough.

An interval of `dqx.stats.interval` holds once: who looks after every seed and stops at the first
that leaves out 0 finds a difference that is not there far too often. The intervals here hold at all
times at once, so that a study may stop whenever it likes.

Assumptions: seeds come in an order that does not look at their results, each independent of those
before; scores lie between two bounds known beforehand (0 and 500 on CartPole-v1). Nothing else:
no distribution, no least number of seeds. What is held is the mean score, not the IQM, of which no
such interval is known that is as narrow.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import public
from dqx.stats.samples import (
    FloatArray,
    check_finite,
    check_level,
    check_pairs,
    checked_bounds,
    vector,
)

_GRID = 2001


class Sequence(NamedTuple):
    """The mean of the first 1, 2, ... seeds and its always-valid interval, all float64 [S]."""

    value: FloatArray
    low: FloatArray
    high: FloatArray


class Decision(NamedTuple):
    """After how many seeds a difference was found, None if not yet, and its sign (or 0)."""

    seeds: int | None
    sign: int


@public
def confidence_sequence(
    values: npt.ArrayLike, bounds: tuple[float, float], *, level: float = 0.95
) -> Sequence:
    """Intervals of the mean that hold after every seed at once, with probability `level`.

    By betting: for each mean that is possible, a gambler bets on every next seed lying above, or
    below; had the mean been that, he would multiply his stake by 1 / (1 - level) with probability
    1 - level at most, ever. Means at which he has are left out for good.

    Args:
        values: numbers [S] within `bounds`, in the order in which seeds were run. A seed that
            diverged is given the lower bound.
        bounds: the least and the greatest value that there can be.
        level: see the package.

    Returns:
        After each seed the mean so far, and the ends, on a grid of 1/2000 of the bounds, rounded
        outwards.

    Raises:
        ValueError: values that are not finite or out of bounds.

    Source: Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"
    (the hedged capital process with predictable plug-in bets).
    """
    check_level(level)
    scores = vector(values, "raise", "values")
    least, most = _checked(bounds)
    if scores.min() < least or scores.max() > most:
        raise ValueError(
            f"values reach from {scores.min():g} to {scores.max():g}, beyond the bounds {least:g} "
            f"to {most:g}, which must hold for every seed"
        )
    x = (scores - least) / (most - least)
    n = np.arange(1, x.size + 1)
    bets = _bets(x, 1 - level)
    means = np.linspace(0, 1, _GRID)
    with np.errstate(divide="ignore"):
        caps_up, caps_down = 0.75 / means, 0.75 / (1 - means)
    capital_up, capital_down = np.zeros(_GRID), np.zeros(_GRID)  # logarithms
    threshold = math.log(2 / (1 - level))
    possible = np.ones(_GRID, bool)
    ends = np.empty((2, x.size))
    for i, value in enumerate(x):
        capital_up += np.log1p(np.minimum(bets[i], caps_up) * (value - means))
        capital_down += np.log1p(-np.minimum(bets[i], caps_down) * (value - means))
        possible &= np.maximum(capital_up, capital_down) < threshold
        inside = np.flatnonzero(possible)
        if inside.size:
            step = 1 / (_GRID - 1)
            ends[:, i] = means[inside[0]] - step, means[inside[-1]] + step
        else:  # seeds contradict each other; the last interval stays
            ends[:, i] = ends[:, i - 1] if i else (0, 1)
    low, high = least + (most - least) * ends.clip(0, 1)
    value_so_far: FloatArray = np.cumsum(scores) / n
    return Sequence(value_so_far, low, high)


@public
def sequential_difference(
    x: npt.ArrayLike, y: npt.ArrayLike, bounds: tuple[float, float], *, level: float = 0.95
) -> Sequence:
    """Always-valid intervals of the mean difference of `x` and `y`, seed by seed.

    Args:
        x: numbers [S] within `bounds`, in the order in which seeds were run.
        y: numbers [S]; entry i is from the same seed as that of `x`, or just the i-th.
        bounds: of a score; see `confidence_sequence`.
        level: see the package.

    Raises:
        ValueError: as `confidence_sequence`, and for shapes that do not fit.
    """
    a, b = vector(x, "raise", "x"), vector(y, "raise", "y")
    check_pairs(a, b)
    least, most = _checked(bounds)
    for side in (a, b):
        if side.min() < least or side.max() > most:
            raise ValueError(f"a score lies beyond the bounds {least:g} to {most:g}")
    span = most - least
    return confidence_sequence(a - b, (-span, span), level=level)


@public
def decide(
    x: npt.ArrayLike, y: npt.ArrayLike, bounds: tuple[float, float], *, level: float = 0.95
) -> Decision:
    """After how many seeds a study may stop, since one side is better in the mean.

    Called after every seed, as often as one likes, it errs with probability 1 - level at most in
    all: where the means are equal, that is how often it ever finds a difference.

    Args:
        x: see `sequential_difference`, as for all arguments.
        y: numbers [S].
        bounds: of a score.
        level: see the package.
    """
    found = sequential_difference(x, y, bounds, level=level)
    out = np.flatnonzero((found.low > 0) | (found.high < 0))
    if not out.size:
        return Decision(None, 0)
    return Decision(int(out[0]) + 1, 1 if found.low[out[0]] > 0 else -1)


def _checked(bounds: tuple[float, float]) -> tuple[float, float]:
    least, most = checked_bounds(bounds)
    check_finite(bounds=most - least)
    return least, most


def _bets(x: FloatArray, error: float) -> FloatArray:
    """What to stake on each seed, from those before it alone: [S]."""
    n = np.arange(1, x.size + 1)
    means = (0.5 + np.cumsum(x)) / (n + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (n + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    bets: FloatArray = np.sqrt(2 * math.log(2 / error) / (before * n * np.log(n + 1)))
    return bets
