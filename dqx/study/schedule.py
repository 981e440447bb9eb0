"""Which runs share a compiled program, which share a chunk, and which chunks run side by side."""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from dqx import memory
from dqx.config import Config, ConfigError
from dqx.devices import free_bytes
from dqx.environment import make_environment
from dqx.parallel import chunk_width, enough_devices, with_company
from dqx.rounds import Chunk
from dqx.solution import check_solvable
from dqx.study.plan import Plan, Point


class Task(NamedTuple):
    """A chunk of a study.

    Attributes:
        number: its place within the study.
        points: the configuration of each of its runs; they may differ in `Hyper`.
        seeds: int64, the seed of each.
    """

    number: int
    points: tuple[Point, ...]
    seeds: np.ndarray

    @property
    def chunk(self) -> Chunk:
        """What a round trains."""
        hypers = [point.hyper for point in self.points]
        return Chunk(self.seeds, jax.tree.map(lambda *xs: np.array(xs, np.float32), *hypers))


class Group(NamedTuple):
    """Chunks of one static configuration: they share one compiled program."""

    config: Config
    tasks: tuple[Task, ...]


def groups(plan: Plan) -> list[Group]:
    """The chunks of a plan whose chunk widths are settled, by compiled program.

    Within a group the runs go seed by seed, so that a study that is stopped early has compared its
    configurations on the same seeds.
    """
    found: dict[Config, list[Point]] = {}
    for point in plan.points:
        found.setdefault(point.config, []).append(point)
    made, number = [], 0
    for config, points in found.items():
        runs = [(point, seed) for seed in plan.seeds for point in points]
        assert config.chunk_width is not None  # see `settle`
        tasks = []
        for first in range(0, len(runs), config.chunk_width):
            part = runs[first : first + config.chunk_width]
            seeds = np.array([seed for _, seed in part], np.int64)
            tasks.append(Task(number, tuple(point for point, _ in part), seeds))
            number += 1
        made.append(Group(config, tuple(tasks)))
    return made


def settle(plan: Plan, available: Sequence[jax.Device]) -> Plan:
    """Fills in every chunk width: the default of the devices, or less if memory asks for it.

    Raises:
        ConfigError: if a configuration does not fit in memory, with the numbers, or asks for exact
            metrics that there are none of.
    """
    for point in plan.points:
        check_solvable(point.config, [float(point.hyper.gamma)])
    sizes: dict[Config, int] = {}
    for point in plan.points:
        sizes[point.config] = sizes.get(point.config, 0) + len(plan.seeds)
    widths = {config: _fitting_width(config, size, available) for config, size in sizes.items()}
    points = tuple(_with_width(point, widths[point.config]) for point in plan.points)
    return dataclasses.replace(plan, points=points)


def _with_width(point: Point, width: int) -> Point:
    config = dataclasses.replace(point.config, chunk_width=width)
    told = {"chunk_width": width} if "chunk_width" in point.varied else {}
    return point._replace(config=config, varied={**point.varied, **told})


def batches(
    tasks: Iterable[Task], steps: Mapping[int, int], num_devices: int
) -> list[tuple[Task, ...]]:
    """Chunks that run side by side: of one step each, those with a checkpoint first."""
    by_step: dict[int, list[Task]] = {}
    for task in tasks:
        by_step.setdefault(steps.get(task.number, 0), []).append(task)
    found = []
    for step in sorted(by_step, reverse=True):
        waiting = by_step[step]
        for first in range(0, len(waiting), num_devices):
            found.append(tuple(waiting[first : first + num_devices]))
    return found


def fitting_devices(
    config: Config, available: Sequence[jax.Device], chunks: int
) -> tuple[jax.Device, ...]:
    """As many devices as there are chunks for and memory allows; their number changes no bits.

    A checkpoint takes a second copy of one chunk's state, on a CPU in the same memory.

    Raises:
        ConfigError: if not even one chunk fits, with the numbers.
    """
    env, width = make_environment(config.env), config.chunk_width
    assert width is not None  # see `settle`
    most = enough_devices(available, chunks, 1)
    saved = width if most[0].platform == "cpu" else 0
    for count in range(len(most), 0, -1):
        used = most[:count]
        held = len(with_company(used))
        try:
            memory.check(config, env, width * held, held, free_bytes(used), saved)
        except ConfigError:
            if count == 1:
                raise
        else:
            return used
    raise AssertionError("there is at least one device")


def _fitting_width(config: Config, runs: int, available: Sequence[jax.Device]) -> int:
    default = width = chunk_width(config, available[0].platform)
    while True:
        try:
            settled = dataclasses.replace(config, chunk_width=width)
            fitting_devices(settled, available, -(-runs // width))
        except ConfigError:
            if config.chunk_width is not None or width == 1:
                raise
            width //= 2
        else:
            break
    if width != default:
        warnings.warn(
            f"chunks of {width} seeds instead of {default}, as memory allows no more: the bits "
            "differ from those of other widths",
            stacklevel=4,
        )
    return width
