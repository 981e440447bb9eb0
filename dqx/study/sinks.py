"""What watches a study: sinks see every row of metrics, every finished run, and the progress."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dqx.arguments import each, instance

if TYPE_CHECKING:
    from dqx.study.plan import Plan
    from dqx.study.point import Point
    from dqx.study.results import Study


class Row(NamedTuple):
    """A row of metrics of the runs of one chunk, as soon as it is collected.

    Attributes:
        points: the configuration of each run, ``w`` of them.
        seeds: int64 ``[w]``.
        step: environment step of each run.
        metrics: ``{name: [w]}``.
    """

    points: "tuple[Point, ...]"
    seeds: np.ndarray
    step: int
    metrics: Mapping[str, np.ndarray]


class Progress(NamedTuple):
    """How far a study is.

    Attributes:
        name: of the study.
        chunks_done: finished chunks.
        chunks: all of them.
        runs_done: finished runs, pairs of a configuration and a seed.
        runs: all of them.
        steps: environment steps done, summed over runs, those before an interruption included.
        total_steps: all there are to do.
        steps_per_second: since the start or the last resumption, compile time left out; NaN before
            there is one.
        seconds_left: at that rate; NaN before there is one.
        compile_seconds: spent compiling, and solving for exact metrics.
        diverged: configuration, seed and step of each finished run that became non-finite.
    """

    name: str
    chunks_done: int
    chunks: int
    runs_done: int
    runs: int
    steps: int
    total_steps: int
    steps_per_second: float
    seconds_left: float
    compile_seconds: float
    diverged: tuple[tuple[str, int, int], ...]


class Sink:
    """Watches a study; a subclass overrides what it needs.

    Calls come one at a time, though from several threads. What a sink raises ends the study, which
    can be resumed.
    """

    def open(self, plan: "Plan") -> None:
        """The study starts, or goes on."""

    def phase(self, text: str) -> None:
        """Something begins that may take a while, such as compiling."""

    def row(self, row: Row) -> None:
        """A row of metrics is there."""

    def finished(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Runs are finished: ``config``, ``seed``, ``score`` and ``diverged_at`` of each.

        Those that were finished before an interruption are told of at the start.
        """

    def progress(self, progress: Progress) -> None:
        """The numbers after a row, or after a chunk is finished."""

    def complete(self, study: "Study") -> None:
        """All runs are finished and written; not called for a study that is only in memory."""

    def close(self) -> None:
        """The study ends, for whatever reason."""


SINKS = each(instance("a sink", Sink), "a list of dqx.Sink objects")


class Callback(Sink):
    """Calls a function with every `Progress`."""

    def __init__(self, function: Callable[[Progress], None]) -> None:
        self._function = function

    def progress(self, progress: Progress) -> None:
        self._function(progress)


class Sinks(Sink):
    """Several sinks as one that may be called from several threads."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks, self._lock = tuple(sinks), threading.RLock()

    def _each(self, name: str, *args: Any) -> None:
        with self._lock:
            for sink in self._sinks:
                getattr(sink, name)(*args)

    def open(self, plan: "Plan") -> None:
        self._each("open", plan)

    def phase(self, text: str) -> None:
        self._each("phase", text)

    def row(self, row: Row) -> None:
        self._each("row", row)

    def finished(self, runs: Sequence[Mapping[str, Any]]) -> None:
        self._each("finished", runs)

    def progress(self, progress: Progress) -> None:
        self._each("progress", progress)

    def complete(self, study: "Study") -> None:
        self._each("complete", study)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # all are closed, even if one fails
            for sink in reversed(self._sinks):
                stack.callback(sink.close)


@contextlib.contextmanager
def opened(sinks: Sequence[Sink], plan: "Plan") -> Iterator[Sinks]:
    """Opens sinks, and closes them at the end."""
    together = Sinks(sinks)
    try:
        together.open(plan)
        yield together
    finally:
        together.close()
