"""The state of a chunk under way as a file of plain arrays.

Two files make a checkpoint: ``checkpoints/00012-40000.npz`` with the arrays and, written after it,
``checkpoints/00012.json`` with its checksum. An older pair is deleted after that, so that at every
moment there is a whole one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dqx.compute import trees
from dqx.compute.programs import Programs
from dqx.compute.rows import row_metrics
from dqx.compute.session import Saved
from dqx.study import forms
from dqx.study.folder import Folder, StudyError
from dqx.study.sealed import (
    Mark,
    read_arrays,
    read_checked,
    read_sealed,
    write_arrays,
    write_sealed,
)

_EPISODES = ("lane", "step", "return", "length")
# What an array takes in a file beside its numbers: the headers of both formats and twice its name.
_ARRAY_BYTES = 250


class State(NamedTuple):
    """The state of a chunk as plain arrays by name, which a process without its programs can keep.

    Attributes:
        step: environment steps a seed.
        arrays: of clock, lanes, metrics and episodes.
    """

    step: int
    arrays: Mapping[str, np.ndarray]


def packed(saved: Saved) -> State:
    """A session's state as plain arrays."""
    arrays = {**trees.named("clock", saved.clock), **trees.named("lanes", saved.lanes)}
    arrays |= {f"metrics/{name}": values for name, values in saved.metrics.items()}
    arrays |= {f"episodes/{n}": c for n, c in zip(_EPISODES, saved.episodes, strict=True)}
    return State(int(saved.clock.step), arrays)


def unpacked(state: State, programs: Programs) -> Saved:
    """What `packed` was given.

    Raises:
        KeyError: with the name of an array that is not there, if it is of another configuration.
        ValueError: naming an array of another shape, or saying what does not fit together.
    """
    arrays = dict(state.arrays)
    clock, lanes = programs.shapes
    found = Saved(
        clock=trees.from_named("clock", clock, arrays),
        lanes=trees.from_named("lanes", lanes, arrays),
        metrics={name: arrays[f"metrics/{name}"] for name in row_metrics(programs)},
        episodes=tuple(arrays[f"episodes/{name}"] for name in _EPISODES),  # type: ignore[arg-type]
    )
    _check_parts(found, state.step, programs.width)
    return found


