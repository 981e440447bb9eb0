"""A round: chunks of seeds side by side, one chunk a device, from the first step to the last.

What a round computes for a lane depends neither on the other lanes nor on where its state was saved
and restored in between.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dqx.agent import LearnMetrics
from dqx.config import Config, Hyper
from dqx.evaluation import Evaluation
from dqx.loop import Clock, Episodes, Lane
from dqx.parallel import Programs
from dqx.solution import EXACT_METRICS, solution_of
from dqx.types import PyTree

EPISODE_METRICS = (
    "episode_count",
    "episode_return", "episode_return_min", "episode_return_max",
    "episode_length", "episode_length_min", "episode_length_max",
)  # fmt: skip
EVAL_METRICS = ("eval_return", "eval_length", "eval_q_max")
METRICS = (
    *EPISODE_METRICS, *LearnMetrics._fields, "epsilon", *EVAL_METRICS, *EXACT_METRICS,
)  # fmt: skip

# Finished episodes as columns: lane, environment step at the end, return, length.
Table = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Chunk(NamedTuple):
    """What runs on one device: at most W seeds, each with hyperparameters of its own.

    Attributes:
        seeds: int64 ``[w]``.
        hypers: float32 ``[w]`` in every field.
    """

    seeds: np.ndarray
    hypers: Hyper


class Saved(NamedTuple):
    """The state of one chunk between two rows of metrics, on the host, padding included.

    Attributes:
        clock: NumPy numbers.
        lanes: NumPy arrays (keys excepted), leading axis W.
        metrics: rows so far, ``{name: [W, K]}``.
        episodes: finished so far.
    """

    clock: Clock
    lanes: Lane
    metrics: dict[str, np.ndarray]
    episodes: Table


class ChunkResult(NamedTuple):
    """What training gives for the ``w`` seeds of one chunk.

    Attributes:
        seeds: int64 ``[w]``.
        metrics: ``{name: [w, K]}``.
        episodes: finished training episodes, ordered by lane and step.
        params: final online parameters, leading axis ``w``.
        diverged_at: int64 ``[w]``, -1 where loss and parameters stayed finite.
    """

    seeds: np.ndarray
    metrics: dict[str, np.ndarray]
    episodes: Table
    params: PyTree
    diverged_at: np.ndarray


class _Pending(NamedTuple):
    """Outputs of an interval that may still be computed."""

    step: int
    found: list[tuple[int, Episodes]]
    metrics: dict[str, Any]
    evaluation: Evaluation | None
    q_table: Any | None


class Round:
    """Trains chunks side by side, an interval of ``log_period`` steps at a time.

    The devices work on the next interval while the host collects the one before.

    Args:
        programs: of ``config``, on at least as many devices as there are chunks.
        config: validated.
        chunks: at least one.
        on_row: ``on_row(step, row)`` is called with every row of metrics, ``{name: [seeds]}`` of
            all chunks.
        saved: states of these chunks to go on from, all of one step; from the start without them.

    Attributes:
        step: environment steps a seed that have been handed to the devices.
    """

    def __init__(
        self,
        programs: Programs,
        config: Config,
        chunks: Sequence[Chunk],
        on_row: Callable[[int, dict[str, np.ndarray]], None] | None = None,
        saved: Sequence[Saved] = (),
    ) -> None:
        width = programs.width
        self.chunks, self.config = tuple(chunks), config
        self._programs, self._on_row = programs, on_row
        sizes = [len(chunk.seeds) for chunk in chunks]
        lanes = np.concatenate([i * width + np.arange(size) for i, size in enumerate(sizes)])
        self._valid = lanes  # of all lanes those that are no padding
        hypers = _side_by_side([_padded(c.hypers, width) for c in chunks], programs.num_lanes)
        self._hypers = programs.per_lane(hypers)
        self._gammas = np.concatenate([chunk.hypers.gamma for chunk in chunks])
        self._rows: list[dict[str, np.ndarray]] = []
        self._tables: list[Table] = []
        self._pending: _Pending | None = None
        if saved:
            together = _side_by_side([state.lanes for state in saved], programs.num_lanes)
            self._clock, self._lanes = programs.restore(saved[0].clock, together)
            self.step = int(saved[0].clock.step)
            self._take_rows(saved)
        else:
            seeds = [_padded(chunk.seeds, width) for chunk in chunks]
            self._clock, self._lanes = programs.init(_side_by_side(seeds, programs.num_lanes))
            self.step = 0

    @property
    def finished(self) -> bool:
        """Whether every row has been collected."""
        return self.step >= self.config.total_steps and self._pending is None

    def advance(self) -> None:
        """Hands the next interval to the devices, if there is one, and collects the one before."""
        before, self._pending = self._pending, None
        if self.step < self.config.total_steps:
            self._pending = self._interval(self.step + self.config.log_period)
        if before is not None:
            self._collect(before)

    def settle(self) -> None:
        """Collects what is under way, so that the state is that of the last row."""
        before, self._pending = self._pending, None
        if before is not None:
            self._collect(before)

    def params(self) -> list[PyTree]:
        """The online parameters now, of each chunk without padding, leading axis ``w``."""
        host = jax.tree.map(np.array, self._lanes.agent.params)
        return [self._of_chunk(host, i) for i in range(len(self.chunks))]

    def save(self) -> Iterator[Saved]:
        """The state of each chunk in turn, copied to the host; collects what is under way first.

        One chunk at a time, since a replay may fill a good part of the memory.
        """
        self.settle()
        width = self._programs.width
        clock = jax.tree.map(np.asarray, self._clock)
        metrics, table = self._joined()
        for i in range(len(self.chunks)):
            first = i * width
            inside = (table[0] >= first) & (table[0] < first + width)
            lane, step, total, length = (column[inside] for column in table)
            yield Saved(
                clock=clock,
                lanes=jax.tree.map(functools.partial(_host_copy, first=first), self._lanes),
                metrics={name: v[first : first + width] for name, v in metrics.items()},
                episodes=(lane - first, step, total, length),
            )

    def results(self) -> list[ChunkResult]:
        """The results of each chunk, once `finished`."""
        assert self.finished
        metrics, table = self._joined()
        diverged_at = np.asarray(self._lanes.diverged_at).astype(np.int64)
        results = []
        for i, (chunk, params) in enumerate(zip(self.chunks, self.params(), strict=True)):
            lane = table[0] - i * self._programs.width
            inside = np.flatnonzero((lane >= 0) & (lane < len(chunk.seeds)))
            order = inside[np.lexsort((table[1][inside], lane[inside]))]
            results.append(
                ChunkResult(
                    seeds=np.asarray(chunk.seeds, np.int64),
                    metrics=self._of_chunk(metrics, i),
                    episodes=(lane[order], table[1][order], table[2][order], table[3][order]),
                    params=params,
                    diverged_at=self._of_chunk(diverged_at, i),
                )
            )
        return results

    def _of_chunk(self, tree: PyTree, index: int) -> PyTree:
        first = index * self._programs.width
        size = len(self.chunks[index].seeds)
        return jax.tree.map(lambda x: x[first : first + size], tree)

    def _take_rows(self, saved: Sequence[Saved]) -> None:
        """Takes over the rows and episodes collected before the states were saved."""
        lanes, width = self._programs.num_lanes, self._programs.width
        together = _side_by_side([state.metrics for state in saved], lanes)
        count = len(next(iter(together.values()))[0]) if together else 0
        self._rows = [{name: v[:, k] for name, v in together.items()} for k in range(count)]
        shifted = [
            (state.episodes[0] + i * width, *state.episodes[1:]) for i, state in enumerate(saved)
        ]
        self._tables = [_table([np.concatenate(c) for c in zip(*shifted, strict=True)])]

    def _interval(self, end: int) -> _Pending:
        """From one row of metrics to the next, the part before learning starts as warm-up."""
        programs, config, used = self._programs, self.config, len(self.chunks)
        start = self.step
        warm = min(max(config.learning_starts - start, 0), config.log_period)
        found = []
        nothing = np.full(programs.num_lanes, np.nan, np.float32)
        metrics: dict[str, Any] = {
            **dict.fromkeys(LearnMetrics._fields, nothing),
            "epsilon": np.ones_like(nothing),
        }
        if warm:
            self._clock, self._lanes, episodes = programs.warm_up(
                self._clock, self._lanes, warm, used
            )
            found.append((start, episodes))
        if warm < config.log_period:
            self._clock, self._lanes, episodes, metrics = programs.segment(
                self._clock, self._lanes, self._hypers, config.log_period - warm, used
            )
            found.append((start + warm, episodes))
        due = config.eval_period and end % config.eval_period == 0
        evaluation = programs.evaluate(self._clock, self._lanes, used) if due else None
        q_table = programs.q_table(self._lanes, used) if due and config.exact_metrics else None
        self.step = end
        return _Pending(end, found, metrics, evaluation, q_table)

    def _collect(self, pending: _Pending) -> None:
        """Brings an interval's outputs to the host as a row of metrics and a table of episodes."""
        num_lanes = self._programs.num_lanes
        table = _finished(pending.found, num_lanes)
        row = {**_episode_metrics(table, num_lanes), **_on_host(pending.metrics, num_lanes)}
        row |= dict.fromkeys(
            (*EVAL_METRICS, *EXACT_METRICS), np.full(num_lanes, np.nan, np.float32)
        )
        if pending.evaluation is not None:
            returns, lengths, q_max = _on_host(pending.evaluation, num_lanes)
            row |= {
                "eval_return": returns.mean(axis=1),
                "eval_length": lengths.mean(axis=1, dtype=np.float32),
                "eval_q_max": q_max,
            }
        if pending.q_table is not None:
            q = np.asarray(pending.q_table)[self._valid]
            measured = solution_of(self.config.env).measure(q, self._gammas)
            for name, values in measured.items():
                row[name] = np.full(num_lanes, np.nan, np.float32)
                row[name][self._valid] = values
        self._rows.append(row)
        self._tables.append(table)
        if self._on_row is not None:
            self._on_row(pending.step, {name: v[self._valid] for name, v in row.items()})

    def _joined(self) -> tuple[dict[str, np.ndarray], Table]:
        """All rows as ``{name: [lanes, K]}``, and all episodes."""
        names = self._rows[0] if self._rows else ()
        metrics = {name: np.stack([row[name] for row in self._rows], axis=1) for name in names}
        columns = zip(*self._tables, strict=True)
        return metrics, _table([np.concatenate(column) for column in columns])


