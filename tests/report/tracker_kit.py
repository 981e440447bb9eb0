"""Rows of made-up numbers for trackers."""

import itertools

import numpy as np

from dqx.study import read_plan
from dqx.study.sinks import Row
from tests.study.kit import BASE

SEEDS = (3, 5, 9)


def plan(**changes):
    table = {"name": "made-up", "seeds": list(SEEDS), "base": BASE, **changes}
    return read_plan(table)


def made_row(points, seeds, step):
    """A row of made-up numbers that tell its runs and its step; odd steps have no evaluation."""
    seeds = np.array(seeds)
    numbers = 100.0 * seeds + step / 100
    none = np.full(len(seeds), np.nan)
    metrics = {
        "episode_count": np.where(seeds == 9, 0, 4),
        "episode_return": np.where(seeds == 9, np.nan, numbers),
        "episode_length": numbers + 1,
        "loss": numbers + 2,
        "epsilon": np.full(len(seeds), 0.25),
        "eval_return": numbers + 3 if step % 200 == 0 else none,
        "eval_q_max": numbers + 4 if step % 200 == 0 else none,
    }
    return Row(tuple(points), seeds, step, {n: v.astype(np.float32) for n, v in metrics.items()})


def fed(sink, given, steps=(100, 200, 300, 400), seeds=SEEDS):
    """The sink after a study of one configuration, one seed after the other."""
    sink.open(given)
    for seed, step in itertools.product(seeds, steps):
        sink.row(made_row(given.points, [seed], step))
    sink.close()
