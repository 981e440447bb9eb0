"""Target rules: how much each action of the next observation counts in the target.

A rule gives one weight to each next action and, beside that, what it adds to the reward. So the
same rule serves losses of scalars and of distributions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqx.core.types import Array
from dqx.settings import Config


class QValues(NamedTuple):
    """Q-values of one transition by network and observation, float32 ``[A]``; None if not read.

    Attributes:
        next_target: of the target network in ``next_obs``.
        next_online: of the online network in ``next_obs``.
        now_target: of the target network in ``obs``.
    """

    next_target: Array | None = None
    next_online: Array | None = None
    now_target: Array | None = None


class Rule(NamedTuple):
    """A target rule.

    Attributes:
        reads: the Q-values that it reads.
        weigh: ``weigh(q_values)`` of one transition: how much each next action counts, ``[A]``.
    """

    reads: tuple[str, ...]
    weigh: Callable[[QValues], Array]


def make_rule(config: Config) -> Rule:
    """The target rule that ``config`` names."""
    selecting = "next_online" if config.double else "next_target"
    return Rule((selecting,), lambda q_values: greedy(getattr(q_values, selecting)))


def greedy(q_values: Array) -> Array:
    """All weight on the first largest of Q-values ``[A]``, float32 ``[A]``.

    Source: Watkins and Dayan 1992; where the online network's Q-values choose for the target
    network's, van Hasselt, Guez and Silver 2016.
    """
    return jax.nn.one_hot(jnp.argmax(q_values), q_values.shape[0], dtype=jnp.float32)
