"""Measures how often intervals hold the truth, by simulation, and how wide they are for it.

    python scripts/coverage.py                 # prints both tables, some minutes on 2 cores
    python scripts/coverage.py --write docs/statistics.md

Truths are distributions whose IQM is known to many digits; samples of a few seeds are drawn from
each, and `dqx.stats.interval` and the percentile bootstrap put a 95 % interval around each sample's
IQM. Samples whose middle seeds all agree get no interval: they are counted apart, and are part of
no coverage. A second table has the intervals of comparisons, tasks, curves, quantiles and those
that hold after every seed; then come some lines on stopping early.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from dqx import stats
from dqx.files import whole_file
from dqx.report.terminal import markdown

SEEDS = (3, 4, 5, 7, 10, 32)
# What the interval has to hold at least, by number of seeds.
TARGETS = {3: 0.93, 5: 0.90, 10: 0.92, 32: 0.92}
BLOCK = 2_000
BEGIN, END = "<!-- {} -->", "<!-- end of {} -->"


class Truth(NamedTuple):
    """A distribution of scores: how to draw from it, its IQM, and whether targets hold for it."""

    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    iqm: float
    bound: bool = True


class Found(NamedTuple):
    """What samples of one size from one truth gave."""

    none: float  # share of samples whose middle seeds all agree
    coverage: float  # of the interval, among the others
    bootstrap: float  # coverage of the percentile bootstrap among the same
    width: float  # mean width over that of the percentile bootstrap


def lognormal(u: np.ndarray) -> np.ndarray:
    """Quantiles of the exponential of a standard normal value."""
    normal = NormalDist()
    return np.exp([normal.inv_cdf(float(p)) for p in u])


def two_modes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """30 % of the seeds near 50, the others near 480."""
    fails = rng.random(shape) < 0.3
    return np.where(fails, rng.normal(50, 25, shape), rng.normal(480, 10, shape))


def two_modes_iqm() -> float:
    """By its quantiles, from the distribution function on a grid."""
    x = np.linspace(-100, 600, 700_001)
    low, high = NormalDist(50, 25), NormalDist(480, 10)
    coarse = x[::100]
    below = [0.3 * low.cdf(v) + 0.7 * high.cdf(v) for v in coarse]
    return middle(np.interp(points(), below, coarse))


def points(count: int = 200_000) -> np.ndarray:
    """Probabilities evenly over the middle half."""
    return 0.25 + 0.5 * (np.arange(count) + 0.5) / count


def middle(quantiles: np.ndarray) -> float:
    """The IQM from quantiles at `points`."""
    return float(quantiles.mean())


def truths() -> dict[str, Truth]:
    """The distributions by name."""
    return {
        "normal": Truth(lambda rng, shape: rng.normal(size=shape), 0.0),
        "lognormal": Truth(
            lambda rng, shape: rng.lognormal(size=shape), middle(lognormal(points()))
        ),
        "t, 3 degrees of freedom": Truth(lambda rng, shape: rng.standard_t(3, shape), 0.0),
        "30 % at 0, 70 % at 500": Truth(
            lambda rng, shape: np.where(rng.random(shape) < 0.3, 0.0, 500.0), 450.0
        ),
        "half at 0, half at 500": Truth(
            lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.0, 500.0), 250.0
        ),
        "70 % tie at 500, others uniform below": Truth(
            lambda rng, shape: 500 * np.minimum(rng.random(shape) / 0.3, 1.0),
            middle(500 * np.minimum(points() / 0.3, 1.0)),
        ),
        "30 % near 50, 70 % near 480, no ties": Truth(two_modes, two_modes_iqm(), bound=False),
    }


def measure(truth: Truth, seeds: int, samples: int, resamples: int = 1000, pick: int = 0) -> Found:
    """Draw `samples` samples of so many seeds and count what their intervals hold."""
    rng = np.random.default_rng([pick, seeds])
    held = {"interval": 0, "bootstrap": 0}
    width = {"interval": 0.0, "bootstrap": 0.0}
    given = 0
    slack = 1e-9 * max(1.0, abs(truth.iqm))  # where the truth is an atom, its last bits
    for block in range(-(-samples // BLOCK)):
        values = truth.draw(rng, (seeds, min(BLOCK, samples - block * BLOCK)))
        _, *shown = stats.interval(values, resamples=resamples, seed=block)
        plain = stats.bootstrap_interval(values, resamples=resamples, seed=block)
        has = np.isfinite(shown[0])
        given += int(has.sum())
        for name, (low, high) in {"interval": shown, "bootstrap": plain}.items():
            holds = (low <= truth.iqm + slack) & (truth.iqm - slack <= high)
            held[name] += int((holds & has).sum())
            width[name] += float((high - low)[has].sum())
    return Found(
        none=1 - given / samples,
        coverage=held["interval"] / given,
        bootstrap=held["bootstrap"] / given,
        width=width["interval"] / width["bootstrap"],
    )


def table(samples: int) -> tuple[list[str], list[str]]:
    """The table's lines, and what falls below its target."""
    rows, missed = [], []
    for name, truth in truths().items():
        for seeds in SEEDS:
            found = measure(truth, seeds, samples)
            row = {
                "truth": name,
                "seeds": seeds,
                "no interval": f"{found.none:.3f}",
                "holds the truth": f"{found.coverage:.3f}",
                "bootstrap alone": f"{found.bootstrap:.3f}",
                "times as wide": f"{found.width:.2f}",
            }
            rows.append(row)
            if truth.bound and found.coverage < TARGETS.get(seeds, 0.0):
                missed.append(f"{name}, {seeds} seeds: {found.coverage:.3f}")
    return markdown(rows), missed


