"""How far a study is, added up from what its threads report."""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dqx.study.sinks import Progress


class Tally:
    """Adds up what is done; may be used by several threads.

    Args:
        name: of the study.
        chunks: how many there are.
        runs: how many there are.
        total_steps: environment steps of all runs.
    """

    def __init__(self, name: str, chunks: int, runs: int, total_steps: int) -> None:
        self._name, self._chunks, self._runs, self._total = name, chunks, runs, total_steps
        self._lock = threading.Lock()
        self._chunks_done = self._runs_done = 0
        self._earlier = 0  # steps done before this process went on
        self._here = 0  # steps of this process
        self._diverged: list[tuple[str, int, int]] = []
        self._started = time.perf_counter()
        self._settling = self._compiling = 0.0  # before the start, and since

    def finish(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """A chunk with these runs is finished."""
        with self._lock:
            self._chunks_done += 1
            self._runs_done += len(runs)
            for run in runs:
                if run["diverged_at"] >= 0:
                    self._diverged.append((run["config"], run["seed"], run["diverged_at"]))

    def found(self, steps: int) -> None:
        """Environment steps were done before this process went on."""
        with self._lock:
            self._earlier += steps

    def advance(self, steps: int) -> None:
        """Environment steps were done."""
        with self._lock:
            self._here += steps

    def compiled(self, seconds: float) -> None:
        """Time was spent compiling, while nothing trained."""
        with self._lock:
            self._compiling += seconds

    def settled(self, seconds: float) -> None:
        """Time was spent compiling before the start."""
        self._settling = seconds

    @property
    def seconds(self) -> float:
        """Since the start, compiling left out."""
        return time.perf_counter() - self._started - self._compiling

    def progress(self) -> Progress:
        """The numbers now."""
        with self._lock:
            steps, seconds = self._earlier + self._here, self.seconds
            rate = self._here / seconds if self._here and seconds > 0 else math.nan
            return Progress(
                name=self._name,
                chunks_done=self._chunks_done,
                chunks=self._chunks,
                runs_done=self._runs_done,
                runs=self._runs,
                steps=steps,
                total_steps=self._total,
                steps_per_second=rate,
                seconds_left=(self._total - steps) / rate,
                compile_seconds=self._settling + self._compiling,
                diverged=tuple(self._diverged),
            )
