"""What a study will take, before it is started: compiled programs, chunks, memory, disk, time."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dqx.arguments import FLAG, FUNCTION, maybe, require
from dqx.compute import trees
from dqx.compute.devices import free_bytes, select_devices
from dqx.compute.footprint import measure, state_of
from dqx.compute.intervals import intervals
from dqx.compute.programs import Programs, programs_for
from dqx.compute.rows import row_metrics
from dqx.compute.session import PIECE
from dqx.compute.solution import exact_metrics
from dqx.settings import ConfigError, Hyper, row_steps
from dqx.study import checkpoint
from dqx.study.background import over_places
from dqx.study.plan import Plan, read_plan
from dqx.study.schedule import Group, Task, fitting_places, groups, settle

# A row of metrics and one of episodes as Parquet, measured; numbers compress a little.
_METRIC_BYTES, _EPISODE_BYTES = 4, 8
_RECORD_BYTES = 500  # of a run in a chunk's record and in the manifest
# What files take however little is in them, measured: a chunk's, a snapshot, a study's.
_CHUNK_BYTES, _SNAPSHOT_BYTES, _STUDY_BYTES = 10_000, 2_000, 80_000


class GroupEstimate(NamedTuple):
    """Of the configurations that share a compiled program.

    Attributes:
        points: names of the configurations.
        runs: pairs of a configuration and a seed.
        width: seeds of a chunk.
        chunks: of that width.
        devices: places where chunks work side by side.
        chunk_bytes: memory of a chunk: its state alone if nothing was compiled, else all of it, as
            XLA says.
        transition_bytes: of a transition in a replay, as the setting ``replay`` has it stored.
        disk_bytes: of its results when finished; episodes at one in 100 steps.
        checkpoint_bytes: of a chunk's checkpoint.
        compile_seconds: measured; NaN if nothing was timed.
        seconds: predicted time of all its chunks, compiling included; NaN if nothing was timed.
    """

    points: tuple[str, ...]
    runs: int
    width: int
    chunks: int
    devices: int
    chunk_bytes: int
    transition_bytes: int
    disk_bytes: int
    checkpoint_bytes: int
    compile_seconds: float
    seconds: float


class Estimate(NamedTuple):
    """Of a whole study.

    Attributes:
        plan: with every chunk width filled in.
        groups: one a compiled program.
        memory_bytes: of the chunks that work side by side in the largest group.
        free_bytes: memory that is free now, under every limit there is.
        disk_bytes: of the results and the largest checkpoints together.
        seconds: predicted time; NaN if nothing was timed.
    """

    plan: Plan
    groups: tuple[GroupEstimate, ...]
    memory_bytes: int
    free_bytes: int
    disk_bytes: int
    seconds: float


def dry_run(
    plan: str | os.PathLike[str] | Mapping[str, Any] | Plan,
    *,
    devices: str | Sequence[jax.Device] | None = None,
    timed: bool = True,
    progress: Callable[[int, int], None] | None = None,
    phase: Callable[[str], None] = lambda text: None,
) -> Estimate:
    """Says what a study will take; compiles each program and times one segment of it.

    Args:
        plan: as of ``dqx.study.run``.
        devices: as of ``dqx.study.run``.
        timed: whether to compile and time at all.
        progress: ``progress(done, total)`` is called after every compiled program.
        phase: called with what begins, before anything that may take a while.

    Raises:
        StudyError: for a plan that cannot be used.
        ConfigError: for a configuration that cannot work or does not fit in memory.
    """
    require(
        ConfigError,
        timed=(timed, FLAG),
        progress=(progress, maybe(FUNCTION)),
        phase=(phase, FUNCTION),
    )
    places = select_devices(devices)
    settled = settle(read_plan(plan), places, phase, compiles=timed)
    together = groups(settled)
    if len(together) > 1:
        phase("compiling...")
    found: list[GroupEstimate] = []
    counted: dict[Programs, float] = {}
    for group in together:
        found.append(_estimate(settled, group, places, counted if timed else None))
        if progress is not None:
            progress(len(found), len(together))
    return Estimate(
        plan=settled,
        groups=tuple(found),
        memory_bytes=max(g.chunk_bytes * g.devices for g in found),
        free_bytes=free_bytes(places).bytes,
        disk_bytes=_STUDY_BYTES
        + sum(g.disk_bytes for g in found)
        # A new checkpoint is written before the old one goes.
        + max(g.checkpoint_bytes * (g.devices + 1) for g in found),
        seconds=float(sum(g.seconds for g in found)),
    )


def _estimate(
    plan: Plan, group: Group, places: Sequence[jax.Device], counted: dict[Programs, float] | None
) -> GroupEstimate:
    """What a group will take; ``counted`` is the time of compiling that other groups have."""
    config = group.config
    programs = programs_for(config, places[0], plan.root_seed)
    used = tuple(places[: len(group.tasks)])
    need, compile_seconds, batch_seconds = state_of(programs, config), np.nan, np.nan
    if counted is not None:
        used = fitting_places(programs, config, places, len(group.tasks))
        need = measure(programs, config)
        # Also what was compiled before this call: the study will have to, in its own process.
        compile_seconds = programs.compile_seconds - counted.get(programs, 0.0)
        counted[programs] = programs.compile_seconds
        batch_seconds = _timed(plan, group, used)
    return GroupEstimate(
        points=tuple({point.name: None for task in group.tasks for point in task.points}),
        runs=sum(len(task.seeds) for task in group.tasks),
        width=programs.width,
        chunks=len(group.tasks),
        devices=len(used),
        chunk_bytes=need.total,
        transition_bytes=round(need.replay / (programs.width * config.replay_capacity)),
        disk_bytes=_disk_bytes(plan, group, programs),
        checkpoint_bytes=checkpoint.size(programs),
        compile_seconds=compile_seconds,
        seconds=compile_seconds + -(-len(group.tasks) // len(used)) * batch_seconds,
    )


def _disk_bytes(plan: Plan, group: Group, programs: Programs) -> int:
    """Bytes of a group's results."""
    config = group.config
    params = trees.num_bytes(programs.shapes[1].agent.params) // programs.width
    steps, every = row_steps(config), plan.snapshot_every
    # At the first row at or after each multiple, so that rows far apart have fewer.
    snapshots = len({step // every for step in steps if step >= every}) if every else 0
    metrics = len(steps) * len(row_metrics(programs)) * _METRIC_BYTES
    episodes = config.total_steps // 100 * _EPISODE_BYTES
    run = params * (1 + snapshots) + metrics + episodes + _RECORD_BYTES
    chunk = _CHUNK_BYTES + snapshots * _SNAPSHOT_BYTES
    return run * sum(len(task.seeds) for task in group.tasks) + chunk * len(group.tasks)


def _timed(plan: Plan, group: Group, used: Sequence[jax.Device]) -> float:
    """Seconds to train chunks in all these places from start to end, from a part of it.

    Every place trains at the same time, as they will.
    """
    found: list[float] = []

    def work(place: jax.Device, task: Task) -> None:
        found.append(_timed_chunk(programs_for(group.config, place, plan.root_seed), task))

    over_places(used, group.tasks[: len(used)], work)
    return max(found)


def _timed_chunk(programs: Programs, task: Task) -> float:
    """Seconds of a chunk, from its commonest piece of each kind and one evaluation."""
    parts = intervals(task.config)
    hypers = programs.place(trees.padded(task.chunk.hypers, programs.width))
    clock, lanes = programs.init(trees.padded(task.chunk.seeds, programs.width), hypers)
    seconds = 0.0
    for kind in ("warm", "learn"):
        pieces = [steps for part in parts for steps in getattr(part, kind)]
        if not pieces:
            continue
        steps = max(set(pieces), key=pieces.count)
        for _ in range(2):  # the second is timed
            started = time.perf_counter()
            if kind == "warm":
                clock, lanes, _ = programs.warm_up(clock, lanes, steps)
            else:
                clock, lanes, *_ = programs.segment(clock, lanes, hypers, steps)
            jax.block_until_ready(lanes)
        seconds += (time.perf_counter() - started) * sum(pieces) / steps
    evaluations = sum(part.evaluates for part in parts)
    if evaluations:
        seconds += evaluations * _timed_evaluation(programs, task, clock, lanes, hypers)
    return seconds


def _timed_evaluation(
    programs: Programs, task: Task, clock: Any, lanes: Any, hypers: Hyper
) -> float:
    """Seconds of one evaluation of a chunk, or of its first piece if it has several."""
    for _ in range(2):  # the second is timed
        started = time.perf_counter()
        jax.block_until_ready(programs.evaluate(clock, lanes, hypers, PIECE))
        if task.config.exact_metrics:
            q = np.asarray(programs.q_table(lanes))[: len(task.seeds)]
            exact_metrics(task.config, task.chunk.hypers, q)
    return time.perf_counter() - started
