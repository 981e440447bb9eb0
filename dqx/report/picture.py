"""The picture of a study: the learning curves of its configurations."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dqx.compute.score import score_metric
from dqx.report import plots
from dqx.report.terminal import counted
from dqx.settings import evaluates_at
from dqx.study.folder import Folder
from dqx.study.results import Study
from dqx.study.sinks import Sink
from dqx.study.store import StudyWarning

_YLABELS = {
    "exact_return": "exact greedy return over all starts (sum of rewards an episode)",
    "eval_return": plots.RETURN_LABEL,
    "episode_return": "return of training episodes (sum of rewards an episode; no evaluation)",
}


class Picture(Sink):
    """Draws the learning curves into the study's folder once all runs are finished.

    A file that dqx has not drawn stays as it is, with a `StudyWarning`.
    """

    def complete(self, study: Study) -> None:
        path = Folder(study.path).picture
        if path.exists() and not plots.is_drawn(path):
            warnings.warn(
                StudyWarning(
                    f"{path} was not drawn by dqx, so it stays as it is: move it away, and "
                    f"`dqx study resume {study.path}` draws the learning curves"
                ),
                stacklevel=2,
            )
            return
        draw(path, study)


def draw(path: Path, study: Study) -> bool:
    """Draws the metric that runs are judged by, which every configuration must have.

    Where configurations differ in it, the one that tells least is taken.

    Returns:
        Whether there was anything to draw.

    Raises:
        OSError: when the picture cannot be written.
    """
    metrics = {score_metric(study.point(name)[0]) for name in study.configs}
    metric = max(metrics, key=list(_YLABELS).index)
    arrays = dict(zip(study.configs, study.to_arrays(metric), strict=True))
    if not any(np.isfinite(rows).any() for rows in arrays.values()):
        return False
    if len(study.configs) == 1:
        _draw_one(path, study, metric)
        return True
    lost = _count_lost(study, metric, arrays)
    curves = {n: (study.steps, rows) for n, rows in arrays.items() if np.isfinite(rows).any()}
    title = study.plan["name"]
    if lost:
        title += f" ({counted(lost, 'run')} without a number: counted as the worst)"
    plots.comparison(curves, path=path, title=title, ylabel=_YLABELS[metric])
    return True


def _count_lost(study: Study, metric: str, arrays: Mapping[str, np.ndarray]) -> int:
    """Puts the worst of its environment where a finished run has no number; how many lack one."""
    place = {seed: i for i, seed in enumerate(study.seeds)}
    configs = {name: study.point(name)[0] for name in arrays}
    known: dict[str, list[np.ndarray]] = {}
    for name, rows in arrays.items():
        known.setdefault(configs[name].env, []).append(rows[np.isfinite(rows)])
    total = 0
    for name, rows in arrays.items():
        config, runs = configs[name], study.finished_runs(name)
        worst = np.concatenate(known[config.env]).min(initial=np.inf)
        if worst == np.inf:
            continue  # nothing of its environment is drawn
        finished = [place[seed] for seed in runs.seeds.tolist()]
        if metric == "episode_return":  # no episode may have ended before
            at = runs.diverged_at[:, None]
            due = (at >= 0) & (study.steps >= at)
        else:
            due = np.array([evaluates_at(config, int(step)) for step in study.steps])[None]
        due = due & (study.steps <= config.total_steps)
        missing = due & ~np.isfinite(rows[finished])
        rows[finished] = np.where(missing, worst, rows[finished])
        total += int(missing.any(axis=1).sum())
    return total


def _draw_one(path: Path, study: Study, metric: str) -> None:
    (name,) = study.configs
    lost = {run["seed"]: run["diverged_at"] for run in study.runs}
    plots.learning_curve(
        study.steps,
        study.to_arrays(metric)[0],
        path=path,
        title=f"{name}: {study.point()[0].env}",
        ylabel=_YLABELS[metric],
        diverged_at=[lost.get(seed, -1) for seed in study.seeds],
    )
