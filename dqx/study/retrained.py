"""Runs of a study trained again by an executor: each alone, elsewhere than before if it can be."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dqx.compute.programs import Programs
from dqx.compute.session import ChunkResult, Saved
from dqx.core.types import PyTree
from dqx.settings import Config
from dqx.study.background import Stopped, stopping
from dqx.study.checkpoint import State
from dqx.study.differing import Trained
from dqx.study.executors import Executor
from dqx.study.folder import StudyError
from dqx.study.plan import Plan
from dqx.study.point import Point
from dqx.study.schedule import Group, Task

Take = Callable[[int, Point, Trained], None]


def retrain(
    executor: Executor,
    plan: Plan,
    chosen: Sequence[Mapping[str, Any]],
    machines: Mapping[int, str],
    take: Take,
) -> None:
    """Trains runs again, each in a chunk of its own.

    Args:
        executor: who trains, entered.
        plan: of the study.
        chosen: the runs.
        machines: that trained them, by the number of their chunk.
        take: ``take(number, point, run)`` is called with every run, by its place in ``chosen``.

    Raises:
        StudyError: if a run cannot be trained.
        KeyboardInterrupt: after Ctrl-C.
    """
    points = {point.name: point for point in plan.points}
    by_config: dict[Config, list[Task]] = {}
    for number, run in enumerate(chosen):
        point = points[run["config"]]
        task = Task(number, (point,), np.array([run["seed"]]), plan.root_seed)
        by_config.setdefault(point.config, []).append(task)
    work = [(Group(config, tuple(tasks)), tasks) for config, tasks in by_config.items()]
    before = {i: machines.get(run["chunk"], "") for i, run in enumerate(chosen)}
    with stopping() as stop:
        try:
            executor.train(work, _Desk(plan, take), stop, avoid=before)
        except Stopped:
            raise KeyboardInterrupt("interrupted; no certificate is written") from None


class _Desk:
    """A desk that hands every run on and writes nothing."""

    def __init__(self, plan: Plan, take: Take) -> None:
        self.plan, self.pause = plan, math.inf
        self._take = take
        self._snapshots: dict[int, dict[int, PyTree]] = {}

    def phase(self, text: str) -> None:
        pass

    def compiled(self, names: Sequence[str], seconds: float) -> None:
        pass

    def restored(self, task: Task, programs: Programs) -> Saved | None:
        return None

    def state(self, task: Task) -> State | None:
        return None

    def began(self, task: Task, step: int) -> float:
        return 0.0

    def row(self, task: Task, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        pass

    def due(self, stopping: bool, last: float, config: Config) -> bool:
        return False

    def save(self, task: Task, state: Callable[[], Saved | State]) -> float:
        return 0.0

    def snapshot(self, task: Task, step: int, params: PyTree) -> None:
        self._snapshots.setdefault(task.number, {})[step] = params

    def finish(self, task: Task, result: ChunkResult, machine: str) -> None:
        snapshots = self._snapshots.pop(task.number, {})
        self._take(task.number, task.points[0], Trained(result, snapshots, machine))

    def set_aside(self, task: Task, error: str) -> None:
        name, seed = task.points[0].name, int(task.seeds[0])
        raise StudyError(f"seed {seed} of {name} cannot be trained again: {error}")
