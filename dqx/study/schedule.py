"""Which runs share a compiled program, which share a chunk, and how wide chunks are."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from dqx.compute.devices import free_bytes
from dqx.compute.footprint import Footprint, chunks_that_fit, measure, refusal, state_of
from dqx.compute.programs import Programs, chunk_width, programs_for
from dqx.compute.session import Chunk
from dqx.compute.solution import check_listable, check_solvable
from dqx.settings import Config, environments, row_steps
from dqx.study.plan import Plan
from dqx.study.planned import PlannedChunk
from dqx.study.point import Point


class Task(NamedTuple):
    """A chunk of a study.

    Attributes:
        number: its place within the study.
        points: the configuration of each of its runs; they may differ in `Hyper`.
        seeds: int64, the seed of each.
        root_seed: of the study.
    """

    number: int
    points: tuple[Point, ...]
    seeds: np.ndarray
    root_seed: int = 0

    @property
    def chunk(self) -> Chunk:
        """What a session trains."""
        hypers = [point.hyper for point in self.points]
        stacked = jax.tree.map(lambda *xs: np.array(xs, np.float32), *hypers)
        drawn = {name: values.astype(np.float32) for name, values in self.drawn.items()}
        return Chunk(self.seeds, stacked.replace(extra={**stacked.extra, **drawn}))

    @property
    def planned(self) -> PlannedChunk:
        """Its runs and their rows, as its files have to hold them."""
        names = [point.name for point in self.points]
        steps = np.array(row_steps(self.config), np.int64)
        return PlannedChunk(list(zip(names, self.seeds.tolist(), strict=True)), steps)

    @property
    def drawn(self) -> dict[str, np.ndarray]:
        """Parameters of the environment that are drawn for each run, float64 ``[w]`` by name."""
        return environments.drawn(self.config, self.root_seed, self.seeds.tolist())

    @property
    def config(self) -> Config:
        """The static fields, which all of its runs share."""
        return self.points[0].config


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
            points_of = tuple(point for point, _ in part)
            tasks.append(Task(number, points_of, seeds, plan.root_seed))
            number += 1
        made.append(Group(config, tuple(tasks)))
    return made


def settle(
    plan: Plan,
    places: Sequence[jax.Device],
    phase: Callable[[str], None] = lambda text: None,
    compiles: bool = True,
) -> Plan:
    """Fills in every chunk width: the default of the devices, or less if memory asks for it.

    Of a plan with one compiled program all memory is measured here; of others the programs are
    compiled one after the other as they are trained, and here only the state is known.

    Args:
        plan: checked.
        places: where it is to be trained.
        phase: called with what begins, before anything that may take a while.
        compiles: whether programs may be compiled; else only the state is looked at.

    Raises:
        ConfigError: if a configuration does not fit in memory, with the numbers, its agent cannot
            take the observations, or it asks for exact metrics that there are none of.
    """
    configs = list(dict.fromkeys(point.config for point in plan.points))
    for config in configs:
        check_listable(config)
    widths = {config: _width(config, places, plan.root_seed, state_of) for config in configs}
    if any(config.exact_metrics for config in configs):
        phase("solving for the exact metrics...")
        for point in plan.points:
            seeds = np.array(plan.seeds if _draws(point.config) else plan.seeds[:1], np.int64)
            alone = Task(0, (point,) * len(seeds), seeds, plan.root_seed)
            check_solvable(point.config, alone.chunk.hypers)
    if len(configs) == 1 and compiles:
        phase("compiling...")
        widths = {
            config: _width(config, places, plan.root_seed, measure, widths[config])
            for config in configs
        }
    for config, width in widths.items():
        default = chunk_width(config, places[0].platform)
        if width != default:
            warnings.warn(
                f"chunks of {width} seeds instead of {default}, as memory allows no more: the bits "
                "differ from those of other widths",
                stacklevel=4,
            )
    points = tuple(_with_width(point, widths[point.config]) for point in plan.points)
    return dataclasses.replace(plan, points=points)


def _draws(config: Config) -> bool:
    return any(rule is not None for _, rule in config.env_inputs)


def _with_width(point: Point, width: int) -> Point:
    config = dataclasses.replace(point.config, chunk_width=width)
    told = {"chunk_width": width} if "chunk_width" in point.varied else {}
    return point._replace(config=config, varied={**point.varied, **told})


def fitting_places(
    programs: Programs, config: Config, places: Sequence[jax.Device], chunks: int
) -> tuple[jax.Device, ...]:
    """As many places as there are chunks for and memory allows; their number changes no bits.

    A checkpoint takes a second copy of one chunk's state, on a CPU in the same memory.

    Raises:
        ConfigError: if not even one chunk fits, with the numbers.
    """
    need, limit = measure(programs, config), free_bytes(places)
    saved = need.state if places[0].platform == "cpu" else 0
    wanted = max(1, min(chunks, len(places)))
    count = chunks_that_fit(need, limit, wanted, saved)
    if count == 0:
        raise refusal(config, need, limit, saved)
    return tuple(places[:count])


def _width(
    config: Config,
    places: Sequence[jax.Device],
    root_seed: int,
    needed: Callable[[Programs, Config], Footprint],
    width: int | None = None,
) -> int:
    """The given or default width, or the widest of its halves of which a chunk fits in memory."""
    width = width or chunk_width(config, places[0].platform)
    while True:
        tried = dataclasses.replace(config, chunk_width=width)
        need = needed(programs_for(tried, places[0], root_seed), tried)
        limit = free_bytes(places[:1])  # compiling, which measuring may do, has taken its part
        saved = need.state if places[0].platform == "cpu" else 0
        if chunks_that_fit(need, limit, 1, saved):
            return width
        if config.chunk_width is not None or width == 1:
            raise refusal(tried, need, limit, saved)
        width //= 2
