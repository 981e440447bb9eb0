"""Rows of metrics and columns of episodes, from what the programs of an interval return."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dqx.compute.programs import Programs
from dqx.compute.solution import EXACT_METRICS
from dqx.core.agent import Metric
from dqx.core.diagnostics import columns
from dqx.core.state import Episodes

EPISODE_METRICS = (
    "episode_count",
    "episode_return", "episode_return_min", "episode_return_max",
    "episode_length", "episode_length_min", "episode_length_max",
)  # fmt: skip
EVAL_METRICS = ("eval_return", "eval_length", "eval_q_max")

# Finished episodes as columns: lane, environment step at the end, return, length.
EpisodeColumns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def row_metrics(programs: Programs) -> tuple[str, ...]:
    """The names of all metrics of a row, in their order."""
    measured = columns(programs.config)
    return (*EPISODE_METRICS, *programs.metrics, *EVAL_METRICS, *EXACT_METRICS, *measured)


def agent_metrics(
    metrics: Mapping[str, Metric], pieces: Sequence[tuple[int, dict[str, Any]]], width: int
) -> dict[str, np.ndarray]:
    """The agent's numbers of an interval, from those of its pieces and their lengths."""
    if not pieces:
        return {name: np.full(width, m.before, np.float32) for name, m in metrics.items()}
    weights = [steps for steps, _ in pieces]
    row = {}
    for name, metric in metrics.items():
        values = [np.array(numbers[name]) for _, numbers in pieces]
        if len(values) == 1 or metric.over in ("last", "now"):
            row[name] = values[-1]
        elif metric.over == "max":
            row[name] = np.max(values, axis=0)
        else:
            mean = np.average(np.asarray(values, np.float64), axis=0, weights=weights)
            row[name] = mean.astype(np.float32)
    return row


def finished_episodes(found: Sequence[tuple[int, Episodes]]) -> EpisodeColumns:
    """All finished episodes of the outputs, each with the step before the first of its own."""
    parts = []
    for start, episodes in found:
        total, length = np.array(episodes.total), np.array(episodes.length)
        lane, row, env = np.nonzero(length)
        step = start + (row + 1) * length.shape[2]
        parts.append((lane, step, total[lane, row, env], length[lane, row, env]))
    return joined(parts)


def joined(parts: Sequence[EpisodeColumns]) -> EpisodeColumns:
    """Columns of episodes one after another; empty ones of none."""
    if not parts:
        none = np.zeros(0, np.int64)
        return none, none, none.astype(np.float32), none.astype(np.int32)
    lane, step, total, length = (np.concatenate(column) for column in zip(*parts, strict=True))
    return lane, step, total, length


def episode_metrics(episodes: EpisodeColumns, width: int) -> dict[str, np.ndarray]:
    """Count, mean, least and greatest return and length of finished episodes, else NaN."""
    lane, _, returns, lengths = episodes
    count = np.bincount(lane, minlength=width)
    some = count > 0
    metrics = {"episode_count": count.astype(np.int64)}
    for name, values in (("episode_return", returns), ("episode_length", lengths)):
        mean = np.bincount(lane, weights=values, minlength=width) / np.maximum(count, 1)
        least, greatest = np.full(width, np.inf), np.full(width, -np.inf)
        np.minimum.at(least, lane, values)
        np.maximum.at(greatest, lane, values)
        for suffix, result in (("", mean), ("_min", least), ("_max", greatest)):
            metrics[name + suffix] = np.where(some, result, np.nan).astype(np.float32)
    return metrics
