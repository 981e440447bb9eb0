"""Training a study: an executor trains its chunks, and what comes out is kept and told of here.

Whatever stops a study in a folder, `resume` goes on with the same bits.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from dqx.compute.programs import Programs
from dqx.compute.session import ChunkResult, Saved
from dqx.core.types import PyTree
from dqx.settings import Config
from dqx.study.background import Stopped, Writer, stopping
from dqx.study.checkpoint import State
from dqx.study.executors import Executor
from dqx.study.plan import Plan
from dqx.study.schedule import Task, groups
from dqx.study.sinks import Row, Sinks
from dqx.study.store import Store
from dqx.study.tally import Tally

# Seconds between checkpoints, and the share of the time that they may take.
CHECKPOINT_SECONDS = 15.0
CHECKPOINT_SHARE = 0.04
_PROGRESS_SECONDS = 2.0
# How long a second Ctrl-C waits for a checkpoint that is being written.
_SHORT_SECONDS = 1.0


class Engine:
    """Trains what is not finished yet of a plan; the desk of its executor.

    Args:
        plan: settled.
        store: where results go, and what is finished already.
        executor: who trains.
        sinks: what watches.
        checkpoint_seconds: least time between checkpoints of a chunk; infinite: none at all.
        settling_seconds: spent settling the plan, which compiles.

    Attributes:
        tally: how far it is.
        names: of the programs that were compiled.
        aside: numbers of the chunks that were given up for now, and why.
        checkpoint_seconds: spent writing checkpoints.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        executor: Executor,
        sinks: Sinks,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        settling_seconds: float = 0.0,
    ) -> None:
        self.groups = groups(plan)
        self.tasks: Mapping[int, Task] = {t.number: t for g in self.groups for t in g.tasks}
        self.tally = Tally(plan.name, len(self.tasks), plan.num_runs, plan.total_steps)
        self.tally.settled(settling_seconds)
        self.names: list[str] = []
        self.aside: dict[int, str] = {}
        self.checkpoint_seconds = 0.0
        self.plan = plan
        self.pause = checkpoint_seconds if store.saves else math.inf
        self._store, self._executor, self._sinks = store, executor, sinks
        self._writer: Writer | None = None
        self._reached: dict[int, int] = {}  # the last row of each chunk under way
        self._reported = -math.inf
        self._saving = threading.Lock()  # one copy of a state at a time
        self._abandoned = False
        self._costs: dict[Config, float] = {}  # seconds that the last checkpoint took

    def run(self) -> bool:
        """Trains the chunks that are not finished; whether there were any.

        Raises:
            Stopped: after Ctrl-C or a termination signal.
        """
        done = self._store.finished(self.tasks)
        for index, runs in done.items():
            self.tally.finish(runs)
            self.tally.found(_steps(self.tasks[index]))
            self._sinks.finished(runs)
        work = []
        for group in self.groups:
            waiting = [task for task in group.tasks if task.number not in done]
            if waiting:
                work.append((group, sorted(waiting, key=self._store.step_of, reverse=True)))
        with stopping() as stop, Writer() as writer:
            self._writer = writer
            self._report(force=True)
            try:
                self._executor.train(work, self, stop)
            except KeyboardInterrupt:
                # A second one leaves threads behind. They begin to write nothing any more; a write
                # under way may end if it is short, since files are whole or absent in any case.
                self._abandoned = True
                if self._saving.acquire(timeout=_SHORT_SECONDS):
                    self._saving.release()
                raise
            finally:
                writer.wait()
            self._store.complete()
            self._report(force=True)
        return bool(work)

    # --- The desk.

    def phase(self, text: str) -> None:
        self._sinks.phase(text)

    def compiled(self, names: Sequence[str], seconds: float) -> None:
        self.names += names
        if seconds:
            self.tally.compiled(seconds)
            self._report()

    def restored(self, task: Task, programs: Programs) -> Saved | None:
        return self._store.restore(task, programs)

    def state(self, task: Task) -> State | None:
        return self._store.state(task)

    def began(self, task: Task, step: int) -> float:
        if task.number not in self._reached:
            self._reached[task.number] = step
            self.tally.found(step * len(task.seeds))
        return time.monotonic()

    def row(self, task: Task, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        before = self._reached[task.number]
        if step <= before:
            return  # told of before its chunk was lost
        self._reached[task.number] = step
        self.tally.advance((step - before) * len(task.seeds))
        self._sinks.row(Row(task.points, task.seeds, step, metrics))
        self._report()

    def due(self, stopping: bool, last: float, config: Config) -> bool:
        wanted = stopping and math.isfinite(self.pause)
        pause = max(self.pause, self._costs.get(config, 0.0) / CHECKPOINT_SHARE)
        return wanted or time.monotonic() - last >= pause

    def save(self, task: Task, state: Callable[[], Saved | State]) -> float:
        with self._writing():
            started = time.monotonic()
            self._store.save(task, state())
            ended = time.monotonic()
            self.checkpoint_seconds += ended - started
            self._costs[task.config] = ended - started
        return ended

    def snapshot(self, task: Task, step: int, params: PyTree) -> None:
        with self._writing():
            self._store.snapshot(task, step, params)

    def finish(self, task: Task, result: ChunkResult, machine: str) -> None:
        assert self._writer is not None
        self._writer.submit(self._finish, task, result, machine)

    def set_aside(self, task: Task, error: str) -> None:
        self.aside[task.number] = error
        with self._writing():
            self._store.set_aside(task, error)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._saving:
            if self._abandoned:
                raise Stopped
            yield

    def _finish(self, task: Task, result: ChunkResult, machine: str) -> None:
        runs = self._store.finish(task, result, machine)
        self._reached.pop(task.number, None)
        self.tally.finish(runs)
        self._sinks.finished(runs)
        self._report()

    def _report(self, force: bool = False) -> None:
        now, progress = time.monotonic(), self.tally.progress()
        if now - self._reported >= _PROGRESS_SECONDS or force:
            self._reported = now
            self._store.progress(progress)
        self._sinks.progress(progress)


def _steps(task: Task) -> int:
    return len(task.seeds) * task.config.total_steps
