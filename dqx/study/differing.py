"""How what a folder holds of a run differs from the same run, trained again: in words."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dqx.compute.digest import flatten
from dqx.compute.session import ChunkResult
from dqx.core.types import PyTree
from dqx.study.results import Study
from dqx.study.whole import lanes


class Trained(NamedTuple):
    """One run trained again, alone.

    Attributes:
        result: of its chunk, which has this lane only.
        snapshots: parameters by step, leading axis 1.
        machine: that trained it.
    """

    result: ChunkResult
    snapshots: dict[int, PyTree]
    machine: str


def differences(study: Study, run: Mapping[str, Any], again: Trained, score: float) -> list[str]:
    """Where the folder says something else of a run than training it again: a text a kind of file.

    Args:
        study: the folder.
        run: one of its runs, as the record has it.
        again: the same run.
        score: of that.

    Raises:
        StudyError: if a file is missing or damaged.
    """
    result = again.result
    texts = [
        _of_metrics(study, run, result) or _of_params(study, run, result),
        _of_episodes(study, run, result),
        _of_snapshots(study, run, again.snapshots),
    ]
    stored = np.nan if run["score"] is None else run["score"]
    if not (stored == score or (np.isnan(stored) and not np.isfinite(score))):
        texts.append(f"its score is {stored:g} in the record, and {score:g} now")
    at, now = run["diverged_at"], int(result.diverged_at[0])
    if at != now:
        texts.append(f"diverged_at is {at} in the record, and {now} now")
    return [text for text in texts if text]


def _of_metrics(study: Study, run: Mapping[str, Any], result: ChunkResult) -> str:
    stored = study.curves(run["config"], run["seed"])
    steps = stored.pop("step")
    if stored.keys() != result.metrics.keys() or not np.array_equal(steps, result.steps):
        return "its file of metrics has other rows or columns"
    first: tuple[int, float, str] | None = None
    for name in sorted(stored):
        then, now = stored[name], np.asarray(result.metrics[name][0], np.float32)
        apart = np.flatnonzero(unequal(then, now))
        if apart.size:
            row = int(apart[0])
            far = gap(then[row], now[row])
            # The earliest row, and there the metric that is furthest apart.
            if first is None or (-row, far) > (-first[0], first[1]):
                first = (row, far, name)
    if first is None:
        return ""
    row, far, name = first
    return f"differs from step {steps[row]:,} on, in {name} by {far:g}"


def _of_params(study: Study, run: Mapping[str, Any], result: ChunkResult) -> str:
    found = _apart(flatten(study.params(run["config"], run["seed"])), result.params)
    if found is None:
        return "its file of parameters has other arrays"
    name, far = found
    return f"equal metrics, but the final {name} differs by up to {far:g}" if name else ""


def _of_snapshots(study: Study, run: Mapping[str, Any], again: Mapping[int, PyTree]) -> str:
    taken = study._snapshots(run["chunk"])
    if taken != sorted(again):
        return f"it has snapshots at steps {taken}, not {sorted(again)}"
    for step, params in again.items():
        found = _apart(flatten(study.params(run["config"], run["seed"], step)), params)
        if found is None:
            return f"its snapshot at step {step:,} has other arrays"
        if found[0]:
            return f"in its snapshot at step {step:,} {found[0]} differs by up to {found[1]:g}"
    return ""


def _apart(then: Mapping[str, np.ndarray], params: PyTree) -> tuple[str, float] | None:
    """The first array that differs and by how much, ``("", 0)`` if none; None for other arrays."""
    now = {name: values[0] for name, values in flatten(params).items()}
    forms = ({name: (v.dtype, v.shape) for name, v in arrays.items()} for arrays in (then, now))
    if next(forms) != next(forms):
        return None
    for name in sorted(then):
        apart = unequal(then[name], now[name])
        if apart.any():
            return name, gap(then[name][apart], now[name][apart])
    return "", 0.0


def _of_episodes(study: Study, run: Mapping[str, Any], result: ChunkResult) -> str:
    table = study._table("episodes", run["chunk"])
    mine = lanes(table, [(run["config"], run["seed"])]) == 0
    _, *now = result.episodes
    names = ("step", "return", "length")
    then = [table.column(name).to_numpy()[mine] for name in names]
    if len(then[0]) != len(now[0]):
        return f"it has {len(then[0]):,} episodes in its file, and {len(now[0]):,} now"
    for name, stored, found in zip(names, then, now, strict=True):
        apart = np.flatnonzero(unequal(stored, found.astype(stored.dtype)))
        if apart.size:
            at = int(apart[0])
            return f"the {name} of its episode {at + 1:,} is {stored[at]:g}, and {found[at]:g} now"
    return ""


def unequal(then: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Where the bits differ; all NaNs count as equal, as in a digest."""
    same = (then == now) & (np.signbit(then) == np.signbit(now))
    return ~(same | (np.isnan(then) & np.isnan(now)))


def gap(then: Any, now: Any) -> float:
    """The largest difference; infinite between a number and none."""
    apart = np.abs(np.asarray(then, np.float64) - np.asarray(now, np.float64))
    return float(np.max(np.where(np.isnan(apart), np.inf, apart)))
