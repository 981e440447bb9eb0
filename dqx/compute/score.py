"""The score of a run, of which there is one definition. Needs no JAX."""

from collections.abc import Mapping

import numpy as np

from dqx.settings import Config


def score_metric(config: Config) -> str:
    """The metric that a run of this configuration is judged by.

    That is the exact return where it is measured, else the greedy return of evaluations, else,
    where there is no evaluation, the return of training episodes.
    """
    if config.eval_period:
        return "exact_return" if config.exact_metrics else "eval_return"
    return "episode_return"


def score(config: Config, metrics: Mapping[str, np.ndarray]) -> np.ndarray:
    """The score of each run: the last value of its `score_metric`, which ends in an evaluation.

    Of training episodes the last value that is a number counts, since the last interval may have
    finished none.

    Args:
        config: that the runs share.
        metrics: by name, ``[..., K]``.

    Returns:
        ``[...]``.
    """
    values = np.asarray(metrics[score_metric(config)])
    if config.eval_period:
        return values[..., -1]
    last = values.shape[-1] - 1 - np.argmax(np.isfinite(values)[..., ::-1], axis=-1)
    return np.take_along_axis(values, last[..., None], axis=-1)[..., 0]
