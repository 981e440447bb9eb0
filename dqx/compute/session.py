"""A session: one chunk of seeds, trained from the first step to the last.

What it computes for a lane depends neither on the other lanes nor on where its state was saved and
restored in between.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dqx.compute import trees
from dqx.compute.programs import Programs
from dqx.compute.solution import EXACT_METRICS, solution_of
from dqx.core.agent import Metric
from dqx.core.evaluation import Evaluation
from dqx.core.loop import Clock, Episodes, Lane
from dqx.core.types import PyTree
from dqx.settings import Config, Hyper, evaluates_at, row_steps

EPISODE_METRICS = (
    "episode_count",
    "episode_return", "episode_return_min", "episode_return_max",
    "episode_length", "episode_length_min", "episode_length_max",
)  # fmt: skip
EVAL_METRICS = ("eval_return", "eval_length", "eval_q_max")
# So many lengths of segment are compiled as they are; of more, all but the commonest are put
# together from the powers of this many rounds.
_LENGTHS, _POWER = 3, 32

# Finished episodes as columns: lane, environment step at the end, return, length.
EpisodeColumns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
OnRow = Callable[[int, dict[str, np.ndarray]], None]


class Chunk(NamedTuple):
    """What runs in one place: at most W seeds, each with hyperparameters of its own.

    Attributes:
        seeds: int64 ``[w]``.
        hypers: float32 ``[w]`` in every field.
    """

    seeds: np.ndarray
    hypers: Hyper


class Saved(NamedTuple):
    """The state of a chunk between two rows of metrics, on the host, padding included.

    Attributes:
        clock: NumPy numbers.
        lanes: NumPy arrays, leading axis W.
        metrics: rows so far, ``{name: [W, K]}``.
        episodes: finished so far.
    """

    clock: Clock
    lanes: Lane
    metrics: dict[str, np.ndarray]
    episodes: EpisodeColumns


class ChunkResult(NamedTuple):
    """What training gives for the ``w`` seeds of one chunk.

    Attributes:
        seeds: int64 ``[w]``.
        steps: environment steps of the rows, int64 ``[K]``.
        metrics: ``{name: [w, K]}``.
        episodes: finished training episodes, ordered by lane and step.
        params: final online parameters, leading axis ``w``.
        diverged_at: int64 ``[w]``, -1 where loss and parameters stayed finite.
    """

    seeds: np.ndarray
    steps: np.ndarray
    metrics: dict[str, np.ndarray]
    episodes: EpisodeColumns
    params: PyTree
    diverged_at: np.ndarray


class Interval(NamedTuple):
    """From one row to the next.

    Attributes:
        start: environment step of the row before.
        end: environment step of the row.
        warm: lengths of the pieces with random actions.
        learn: lengths of the pieces with learning, after them.
        evaluates: whether there is a greedy evaluation at the end.
    """

    start: int
    end: int
    warm: tuple[int, ...]
    learn: tuple[int, ...]
    evaluates: bool


def intervals(config: Config) -> list[Interval]:
    """The intervals of a run, in pieces of a few lengths, so that few programs are compiled."""
    ends = row_steps(config)
    bounds = list(zip([0, *ends], ends, strict=False))
    starts = config.learning_starts
    warm = [max(0, min(end, starts) - start) for start, end in bounds]
    learn = [end - start - w for (start, end), w in zip(bounds, warm, strict=True)]
    parts = zip(bounds, _pieces(warm, config), _pieces(learn, config), strict=True)
    return [Interval(*bound, w, x, evaluates_at(config, bound[1])) for bound, w, x in parts]


def _pieces(lengths: list[int], config: Config) -> list[tuple[int, ...]]:
    """Each length as it is if few differ, else all but the commonest in pieces."""
    counts = collections.Counter(length for length in lengths if length)
    few = len(counts) <= _LENGTHS
    whole = set(counts) if few else {length for length, _ in counts.most_common(1)}
    return [
        _taken_apart(length, config.train_period)
        if length and length not in whole
        else (length,) * (length > 0)
        for length in lengths
    ]


def _taken_apart(length: int, unit: int) -> tuple[int, ...]:
    found: list[int] = []
    for power in (_POWER**2, _POWER, 1):
        count, length = divmod(length, power * unit)
        found += [power * unit] * count
    return tuple(found)


class _Pending(NamedTuple):
    """Outputs of an interval that may still be computed."""

    interval: Interval
    episodes: list[tuple[int, Episodes]]
    metrics: list[tuple[int, dict[str, Any]]]
    evaluation: Evaluation | None
    q_table: Any | None


class Session:
    """Trains one chunk, an interval from one row of metrics to the next at a time.

    The device works on the next interval while the host collects the one before.

    Args:
        programs: of ``config``.
        config: validated and rounded.
        chunk: its seeds.
        on_row: ``on_row(step, row)`` is called with every row of metrics, ``{name: [w]}``.
        saved: state to go on from; from the start without it.

    Attributes:
        step: environment steps a seed that have been handed to the device.
    """

    def __init__(
        self,
        programs: Programs,
        config: Config,
        chunk: Chunk,
        on_row: OnRow | None = None,
        saved: Saved | None = None,
    ) -> None:
        self.chunk, self.config = chunk, config
        self._programs, self._on_row = programs, on_row
        self._count, width = len(chunk.seeds), programs.width
        self._hypers = programs.place(trees.padded(chunk.hypers, width))
        self._pending: _Pending | None = None
        self._rows: list[dict[str, np.ndarray]] = []
        self._episodes: list[EpisodeColumns] = []
        if saved is None:
            self._clock, self._lanes = programs.init(trees.padded(chunk.seeds, width))
            self.step = 0
        else:
            self._clock, self._lanes = programs.restore(saved.clock, saved.lanes)
            self.step = int(saved.clock.step)
            count = len(next(iter(saved.metrics.values()))[0]) if saved.metrics else 0
            self._rows = [{n: v[:, k] for n, v in saved.metrics.items()} for k in range(count)]
            self._episodes = [saved.episodes]
        self._left = collections.deque(i for i in intervals(config) if i.end > self.step)

    @property
    def finished(self) -> bool:
        """Whether every row has been collected."""
        return not self._left and self._pending is None

    def advance(self) -> None:
        """Hands the next interval to the device, if there is one, and collects the one before."""
        before, self._pending = self._pending, None
        if self._left:
            self._pending = self._launch(self._left.popleft())
        if before is not None:
            self._collect(before)

    def settle(self) -> None:
        """Collects what is under way, so that the state is that of the last row."""
        before, self._pending = self._pending, None
        if before is not None:
            self._collect(before)

    def params(self) -> PyTree:
        """The online parameters now, without padding, leading axis ``w``."""
        return trees.first(trees.to_host(self._lanes.agent.params), self._count)

    def save(self) -> Saved:
        """The state, copied to the host; collects what is under way first."""
        self.settle()
        metrics, episodes = self._joined()
        return Saved(trees.to_host(self._clock), trees.to_host(self._lanes), metrics, episodes)

    def result(self) -> ChunkResult:
        """What training has given, once `finished`."""
        assert self.finished
        metrics, (lane, step, total, length) = self._joined()
        inside = np.flatnonzero(lane < self._count)
        order = inside[np.lexsort((step[inside], lane[inside]))]
        diverged_at = np.asarray(self._lanes.diverged_at).astype(np.int64)
        return ChunkResult(
            seeds=np.asarray(self.chunk.seeds, np.int64),
            steps=np.array(row_steps(self.config), np.int64),
            metrics=trees.first(metrics, self._count),
            episodes=(lane[order], step[order], total[order], length[order]),
            params=self.params(),
            diverged_at=diverged_at[: self._count],
        )

    def _launch(self, interval: Interval) -> _Pending:
        programs, config, step = self._programs, self.config, interval.start
        episodes: list[tuple[int, Episodes]] = []
        metrics: list[tuple[int, dict[str, Any]]] = []
        for steps in interval.warm:
            self._clock, self._lanes, found = programs.warm_up(self._clock, self._lanes, steps)
            episodes.append((step, found))
            step += steps
        for steps in interval.learn:
            self._clock, self._lanes, found, numbers = programs.segment(
                self._clock, self._lanes, self._hypers, steps
            )
            episodes.append((step, found))
            metrics.append((steps, numbers))
            step += steps
        due = interval.evaluates
        evaluation = programs.evaluate(self._clock, self._lanes) if due else None
        q_table = programs.q_table(self._lanes) if due and config.exact_metrics else None
        self.step = interval.end
        return _Pending(interval, episodes, metrics, evaluation, q_table)

    def _collect(self, pending: _Pending) -> None:
        """Brings an interval's outputs to the host as a row of metrics and columns of episodes."""
        width = self._programs.width
        finished = _finished(pending.episodes)
        row = _episode_metrics(finished, width)
        row |= _agent_metrics(self._programs.metrics, pending.metrics, width)
        nothing = np.full(width, np.nan, np.float32)
        row |= dict.fromkeys((*EVAL_METRICS, *EXACT_METRICS), nothing)
        if pending.evaluation is not None:
            returns, lengths, q_max = (np.array(x) for x in pending.evaluation)
            row |= {
                "eval_return": returns.mean(axis=1),
                "eval_length": lengths.mean(axis=1, dtype=np.float32),
                "eval_q_max": q_max,
            }
        if pending.q_table is not None:
            q, gammas = np.asarray(pending.q_table)[: self._count], self.chunk.hypers.gamma
            solution = solution_of(self.config.env, self.config.time_limit)
            measured = solution.measure(q, np.asarray(gammas))
            row |= {name: trees.padded(values, width) for name, values in measured.items()}
        self._rows.append(row)
        self._episodes.append(finished)
        if self._on_row is not None:
            self._on_row(pending.interval.end, trees.first(row, self._count))

    def _joined(self) -> tuple[dict[str, np.ndarray], EpisodeColumns]:
        """All rows as ``{name: [W, K]}``, and all episodes."""
        names = self._rows[0] if self._rows else ()
        metrics = {name: np.stack([row[name] for row in self._rows], axis=1) for name in names}
        return metrics, _columns(self._episodes)


