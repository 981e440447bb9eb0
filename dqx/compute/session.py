"""A session: one chunk of seeds, trained from the first step to the last.

What it computes for a lane depends neither on the other lanes nor on where its state was saved and
restored in between.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dqx.compute import diagnostics, trees
from dqx.compute.intervals import Interval, intervals
from dqx.compute.programs import Programs
from dqx.compute.rows import (
    EVAL_METRICS,
    EpisodeColumns,
    agent_metrics,
    episode_metrics,
    finished_episodes,
    joined,
)
from dqx.compute.solution import EXACT_METRICS, exact_metrics
from dqx.core.diagnostics import columns
from dqx.core.evaluation import Played
from dqx.core.state import Clock, Episodes, Lane
from dqx.core.stores import Once
from dqx.core.types import PyTree
from dqx.settings import Config, ConfigError, Hyper, row_steps
from dqx.settings.field import INT_END

OnRow = Callable[[int, dict[str, np.ndarray]], None]
# Of an evaluation that takes long: environment steps trained before it, its episodes that are over,
# all of them, and steps of each so far.
OnWait = Callable[[int, int, int, int], bool]
# Steps of an evaluation's first piece: more than episodes of the usual games have, so that theirs
# are one piece. Those after it take about a second, whatever a step takes.
PIECE = 16_384
_PIECES = 64, 2**20
_MOST_STEPS = INT_END - 1  # that a counter of an episode holds


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


@dataclasses.dataclass
class _Evaluating:
    """An evaluation under way: its episodes, the mean of max Q, and steps played so far."""

    played: Played
    q_max: Any
    until: int


class _Pending(NamedTuple):
    """Outputs of an interval that may still be computed; ``row`` is what is collected of them.

    ``lost`` says of each lane whether its replay lost something, bool ``[W]``; None if none can.
    """

    interval: Interval
    episodes: list[tuple[int, Episodes]]
    metrics: list[tuple[int, dict[str, Any]]]
    evaluation: _Evaluating | None
    q_table: Any | None
    diagnosed: dict[str, Any]
    lost: Any | None = None
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
            pending = _Pending(last, [], [], None, None, {}, row=self._rows.pop())
            self._pending = self._evaluate(pending)
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
        diagnosed = programs.diagnose(self._clock, self._lanes, self._hypers)
        pending = _Pending(interval, episodes, metrics, None, None, diagnosed, self._lost())
        return self._evaluate(pending) if interval.evaluates else pending

    def _lost(self) -> Any | None:
        """Which replays have lost something by now: a copy, as training consumes the state."""
        rows = self._lanes.replay_rows
        return jnp.copy(rows.lost) if isinstance(rows, Once) else None

    def _check_kept(self, pending: _Pending) -> None:
        """Refuses results that a replay without some final observation may have changed."""
        lost = np.asarray(pending.lost)[: self._count]
        if lost.any():
            seed, config = self.chunk.seeds[np.argmax(lost)], self.config
            raise ConfigError(
                f"seed {seed} had more ends of episodes among {config.replay_capacity} transitions "
                f"than replay = once holds final observations of (replay_ends = "
                f"{config.replay_ends or 'an eighth'}): raise replay_ends, or set replay = auto"
            )

    def _evaluate(self, pending: _Pending) -> _Pending:
        """Begins the evaluation at the end of an interval."""
        programs = self._programs
        played, q_max = programs.evaluate(self._clock, self._lanes, self._hypers, PIECE)
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
            if found.until == _MOST_STEPS:
                raise ConfigError(
                    f"an episode of evaluation has not ended after {_MOST_STEPS} steps: give the "
                    "environment a time limit (time_limit = N)"
                )
            found.until = min(found.until + piece, _MOST_STEPS)
            found.played = self._programs.play(self._clock, self._lanes, found.played, found.until)

    def _collect(self, pending: _Pending) -> None:
        """Brings an interval's outputs to the host as a row of metrics and columns of episodes."""
        if pending.lost is not None:
            self._check_kept(pending)
        pending = self._gathered(pending)
        row, evaluation = dict(pending.row or {}), pending.evaluation
        if evaluation is not None:
            returns, lengths = np.array(evaluation.played.total), np.array(evaluation.played.length)
            row |= {
                "eval_return": returns.mean(axis=1),
                "eval_length": lengths.mean(axis=1, dtype=np.float32),
                "eval_q_max": np.array(evaluation.q_max),
            }
            if evaluation.played.foreseen is not None:
                row["overestimation"] = diagnostics.overestimation(evaluation.played.foreseen)
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
        finished = finished_episodes(pending.episodes)
        row = episode_metrics(finished, width)
        row |= agent_metrics(self._programs.metrics, pending.metrics, width)
        nothing = np.full(width, np.nan, np.float32)
        row |= dict.fromkeys((*EVAL_METRICS, *EXACT_METRICS, *columns(self.config)), nothing)
        row |= diagnostics.at_row(pending.diagnosed, self._count, width)
        self._episodes.append(finished)
        return pending._replace(episodes=[], metrics=[], diagnosed={}, row=row)

    def _joined(self) -> tuple[dict[str, np.ndarray], EpisodeColumns]:
        """All rows as ``{name: [W, K]}``, and all episodes."""
        rows = list(self._rows)
        if self._pending is not None and self._pending.row is not None:
            rows.append(self._pending.row)  # without the evaluation that is under way
        names = rows[0] if rows else ()
        metrics = {name: np.stack([row[name] for row in rows], axis=1) for name in names}
        return metrics, joined(self._episodes)


def _lacks_evaluation(last: Interval, rows: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Whether the last row was saved while its evaluation was under way: it has no lengths then."""
    return last.evaluates and bool(rows) and bool(np.isnan(rows[-1]["eval_length"]).all())
