"""Training a study: chunk after chunk, with checkpoints, until all are on disk.

Read from the bottom of `_Engine.run` up: groups, batches of chunks side by side, rows of metrics.
Whatever stops it, `resume` goes on with the same bits.
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dqx.devices import select_devices
from dqx.files import Staging
from dqx.parallel import Programs
from dqx.rounds import ChunkResult, Round, Saved
from dqx.run import programs_for, row_steps
from dqx.study import checkpoint, finish, store
from dqx.study.background import Writer, stopping
from dqx.study.folder import (
    Folder,
    Lock,
    Mark,
    StudyError,
    chunk_files,
    read_checked,
    read_plan_record,
    read_record,
    write_sealed,
)
from dqx.study.identity import identity
from dqx.study.plan import Plan, read_plan
from dqx.study.record import check_same_study, plan_of, plan_record
from dqx.study.schedule import Group, Task, batches, fitting_devices, groups, settle
from dqx.study.tally import StudyProgress, Tally

if TYPE_CHECKING:
    from dqx.study.results import Study

# Seconds between checkpoints, and the share of the time that they may take.
CHECKPOINT_SECONDS = 15.0
CHECKPOINT_SHARE = 0.04
_PROGRESS_SECONDS = 2.0

ProgressCallback = Callable[[StudyProgress], None]


class StudyWarning(UserWarning):
    """Files of a study that were damaged, and what is done about it."""


class StudyInterrupted(KeyboardInterrupt):
    """Ctrl-C or a termination signal; says what is kept and how to go on."""


def run(
    plan: str | os.PathLike[str] | Mapping[str, Any] | Plan,
    out: str | os.PathLike[str] | None = None,
    *,
    devices: str | Sequence[jax.Device] | None = None,
    overwrite: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    replay_checkpoint: bool = True,
    progress: ProgressCallback | None = None,
) -> "Study":
    """Trains a study from its beginning.

    Args:
        plan: a TOML file, a dictionary of the same form, or a `Plan`.
        out: the folder to write; ``runs/NAME`` if left out. It must not exist, or be empty.
        devices: see ``dqx.devices.select_devices``; all GPUs or all CPU cores if left out.
        overwrite: replace an older study in that folder.
        checkpoint_seconds: least time between checkpoints of the chunks under way.
        replay_checkpoint: write such checkpoints at all. They hold the replay and may be large;
            without them an interrupted chunk starts again from its beginning, with the same bits.
        progress: called after every row of metrics.

    Returns:
        The study, as `load` gives it.

    Raises:
        StudyError: for a plan or folder that cannot be used, or files that cannot be written.
        ConfigError: for a configuration that cannot work, before anything is written.
        StudyInterrupted: after Ctrl-C; `resume` goes on.
    """
    available = select_devices(devices)
    settled = settle(read_plan(plan), available)
    record = plan_record(settled, identity(available))
    path = Path(out) if out is not None else Path("runs") / settled.name
    folder = _new_folder(path, record, overwrite)
    return _Engine(folder, settled, record, available).run(
        checkpoint_seconds, replay_checkpoint, progress
    )


def resume(
    path: str | os.PathLike[str],
    *,
    devices: str | Sequence[jax.Device] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    replay_checkpoint: bool = True,
    progress: ProgressCallback | None = None,
) -> "Study":
    """Goes on with a study that was stopped or killed, or repairs a damaged one.

    Every file of finished chunks is checked; what is damaged is reported as a `StudyWarning` and
    trained again. The number of devices may differ from before, their kind may not.

    Args:
        path: the study's folder.
        devices: as of `run`.
        checkpoint_seconds: as of `run`.
        replay_checkpoint: as of `run`.
        progress: as of `run`.

    Raises:
        StudyError: if there is no study, another process works on it, or it was made by software or
            on a kind of device with which the same bits cannot be expected; shows both sides.
        StudyInterrupted: after Ctrl-C.
    """
    folder = Folder(path)
    record = read_plan_record(folder)
    available = select_devices(devices)
    check_same_study(folder, record, identity(available))
    engine = _Engine(folder, plan_of(folder, record), record, available)
    return engine.run(checkpoint_seconds, replay_checkpoint, progress)


def _new_folder(path: Path, record: Mapping[str, Any], overwrite: bool) -> Folder:
    def replaces(target: Path) -> bool:
        if not os.path.lexists(target):
            return False
        if target.is_dir() and not any(target.iterdir()):
            return False
        return finish.may_replace(Folder(target), record, overwrite)

    with Staging(path, replaces) as staging:
        folder = Folder(staging.folder)
        try:
            folder.make()
            write_sealed(folder.plan, record)
            staging.commit()
        except OSError as error:
            raise StudyError(
                f"cannot write {path}: {error.strerror or error}; choose another folder"
            ) from error
    return Folder(staging.target)


class _Engine:
    """Trains what is not finished yet in a study's folder."""

    def __init__(
        self,
        folder: Folder,
        plan: Plan,
        record: Mapping[str, Any],
        available: Sequence[jax.Device],
    ) -> None:
        self.folder, self.plan, self.seal = folder, plan, record["sha256"]
        self.available = available
        self.groups = groups(plan)
        self._tasks = {task.number: (task, g.config) for g in self.groups for task in g.tasks}
        self._tally = Tally(plan.name, len(self._tasks), plan.num_runs, plan.total_steps)
        self._compile_seconds = 0.0
        self._reported = 0.0
        self._saving = 0.0
        self._compiled: list[str] = []

    def run(
        self, checkpoint_seconds: float, replay_checkpoint: bool, progress: ProgressCallback | None
    ) -> "Study":
        """Trains the chunks that are not finished, and writes the study's summary."""
        from dqx.study.results import load

        self._least_seconds = checkpoint_seconds if replay_checkpoint else math.inf
        self._progress = progress
        try:
            with Lock(self.folder), stopping() as self._stop, Writer() as self._writer:
                if read_plan_record(self.folder)["sha256"] != self.seal:
                    raise StudyError(
                        f"{self.folder.path} was replaced by another process: start again"
                    )
                self.folder.make()
                done = self._scan()
                self._report(force=True)
                for group in self.groups:
                    waiting = [task for task in group.tasks if task.number not in done]
                    if waiting:
                        self._run_group(group, waiting)
                self._writer.wait()
                if len(done) < len(self._tasks) or not finish.has_summary(self.folder, self.seal):
                    event = self._tally.event()
                    finish.write_summary(self.folder, event, self._compiled, self._saving)
                self._report(force=True)
        except KeyboardInterrupt as error:
            if isinstance(error, StudyInterrupted):
                raise
            raise StudyInterrupted(
                f"interrupted at once; dqx study resume {self.folder.path} goes on from what was "
                "last written"
            ) from None
        except OSError as error:
            raise StudyError(
                f"cannot write {error.filename or self.folder.path}: {error.strerror or error}; "
                f"nothing that was finished is lost. When that is mended: "
                f"dqx study resume {self.folder.path}"
            ) from error
        return load(self.folder.path)

    def _scan(self) -> set[int]:
        """The chunks that are finished and undamaged; clears away what a kill has left."""
        for path in self.folder.leftovers():
            path.unlink(missing_ok=True)
        for path in self.folder.strangers(len(self._tasks)):
            _warn(f"{path}: no file of this study; it is left alone and not read")
        done = set()
        for index, (task, config) in self._tasks.items():
            try:
                record = read_record(self.folder, self.seal, index)
                if record is None and self.folder.manifest.exists():
                    raise StudyError(f"{self.folder.record(index)}: it is missing")
                if record is None:
                    continue
                for path, mark in chunk_files(self.folder, index, record):
                    read_checked(path, mark)
            except StudyError as error:
                _warn(f"{error}. The runs of chunk {index} are trained again")
                continue
            done.add(index)
            self._tally.finish(record)
            self._tally.found(len(task.seeds) * config.total_steps)
            checkpoint.delete(self.folder, index)
        return done

    def _run_group(self, group: Group, waiting: Sequence[Task]) -> None:
        config = group.config
        used = fitting_devices(config, self.available, len(waiting))
        programs = programs_for(config, used, self.plan.root_seed)
        self._compiled_before, known = programs.compile_seconds, len(programs.compiled)
        self._cost = 0.0  # seconds of this group's last checkpoint
        found = {task.number: self._checkpoint(task) for task in waiting}
        steps = {index: state.step for index, state in found.items() if state is not None}
        for batch in batches(waiting, steps, len(used)):
            states = [state for task in batch if (state := found[task.number]) is not None]
            self._run_batch(programs, group, batch, states)
        self._compile_seconds += programs.compile_seconds - self._compiled_before
        self._compiled += programs.compiled[known:]

    def _checkpoint(self, task: Task) -> checkpoint.Checkpoint | None:
        """The chunk's checkpoint, if it and the snapshots before it are undamaged."""
        try:
            found = checkpoint.find(self.folder, self.seal, task.number)
            if found is not None:
                for path, mark in checkpoint.files(self.folder, task.number, found):
                    read_checked(path, mark)
        except StudyError as error:
            _warn(f"{error}. Chunk {task.number} starts again from its beginning")
            return None
        return found

    def _run_batch(
        self,
        programs: Programs,
        group: Group,
        batch: Sequence[Task],
        found: Sequence[checkpoint.Checkpoint],
    ) -> None:
        """Trains chunks side by side to their end, or to their checkpoint if asked to stop."""
        config, every = group.config, self.plan.snapshot_every
        runs = sum(len(task.seeds) for task in batch)
        marks = [state.snapshots for state in found] or [{} for _ in batch]
        saved = [
            checkpoint.read(self.folder, task.number, state, programs)
            for task, state in zip(batch, found, strict=False)
        ]

        def on_row(step: int, row: Mapping[str, np.ndarray]) -> None:
            compiled = programs.compile_seconds - self._compiled_before
            self._tally.advance(runs * config.log_period, self._compile_seconds + compiled)
            self._report()

        under_way = Round(programs, config, [task.chunk for task in batch], on_row, saved)
        del saved  # a replay may fill a good part of the memory
        self._tally.found(runs * under_way.step)
        last = time.monotonic()
        while True:
            before = under_way.step
            under_way.advance()
            if every and under_way.step > before and under_way.step % every == 0:
                self._snapshot(batch, under_way, marks)
            if under_way.finished:
                break
            pause = max(self._least_seconds, self._cost / CHECKPOINT_SHARE)
            wanted = self._stop.is_set() and math.isfinite(self._least_seconds)
            if wanted or time.monotonic() - last >= pause:
                under_way.settle()  # which is training, no part of the cost
                started = time.monotonic()
                self._save(batch, under_way.save(), marks)
                last = time.monotonic()
                self._cost = last - started
                self._saving += self._cost
            self._interrupt_if_asked()
        for task, result, taken in zip(batch, under_way.results(), marks, strict=True):
            self._writer.submit(self._finish_chunk, task, row_steps(config), result, taken)
        self._interrupt_if_asked()

    def _snapshot(
        self, batch: Sequence[Task], under_way: Round, marks: list[dict[int, Mark]]
    ) -> None:
        for task, params, taken in zip(batch, under_way.params(), marks, strict=True):
            taken[under_way.step] = store.write_snapshot(
                self.folder, task.number, task.points, task.seeds, under_way.step, params
            )

    def _save(
        self, batch: Sequence[Task], states: Iterable[Saved], marks: list[dict[int, Mark]]
    ) -> None:
        for task, state, taken in zip(batch, states, marks, strict=True):
            checkpoint.write(self.folder, self.seal, task.number, state, taken)

    def _finish_chunk(
        self, task: Task, steps: np.ndarray, result: ChunkResult, marks: Mapping[int, Mark]
    ) -> None:
        record = store.write_chunk(
            self.folder, self.seal, task.number, task.points, steps, result, marks
        )
        checkpoint.delete(self.folder, task.number)
        self._tally.finish(record)

    def _interrupt_if_asked(self) -> None:
        if not self._stop.is_set():
            return
        self._writer.wait()
        self._report(force=True)
        kept = "everything so far" if math.isfinite(self._least_seconds) else "what is finished"
        raise StudyInterrupted(
            f"interrupted; {kept} is in {self.folder.path}. "
            f"Go on with: dqx study resume {self.folder.path}"
        )

    def _report(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._progress is None and now - self._reported < _PROGRESS_SECONDS and not force:
            return
        event = self._tally.event()
        if now - self._reported >= _PROGRESS_SECONDS or force:
            finish.write_progress(self.folder, event)
            self._reported = now
        if self._progress is not None:
            self._progress(event)


def _warn(text: str) -> None:
    warnings.warn(StudyWarning(text), stacklevel=3)
