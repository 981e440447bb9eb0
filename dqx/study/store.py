"""Where results and states of chunks are kept: in a study's folder, or in memory."""

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from dqx.compute.digest import digests, flatten
from dqx.compute.programs import Programs
from dqx.compute.score import score
from dqx.compute.session import ChunkResult, Saved
from dqx.core.types import PyTree
from dqx.settings import environments, setting, show
from dqx.study import checkpoint, finish, scan
from dqx.study.checkpoint import State
from dqx.study.entries import names
from dqx.study.folder import Folder, StudyError, write_failure
from dqx.study.held import Loose
from dqx.study.merge import Merger, StudyWarning, next_number
from dqx.study.planned import PlannedChunk
from dqx.study.schedule import Task
from dqx.study.sealed import Mark, marked_file, plain, write_arrays, write_sealed
from dqx.study.sinks import Progress

T = TypeVar("T")


class Store(Protocol):
    """What the engine asks of a place to keep results in."""

    saves: bool

    def finished(self, tasks: Mapping[int, Task]) -> dict[int, list[dict[str, Any]]]:
        """The runs of each chunk that is finished and undamaged, by the chunk's number."""

    def step_of(self, task: Task) -> int:
        """The step that a chunk under way was last saved at; 0 if it is not saved."""

    def restore(self, task: Task, programs: Programs) -> Saved | None:
        """The state that a chunk was last saved in."""

    def state(self, task: Task) -> State | None:
        """The same as plain arrays; also of a chunk that was saved since this store was made."""

    def save(self, task: Task, state: Saved | State) -> None:
        """Keeps the state of a chunk under way."""

    def snapshot(self, task: Task, step: int, params: PyTree) -> None:
        """Keeps the parameters of a chunk's runs at a step."""

    def finish(self, task: Task, result: ChunkResult, machine: str = "") -> list[dict[str, Any]]:
        """Keeps the results of a chunk and the machine that trained it, and gives its runs."""

    def set_aside(self, task: Task, error: str) -> None:
        """Keeps why a chunk was given up for now."""

    def complete(self) -> None:
        """Nothing more is trained."""

    def progress(self, progress: Progress) -> None:
        """Keeps how far the study is."""


def runs_of(task: Task, result: ChunkResult) -> list[dict[str, Any]]:
    """What is known of each run of a finished chunk: its digest, score and divergence."""
    found = digests(result.steps, result.metrics, result.params)
    scores, drawn = score(task.config, result.metrics), task.drawn
    return [
        {
            "config": point.name,
            "seed": int(seed),
            "digest": found[i],
            "diverged_at": int(result.diverged_at[i]),
            "score": plain(float(scores[i])),
            **{name: float(values[i]) for name, values in drawn.items()},
        }
        for i, (point, seed) in enumerate(zip(task.points, result.seeds, strict=True))
    ]


class MemoryStore:
    """Keeps results in memory; an interrupted chunk is lost.

    Attributes:
        results: of each finished chunk, by its number.
        snapshots: parameters by chunk and step.
    """

    saves = False

    def __init__(self) -> None:
        self.results: dict[int, ChunkResult] = {}
        self.runs: dict[int, list[dict[str, Any]]] = {}
        self.snapshots: dict[tuple[int, int], PyTree] = {}

    def finished(self, tasks: Mapping[int, Task]) -> dict[int, list[dict[str, Any]]]:
        return {}

    def step_of(self, task: Task) -> int:
        return 0

    def restore(self, task: Task, programs: Programs) -> Saved | None:
        return None

    def state(self, task: Task) -> State | None:
        return None

    def save(self, task: Task, state: Saved | State) -> None:
        raise AssertionError("nothing is saved in memory")

    def snapshot(self, task: Task, step: int, params: PyTree) -> None:
        self.snapshots[task.number, step] = params

    def set_aside(self, task: Task, error: str) -> None:
        raise AssertionError(f"nothing is set aside in memory: {error}")

    def finish(self, task: Task, result: ChunkResult, machine: str = "") -> list[dict[str, Any]]:
        self.results[task.number] = result
        self.runs[task.number] = runs_of(task, result)
        return self.runs[task.number]

    def complete(self) -> None:
        pass

    def progress(self, progress: Progress) -> None:
        pass