def row_metrics(programs: Programs) -> tuple[str, ...]:
    """The names of all metrics of a row, in their order."""
    return (*EPISODE_METRICS, *programs.metrics, *EVAL_METRICS, *EXACT_METRICS)


def _agent_metrics(
    metrics: Mapping[str, Metric], pieces: Sequence[tuple[int, dict[str, Any]]], width: int
) -> dict[str, np.ndarray]:
    """The agent's numbers of an interval, from those of its pieces and their lengths."""
    if not pieces:
        return {name: np.full(width, m.before, np.float32) for name, m in metrics.items()}
    weights = [steps for steps, _ in pieces]
    row = {}
    for name, metric in metrics.items():
        values = [np.array(numbers[name]) for _, numbers in pieces]
        if len(values) == 1 or metric.over in ("last", "now"):
            row[name] = values[-1]
        elif metric.over == "max":
            row[name] = np.max(values, axis=0)
        else:
            mean = np.average(np.asarray(values, np.float64), axis=0, weights=weights)
            row[name] = mean.astype(np.float32)
    return row


def _finished(found: Sequence[tuple[int, Episodes]]) -> EpisodeColumns:
    columns = []
    for start, episodes in found:
        total, length = np.array(episodes.total), np.array(episodes.length)
        lane, row, env = np.nonzero(length)
        step = start + (row + 1) * length.shape[2]
        columns.append((lane, step, total[lane, row, env], length[lane, row, env]))
    return _columns(columns)


def _columns(parts: Sequence[EpisodeColumns]) -> EpisodeColumns:
    if not parts:
        none = np.zeros(0, np.int64)
        return none, none, none.astype(np.float32), none.astype(np.int32)
    lane, step, total, length = (np.concatenate(column) for column in zip(*parts, strict=True))
    return lane, step, total, length


def _episode_metrics(episodes: EpisodeColumns, width: int) -> dict[str, np.ndarray]:
    """Count, mean, least and greatest return and length of finished episodes, else NaN."""
    lane, _, returns, lengths = episodes
    count = np.bincount(lane, minlength=width)
    some = count > 0
    metrics = {"episode_count": count.astype(np.int64)}
    for name, values in (("episode_return", returns), ("episode_length", lengths)):
        mean = np.bincount(lane, weights=values, minlength=width) / np.maximum(count, 1)
        least, greatest = np.full(width, np.inf), np.full(width, -np.inf)
        np.minimum.at(least, lane, values)
        np.maximum.at(greatest, lane, values)
        for suffix, result in (("", mean), ("_min", least), ("_max", greatest)):
            metrics[name + suffix] = np.where(some, result, np.nan).astype(np.float32)
    return metrics
