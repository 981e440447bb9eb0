"""Who stays in the race: the rule by which seeds decide, as pure functions of scores.

A candidate's value is the interquartile mean of its scores, and its interval `dqx.stats.interval`.
Where there is none because its middle seeds agree, its lowest and its highest seed stand for the
ends; one seed alone reaches from minus infinity to infinity. After each rung but the last:

1. The bar is the highest lower end of all intervals of those judged, and of the champion's: that is
   the best of earlier generations, on all of its seeds. Whoever's upper end lies below the bar is
   dropped ("interval").
2. Of those left at most the share ``keep`` of those judged go on, the best by value; the others are
   dropped too ("share"). With ``keep = 1`` nobody is.

Whoever has the bar cannot be dropped by the first, and the best by value not by the second. Scores
that are not finite, of seeds that diverged, count as the lowest finite score of the whole search so
far.

Sources: Maron and Moore 1994, "Hoeffding Races" (racing by intervals); Jamieson and Talwalkar
2016, "Non-stochastic Best Arm Identification" (halving by rank).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dqx import stats


class Judged(NamedTuple):
    """What the seeds so far say of a candidate.

    Attributes:
        seeds: how many.
        value: interquartile mean of their scores.
        low: lower end of its interval; NaN where there is none.
        high: upper end; NaN where there is none.
        mean: of the scores, which decides between equal values.
        least: the lowest score.
        most: the highest score.
        diverged: scores that were not finite, counted as the lowest.
    """

    seeds: int
    value: float
    low: float
    high: float
    mean: float
    least: float
    most: float
    diverged: int

    @property
    def reach(self) -> tuple[float, float]:
        """The ends that decide: of the interval, or what stands for it."""
        if not math.isnan(self.low):
            return self.low, self.high
        return (self.least, self.most) if self.seeds > 1 else (-math.inf, math.inf)

    @property
    def interval_text(self) -> str:
        """The interval as a person reads it, or why there is none."""
        none = stats.why_none(self.seeds, self.low)
        return none or f"{self.low:.1f} to {self.high:.1f}"


class Dropped(NamedTuple):
    """Why a candidate is out.

    Attributes:
        rule: ``"interval"`` or ``"share"``.
        bar: the lower end that its upper end does not reach, or the value that it had to have.
    """

    rule: str
    bar: float


def judge(scores: Sequence[float], worst: float, level: float) -> Judged:
    """What the scores of a candidate say.

    Args:
        scores: one a seed; NaN for a seed that diverged.
        worst: what such a seed counts as.
        level: of the interval.
    """
    given = np.array(scores, np.float64)
    lost = ~np.isfinite(given)
    counted = np.where(lost, worst, given)
    value, low, high = stats.interval(counted, level=level)
    return Judged(
        seeds=given.size,
        value=float(value),
        low=float(low),
        high=float(high),
        mean=float(counted.mean()),
        least=float(counted.min()),
        most=float(counted.max()),
        diverged=int(lost.sum()),
    )


def decide(
    judged: Mapping[int, Judged], champion: Judged | None, keep: float
) -> dict[int, Dropped]:
    """Who is dropped after a rung, by number.

    Args:
        judged: those in the race, by number; equal ones are ranked by it.
        champion: the best of earlier generations; None in the first.
        keep: the largest share that goes on.
    """
    rivals = [*judged.values(), *([champion] if champion is not None else [])]
    bar = max((rival.reach[0] for rival in rivals), default=-math.inf)
    out = {n: Dropped("interval", bar) for n, one in judged.items() if one.reach[1] < bar}
    left = ranked({n: one for n, one in judged.items() if n not in out})
    places = max(1, math.ceil(keep * len(judged)))
    if len(left) > places:
        least = judged[left[places - 1]].value
        out |= {number: Dropped("share", least) for number in left[places:]}
    return out


def ranked(judged: Mapping[int, Judged]) -> list[int]:
    """The numbers of candidates from the best to the worst: by value, then mean, then number."""
    return sorted(judged, key=lambda n: (-judged[n].value, -judged[n].mean, n))