class FolderStore:
    """Keeps everything in a study's folder.

    A finished chunk is its tables, parameters and snapshots, and last the record that makes it
    count. Of a plan of many chunks they are merged into bundles as they come.

    Args:
        folder: of the study.
        seal: of its plan.
    """

    saves = True

    def __init__(self, folder: Folder, seal: str) -> None:
        self.folder, self.seal = folder, seal
        self._found: dict[int, checkpoint.Checkpoint] = {}
        self._snapshots: dict[int, dict[int, Mark]] = {}
        self._saved: set[int] = set()  # chunks that have a checkpoint of this process
        self._merger: Merger | None = None

    def finished(self, tasks: Mapping[int, Task]) -> dict[int, list[dict[str, Any]]]:
        """The runs of the chunks that are finished; clears away what a kill has left."""
        folder = self.folder
        for path in (*folder.leftovers(), *folder.failures()):  # which are tried again
            path.unlink(missing_ok=True)
        for path in folder.strangers(len(tasks)):
            _warn(f"{path}: no file of this study; it is left alone and not read")
        chunks = _Chunks(tasks)
        held = scan.intact(folder, self.seal, chunks, _warn)
        self._merger = Merger(folder, self.seal, chunks, next_number(folder))
        for each in held.values():
            if isinstance(each, Loose):
                self._merger.note(each)
        saved = {re.split("[-.]", name)[0] for name in names(folder.checkpoints)}
        for index in (index for index in tasks if f"{index:05d}" in saved):
            if index in held:
                checkpoint.delete(folder, index)
            else:
                self._find(tasks[index])
        # A bundle holds many chunks, and is asked once.
        owners = {id(each): each for each in held.values()}
        runs = {owner: each.runs() for owner, each in owners.items()}
        return {index: runs[id(held[index])][index] for index in tasks if index in held}

    def _find(self, task: Task) -> None:
        """Looks for the chunk's checkpoint, of which nothing but the record is read yet."""
        try:
            found = checkpoint.find(self.folder, self.seal, task.number)
        except StudyError as error:
            _warn_of_restart(error, task)
            return
        if found is None:
            # A kill before the first record leaves arrays alone, which are worth nothing.
            checkpoint.delete(self.folder, task.number)
        else:
            self._found[task.number] = found

    def step_of(self, task: Task) -> int:
        found = self._found.get(task.number)
        return 0 if found is None else found.step

    def restore(self, task: Task, programs: Programs) -> Saved | None:
        steps = task.planned.steps.tolist()
        return self._read(
            task, lambda found: checkpoint.read(self.folder, task.number, found, programs, steps)
        )

    def state(self, task: Task) -> State | None:
        if task.number in self._saved:
            self._find(task)
        return self._read(
            task, lambda found: checkpoint.read_state(self.folder, task.number, found)
        )

    def _read(self, task: Task, read: Callable[[checkpoint.Checkpoint], T]) -> T | None:
        """The chunk's checkpoint; None, and a warning, if it or a snapshot before it is damaged."""
        self._snapshots.pop(task.number, None)
        found = self._found.pop(task.number, None)
        if found is None:
            return None
        try:
            checkpoint.check_snapshots(self.folder, task.number, found)
            state = read(found)
        except StudyError as error:
            _warn_of_restart(error, task)
            return None
        self._snapshots[task.number] = dict(found.snapshots)
        return state

    def save(self, task: Task, state: Saved | State) -> None:
        self._saved.add(task.number)
        marks = self._snapshots.get(task.number, {})
        checkpoint.write(self.folder, self.seal, task.number, state, marks)

    def snapshot(self, task: Task, step: int, params: PyTree) -> None:
        mark = write_arrays(
            self.folder.snapshot(task.number, step), _named_params(task, task.seeds, params)
        )
        self._snapshots.setdefault(task.number, {})[step] = mark

    def set_aside(self, task: Task, error: str) -> None:
        write_failure(self.folder, self.seal, task.number, error)

    def finish(self, task: Task, result: ChunkResult, machine: str = "") -> list[dict[str, Any]]:
        folder, chunk = self.folder, task.number
        marks = {
            "metrics": _write_metrics(folder, task, result),
            "episodes": _write_episodes(folder, task, result),
            "params": write_arrays(
                folder.part("params", chunk), _named_params(task, result.seeds, result.params)
            ),
        }
        snapshots = self._snapshots.pop(chunk, {})
        runs = runs_of(task, result)
        record = {
            "plan_seal": self.seal,
            "chunk": chunk,
            "files": {kind: mark._asdict() for kind, mark in marks.items()},
            "snapshots": {str(step): mark._asdict() for step, mark in snapshots.items()},
            "runs": runs,
            **({"machine": machine} if machine else {}),
        }
        write_sealed(folder.record(chunk), record)
        checkpoint.delete(folder, chunk)
        self._saved.discard(chunk)
        if self._merger is not None:
            self._merger.note(Loose(folder, chunk, record, task.planned))
            self._merger.step()
        return runs

    def complete(self) -> None:
        if self._merger is not None:
            self._merger.rest()

    def progress(self, progress: Progress) -> None:
        finish.write_progress(self.folder, progress)


