"""How often the rule of `dqx tune` drops the best candidate, and what it saves: by simulation.

Races of 16 candidates on made-up scores, one table row a rule and a kind of truth; nothing is
trained. The truths of the candidates are spread over as much as a seed's luck (standard deviation
1), so that some are near the best and most are not.

    python benchmarks/tune_rule.py --json benchmarks/results/tune_rule.json
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dqx.report.terminal import markdown
from dqx.study.tuning.race import decide, judge, ranked

CANDIDATES, LEVEL = 16, 0.95
RULES = (((2, 4, 8, 16), 1.0), ((2, 4, 8, 16), 0.5), ((4, 8, 16), 1.0), ((4, 8, 16), 0.5))


def normal(rng: np.random.Generator, truths: np.ndarray, seeds: int) -> np.ndarray:
    """Scores ``[candidates, seeds]`` whose luck is normal."""
    return truths[:, None] + rng.normal(size=(truths.size, seeds))


def capped(rng: np.random.Generator, truths: np.ndarray, seeds: int) -> np.ndarray:
    """Scores with a ceiling that most seeds of good candidates reach, as on CartPole."""
    return np.minimum(normal(rng, truths, seeds), 0.5)


def failing(rng: np.random.Generator, truths: np.ndarray, seeds: int) -> np.ndarray:
    """Scores of which one in five is far below, of a seed that fails."""
    lost = rng.random((truths.size, seeds)) < 0.2
    return normal(rng, truths, seeds) - 5.0 * lost


LUCK = {"normal": normal, "capped": capped, "a fifth fails": failing}


def iqms(draw: Callable[..., np.ndarray], truths: np.ndarray) -> np.ndarray:
    """What each candidate is worth over very many seeds."""
    many = np.sort(draw(np.random.default_rng(0), truths, 40_000), axis=1)
    return np.asarray(many[:, 10_000:30_000].mean(axis=1))


def race(scores: np.ndarray, rungs: tuple[int, ...], keep: float) -> tuple[int, list[int], int]:
    """The winner, who finished, and how many runs it took."""
    racing, runs = list(range(len(scores))), 0
    for rung, count in enumerate(rungs):
        runs += len(racing) * (count - (rungs[rung - 1] if rung else 0))
        judged = {n: judge(scores[n, :count].tolist(), 0.0, LEVEL) for n in racing}
        if rung < len(rungs) - 1:
            out = decide(judged, None, keep)
            racing = [n for n in racing if n not in out]
    return ranked(judged)[0], racing, runs


def row(luck: str, rungs: tuple[int, ...], keep: float, trials: int) -> dict[str, Any]:
    """What many races of one kind end in."""
    draw, lost, missed, runs = LUCK[luck], 0, [], []
    for trial in range(trials):
        rng = np.random.default_rng([trial, 17])
        truths = rng.normal(size=CANDIDATES)
        worth = iqms(draw, truths)
        scores = draw(rng, truths, rungs[-1])
        winner, finished, count = race(scores, rungs, keep)
        # Where several are worth the same, as at a ceiling, any of them is the best.
        best = np.flatnonzero(worth >= worth.max() - 1e-9)
        lost += not set(best.tolist()) & set(finished)
        missed.append(worth.max() - worth[winner])
        runs.append(count)
    whole = CANDIDATES * rungs[-1]
    return {
        "luck": luck,
        "rungs": " ".join(map(str, rungs)),
        "keep": keep,
        "best dropped": lost / trials,
        "winner below the best": float(np.mean(missed)),
        "share of the runs": float(np.mean(runs)) / whole,
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--trials", type=int, default=400, help="races a row; default: 400")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    options = parser.parse_args()
    rows = [row(luck, *rule, options.trials) for luck in LUCK for rule in RULES]
    print("\n".join(markdown(rows)))
    if options.json:
        options.json.write_text(
            json.dumps({"trials": options.trials, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
