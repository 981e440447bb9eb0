"""A session: one chunk of seeds, trained from the first step to the last.

What it computes for a lane depends neither on the other lanes nor on where its state was saved and
restored in between.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dqx.compute import trees
from dqx.compute.programs import Programs
from dqx.compute.solution import EXACT_METRICS, exact_metrics
from dqx.core.agent import Metric
from dqx.core.evaluation import Played
from dqx.core.loop import Clock, Episodes, Lane
from dqx.core.types import PyTree
from dqx.settings import Config, Hyper, evaluates_at, row_steps
from dqx.settings.field import INT_END

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
# Of an evaluation that takes long: environment steps trained before it, its episodes that are over,
# all of them, and steps of each so far.
OnWait = Callable[[int, int, int, int], bool]
# Steps of an evaluation's first piece: more than episodes of the usual games have, so that theirs
# are one piece. Those after it take about a second, whatever a step takes.
PIECE = 16_384
_PIECES = 64, 2**20


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


@dataclasses.dataclass
class _Evaluating:
    """An evaluation under way: its episodes, the mean of max Q, and steps played so far."""

    played: Played
    q_max: Any
    until: int


class _Pending(NamedTuple):
    """Outputs of an interval that may still be computed; ``row`` is what is collected of them."""

    interval: Interval
    episodes: list[tuple[int, Episodes]]
    metrics: list[tuple[int, dict[str, Any]]]
    evaluation: _Evaluating | None
    q_table: Any | None
    row: dict[str, np.ndarray] | None = None


class Session:
    """Trains one chunk, an interval from one row of metrics to the next at a time.

    The device works on the next interval while the host collects the one before.

    Args:
        programs: of ``config``.
        config: validated and rounded.
        chunk: its seeds.
        on_row: ``on_row(step, row)`` is called with every row of metrics, ``{name: [w]}``.
        saved: state to go on from; from the start without it.
        on_wait: ``on_wait(step, over, all, steps)`` is called between pieces of an evaluation that
            does not end in its first one; whether to leave it for now, for `save` or for good. It
            should not hold the session, whose state would outlive it then.

    Attributes:
        step: environment steps a seed that have been handed to the device.
        collected: those of the last row that has been collected.
    """

    def __init__(
        self,
        programs: Programs,
        config: Config,
        chunk: Chunk,
        on_row: OnRow | None = None,
        saved: Saved | None = None,
        on_wait: OnWait | None = None,
    ) -> None:
        self.chunk, self.config = chunk, config
        self._programs, self._on_row, self._on_wait = programs, on_row, on_wait
        self._count, width = len(chunk.seeds), programs.width
        self._hypers = programs.place(trees.padded(chunk.hypers, width))
        self._pending: _Pending | None = None
        self._rows: list[dict[str, np.ndarray]] = []
        self._episodes: list[EpisodeColumns] = []
        if saved is None:
            self._clock, self._lanes = programs.init(trees.padded(chunk.seeds, width), self._hypers)
            self.step = 0
        else:
            self._clock, self._lanes = programs.restore(saved.clock, saved.lanes)
            self.step = int(saved.clock.step)
            count = len(next(iter(saved.metrics.values()))[0]) if saved.metrics else 0
            self._rows = [{n: v[:, k] for n, v in saved.metrics.items()} for k in range(count)]
            self._episodes = [saved.episodes]
        parts = intervals(config)
        self._left = collections.deque(i for i in parts if i.end > self.step)
        self.collected = self.step
        last = next((i for i in parts if i.end == self.step), None)
        if last is not None and _lacks_evaluation(last, self._rows):
            self._pending = self._evaluate(_Pending(last, [], [], None, None, self._rows.pop()))
            self.collected = last.start

    @property
    def finished(self) -> bool:
        """Whether every row has been collected."""
        return not self._left and self._pending is None

    def advance(self) -> None:
        """Hands the next interval to the device, if there is one, and collects the one before.

        An evaluation of the one before is played to its end first, so that the state is that of
        its moment as long as it takes; nothing else happens where ``on_wait`` leaves it.
        """
        if not self._evaluated():
            return
        before, self._pending = self._pending, None
        if self._left:
            self._pending = self._launch(self._left.popleft())
        if before is not None:
            self._collect(before)

    def settle(self) -> None:
        """Collects what is under way, so that the state is that of the last row.

        Of an evaluation that ``on_wait`` leaves nothing is collected.
        """
        if not self._evaluated():
            return
        before, self._pending = self._pending, None
        if before is not None:
            self._collect(before)

    def params(self) -> PyTree:
        """The online parameters now, without padding, leading axis ``w``."""
        return trees.first(trees.to_host(self._lanes.agent.params), self._count)

    def save(self) -> Saved:
        """The state, copied to the host; collects what is under way first.

        Where that is an evaluation that ``on_wait`` leaves, the last row is without it; whoever
        goes on evaluates anew, with the same bits.
        """
        self.settle()
        if self._pending is not None:
            self._pending = self._gathered(self._pending)
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
        programs, step = self._programs, interval.start
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
        self.step = interval.end
        pending = _Pending(interval, episodes, metrics, None, None)
        return self._evaluate(pending) if interval.evaluates else pending

    def _evaluate(self, pending: _Pending) -> _Pending:
        """Begins the evaluation at the end of an interval."""
        programs = self._programs
        played, q_max = programs.evaluate(self._clock, self._lanes, PIECE)
        q_table = programs.q_table(self._lanes) if self.config.exact_metrics else None
        return pending._replace(evaluation=_Evaluating(played, q_max, PIECE), q_table=q_table)

    def _evaluated(self) -> bool:
        """Plays the evaluation that is under way to its end, if any; whether it has got there."""
        found = self._pending.evaluation if self._pending is not None else None
        if found is None:
            return True
        piece, started = PIECE, 0.0
        while True:
            running = np.asarray(found.played.running)
            if not running.any():
                return True
            if started:
                seconds = max(time.monotonic() - started, 1e-3)
                piece = min(max(int(piece / seconds), _PIECES[0]), _PIECES[1])
            ours = running[: self._count]
            over = ours.size - int(ours.sum())
            told = (self.step, over, ours.size, found.until)
            if self._on_wait is not None and self._on_wait(*told):
                return False
            started = time.monotonic()
            found.until = min(found.until + piece, INT_END - 1)
            found.played = self._programs.play(self._clock, self._lanes, found.played, found.until)

    def _collect(self, pending: _Pending) -> None:
        """Brings an interval's outputs to the host as a row of metrics and columns of episodes."""
        pending = self._gathered(pending)
        row, evaluation = dict(pending.row or {}), pending.evaluation
        if evaluation is not None:
            returns, lengths = np.array(evaluation.played.total), np.array(evaluation.played.length)
            row |= {
                "eval_return": returns.mean(axis=1),
                "eval_length": lengths.mean(axis=1, dtype=np.float32),
                "eval_q_max": np.array(evaluation.q_max),
            }
        if pending.q_table is not None:
            q = np.asarray(pending.q_table)[: self._count]
            measured = exact_metrics(self.config, self.chunk.hypers, q)
            width = self._programs.width
            row |= {name: trees.padded(values, width) for name, values in measured.items()}
        self._rows.append(row)
        self.collected = pending.interval.end
        if self._on_row is not None:
            self._on_row(pending.interval.end, trees.first(row, self._count))

    def _gathered(self, pending: _Pending) -> _Pending:
        """An interval of which episodes and row are collected, but for what is evaluated."""
        if pending.row is not None:
            return pending
        width = self._programs.width
        finished = _finished(pending.episodes)
        row = _episode_metrics(finished, width)
        row |= _agent_metrics(self._programs.metrics, pending.metrics, width)
        nothing = np.full(width, np.nan, np.float32)
        row |= dict.fromkeys((*EVAL_METRICS, *EXACT_METRICS), nothing)
        self._episodes.append(finished)
        return pending._replace(episodes=[], metrics=[], row=row)

    def _joined(self) -> tuple[dict[str, np.ndarray], EpisodeColumns]:
        """All rows as ``{name: [W, K]}``, and all episodes."""
        rows = list(self._rows)
        if self._pending is not None and self._pending.row is not None:
            rows.append(self._pending.row)  # without the evaluation that is under way
        names = rows[0] if rows else ()
        metrics = {name: np.stack([row[name] for row in rows], axis=1) for name in names}
        return metrics, _columns(self._episodes)


def _lacks_evaluation(last: Interval, rows: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Whether the last row was saved while its evaluation was under way: it has no lengths then."""
    return last.evaluates and bool(rows) and bool(np.isnan(rows[-1]["eval_length"]).all())


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
