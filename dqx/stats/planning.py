"""How many seeds a comparison takes, and how often few seeds name the wrong winner.

Both are simulated from the seeds at hand, as if these were all there are: small studies are drawn
from them with replacement. With few seeds at hand that is a rough guide, no more; around 20 of each
side make it a good one.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import MOST_SEEDS, public
from dqx.stats.intervals import center_and_error, normal_quantile, student_quantile
from dqx.stats.samples import (
    FloatArray,
    NanPolicy,
    check_level,
    check_pairs,
    check_resamples,
    finite_of,
    generator,
    iqm,
    trimmed_mean,
    vector,
)

_MIXED = 1000  # scores of a weaker agent where more of its seeds fall short
_FEWEST_SHORT = 10  # scores that say how they do


@public
def wrong_winner(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    seeds: Sequence[int] = (3, 5, 10, 20),
    *,
    paired: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> FloatArray:
    """How often a study of n seeds a side names the wrong winner, by its IQMs.

    The right winner is the one of all seeds at hand; where they tie, either is wrong half of the
    time. A tie of the small study counts as half a mistake, as a coin would decide it.

    Args:
        a: real numbers [Sa].
        b: real numbers [Sb]; paired: [Sa], seeds in the same order.
        seeds: sizes n of small studies.
        paired: whether both sides of a small study share their seeds.
        resamples: how many small studies of each size.
        seed: of the draws.
        nan: see the package.

    Returns:
        float64 [len(seeds)], shares from 0 to 1.

    Raises:
        ValueError: as `iqm`, for sizes below 1, and where "drop" leaves no seed.
    """
    check_resamples(resamples)
    x, y = _sides(a, b, paired, nan)
    right = np.sign(iqm(x) - iqm(y))
    rng = generator(seed)
    rates = []
    for n in seeds:
        if not 1 <= n <= MOST_SEEDS:
            raise ValueError(f"seeds hold {n}: a study has at least 1, here {MOST_SEEDS:,} at most")
        left, other = _studies(x, y, n, paired, resamples, rng)
        named = np.sign(trimmed_mean(left, axis=0) - trimmed_mean(other, axis=0))
        rates.append(np.mean((1 - right * named) / 2))
    found: FloatArray = np.array(rates)
    return found


@public
def seeds_needed(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    power: float = 0.8,
    *,
    level: float = 0.95,
    paired: bool = False,
    most: int = 1000,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> int | None:
    """How many seeds a side tell `a` from `b`, if they differ by as much as the seeds at hand do.

    The smallest n at which a share `power` of simulated studies finds the difference of IQMs (or,
    paired, the IQM of the differences): the interval of it, the t part of `difference`, leaves out
    0, on the right side, and n is so large that a permutation test could find it as well. What is
    drawn is spread around its IQM by sqrt(S / (S - 1)) more than the S seeds at hand, which lie
    closer together than all that could have been run.

    It says nothing about whether they differ. A difference that luck has made large asks for few
    seeds; take it as the order of magnitude.

    Args:
        a: real numbers [Sa], at least two.
        b: real numbers [Sb], at least two; paired: [Sa], seeds in the same order.
        power: how often a study of n seeds should find it.
        level: of the interval that has to leave out 0.
        paired: whether studies share their seeds between both sides.
        most: where the search ends.
        resamples: how many studies of each size.
        seed: of the draws.
        nan: see the package.

    Returns:
        n; None where it is above `most`, as it is where both IQMs are equal.

    Raises:
        ValueError: as `iqm`, for a side with fewer than two seeds, and for numbers out of range.
    """
    for name, share in (("power", power), ("level", level)):
        if not 0 < share < 1:
            raise ValueError(f"{name} is {share}: give a probability between 0 and 1")
    check_level(level)
    check_resamples(resamples)
    if not 2 <= most <= MOST_SEEDS:
        raise ValueError(f"most is {most}: give 2 to {MOST_SEEDS:,} seeds")
    x, y = _sides(a, b, paired, nan)
    if min(x.size, y.size) < 2:
        raise ValueError("one seed tells nothing about spread: give at least two a side")
    if paired:
        x, y = x - y, np.zeros(x.size)
    gap = float(iqm(x) - iqm(y))
    x, y = _widened(x), _widened(y)
    if gap == 0:
        return None

    def enough(n: int) -> bool:
        rng = generator(seed)
        if paired:
            values = x[rng.integers(x.size, size=(n, resamples))]
            middle, half = _t_ends(np.sort(values, axis=0), level)
        else:
            left, other = _studies(x, y, n, False, resamples, rng)
            (m_a, half_a), (m_b, half_b) = _t_ends(left, level), _t_ends(other, level)
            middle, half = m_a - m_b, np.hypot(half_a, half_b)
        return bool(np.mean(np.sign(gap) * middle > half) >= power)

    fewest = _fewest(level, paired)
    guess = _guess([x] if paired else [x, y], gap, power, level)
    if fewest > most or guess > 3 * most:
        return None
    return _least(enough, fewest, min(max(fewest, math.ceil(guess)), most), most)


@public
def lowered(scores: npt.ArrayLike, difference: float, *, nan: NanPolicy = "raise") -> FloatArray:
    """Scores of an agent whose IQM is lower by a difference, to plan with beside those at hand.

    Where the middle seeds spread, every score is lower by it. Where they all end at the best score,
    as on CartPole, that would be an agent whose seeds hardly spread; there more seeds fall short,
    with scores like those that fall short here, until the IQM is as low as asked.

    Args:
        scores: real numbers [S].
        difference: above 0.
        nan: see the package.

    Returns:
        float64 [S], or, where the middle seeds agree, [1000].

    Raises:
        ValueError: as `iqm`; where the middle seeds agree and fewer than 10 of those at hand fall
            short, or all that do would not lower the IQM so far; for a difference that is not
            above 0.
    """
    given = finite_of(vector(scores, nan, "scores"), "scores")
    if not 0 < difference < math.inf:
        raise ValueError(f"difference is {difference}: give a number above 0")
    rising = np.sort(given)
    cut = rising.size // 4
    center = float(rising[cut])  # the IQM where the middle seeds agree; a mean of them may round
    if rising[cut] < rising[rising.size - cut - 1]:
        lower: FloatArray = given - difference
        return lower
    short = rising[rising < center]
    if short.size < _FEWEST_SHORT:
        raise ValueError(
            f"all middle seeds end at {center:g}, and {short.size} of {rising.size} below, too few "
            "to say how those of a weaker agent would spread"
        )

    def mixed(count: int) -> FloatArray:
        places = (np.arange(count) + 0.5) * short.size / max(count, 1)
        return np.concatenate([short[places.astype(int)], np.full(_MIXED - count, center)])

    def low_enough(count: int) -> bool:
        return center - float(iqm(mixed(count))) >= difference

    if not low_enough(_MIXED):
        most = center - float(iqm(short))
        raise ValueError(
            f"all middle seeds end at {center:g}; if all fell short as {short.size} of "
            f"{rising.size} do, the IQM would be lower by {most:.2f}, not by {difference:g}"
        )
    return mixed(_least(low_enough, 1, _MIXED // 2, _MIXED) or _MIXED)


def _least(enough: Callable[[int], bool], fewest: int, guess: int, most: int) -> int | None:
    """The least of `fewest` to `most` that is enough, None if none is, searched from a guess."""
    if enough(guess):
        low, high = fewest - 1, guess
        while high > fewest and enough(closer := max(fewest, high * 3 // 4)):
            high = closer
        if high > fewest:
            low = max(fewest, high * 3 // 4)
    else:
        low, high = guess, guess
        while not enough(high):
            if high == most:
                return None
            low, high = high, min(most, high * 4 // 3 + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _guess(sides: Sequence[FloatArray], gap: float, power: float, level: float) -> float:
    """About how many seeds it takes, if IQMs were normal and their errors known."""
    variance = 0.0
    for side in sides:
        _, error, _ = center_and_error(np.sort(side)[:, None], iqm)
        variance += side.size * float(error[0]) ** 2
    apart = normal_quantile(level) + NormalDist().inv_cdf(power)
    return variance * (apart / gap) ** 2


def _fewest(level: float, paired: bool) -> int:
    """The least n at which a two-sided permutation test can reach 1 - level."""
    n = 2
    while 2 / (2**n if paired else math.comb(2 * n, n)) > 1 - level:
        n += 1
    return n


def _t_ends(rising: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """The IQM and half the width of the t part of `interval`: [n, R] -> [R] twice."""
    middle, error, freedom = center_and_error(rising, iqm)
    return middle, student_quantile(level, freedom) * error


def _widened(values: FloatArray) -> FloatArray:
    center = iqm(values)
    found: FloatArray = center + (values - center) * math.sqrt(values.size / (values.size - 1))
    return found


def _studies(
    x: FloatArray, y: FloatArray, n: int, paired: bool, count: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw small studies with replacement, each side's values rising: [n, count] twice."""
    first = rng.integers(x.size, size=(n, count))
    second = first if paired else rng.integers(y.size, size=(n, count))
    return np.sort(x[first], axis=0), np.sort(y[second], axis=0)


def _sides(
    a: npt.ArrayLike, b: npt.ArrayLike, paired: bool, nan: NanPolicy
) -> tuple[FloatArray, FloatArray]:
    x, y = vector(a, nan, "a"), vector(b, nan, "b")
    if not paired:
        return finite_of(x, "a"), finite_of(y, "b")
    check_pairs(x, y)
    both = np.isfinite(x) & np.isfinite(y)
    return finite_of(x[both], "a"), finite_of(y[both], "b")