class _Chunks:
    """What chunks are planned to hold, by their tasks."""

    def __init__(self, tasks: Mapping[int, Task]) -> None:
        self._tasks, self.count = tasks, len(tasks)

    def chunk(self, number: int) -> PlannedChunk:
        return self._tasks[number].planned


def _named_params(task: Task, seeds: np.ndarray, params: PyTree) -> dict[str, Any]:
    names = np.array([point.name for point in task.points], dtype=np.str_)
    return {"config": names, "seed": np.asarray(seeds, np.int64), **flatten(params)}


def _write_metrics(folder: Folder, task: Task, result: ChunkResult) -> Mark:
    rows = np.repeat(np.arange(len(task.points)), len(result.steps))
    columns = {**labels(task, rows, result.metrics), "seed": result.seeds[rows]}
    columns["step"] = np.tile(result.steps, len(task.points)).astype(np.int64)
    for name, values in result.metrics.items():
        columns[name] = np.asarray(values, np.float32).reshape(-1)
    return _write_table(folder.part("metrics", task.number), columns)


def _write_episodes(folder: Folder, task: Task, result: ChunkResult) -> Mark:
    lane, step, total, length = result.episodes
    columns = {
        **labels(task, lane, result.metrics),
        "seed": result.seeds[lane],
        "step": step.astype(np.int64),
        "return": total.astype(np.float32),
        "length": length.astype(np.int64),
    }
    return _write_table(folder.part("episodes", task.number), columns)


def _write_table(path: Any, columns: Mapping[str, Any]) -> Mark:
    """Writes columns of equal length, NumPy's or Arrow's, as Parquet."""
    import pyarrow
    import pyarrow.parquet

    with marked_file(path) as file:
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), file)
    return file.mark


def labels(task: Task, rows: np.ndarray, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that tell the configuration of each row: its name, and the varied fields."""
    import pyarrow

    def column(values: list[Any], kind: str) -> Any:
        types = {"bool": pyarrow.bool_, "int64": pyarrow.int64, "float64": pyarrow.float64}
        typed = pyarrow.array(values, types.get(kind, pyarrow.string)())
        return typed.take(pyarrow.array(rows, pyarrow.int64()))

    columns = {"config": column([point.name for point in task.points], "string")}
    drawn = task.drawn
    for field in dict.fromkeys([*task.points[0].varied, *drawn]):
        values = drawn[field].tolist() if field in drawn else [p.varied[field] for p in task.points]
        if environments.is_own(field):
            kind = environments.column_type(values)
        else:
            kind = "string" if field == "preset" else setting(field).parquet
        if kind == "string":
            values = [value if value is None else show(value) for value in values]
        # A varied field keeps its name, unless a metric has it.
        columns[f"{field}_field" if field in metrics else field] = column(values, kind)
    return columns


def _warn_of_restart(error: StudyError, task: Task) -> None:
    _warn(f"{error}. Chunk {task.number} starts again from its beginning")


def _warn(text: str) -> None:
    warnings.warn(StudyWarning(text), stacklevel=4)
