"""The picture of a study: the learning curves of its configurations."""

from pathlib import Path

import numpy as np

from dqx import plots
from dqx.study.results import Study


def draw(path: Path, study: Study) -> bool:
    """Draws greedy returns, or those of training episodes where nothing was evaluated.

    Returns:
        Whether there was anything to draw.

    Raises:
        OSError: when the picture cannot be written.
    """
    values, ylabel = study.to_arrays("eval_return"), plots.RETURN_LABEL
    if not np.isfinite(values).any():
        values = study.to_arrays("episode_return")
        ylabel = "return of training episodes (sum of rewards an episode; no evaluation)"
    named = zip(study.configs, values, strict=True)
    curves = {name: rows for name, rows in named if np.isfinite(rows).any()}
    if not curves:
        return False
    title = study.plan["name"]
    if len(curves) == 1:
        ((name, rows),) = curves.items()
        title = title if name == title else f"{title}: {name}"
        lost = {run["seed"]: run["diverged_at"] for run in study.runs if run["config"] == name}
        diverged_at = [lost.get(seed, -1) for seed in study.seeds]
        plots.learning_curve(
            study.steps, rows, path=path, title=title, ylabel=ylabel, diverged_at=diverged_at
        )
    else:
        each = {name: (study.steps, rows) for name, rows in curves.items()}
        plots.comparison(each, path=path, title=title, ylabel=ylabel)
    return True