Held = Callable[..., bool | None]  # None: there is no interval


def holds(found: stats.Estimate, truth: float) -> bool:
    """Whether an interval holds the truth; one without ends holds nothing."""
    return bool(found.low <= truth <= found.high)


def _difference(rng: np.random.Generator, i: int, n: int) -> bool:
    x, y = rng.normal(1, 1, n), rng.normal(0, 3, n)
    return holds(stats.difference(x, y, resamples=200, seed=i), 1.0)


def _capped(rng: np.random.Generator, i: int, n: int) -> bool | None:
    x, y = rng.choice([0.0, 500.0], n, p=[0.3, 0.7]), rng.normal(300, 10, n)
    found = stats.difference(x, y, resamples=200, seed=i)
    # Of the middle half a tenth is 0.
    return None if np.isnan(found.low) else holds(found, 450.0 - 300.0)


def _paired(rng: np.random.Generator, i: int, n: int) -> bool:
    luck = rng.normal(0, 5, n)
    x, y = luck + rng.normal(1, 1, n), luck + rng.normal(0, 1, n)
    return holds(stats.difference(x, y, paired=True, resamples=200, seed=i), 1.0)


def _improvement(rng: np.random.Generator, i: int, n: int, gap: float) -> bool:
    x, y = rng.normal(gap, 1, n), rng.normal(0, 1, n)
    found = stats.probability_of_improvement(x, y, resamples=200, seed=i)
    return holds(found, NormalDist().cdf(gap / np.sqrt(2)))


def _quantile(rng: np.random.Generator, i: int) -> bool:
    return holds(stats.quantile(rng.exponential(size=40), 0.1), -np.log(0.9))


def others() -> list[tuple[str, int, Held]]:
    """Intervals beside the one of an IQM: what, how many seeds, and whether one sample's holds."""
    cases: list[tuple[str, int, Held]] = []
    for name, held in (
        ("difference, normal, spreads 1 and 3", _difference),
        ("difference by shared seed, normal", _paired),
        ("P(A > B), normal, equal sides", partial(_improvement, gap=0.0)),
        ("P(A > B), normal, one spread apart", partial(_improvement, gap=1.0)),
    ):
        cases += [(name, n, partial(held, n=n)) for n in (3, 5, 10)]
    for method in ("scaled", "percentile"):
        cases.append((f"mean over 10 tasks, {method}", 3, partial(_tasks, method=method)))
    for name, kind in (("whole curve of 15 points, its band", 0), ("the same, pointwise band", 1)):
        cases += [(name, n, partial(_band, n=n, kind=kind)) for n in (5, 10, 32)]
    cases.append(("tenth percentile, exponential", 40, _quantile))
    for name, cap in (
        ("after each of 150 seeds, uniform", 0.0),
        ("the same, 70 % at the cap", 0.3),
    ):
        cases.append((name, 150, partial(_sequence, cap=cap)))
    capped = "difference, one side 30 % at 0, 70 % at 500"
    return [*cases, *((capped, n, partial(_capped, n=n)) for n in (3, 5, 10))]


