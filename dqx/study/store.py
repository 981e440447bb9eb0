"""Writing a finished chunk: its tables, parameters and snapshots, and last the record of all."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dqx.digest import digests, flatten
from dqx.output import write_table
from dqx.rounds import METRICS, ChunkResult
from dqx.study.folder import (
    Folder,
    Mark,
    marked_file,
    plain,
    write_arrays,
    write_sealed,
)
from dqx.study.plan import Point, show
from dqx.types import PyTree


def write_chunk(
    folder: Folder,
    plan: str,
    chunk: int,
    points: Sequence[Point],
    steps: np.ndarray,
    result: ChunkResult,
    snapshots: Mapping[int, Mark],
) -> dict[str, Any]:
    """Writes everything of a finished chunk and then the record that makes it count.

    Args:
        folder: of the study.
        plan: the seal of its plan.
        chunk: number of the chunk.
        points: the configuration of each of its runs.
        steps: environment steps of the rows of metrics, ``[K]``.
        result: of the round.
        snapshots: marks of the snapshots, by step.

    Returns:
        The record.
    """
    marks = {
        "metrics": _write_metrics(folder, chunk, points, steps, result),
        "episodes": _write_episodes(folder, chunk, points, result),
        "params": write_arrays(
            folder.part("params", chunk), _named_params(points, result.seeds, result.params)
        ),
    }
    found = digests(steps, result.metrics, result.params)
    final = final_returns(points[0], result)
    record = {
        "plan": plan,
        "chunk": chunk,
        "files": {kind: mark._asdict() for kind, mark in marks.items()},
        "snapshots": {str(step): mark._asdict() for step, mark in snapshots.items()},
        "runs": [
            {
                "config": point.name,
                "seed": int(seed),
                "digest": found[i],
                "diverged_at": int(result.diverged_at[i]),
                "final_return": plain(float(final[i])),
            }
            for i, (point, seed) in enumerate(zip(points, result.seeds, strict=True))
        ],
    }
    write_sealed(folder.record(chunk), record)
    return record


def write_snapshot(
    folder: Folder,
    chunk: int,
    points: Sequence[Point],
    seeds: np.ndarray,
    step: int,
    params: PyTree,
) -> Mark:
    """Writes the parameters of a chunk's runs at a step."""
    return write_arrays(folder.snapshot(chunk, step), _named_params(points, seeds, params))


def _named_params(points: Sequence[Point], seeds: np.ndarray, params: PyTree) -> dict[str, Any]:
    names = np.array([point.name for point in points], dtype=np.str_)
    return {"config": names, "seed": np.asarray(seeds, np.int64), **flatten(params)}


def _write_metrics(
    folder: Folder, chunk: int, points: Sequence[Point], steps: np.ndarray, result: ChunkResult
) -> Mark:
    rows = np.repeat(np.arange(len(points)), len(steps))
    columns = {**_labels(points, rows), "seed": result.seeds[rows]}
    columns["step"] = np.tile(steps, len(points)).astype(np.int64)
    for name, values in result.metrics.items():
        columns[name] = np.asarray(values, np.float32).reshape(-1)
    with marked_file(folder.part("metrics", chunk)) as file:
        write_table(file, columns)
    return file.mark


def _write_episodes(
    folder: Folder, chunk: int, points: Sequence[Point], result: ChunkResult
) -> Mark:
    lane, step, total, length = result.episodes
    columns = {
        **_labels(points, lane),
        "seed": result.seeds[lane],
        "step": step.astype(np.int64),
        "return": total.astype(np.float32),
        "length": length.astype(np.int64),
    }
    with marked_file(folder.part("episodes", chunk)) as file:
        write_table(file, columns)
    return file.mark


def _labels(points: Sequence[Point], rows: np.ndarray) -> dict[str, Any]:
    """The columns that tell the configuration of each row: its name, and the varied fields."""
    import pyarrow

    def column(values: list[Any], kind: Any) -> Any:
        return pyarrow.array(values, kind).take(pyarrow.array(rows, pyarrow.int64()))

    columns = {"config": column([point.name for point in points], pyarrow.string())}
    for field in points[0].varied:
        values = [point.varied[field] for point in points]
        columns[column_name(field)] = column(*_typed(field, values))
    return columns


def column_name(field: str) -> str:
    """The column of a varied field: its name, unless a metric has it."""
    return f"{field}_field" if field in METRICS else field


def _typed(field: str, values: list[Any]) -> tuple[list[Any], Any]:
    import pyarrow

    from dqx.config import field_type

    kind = str if field == "preset" else field_type(field)
    types = {bool: pyarrow.bool_(), float: pyarrow.float64(), str: pyarrow.string()}
    if kind in types:
        return values, types[kind]
    if kind in (int, int | None):
        return values, pyarrow.int64()
    return [show(value) for value in values], pyarrow.string()


def final_returns(point: Point, result: ChunkResult) -> np.ndarray:
    """The last greedy return of each run, or without evaluation its last return of training."""
    if point.config.eval_period:
        return result.metrics["eval_return"][:, -1]
    returns = result.metrics["episode_return"]
    # Long episodes: the last interval may have finished none.
    last = returns.shape[1] - 1 - np.argmax(np.isfinite(returns)[:, ::-1], axis=1)
    return returns[np.arange(len(returns)), last]