def _check_parts(saved: Saved, step: int, width: int) -> None:
    """Raises `ValueError` unless clock, metrics and episodes are of one chunk at one step."""
    if int(saved.clock.step) != step:
        raise ValueError(f"its clock is at step {int(saved.clock.step)} and not at {step}")
    shapes = {values.shape for values in saved.metrics.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2 or next(iter(shapes))[0] != width:
        raise ValueError(f"its metrics have the shapes {sorted(shapes)[:3]}")
    if any(values.dtype.kind not in "fi" for values in saved.metrics.values()):
        raise ValueError("its metrics are no numbers")
    lane, at, total, length = saved.episodes
    if any(c.shape != (lane.size,) for c in saved.episodes) or total.dtype.kind != "f":
        raise ValueError("its columns of episodes differ in length or are no numbers")
    for values, most in ((lane, width - 1), (at, step), (length, step * width)):
        if (
            values.dtype.kind != "i"
            or values.size
            and not 0 <= values.min() <= values.max() <= most
        ):
            raise ValueError("its episodes are of other lanes or steps")


class Checkpoint(NamedTuple):
    """What is known about a checkpoint before it is read.

    Attributes:
        step: environment steps a seed.
        mark: of the file of arrays.
        snapshots: marks of the snapshots taken so far, by step.
    """

    step: int
    mark: Mark
    snapshots: dict[int, Mark]


def write(
    folder: Folder, seal: str, chunk: int, saved: Saved | State, snapshots: dict[int, Mark]
) -> None:
    """Writes the state of a chunk, then deletes the one before.

    Args:
        folder: of the study.
        seal: of its plan.
        chunk: number of the chunk.
        saved: its state.
        snapshots: marks of the snapshots taken so far, by step.
    """
    step, arrays = saved if isinstance(saved, State) else packed(saved)
    path = path_of(folder, chunk, step)
    mark = write_arrays(path, arrays)
    record = {
        "plan_seal": seal,
        "chunk": chunk,
        "step": step,
        "arrays": mark._asdict(),
        "snapshots": {str(at): m._asdict() for at, m in snapshots.items()},
    }
    write_sealed(folder.checkpoints / f"{chunk:05d}.json", record)
    for other in folder.checkpoints.glob(f"{chunk:05d}-*.npz"):
        if other != path:
            other.unlink()


def find(folder: Folder, seal: str, chunk: int) -> Checkpoint | None:
    """The checkpoint of a chunk, None if there is none.

    Raises:
        StudyError: if its record is damaged or of another study.
    """
    path = folder.checkpoints / f"{chunk:05d}.json"
    if not path.exists():
        return None
    record = read_sealed(path, forms.CHECKPOINT)
    if record["plan_seal"] != seal or record["chunk"] != chunk:
        raise StudyError(f"{path}: it belongs to another study")
    snapshots = {int(step): Mark.of(mark) for step, mark in record["snapshots"].items()}
    return Checkpoint(record["step"], Mark.of(record["arrays"]), snapshots)


def check_snapshots(folder: Folder, chunk: int, found: Checkpoint) -> None:
    """Refuses a checkpoint of which a snapshot taken before it is not as it was written.

    Raises:
        StudyError: naming the file.
    """
    for step, mark in found.snapshots.items():
        read_checked(folder.snapshot(chunk, step), mark)


def read(
    folder: Folder,
    chunk: int,
    checkpoint: Checkpoint,
    programs: Programs,
    steps: Sequence[int] | None = None,
) -> Saved:
    """Reads the state of a chunk.

    Args:
        folder: of the study.
        chunk: number of the chunk.
        checkpoint: what is known of it.
        programs: of the chunk.
        steps: of its rows, of which those up to the checkpoint must be there; asked if given.

    Raises:
        StudyError: naming the file, if it is not as it was written.
    """
    try:
        found = unpacked(read_state(folder, chunk, checkpoint), programs)
        rows = next(iter(found.metrics.values())).shape[1]
        if steps is not None and list(steps[rows - 1 : rows]) != [checkpoint.step]:
            raise ValueError(f"it has {rows} rows at step {checkpoint.step}")
        return found
    except (KeyError, ValueError) as error:
        path = path_of(folder, chunk, checkpoint.step)
        what = f"it has no array {error}" if isinstance(error, KeyError) else str(error)
        raise StudyError(f"{path}: {what}, so it is of another study") from None


def read_state(folder: Folder, chunk: int, checkpoint: Checkpoint) -> State:
    """Reads the state of a chunk as plain arrays.

    Raises:
        StudyError: naming the file, if it is not as it was written.
    """
    path = path_of(folder, chunk, checkpoint.step)
    return State(checkpoint.step, read_arrays(path, checkpoint.mark))


def path_of(folder: Folder, chunk: int, step: int) -> Path:
    """Where the arrays of a chunk at a step are."""
    return folder.checkpoints / f"{chunk:05d}-{step}.npz"


def delete(folder: Folder, chunk: int) -> None:
    """Deletes the checkpoint of a chunk, its record first."""
    (folder.checkpoints / f"{chunk:05d}.json").unlink(missing_ok=True)
    for path in folder.checkpoints.glob(f"{chunk:05d}-*.npz"):
        path.unlink()


def size(programs: Programs) -> int:
    """Bytes of a chunk's checkpoint before its first row of metrics and its first episode."""
    arrays = len(jax.tree.leaves(programs.shapes)) + len(row_metrics(programs)) + len(_EPISODES)
    return trees.num_bytes(programs.shapes) + _ARRAY_BYTES * arrays
