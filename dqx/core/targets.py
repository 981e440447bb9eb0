"""Target rules: how much each action of the next observation counts in the target.

A rule gives one weight to each next action and, beside that, what it adds to the reward. So the
same rule serves losses of scalars and of distributions. Rules read Q-values in units of returns.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqx.core.losses import chosen
from dqx.core.types import Array, Transition
from dqx.settings import Config, Hyper


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
        weigh: ``weigh(q_values, step, hyper, epsilon)`` of one transition, as learned: how much
            each next action counts, float32 ``[A]`` with sum 1, and what is added to the reward,
            float32 ``[]`` or None for nothing.
        heads: how many estimates of every value the network gives; of the target network's, the one
            counts that is smaller in what follows.
    """

    reads: tuple[str, ...]
    weigh: Callable[[QValues, Transition, Hyper, Array], tuple[Array, Array | None]]
    heads: int = 1


def make_rule(config: Config) -> Rule:
    """The target rule that ``config`` names."""
    selecting = "next_online" if config.double else "next_target"
    heads = 2 if config.target == "clipped_double" else 1

    def best(q: QValues, step: Transition, hyper: Hyper, epsilon: Array) -> tuple[Array, None]:
        return greedy(getattr(q, selecting)), None

    def expected(q: QValues, step: Transition, hyper: Hyper, epsilon: Array) -> tuple[Array, None]:
        return epsilon_greedy(getattr(q, selecting), epsilon), None

    def soft(q: QValues, step: Transition, hyper: Hyper, epsilon: Array) -> tuple[Array, Array]:
        assert q.now_target is not None and q.next_target is not None  # named in `reads`
        scale, temperature = hyper.munchausen_scale, hyper.munchausen_temperature
        weight, entropy = soft_policy(q.next_target, temperature)
        own = log_policy(q.now_target, step.action, temperature, hyper.munchausen_clip)
        return weight, scale * own + step.discount * entropy

    match config.target:
        case "munchausen":
            return Rule(("next_target", "now_target"), soft)
        case "expected_sarsa":
            return Rule((selecting,), expected)
        case _:
            return Rule((selecting,), best, heads)


def greedy(q_values: Array) -> Array:
    """All weight on the first largest of Q-values ``[A]``, float32 ``[A]``.

    Source: Watkins and Dayan 1992; where the online network's Q-values choose for the target
    network's, van Hasselt, Guez and Silver 2016, and for the smaller of two estimates, Fujimoto,
    van Hoof and Meger 2018.
    """
    return jax.nn.one_hot(jnp.argmax(q_values), q_values.shape[0], dtype=jnp.float32)


def epsilon_greedy(q_values: Array, epsilon: Array | float) -> Array:
    """The probabilities of epsilon-greedy actions by Q-values ``[A]``, float32 ``[A]``.

    Source: van Seijen, van Hasselt, Whiteson and Wiering 2009 (expected SARSA).
    """
    return (1 - epsilon) * greedy(q_values) + epsilon / q_values.shape[0]


def soft_policy(q_values: Array, temperature: Array | float) -> tuple[Array, Array]:
    """Probabilities in proportion to ``exp(q_values / temperature)``, and their scaled entropy.

    Returns:
        float32 ``[A]``, and ``-temperature * sum(p * log(p))``, float32 ``[]``.
    """
    logs = _log_softmax(q_values, temperature)
    policy = jnp.exp(logs)
    return policy, -temperature * jnp.sum(policy * logs)


def log_policy(
    q_values: Array, action: Array, temperature: Array | float, limit: Array | float
) -> Array:
    """``temperature * log(p[action])`` of the soft policy, float32 ``[]`` from ``-limit`` to 0.

    Source: Vieillard, Pietquin and Geist 2020, equation 2 and section 3.
    """
    own = chosen(_log_softmax(q_values, temperature), action)
    return jnp.clip(temperature * own, -limit, 0.0)


def _log_softmax(q_values: Array, temperature: Array | float) -> Array:
    # The largest is subtracted before a small temperature blows up what rounding has left.
    return jax.nn.log_softmax((q_values - jnp.max(q_values)) / temperature)
