"""How far a study is: numbers for whoever watches it. Needs no JAX."""

import math
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dqx import stats


class Standing(NamedTuple):
    """A configuration so far: its name, the IQM of its finished runs' returns, and their number."""

    name: str
    iqm: float
    runs: int


class StudyProgress(NamedTuple):
    """Where a study is, given to its ``progress`` callback after every row of metrics.

    Attributes:
        name: of the study.
        chunks_done: finished chunks, on disk.
        chunks: all of them.
        runs_done: finished runs, pairs of a configuration and a seed.
        runs: all of them.
        steps: environment steps done, summed over runs, those of earlier sittings included.
        total_steps: all there are to do.
        steps_per_second: of this sitting, compile time left out.
        seconds_left: at that rate; NaN before there is one.
        compile_seconds: spent compiling in this sitting.
        best: the configuration with the highest IQM so far, None before one has finished a run.
        worst: the one with the lowest.
        diverged: configuration, seed and step of each run that became non-finite.
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
    best: Standing | None
    worst: Standing | None
    diverged: tuple[tuple[str, int, int], ...]


class Tally:
    """Adds up what finishes.

    Args:
        name: of the study.
        chunks: how many there are.
        runs: how many there are.
        total_steps: environment steps of all runs.
    """

    def __init__(self, name: str, chunks: int, runs: int, total_steps: int) -> None:
        self._name, self._chunks, self._runs, self._total = name, chunks, runs, total_steps
        self._lock = threading.Lock()
        self._done = 0
        self._earlier = 0  # steps of earlier sittings
        self._here = 0  # steps of this one
        self._returns: dict[str, list[float]] = {}
        self._diverged: list[tuple[str, int, int]] = []
        self._standings: list[Standing] | None = []
        self._started = time.perf_counter()
        self._compiled = 0.0

    def finish(self, record: Mapping[str, Any]) -> None:
        """A chunk is on disk; may be called by the thread that wrote it."""
        with self._lock:
            self._done += 1
            for run in record["runs"]:
                value = math.nan if run["final_return"] is None else run["final_return"]
                self._returns.setdefault(run["config"], []).append(value)
                if run["diverged_at"] >= 0:
                    self._diverged.append((run["config"], run["seed"], run["diverged_at"]))
            self._standings = None

    def found(self, steps: int) -> None:
        """Environment steps that an earlier sitting has done."""
        self._earlier += steps

    def advance(self, steps: int, compile_seconds: float) -> None:
        """Environment steps done since the last call, and all seconds of compiling so far."""
        self._here += steps
        self._compiled = compile_seconds

    def event(self) -> StudyProgress:
        """The numbers now."""
        with self._lock:
            return self._event()

    def _event(self) -> StudyProgress:
        runs_done = sum(map(len, self._returns.values()))
        steps = self._earlier + self._here
        seconds = time.perf_counter() - self._started - self._compiled
        rate = self._here / seconds if self._here and seconds > 0 else math.nan
        if self._standings is None:
            self._standings = rank(self._returns)
        standings = self._standings
        return StudyProgress(
            name=self._name,
            chunks_done=self._done,
            chunks=self._chunks,
            runs_done=runs_done,
            runs=self._runs,
            steps=steps,
            total_steps=self._total,
            steps_per_second=rate,
            seconds_left=(self._total - steps) / rate,
            compile_seconds=self._compiled,
            best=standings[0] if standings else None,
            worst=standings[-1] if standings else None,
            diverged=tuple(self._diverged),
        )


def rank(returns: Mapping[str, Iterable[float]]) -> list[Standing]:
    """Configurations by the IQM of their finite returns, the best first; without one, last."""
    found = []
    for name, values in returns.items():
        array = np.asarray(list(values), float)
        finite = array[np.isfinite(array)]
        found.append(
            Standing(name, float(stats.iqm(finite)) if finite.size else math.nan, array.size)
        )
    return sorted(found, key=lambda s: -math.inf if math.isnan(s.iqm) else s.iqm, reverse=True)
