"""Exploration: epsilon-greedy action choice, and the schedules that epsilon may follow.

A choice is made of two pure functions, so that the random numbers of many steps can be drawn at
once, outside the inner loop: ``draw`` needs no Q-values, ``epsilon_greedy`` needs no key. Each
parallel environment has its own draw.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqx.types import Array, Key


class Draw(NamedTuple):
    """The random numbers of one epsilon-greedy choice of one environment.

    Attributes:
        coin: float32 ``[]``, uniform in [0, 1).
        action: int32 ``[]``, a uniformly random action.
    """

    coin: Array
    action: Array


def draw(key: Key, num_actions: int) -> Draw:
    """Draws what one epsilon-greedy choice needs: one key, two random words."""
    coin, action = jax.random.bits(key, (2,), jnp.uint32)
    # The upper 24 bits are all that a float32 in [0, 1) can hold.
    return Draw(
        (coin >> 8).astype(jnp.float32) * 2.0**-24, (action % num_actions).astype(jnp.int32)
    )


def epsilon_greedy(draw: Draw, q_values: Array, epsilon: Array | float) -> Array:
    """The greedy action, or with probability ``epsilon`` one drawn uniformly from all.

    Args:
        draw: the random numbers of this choice.
        q_values: float ``[A]``.
        epsilon: float ``[]`` in [0, 1].

    Returns:
        int32 ``[]``; among equal Q-values the first.

    Source: Sutton and Barto 2018, section 2.2.
    """
    return jnp.where(draw.coin < epsilon, draw.action, greedy(q_values))


def greedy(q_values: Array) -> Array:
    """The first action of highest value: int32 ``[]`` from float ``[A]``."""
    return jnp.argmax(q_values).astype(jnp.int32)


def constant_schedule(start: Array | float) -> Array:
    """``start`` at every step: float32 ``[]``."""
    return jnp.asarray(start, jnp.float32)


def linear_schedule(
    step: Array, start: Array | float, end: Array | float, steps: Array | float
) -> Array:
    """A straight line from ``start`` at step 0 to ``end`` at ``steps``, then ``end``."""
    fraction = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    # Written so that both ends are met exactly, whether the schedule falls or rises.
    return start * (1.0 - fraction) + end * fraction


def exponential_schedule(
    step: Array, start: Array | float, end: Array | float, steps: Array | float
) -> Array:
    """``end + (start - end) * exp(-step / steps)``; ``steps`` is the time constant."""
    return end + (start - end) * jnp.exp(-jnp.asarray(step, jnp.float32) / steps)


def per_episode_schedule(
    episodes: Array, start: Array | float, end: Array | float, decay: Array | float
) -> Array:
    """``start * decay ** episodes``, held at ``end``; ``episodes`` counts finished ones."""
    value = start * jnp.power(jnp.asarray(decay, jnp.float32), jnp.asarray(episodes, jnp.float32))
    return jnp.where(jnp.asarray(start) >= end, jnp.maximum(value, end), jnp.minimum(value, end))
