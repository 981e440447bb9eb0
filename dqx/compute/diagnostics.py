"""Diagnostics on the host: what the device tells at a row and an evaluation as columns of metrics.

Singular values are computed here, in float64: how threads share a product may change their last
digits, and a rank that is counted from them must not hang on it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dqx.compute import trees
from dqx.core.evaluation import Foreseen

# The share of the sum of singular values that an effective rank may leave out.
RANK_DELTA = 0.01


def at_row(found: Mapping[str, Any], count: int, width: int) -> dict[str, np.ndarray]:
    """The columns of what `core.diagnostics.diagnose` tells of a chunk, float32 ``[W]`` each.

    Args:
        found: by column, ``[W, ...]``.
        count: lanes that are no padding.
        width: W.
    """
    row = {}
    for name, values in found.items():
        array = np.array(values)
        if name == "effective_rank":
            array = trees.padded(effective_ranks(array[:count]), width)
        row[name] = array
    return row


def overestimation(foreseen: Foreseen) -> np.ndarray:
    """How much more the agent expects of its first observations than comes, float32 ``[W]``.

    The mean over the episodes of an evaluation.
    """
    difference = np.array(foreseen.predicted, np.float64) - np.array(foreseen.received)
    return difference.mean(axis=-1).astype(np.float32)


def effective_ranks(features: np.ndarray, delta: float = RANK_DELTA) -> np.ndarray:
    """How many singular values make up all but ``delta`` of their sum.

    Args:
        features: of the last hidden layer, ``[..., B, F]``.
        delta: the share that may be left out.

    Returns:
        float32 ``[...]``; 0 where all features are 0, NaN where one is not finite.

    Source: Kumar, Agarwal, Ghosh and Levine 2021, section 3 (srank).
    """
    finite = np.isfinite(features).all(axis=(-1, -2))
    features = np.where(finite[..., None, None], features, 0.0).astype(np.float64)
    values = np.linalg.svd(features, compute_uv=False)
    sums = np.cumsum(values, axis=-1)
    # As many as stay below, and the one that gets there.
    ranks = np.sum(sums < (1 - delta) * sums[..., -1:], axis=-1) + 1
    ranks = np.where(values[..., 0] > 0, ranks, 0)
    return np.where(finite, ranks, np.nan).astype(np.float32)
