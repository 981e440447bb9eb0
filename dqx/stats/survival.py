"""Steps until a threshold is reached, where some seeds never reach it (censoring).

A seed that has not reached the threshold when its training ends is not left out and not given an
end: it is known to need more. Kaplan and Meier's curve makes the most of that. A seed that diverged
never reaches anything, so it counts as training until the end, not as lost on the day it diverged.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import public
from dqx.stats.curves import curves_of
from dqx.stats.intervals import interval, normal_quantile
from dqx.stats.samples import Estimate, FloatArray, check_finite, check_level


class Times(NamedTuple):
    """Steps [S] until each seed reached a threshold, or was last seen, and which reached it."""

    steps: FloatArray
    reached: npt.NDArray[np.bool_]


class Survival(NamedTuple):
    """The share of seeds that have not reached a threshold after so many steps, all float64 [E].

    It is `value` from `steps` on, and 1 before the first; `at_risk` seeds were still on their way.
    """

    steps: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray
    at_risk: FloatArray


@public
def steps_to_threshold(
    steps: npt.ArrayLike, values: npt.ArrayLike, threshold: float, *, window: int = 1
) -> Times:
    """Find the first step at which each seed has reached a threshold.

    Args:
        steps: environment steps [K], rising.
        values: numbers [S, K]; what is NaN or infinite has not reached anything.
        threshold: in the values' unit; equal is enough.
        window: how many values in a row must reach it; the step is that of the last of them.

    Returns:
        The steps, the last one at hand for seeds that never reach it, and whether they did.

    Raises:
        ValueError: shapes that do not fit, steps that do not rise, or a window out of range.
    """
    check_finite(threshold=threshold)
    below = np.asarray(values, np.float64)
    x, y = curves_of(steps, np.where(np.isfinite(below), below, -np.finfo(np.float64).max), "raise")
    if not 1 <= window <= x.size:
        raise ValueError(f"window is {window}: give 1 to {x.size}, the number of points")
    there = np.lib.stride_tricks.sliding_window_view(y >= threshold, window, axis=1).all(axis=2)
    reached = np.any(there, axis=1)
    first = np.argmax(there, axis=1) + window - 1
    return Times(np.where(reached, x[first], x[-1]), reached)


@public
def survival_curve(
    steps: npt.ArrayLike, reached: npt.ArrayLike, *, level: float = 0.95
) -> Survival:
    """Estimate the share of seeds that need more than so many steps.

    Args:
        steps: positive numbers [S], when each seed reached the threshold or was last seen.
        reached: booleans [S].
        level: of the pointwise intervals (Greenwood's variance on the scale of log(-log)).

    Returns:
        One entry for each distinct number of steps at which a seed got there.

    Raises:
        ValueError: shapes that do not fit, no seeds, or numbers that are not finite.

    Sources: Kaplan and Meier 1958, "Nonparametric estimation from incomplete observations";
    Kalbfleisch and Prentice 2002, section 1.4 (the intervals); Clopper and Pearson 1934 (their end
    where nobody is left).
    """
    check_level(level)
    times, done = _times(steps, reached)
    events = np.unique(times[done])
    at_risk = (times >= events[:, None]).sum(axis=1).astype(np.float64)
    ended = ((times == events[:, None]) & done).sum(axis=1)
    value = np.cumprod(1 - ended / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(ended / (at_risk * (at_risk - ended)))
        log = np.log(value)
        far = normal_quantile(level) * np.sqrt(variance) / np.abs(log)
        low, high = value ** np.exp(far), value ** np.exp(-far)
    inside = (value > 0) & (value < 1)
    # Once all have got there the formula has no width to give: then it is the exact interval of
    # none of those seeds of which it is known.
    known = ((times >= events[:, None]) | done).sum(axis=1)
    none = 1 - ((1 - level) / 2) ** (1 / known)
    low = np.where(inside, low, 0.0)
    high = np.where(inside, high, np.where(value <= 0, none, 1.0))
    return Survival(events, value, low, high, at_risk)


@public
def median_steps(steps: npt.ArrayLike, reached: npt.ArrayLike, *, level: float = 0.95) -> Estimate:
    """Steps after which half of the seeds have reached the threshold; infinite where fewer do.

    Args:
        steps: see `survival_curve`, as for `reached`.
        reached: booleans [S].
        level: of the interval, whose ends are where the curve's ends cross one half.

    Raises:
        ValueError: as `survival_curve`.

    Source: Brookmeyer and Crowley 1982, "A confidence interval for the median survival time".
    """
    curve = survival_curve(steps, reached, level=level)

    def crossed(share: FloatArray) -> float:
        under = np.flatnonzero(share <= 0.5 + 1e-12)
        return float(curve.steps[under[0]]) if under.size else math.inf

    ends: FloatArray = np.array([crossed(curve.value), crossed(curve.low), crossed(curve.high)])
    return Estimate(*ends)


@public
def restricted_mean_steps(
    steps: npt.ArrayLike,
    reached: npt.ArrayLike,
    until: float,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean steps to the threshold, each seed's counted up to `until` at most.

    The area under the survival curve. Its interval is `interval` of the seeds' pseudo-values (what
    each adds to the area), which are min(steps, until) where all were watched that long.

    Args:
        steps: see `survival_curve`, as for `reached`.
        reached: booleans [S].
        until: steps; at most the longest that a seed was watched.
        level: see the package, as for `seed`.

    Raises:
        ValueError: as `survival_curve`, and for `until` out of range.

    Source: Andersen, Hansen and Klein 2004, "Regression analysis of restricted mean survival time
    based on pseudo-observations".
    """
    times, done = _times(steps, reached)
    if not 0 < until <= times.max():
        raise ValueError(f"until is {until:g}: give steps up to {times.max():g}, the longest seen")
    n = times.size
    whole = _area(times, done, until)
    if n == 1:
        none: FloatArray = np.full((), np.nan)[()]
        return Estimate(np.array(whole)[()], none, none)
    others = [_area(np.delete(times, i), np.delete(done, i), until) for i in range(n)]
    pseudo = n * whole - (n - 1) * np.array(others)
    found = interval(pseudo, np.mean, level=level, seed=seed)
    return Estimate(np.array(whole)[()], found.low, found.high)


def _area(times: FloatArray, done: npt.NDArray[np.bool_], until: float) -> float:
    """The area under the survival curve from 0 to `until`."""
    if not done.any():
        return until
    curve = survival_curve(times, done)
    inside = curve.steps < until
    edges = np.concatenate([[0.0], curve.steps[inside], [until]])
    return float(np.diff(edges) @ np.concatenate([[1.0], curve.value[inside]]))


def _times(
    steps: npt.ArrayLike, reached: npt.ArrayLike
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    times, given = np.asarray(steps, np.float64), np.asarray(reached, np.float64)
    if not np.isin(given, (0, 1)).all():
        raise ValueError("reached must be True or False for each seed")
    done = given == 1
    if times.ndim != 1 or times.shape != done.shape or not times.size:
        raise ValueError(
            f"steps have shape {list(times.shape)}, reached {list(done.shape)}: give one of each a "
            "seed"
        )
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise ValueError("steps must be finite and above 0: a seed that never gets there has the "
                         "steps it was trained for, and False in reached")  # fmt: skip
    return times, done