def _tasks(rng: np.random.Generator, i: int, method: str) -> bool:
    scores = {"x": rng.normal(np.arange(10) / 10, 1, (3, 10))}
    found = stats.get_interval_estimates(scores, np.mean, method=method, resamples=300, seed=i)
    low, high = found.interval_estimates["x"]
    return bool(low <= 0.45 <= high)


def _band(rng: np.random.Generator, i: int, n: int, kind: int) -> bool:
    curves = np.cumsum(rng.normal(size=(n, 15)), axis=1) + rng.normal(size=(n, 1))
    band = stats.simultaneous_band(curves, resamples=300, seed=i)
    low, high = ((band.low, band.high), (band.point_low, band.point_high))[kind]
    return bool(((low <= 0) & (high >= 0)).all())


def _sequence(rng: np.random.Generator, i: int, cap: float) -> bool:
    values = rng.random(150)
    truth = 0.5
    if cap:
        values, truth = (values > cap).astype(float), 1 - cap
    found = stats.confidence_sequence(values, (0, 1))
    return bool(((found.low <= truth) & (truth <= found.high)).all())


def other_table(samples: int) -> list[str]:
    """How often the other intervals hold the truth."""
    rows = []
    for number, (what, seeds, held) in enumerate(others()):
        rng = np.random.default_rng([7, number])
        found = [held(rng, i) for i in range(samples)]
        there = [one for one in found if one is not None]
        rows.append(
            {
                "interval": what,
                "seeds": seeds,
                "no interval": f"{1 - len(there) / samples:.3f}",
                "holds the truth": f"{np.mean(there):.3f}",
            }
        )
    return markdown(rows)


def stopping(samples: int) -> list[str]:
    """How often `decide` finds what is not there, and how many seeds it takes for what is."""
    rng = np.random.default_rng(9)
    false = {"uniform scores": 0, "scores that tie at the cap in 70 %": 0}
    for _ in range(samples):
        sides = rng.random((2, 150))
        for name, both in zip(false, (sides, (sides > 0.3).astype(float)), strict=True):
            false[name] += stats.decide(*both, (0, 1)).seeds is not None
    lines = [
        f"decide, equal sides, a look after each of 150 seeds, {name}: found in {n / samples:.3f}"
        for name, n in false.items()
    ]
    taken = []
    for _ in range(samples // 2):
        sides = (rng.random((2, 300)) < [[0.9], [0.6]]).astype(float)
        taken.append(stats.decide(*sides, (0, 1)).seeds or np.inf)
    middle, most = np.quantile(taken, (0.5, 0.8), method="higher")
    words = f"{middle:.0f} seeds in the median, {most:.0f} or fewer in 80 % of studies"
    return [*lines, f"decide, 90 % against 60 % of seeds succeed: {words}"]


def written(text: str, name: str, lines: list[str]) -> str:
    """A text with a table in place of what is between its two marks."""
    before, _, rest = text.partition(f"{BEGIN.format(name)}\n")
    _, found, after = rest.partition(END.format(name))
    if not found:
        raise ValueError(f"there are no lines {BEGIN.format(name)} and {END.format(name)}")
    return "\n".join([f"{before}{BEGIN.format(name)}", *lines, f"{END.format(name)}{after}"])


def main() -> int:
    """Prints the tables; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20_000, help="of each kind and size")
    parser.add_argument("--others", type=int, default=2_000, help="samples of the second table")
    parser.add_argument("--write", type=Path, help="a Markdown file whose tables are replaced")
    args = parser.parse_args()
    lines, missed = table(args.samples)
    print("\n".join(lines))
    more = other_table(args.others)
    print("\n".join([*more, *stopping(args.others // 2)]))
    if args.write:
        text = written(args.write.read_text(), "coverage", lines)
        with whole_file(args.write) as file:
            file.write(written(text, "other coverage", more).encode())
    for line in missed:
        print(f"below its target: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
