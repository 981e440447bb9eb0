"""What a study will take, before it is started: compiled programs, chunks, memory, disk, time."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dqx.devices import free_bytes, select_devices
from dqx.loop import Clock, Lane
from dqx.memory import predict_chunk
from dqx.parallel import Programs, with_company
from dqx.rounds import METRICS
from dqx.run import programs_for, row_steps
from dqx.solution import solution_of
from dqx.study import checkpoint
from dqx.study.plan import Plan, read_plan
from dqx.study.schedule import Group, Task, fitting_devices, groups, settle

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
        devices: that work side by side.
        chunk_bytes: predicted memory of a chunk.
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
    disk_bytes: int
    checkpoint_bytes: int
    compile_seconds: float
    seconds: float


class Estimate(NamedTuple):
    """Of a whole study.

    Attributes:
        plan: with every chunk width filled in.
        groups: one a compiled program.
        memory_bytes: predicted, of the chunks that work side by side in the largest group.
        free_bytes: memory that is free now.
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
) -> Estimate:
    """Says what a study will take; compiles each program and times one segment of it.

    Args:
        plan: as of ``dqx.study.run``.
        devices: as of ``dqx.study.run``.
        timed: whether to compile and time at all.
        progress: ``progress(done, total)`` is called after every compiled program.

    Raises:
        StudyError: for a plan that cannot be used.
        ConfigError: for a configuration that cannot work or does not fit in memory.
    """
    available = select_devices(devices)
    settled = settle(read_plan(plan), available)
    together = groups(settled)
    found = []
    for group in together:
        found.append(_estimate(settled, group, available, timed))
        if progress is not None:
            progress(len(found), len(together))
    held = [g.chunk_bytes * len(with_company(available[: g.devices])) for g in found]
    return Estimate(
        plan=settled,
        groups=tuple(found),
        memory_bytes=max(held),
        free_bytes=free_bytes(available),
        disk_bytes=_STUDY_BYTES
        + sum(g.disk_bytes for g in found)
        # A new checkpoint is written before the old one goes.
        + max(g.checkpoint_bytes * (g.devices + 1) for g in found),
        seconds=float(sum(g.seconds for g in found)),
    )


def _estimate(
    plan: Plan, group: Group, available: Sequence[jax.Device], timed: bool
) -> GroupEstimate:
    config = group.config
    used = fitting_devices(config, available, len(group.tasks))
    programs = programs_for(config, used, plan.root_seed)
    points = {point.name: None for task in group.tasks for point in task.points}
    runs = sum(len(task.seeds) for task in group.tasks)
    compile_seconds, round_seconds = _timed(programs, group) if timed else (np.nan, np.nan)
    rounds = -(-len(group.tasks) // len(used))
    return GroupEstimate(
        points=tuple(points),
        runs=runs,
        width=programs.width,
        chunks=len(group.tasks),
        devices=len(used),
        chunk_bytes=predict_chunk(config, programs.env, programs.width),
        disk_bytes=_disk_bytes(plan, group, programs),
        checkpoint_bytes=checkpoint.size(programs),
        compile_seconds=compile_seconds,
        seconds=compile_seconds + rounds * round_seconds,
    )


def _disk_bytes(plan: Plan, group: Group, programs: Programs) -> int:
    """Bytes of a group's results."""
    config = group.config
    _, lanes = programs.shapes()
    leaves = jax.tree.leaves(lanes.agent.params)
    params = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) // programs.width
    snapshots = config.total_steps // plan.snapshot_every if plan.snapshot_every else 0
    metrics = len(row_steps(config)) * len(METRICS) * _METRIC_BYTES
    episodes = config.total_steps // 100 * _EPISODE_BYTES
    run = params * (1 + snapshots) + metrics + episodes + _RECORD_BYTES
    chunk = _CHUNK_BYTES + snapshots * _SNAPSHOT_BYTES
    return run * sum(len(task.seeds) for task in group.tasks) + chunk * len(group.tasks)


def _timed(programs: Programs, group: Group) -> tuple[float, float]:
    """Seconds to compile, and to train one batch of chunks from start to end."""
    config = group.config
    before = programs.compile_seconds
    batch = group.tasks[: len(programs.devices)]
    chunk = batch[0].chunk
    seeds = np.resize(chunk.seeds, programs.num_lanes)
    hypers = jax.tree.map(lambda x: np.resize(x, programs.num_lanes), chunk.hypers)
    placed = programs.per_lane(hypers)

    period, used = config.log_period, len(batch)
    clock, lanes = programs.init(seeds)
    # The first call of each compiles; the second of a segment is timed.
    warm = min(config.learning_starts, period)
    clock, lanes, _ = programs.warm_up(clock, lanes, warm, used)
    clock, lanes, *_ = programs.segment(clock, lanes, placed, period, used)
    jax.block_until_ready(lanes)
    started = time.perf_counter()
    clock, lanes, *_ = jax.block_until_ready(programs.segment(clock, lanes, placed, period, used))
    taken = time.perf_counter() - started
    evaluating = 0.0
    if config.eval_period:
        evaluating = _timed_evaluation(programs, batch, clock, lanes)
        evaluating *= config.total_steps // config.eval_period
    return programs.compile_seconds - before, taken * config.total_steps / period + evaluating


def _timed_evaluation(
    programs: Programs, batch: Sequence[Task], clock: Clock, lanes: Lane
) -> float:
    """Seconds of one evaluation of a batch of chunks."""

    def evaluate() -> None:
        jax.block_until_ready(programs.evaluate(clock, lanes, len(batch)))
        if programs.config.exact_metrics:
            gammas = np.concatenate([task.chunk.hypers.gamma for task in batch])
            q = np.asarray(programs.q_table(lanes, len(batch)))[: len(gammas)]
            solution_of(programs.config.env).measure(q, gammas)

    evaluate()
    started = time.perf_counter()
    evaluate()
    return time.perf_counter() - started
