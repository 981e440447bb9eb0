"""The files of a finished chunk held against the plan and against each other, without training.

What can be derived is: which rows and columns there have to be, the digest and the score of each
run from its files, the metrics of training episodes from the episodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dqx.arguments import shown
from dqx.compute.rows import EPISODE_METRICS, EVAL_METRICS
from dqx.compute.score import score
from dqx.compute.solution import EXACT_METRICS
from dqx.core.diagnostics import COLUMNS, SAMPLE
from dqx.settings import Config, evaluates_at, row_steps
from dqx.study.folder import StudyError
from dqx.study.results import Study
from dqx.study.schedule import Task
from dqx.study.sealed import plain
from dqx.study.store import labels
from dqx.study.whole import Content, Said, lanes, numbers, read_chunk, run_facts

if TYPE_CHECKING:
    import pyarrow

_MOST = 3  # runs that are named, before the rest is only counted
_OF_EPISODES = ("step", "return", "length")


def runs_of(task: Task) -> list[tuple[str, int]]:
    """Configuration and seed of each run of a chunk."""
    points = zip(task.points, task.seeds.tolist(), strict=True)
    return [(point.name, seed) for point, seed in points]


def listed(runs: Sequence[tuple[str, int]]) -> str:
    """Runs by name, the first few; the rest is counted."""
    shown = [f"seed {seed} of {config}" for config, seed in runs[:_MOST]]
    more = len(runs) - _MOST
    return ", ".join([*shown, *([f"{more} more"] if more > 0 else [])])


def plainly(value: Any) -> str:
    """A value that a file gives, in one short line that a terminal can show."""
    is_text = isinstance(value, str) and value.isprintable() and len(value) <= 100
    return value if is_text else shown(value)


def snapshot_steps(config: Config, every: int) -> list[int]:
    """The steps of a run's snapshots: the first row at or after each multiple of ``every``."""
    rows = row_steps(config)
    before = zip([0, *rows], rows, strict=False)
    return [row for last, row in before if every and row // every > last // every]


def audit_chunk(study: Study, task: Task, said: Said) -> tuple[list[str], list[dict[str, Any]]]:
    """What is wrong in a chunk, and the facts of its runs; none where its files have no form.

    Args:
        study: the folder.
        task: the chunk as it is planned.
        said: its runs as the record has them.
    """
    try:
        content = read_chunk(study, task.number)
        texts = [*_metrics_form(study, task, content), *_snapshots(study, task)]
        if texts:
            return texts, []
        facts = run_facts(study, task.number, content, said)
    except StudyError as error:
        return [str(error)], []
    steps, metrics = numbers(content.metrics, len(task.seeds))
    texts = [
        *_episodes(study, task, content, steps, metrics),
        *_diagnostics(study, task, steps, metrics),
        *_record(study, task, metrics, content.params, facts, said),
    ]
    return texts, facts


def _metrics_form(study: Study, task: Task, content: Content) -> list[str]:
    """Whether a file of metrics has the rows and columns that the plan gives it."""
    table = content.metrics
    name = study._shelf.name("metrics", task.number)
    steps, runs = np.array(row_steps(task.config), np.int64), len(task.seeds)
    if table.num_rows != runs * len(steps) or "step" not in table.column_names:
        return [f"{name}: its rows or columns are not those of {runs} runs of {len(steps)} rows"]
    found = table.column_names[table.column_names.index("step") + 1 :]
    measured = [column for asked in task.config.diagnostics for column in COLUMNS[asked]]
    needed = (*EPISODE_METRICS, *EVAL_METRICS, *EXACT_METRICS, *measured)
    if lost := [metric for metric in needed if metric not in found]:
        return [f"{name}: its column {lost[0]} is missing"]
    kinds = {metric: table.schema.field(metric).type for metric in found}
    if odd := [m for m in found if str(kinds[m]) != "float" or table.column(m).null_count]:
        return [f"{name}: its column {odd[0]} does not hold a float32 in every row"]
    rows = np.repeat(np.arange(runs), len(steps))
    expected = {**labels(task, rows, dict.fromkeys(found)), "seed": task.seeds[rows]}
    return _columns(name, table, {**expected, "step": np.tile(steps, runs)}, len(found))


def _columns(
    name: str, table: "pyarrow.Table", expected: Mapping[str, Any], more: int
) -> list[str]:
    """Whether the first columns of a table are the expected ones, with ``more`` after them."""
    import pyarrow

    if table.column_names[: len(expected)] != list(expected) or (
        table.num_columns != len(expected) + more
    ):
        return [f"{name}: its columns before the numbers are not {', '.join(expected)}"]
    texts = []
    for column, values in expected.items():
        then, planned = table.column(column), pyarrow.chunked_array([values])
        if then.type != planned.type:
            texts.append(f"{name}: its column {column} is of {then.type}, not {planned.type}")
        elif not then.equals(planned):
            pairs = zip(then.to_pylist(), planned.to_pylist(), strict=True)
            row, (was, has) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
            text = f"its column {column} has {plainly(was)} in row {row}, not {plainly(has)}"
            texts.append(f"{name}: {text}")
    return texts


def _snapshots(study: Study, task: Task) -> list[str]:
    """Whether a chunk has the snapshots that the plan asks for."""
    planned = snapshot_steps(task.config, study.plan["snapshot_every"])
    taken = study._snapshots(task.number)
    if taken == planned:
        return []
    name = study._shelf.name("chunks", task.number)
    return [f"{name}: its snapshots are of steps {taken}, not {planned}"]


def _episodes(
    study: Study,
    task: Task,
    content: Content,
    steps: np.ndarray,
    metrics: Mapping[str, np.ndarray],
) -> list[str]:
    """Whether episodes are of the chunk's runs, in order, and give the metrics that are said."""
    table = content.episodes
    name = study._shelf.name("episodes", task.number)
    lane = lanes(table, runs_of(task))
    step, total, length = (table.column(column).to_numpy() for column in _OF_EPISODES)
    texts = _columns(
        name, table, {**labels(task, lane, metrics), "seed": task.seeds[lane]}, len(_OF_EPISODES)
    )
    same = np.diff(lane) == 0
    if (np.diff(lane) < 0).any() or (np.diff(step)[same] < 0).any():
        texts.append(f"{name}: its episodes are not in the order of runs and steps")
    derived = _episode_metrics(lane, step, total, length, steps, len(task.seeds))
    for metric, values in derived.items():
        said = np.asarray(metrics[metric], np.float32)
        apart = np.argwhere(~((said == values) | (np.isnan(said) & np.isnan(values))))
        for run, row in apart[:1].tolist():
            texts.append(
                f"{name}: the episodes of {listed(runs_of(task)[run : run + 1])} up to step "
                f"{steps[row]:,} give {metric} {values[run, row]:g}, its metrics say "
                f"{said[run, row]:g}"
            )
    return texts


def _diagnostics(
    study: Study, task: Task, steps: np.ndarray, metrics: Mapping[str, np.ndarray]
) -> list[str]:
    """Whether diagnostics are numbers that can be, where they are measured."""
    config, texts = task.config, []
    name = f"metrics/{study._folder.part('metrics', task.number).name}"
    most = {
        "dormant_units": 1.0,
        "dead_units": metrics.get("dormant_units", 1.0),
        "effective_rank": SAMPLE,
        "replay_age": config.replay_capacity,
    }
    for column in (column for asked in config.diagnostics for column in COLUMNS[asked]):
        values = metrics[column]
        possible = np.isnan(values)
        if column == "overestimation":
            possible |= np.array([evaluates_at(config, int(step)) for step in steps])
        else:
            possible |= (values >= 0) & (values <= most.get(column, np.inf))
        for run, row in np.argwhere(~possible)[:1].tolist():
            of = listed(runs_of(task)[run : run + 1])
            texts.append(
                f"{name}: {column} of {of} is {values[run, row]:g} at step {steps[row]:,}, which "
                "it cannot be there"
            )
    return texts


def _episode_metrics(
    lane: np.ndarray,
    step: np.ndarray,
    total: np.ndarray,
    length: np.ndarray,
    steps: np.ndarray,
    runs: int,
) -> dict[str, np.ndarray]:
    """The metrics that episodes give, float32 ``[w, K]`` by name: of those since the row before."""
    cell = lane * len(steps) + np.searchsorted(steps, step)
    cells = runs * len(steps)
    count = np.bincount(cell, minlength=cells)
    found = {"episode_count": count.astype(np.float32)}
    for name, values in (("episode_return", total), ("episode_length", length)):
        sums = np.bincount(cell, weights=values, minlength=cells)
        least, most = np.full(cells, np.inf), np.full(cells, -np.inf)
        np.minimum.at(least, cell, values)
        np.maximum.at(most, cell, values)
        for suffix, result in (("", sums / np.maximum(count, 1)), ("_min", least), ("_max", most)):
            found[name + suffix] = np.where(count > 0, result, np.nan).astype(np.float32)
    return {name: values.reshape(runs, -1) for name, values in found.items()}


def _record(
    study: Study,
    task: Task,
    metrics: Mapping[str, np.ndarray],
    params: Mapping[str, np.ndarray],
    facts: Iterable[Mapping[str, Any]],
    said: Said,
) -> list[str]:
    """Whether the record says of each run what follows from its files and the plan."""
    texts = []
    name = study._shelf.name("chunks", task.number)
    scores, drawn = score(task.config, metrics), task.drawn
    arrays = [values for values in params.values() if values.dtype.kind == "f"]
    for i, (fact, key) in enumerate(zip(facts, runs_of(task), strict=True)):
        run = said[key]
        derived = {
            "digest": fact["digest"],
            "score": plain(float(scores[i])),
            **{field: float(values[i]) for field, values in drawn.items()},
        }
        of = f"of {listed([key])}"
        texts += [
            f"{name}: {field} {of} is {plainly(run.get(field))} there, {value} by its files and "
            "the plan"
            for field, value in derived.items()
            if run.get(field) != value or isinstance(run.get(field), bool)
        ]
        if more := run.keys() - derived.keys() - {"config", "seed", "diverged_at", "chunk"}:
            texts.append(f"{name}: {plainly(min(more))} {of} is nothing that a run has")
        finite = all(np.isfinite(values[i]).all() for values in arrays)
        if run["diverged_at"] < 0 and not finite:
            texts.append(f"{name}: diverged_at {of} is -1, though parameters are not finite")
    return texts
