"""The picture of a study: the learning curves of its configurations."""

import warnings
from pathlib import Path

import numpy as np

from dqx.compute.score import score_metric
from dqx.report import plots
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
    named = zip(study.configs, study.to_arrays(metric), strict=True)
    curves = {name: rows for name, rows in named if np.isfinite(rows).any()}
    if not curves:
        return False
    if len(study.configs) == 1:
        _draw_one(path, study, metric)
    else:
        each = {name: (study.steps, rows) for name, rows in curves.items()}
        plots.comparison(each, path=path, title=study.plan["name"], ylabel=_YLABELS[metric])
    return True


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
