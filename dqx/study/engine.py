"""Training a study: chunk after chunk, as many at a time as there are places, until all are kept.

Read from the bottom up: groups that share a program, chunks, rows of metrics. Whatever stops a
study in a folder, `resume` goes on with the same bits.
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from dqx.compute.programs import Programs, programs_for
from dqx.compute.session import ChunkResult, Session
from dqx.settings import Config
from dqx.study.background import Writer, over_places, stopping
from dqx.study.plan import Plan
from dqx.study.schedule import Group, Task, fitting_places, groups
from dqx.study.sinks import Row, Sinks
from dqx.study.store import Store
from dqx.study.tally import Tally

# Seconds between checkpoints, and the share of the time that they may take.
CHECKPOINT_SECONDS = 15.0
CHECKPOINT_SHARE = 0.04
_PROGRESS_SECONDS = 2.0
# How long a second Ctrl-C waits for a checkpoint that is being written.
_SHORT_SECONDS = 1.0


class Stopped(Exception):
    """Ctrl-C or a termination signal has asked to stop, and what is under way has been kept."""


class Engine:
    """Trains what is not finished yet of a plan.

    Args:
        plan: settled.
        store: where results go, and what is finished already.
        places: one for each chunk that may run at a time.
        sinks: what watches.
        checkpoint_seconds: least time between checkpoints of a chunk; infinite: none at all.
        since: moment of ``time.perf_counter`` when settling the plan began, which compiles; now if
            left out.

    Attributes:
        tally: how far it is.
        compiled: names of the programs that were compiled.
        used: the places of the group that used most.
        checkpoint_seconds: spent writing checkpoints.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        places: Sequence[jax.Device],
        sinks: Sinks,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        since: float | None = None,
    ) -> None:
        self.groups = groups(plan)
        self.tasks: Mapping[int, Task] = {t.number: t for g in self.groups for t in g.tasks}
        self.tally = Tally(plan.name, len(self.tasks), plan.num_runs, plan.total_steps)
        self._since = time.perf_counter() if since is None else since
        self.tally.settled(time.perf_counter() - self._since)
        self.compiled: list[str] = []
        self.used: tuple[jax.Device, ...] = ()
        self.checkpoint_seconds = 0.0
        self._plan, self._store, self._places, self._sinks = plan, store, places, sinks
        self._least_seconds = checkpoint_seconds if store.saves else math.inf
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
        with stopping() as stop, Writer() as writer:
            self._report(force=True)
            try:
                for group in self.groups:
                    waiting = [task for task in group.tasks if task.number not in done]
                    if waiting and stop.is_set():
                        raise Stopped  # before anything compiles
                    if waiting:
                        self._run_group(group, waiting, stop, writer)
            except KeyboardInterrupt:
                # A second one leaves threads behind. They begin to write nothing any more; a write
                # under way may end if it is short, since files are whole or absent in any case.
                self._abandoned = True
                if self._saving.acquire(timeout=_SHORT_SECONDS):
                    self._saving.release()
                raise
            finally:
                writer.wait()
            self._report(force=True)
        return len(done) < len(self.tasks)

    def _run_group(
        self, group: Group, waiting: Sequence[Task], stop: threading.Event, writer: Writer
    ) -> None:
        """Trains the chunks of a group, those with a checkpoint first."""
        config, root_seed = group.config, self._plan.root_seed
        programs = {d: programs_for(config, d, root_seed) for d in dict.fromkeys(self._places)}
        if not all(found.compiled for found in programs.values()):
            self._sinks.phase("compiling...")
        started = time.perf_counter()
        places = fitting_places(programs[self._places[0]], config, self._places, len(waiting))
        self.tally.compiled(time.perf_counter() - started)
        self._report()
        self.used = max(self.used, places, key=len)

        def work(place: jax.Device, task: Task) -> None:
            self._run_chunk(programs[place], task, stop, writer)

        ordered = sorted(waiting, key=self._store.step_of, reverse=True)
        over_places(places, ordered, work, stop)
        for found in programs.values():
            self.compiled += found.compiled_since(self._since)
        self._since = time.perf_counter()

    def _run_chunk(
        self, programs: Programs, task: Task, stop: threading.Event, writer: Writer
    ) -> None:
        """Trains a chunk to its end, or to a checkpoint if asked to stop."""
        config, every = task.config, self._plan.snapshot_every
        reached = 0

        def on_row(step: int, metrics: dict[str, np.ndarray]) -> None:
            nonlocal reached
            self.tally.advance((step - reached) * len(task.seeds))
            reached = step
            self._sinks.row(Row(task.points, task.seeds, step, metrics))
            self._report()

        saved = self._store.restore(task, programs)
        session = Session(programs, config, task.chunk, on_row, saved)
        del saved  # a replay may fill a good part of the memory
        reached = session.step
        self.tally.found(reached * len(task.seeds))
        last = time.monotonic()
        while True:
            before = session.step
            session.advance()
            if every and session.step // every > before // every:
                with self._writing():
                    self._store.snapshot(task, session.step, session.params())
            if session.finished:
                break
            if self._due(stop, last, config):
                session.settle()  # which is training, no part of the cost
                last = self._save(task, session)
            if stop.is_set():
                raise Stopped
        writer.submit(self._finish, task, session.result())

    def _due(self, stop: threading.Event, last: float, config: Config) -> bool:
        """Whether it is time for a checkpoint."""
        wanted = stop.is_set() and math.isfinite(self._least_seconds)
        pause = max(self._least_seconds, self._costs.get(config, 0.0) / CHECKPOINT_SHARE)
        return wanted or time.monotonic() - last >= pause

    def _save(self, task: Task, session: Session) -> float:
        """Writes a checkpoint; when that was over."""
        with self._writing():
            started = time.monotonic()
            self._store.save(task, session.save())
            ended = time.monotonic()
            self.checkpoint_seconds += ended - started
            self._costs[task.config] = ended - started
        return ended

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._saving:
            if self._abandoned:
                raise Stopped
            yield

    def _finish(self, task: Task, result: ChunkResult) -> None:
        runs = self._store.finish(task, result)
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
