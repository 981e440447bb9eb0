"""What the tests of searches share: a tune file, and studies whose scores are made up."""

import math
import zlib

import numpy as np

from dqx.study import finish, load
from dqx.study.folder import Folder
from tests.study.kit import BASE, IDENTITY, make_study

SPACE = {
    "learning_rate": {"log_uniform": [1e-5, 1e-1]},
    "gamma": {"uniform": [0.9, 0.999]},
}


def table(**changes):
    """A tune file as a dictionary; ``changes`` are of [tune]."""
    given = {"generations": 3, "population": 6, "rungs": [2, 4], "fresh_seeds": 5, "seed": 1}
    return {
        "name": "made",
        "base": dict(BASE),
        "tune": {"space": dict(SPACE), **given, **changes},
    }


def quality(point, seed, spread=5.0):
    """A made-up score: best at a learning rate of 1e-3, the luck of the seed added."""
    luck = np.random.default_rng([zlib.crc32(point.name.encode()), seed]).normal(0, spread)
    return float(np.float32(100 - 30 * abs(math.log10(point.hyper.learning_rate) + 3) + luck))


def make(path, plan, score=quality, identity=IDENTITY):
    """Writes a finished study of a plan, with the scores that ``score(point, seed)`` gives."""
    points = {point.name: point for point in plan.points}

    def change(name, seed, run):
        run["metrics"]["eval_return"][-1] = score(points[name], seed)

    make_study(path, plan, change=change, identity=identity)
    finish.write_manifest(Folder(path), {})
    return load(path)


class Maker:
    """Stands in for `dqx.study.run`: makes studies up, and tells which.

    Attributes:
        made: the place and the plan of every study, in order.
    """

    def __init__(self, root, score=quality, dies_at=None, identity=IDENTITY):
        self.root, self.score, self.dies_at, self.identity = root, score, dies_at, identity
        self.made = []

    def __call__(self, place, plan):
        if len(self.made) == self.dies_at:
            raise Killed(place)
        self.made.append((place, plan))
        return make(self.root / place, plan, self.score, self.identity)

    def runs(self):
        """Configuration and seed of every run that was trained, in order."""
        return [
            (point.name, seed)
            for _, plan in self.made
            for point in plan.points
            for seed in plan.seeds
        ]


class Killed(BaseException):
    """In place of SIGKILL."""


class Listed:
    """A proposer that proposes what it is given, and remembers what it is told."""

    def __init__(self, *generations):
        self.generations, self.told = generations, []

    def ask(self, generation):
        return [dict(values) for values in self.generations[generation]]

    def tell(self, values):
        self.told.append(list(values))
