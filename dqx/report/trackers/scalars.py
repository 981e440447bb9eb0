"""What trackers are told: named numbers of a seed, or of all seeds of a configuration together."""

import abc
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dqx import stats
from dqx.settings import ConfigError
from dqx.study.sinks import Row, Sink

if TYPE_CHECKING:
    from dqx.study.plan import Plan
    from dqx.study.point import Point
    from dqx.study.results import Study

RUNS = ("config", "seed")
# Names of scalars, and the metrics that they are.
NAMED = {
    "episode_return": "episode_return",
    "episode_steps": "episode_length",
    "loss": "loss",
    "episode_return_avg": "eval_return",
    "avg_max_q_value": "eval_q_max",
}
# Measured here: wall seconds of an episode of one seed, its environment steps a second, and the
# bytes that the process has in memory.
MEASURED = ("episode_seconds", "steps_per_second", "memory_used")
# Of all seeds of a configuration these are IQMs with an interval, all else means.
RETURNS = ("episode_return", "episode_return_avg")
LOW, HIGH = "/low", "/high"
OTHERS = "more/"  # the agent's own metrics, by their names


class TrackedRun(NamedTuple):
    """What a tracker calls a run.

    Attributes:
        point: the configuration.
        seed: of a run; None for all seeds of the configuration together.
        name: unique within the study.
    """

    point: "Point"
    seed: int | None
    name: str


class Scalars(Sink, abc.ABC):
    """Turns rows of metrics into named numbers, each step of a run once.

    A subclass says where numbers go (`write`) and up to where they are there already (`last`).

    Args:
        runs: ``"seed"``: a run of the tracker is one seed. ``"config"``: it is all seeds of a
            configuration, whose numbers are there once the last seed has reached a step.

    Raises:
        ConfigError: for anything else.
    """

    def __init__(self, runs: str = "config") -> None:
        if runs not in RUNS:
            raise ConfigError(f"a tracker's run is one of {', '.join(RUNS)}, got {runs!r}")
        self._per_seed = runs == "seed"
        self._lasts: dict[tuple[str, int | None], int] = {}
        self._moments: dict[tuple[str, int], tuple[float, int]] = {}
        self._waiting: dict[tuple[str, int], dict[int, np.ndarray]] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._runs: dict[tuple[str, int | None], TrackedRun] = {}

    @abc.abstractmethod
    def write(self, run: TrackedRun, step: int, values: Mapping[str, float]) -> None:
        """Hands on the numbers of a step, those that are none left out."""

    @abc.abstractmethod
    def last(self, run: TrackedRun) -> int:
        """The last step that the tracker has of a run; -1 if none."""

    def open(self, plan: "Plan") -> None:
        self._plan = plan
        many = len(plan.points) > 1
        for point in plan.points:
            whole = TrackedRun(point, None, point.name)
            self._runs[point.name, None] = whole
            for seed in plan.seeds:
                name = f"{point.name}/seed-{seed}" if many else f"seed-{seed}"
                self._runs[point.name, seed] = TrackedRun(point, seed, name)

    def row(self, row: Row) -> None:
        lanes = list(zip((p.name for p in row.points), row.seeds.tolist(), strict=True))
        names, values = _scalars(row.metrics, *self._elapsed(lanes[0], row.step))
        for (config, seed), numbers in zip(lanes, values, strict=True):
            if self._per_seed:
                self._put(self._runs[config, seed], row.step, _present(names, numbers))
            else:
                self._names.setdefault(config, names)
                waiting = self._waiting.setdefault((config, row.step), {})
                waiting[seed] = numbers
                if len(waiting) == len(self._plan.seeds):
                    del self._waiting[config, row.step]
                    self._put_all(config, row.step, np.stack(list(waiting.values())))

    def complete(self, study: "Study") -> None:
        """Adds what the rows of this process alone could not tell, after a resumption."""
        self._waiting.clear()
        if self._per_seed:
            return
        for config in study.configs:
            run = self._runs[config, None]
            curves = [study.curves(config, seed) for seed in study.seeds]
            steps = curves[0]["step"]
            metrics = {n: np.stack([c[n] for c in curves]) for n in curves[0] if n != "step"}
            for k in np.flatnonzero(steps > self._last(run)).tolist():
                row = {name: values[:, k] for name, values in metrics.items()}
                names, numbers = _scalars(row, math.nan, math.nan)
                self._names[config] = names
                self._put_all(config, int(steps[k]), numbers)

    def _put_all(self, config: str, step: int, values: np.ndarray) -> None:
        combined = _combined(self._names[config], values)
        self._put(self._runs[config, None], step, combined)

    def _put(self, run: TrackedRun, step: int, values: Mapping[str, float]) -> None:
        """Hands on a step that the tracker does not have yet: a resumption comes by it again."""
        if step > self._last(run):
            self.write(run, step, values)
            self._lasts[run.point.name, run.seed] = step

    def _last(self, run: TrackedRun) -> int:
        key = (run.point.name, run.seed)
        if key not in self._lasts:
            self._lasts[key] = self.last(run)
        return self._lasts[key]

    def _elapsed(self, lane: tuple[str, int], step: int) -> tuple[float, float]:
        """Seconds and steps since the row before; NaN at the first of a chunk, which compiles."""
        now = time.perf_counter()
        before, self._moments[lane] = self._moments.get(lane), (now, step)
        return (now - before[0], step - before[1]) if before else (math.nan, math.nan)


def _scalars(
    metrics: Mapping[str, np.ndarray], seconds: float, steps: float
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and numbers ``[w, N]`` of a row of ``w`` runs."""
    found = {name: np.asarray(metrics[metric], float) for name, metric in NAMED.items()}
    count = len(found["loss"])
    episodes = np.asarray(metrics["episode_count"], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        found["episode_seconds"] = np.where(episodes > 0, seconds / episodes, np.nan)
    found["steps_per_second"] = np.full(count, steps / seconds if seconds > 0 else math.nan)
    found["memory_used"] = np.full(count, float(_memory()) if seconds > 0 else math.nan)
    known = set(NAMED.values())
    found |= {OTHERS + n: np.asarray(v, float) for n, v in metrics.items() if n not in known}
    return tuple(found), np.stack(list(found.values()), axis=1)


def _combined(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Numbers of a configuration from those of its seeds ``[S, N]``; diverged seeds left out."""
    finite = np.where(np.isfinite(values), values, np.nan)
    counts = np.isfinite(finite).sum(axis=0)
    sums = np.nansum(finite, axis=0)
    found = {n: float(s / c) for n, s, c in zip(names, sums, counts, strict=True) if c}
    for name in RETURNS:
        if name in found:
            column = finite[:, list(names).index(name)]
            # Where there is no interval both ends are NaN, and the chart has a gap.
            iqm, low, high = stats.interval(column[np.isfinite(column)])
            found |= {name: float(iqm), name + LOW: float(low), name + HIGH: float(high)}
    return found


def _present(names: Sequence[str], numbers: np.ndarray) -> dict[str, float]:
    return {n: v for n, v in zip(names, numbers.tolist(), strict=True) if not math.isnan(v)}


def _memory() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