def _padded(tree: PyTree, width: int) -> PyTree:
    """Repeats the last entry of the leading axis up to ``width``."""
    return jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], width - len(x), 0)]), tree)


def _side_by_side(trees: Sequence[PyTree], lanes: int) -> PyTree:
    """Chunks one after the other; devices without one get a copy of the last lane."""

    def join(*leaves: Any) -> Any:
        if jax.dtypes.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
            data = join(*(np.asarray(jax.random.key_data(leaf)) for leaf in leaves))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
        return _padded(np.concatenate(leaves), lanes)

    return jax.tree.map(join, *trees)


def _finished(found: list[tuple[int, Episodes]], num_lanes: int) -> Table:
    columns = []
    for start, episodes in found:
        total, length = _on_host(episodes, num_lanes)
        lane, row, env = np.nonzero(length)
        step = start + (row + 1) * length.shape[2]
        columns.append((lane, step, total[lane, row, env], length[lane, row, env]))
    return _table([np.concatenate(column) for column in zip(*columns, strict=True)])


def _table(columns: list[np.ndarray]) -> Table:
    lane, step, total, length = columns
    return lane, step, total, length


def _episode_metrics(table: Table, num_lanes: int) -> dict[str, np.ndarray]:
    """Count, mean, least and greatest return and length of finished episodes, else NaN."""
    lane, _, returns, lengths = table
    count = np.bincount(lane, minlength=num_lanes)
    some = count > 0
    metrics = {"episode_count": count.astype(np.int64)}
    for name, values in (("episode_return", returns), ("episode_length", lengths)):
        mean = np.bincount(lane, weights=values, minlength=num_lanes) / np.maximum(count, 1)
        least, greatest = np.full(num_lanes, np.inf), np.full(num_lanes, -np.inf)
        np.minimum.at(least, lane, values)
        np.maximum.at(greatest, lane, values)
        for suffix, result in (("", mean), ("_min", least), ("_max", greatest)):
            metrics[name + suffix] = np.where(some, result, np.nan).astype(np.float32)
    return metrics


def _on_host(tree: PyTree, num_lanes: int) -> PyTree:
    """NumPy copies without idle devices; copies, as a donated buffer's memory is used again."""
    return jax.tree.map(lambda x: np.array(x)[:num_lanes], tree)


def _host_copy(leaf: Any, first: int) -> Any:
    """The lanes of the device whose first lane has this number."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        # Onto one device, off the mesh: where the lanes go later is not known here.
        data = jax.numpy.asarray(_host_copy(jax.random.key_data(leaf), first))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    (shard,) = (s for s in leaf.addressable_shards if (s.index[0].start or 0) == first)
    return np.array(shard.data)
