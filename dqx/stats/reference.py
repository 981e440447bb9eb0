"""Scores of presets on many seeds that come with the package: to plan with before any are trained.

`reference.json` is written by ``scripts/atlas.py --reference`` and holds, for each preset of the
atlas, its environment, how many seeds were trained with which settings, and evenly spaced ones of
their sorted scores.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from dqx.stats.arguments import FloatArray, public

_FILE = Path(__file__).with_name("reference.json")


def reference_presets() -> dict[str, str]:
    """The presets that `reference_scores` knows, and the environment of each."""
    return {preset: str(entry["env"]) for preset, entry in _entries().items()}


@public
def reference_scores(preset: str) -> FloatArray:
    """Final scores of fresh seeds of a preset, of which nothing was tuned on any.

    ``a = reference_scores("acrobot"); seeds_needed(a, a - 5)`` says how many seeds a side a study
    should have that is to tell such an agent from one whose IQM is lower by 5, if both spread
    alike.

    Args:
        preset: its name; `reference_presets` lists them.

    Returns:
        float64 [S], sorted: at most 200 scores, evenly spaced among those of all seeds. A seed that
        diverged counts as the lowest score of its environment.

    Raises:
        ValueError: for a preset that is not among them.
    """
    if preset not in _entries():
        raise ValueError(
            f"preset {preset!r} has no reference scores: choose one of {', '.join(_entries())}"
        )
    return np.array(_entries()[preset]["scores"], np.float64)


def reference_seeds(preset: str) -> int:
    """How many seeds the scores of `reference_scores` stand for."""
    return int(_entries()[preset]["seeds"])


def reference_settings(preset: str) -> dict[str, str]:
    """The settings of a preset that were no defaults when its seeds were trained, as texts."""
    return dict(_entries()[preset]["settings"])


@functools.cache
def _entries() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found
