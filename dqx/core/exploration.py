"""Exploration: how an action is chosen, and the schedules that epsilon and others may follow.

A choice is made of two pure functions, so that the random numbers of many steps can be drawn at
once, outside the inner loop: ``draw`` needs no Q-values, the policies need no key. Each parallel
environment has its own draw.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqx.core import checks
from dqx.core.types import Array, Key

# The longest run of one random action, far beyond the end of most episodes.
MOST_REPEATS = 10_000


class Draw(NamedTuple):
    """The random numbers of one choice of one environment.

    Attributes:
        coin: float32 ``[]``, uniform in [0, 1).
        action: int32 ``[]``, a uniformly random action.
        gumbel: float32 ``[A]``, of the standard Gumbel distribution, always finite; None where the
            policy has no use for it.
        span: float32 ``[]``, uniform in (0, 1], for how long a random action lasts; None likewise.
    """

    coin: Array
    action: Array
    gumbel: Array | None = None
    span: Array | None = None


class Repeat(NamedTuple):
    """A random action that an environment goes on with: int32 ``[]`` each.

    Attributes:
        action: which.
        left: for how many more steps.
    """

    action: Array
    left: Array


def draw(key: Key, num_actions: int, gumbel: bool = False, span: bool = False) -> Draw:
    """Draws what one choice needs: two random words, with ``gumbel`` one more an action.

    With ``span`` there is one more for how long a random action lasts.

    Raises:
        AssertionError: at trace time, without any action.
    """
    checks.above_zero("an environment has at least one action", num_actions=num_actions)
    coin, action = jax.random.bits(key, (2,), jnp.uint32)
    # The upper 24 bits are all that a float32 in [0, 1) can hold.
    return Draw(
        (coin >> 8).astype(jnp.float32) * 2.0**-24,
        (action % num_actions).astype(jnp.int32),
        jax.random.gumbel(jax.random.fold_in(key, 1), (num_actions,)) if gumbel else None,
        1.0 - jax.random.uniform(jax.random.fold_in(key, 2)) if span else None,
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
    checks.one_number(epsilon=epsilon)
    return jnp.where(draw.coin < epsilon, draw.action, greedy(q_values))


def ez_greedy(
    draw: Draw, q_values: Array, epsilon: Array | float, repeat: Repeat, power: Array | float
) -> tuple[Array, Repeat]:
    """The greedy action, or with probability ``epsilon`` a random one that is then repeated.

    It is taken n times in all, with P(n or more) = ``n ** -power``, `MOST_REPEATS` at most.

    Args:
        draw: the random numbers of this choice, ``span`` among them.
        q_values: float ``[A]``.
        epsilon: float ``[]`` in [0, 1], of steps on which no action is being repeated.
        repeat: what is being repeated; no steps left in a new episode.
        power: float ``[]`` above 0; the paper's mu, which is 2 there, less 1.

    Returns:
        int32 ``[]``, and what is being repeated from the next step on.

    Source: Dabney, Ostrovski and Barreto 2021. Difference: n is the whole part of a Pareto number,
    whose tail has the same power as that of their zeta distribution.
    """
    assert draw.span is not None, "this policy repeats actions: draw(key, num_actions, span=True)"
    checks.one_number(epsilon=epsilon, power=power)
    length = jnp.minimum(draw.span ** (-1.0 / power), MOST_REPEATS).astype(jnp.int32)
    begins = (repeat.left == 0) & (draw.coin < epsilon)
    left = jnp.where(begins, length, repeat.left)
    action = jnp.where(begins, draw.action, repeat.action)
    chosen = jnp.where(left > 0, action, greedy(q_values))
    return chosen, Repeat(action, jnp.maximum(left - 1, 0))


def greedy(q_values: Array) -> Array:
    """The first action of highest value: int32 ``[]`` from float ``[A]``.

    Raises:
        AssertionError: at trace time, for Q-values of another shape or dtype, as every policy here.
    """
    checks.one_value_an_action(q_values=q_values)
    return jnp.argmax(q_values).astype(jnp.int32)


def boltzmann(draw: Draw, q_values: Array, temperature: Array | float) -> Array:
    """An action with probability proportional to ``exp(q_values / temperature)``.

    Chosen by the Gumbel-max trick, in which nothing can overflow: any finite Q-values will do. An
    action whose probability is below about ``exp(-20)`` is never chosen. At a temperature of 0 the
    choice is greedy.

    Args:
        draw: the random numbers of this choice, ``gumbel`` among them.
        q_values: float ``[A]``.
        temperature: float ``[]``, or ``[A]`` for noise of a size of its own on each action.

    Returns:
        int32 ``[]``.

    Source: Sutton 1990 (the policy); Gumbel 1954 (the trick).
    """
    assert draw.gumbel is not None, "this policy needs noise: draw(key, num_actions, gumbel=True)"
    checks.one_value_an_action(q_values=q_values, gumbel=draw.gumbel)
    # The largest is subtracted first, so that large Q-values do not swallow the noise.
    return greedy(q_values - jnp.max(q_values) + temperature * draw.gumbel)


def max_boltzmann(
    draw: Draw, q_values: Array, epsilon: Array | float, temperature: Array | float
) -> Array:
    """With probability ``epsilon`` the choice of ``boltzmann``, else the greedy action.

    Returns:
        int32 ``[]``.

    Source: Wiering 1999.
    """
    explores = draw.coin < epsilon
    return jnp.where(explores, boltzmann(draw, q_values, temperature), greedy(q_values))


def boltzmann_gumbel(
    draw: Draw, q_values: Array, counts: Array, temperature: Array | float
) -> Array:
    """The largest of Q-values with Gumbel noise that shrinks as an action is taken more often.

    Args:
        draw: the random numbers of this choice, ``gumbel`` among them.
        q_values: float ``[A]``.
        counts: int ``[A]``, how often each action was taken, counted from 1.
        temperature: C of the paper, at best the standard deviation of returns.

    Returns:
        int32 ``[]``: the argmax of ``q_values + temperature / sqrt(counts) * gumbel``.

    Source: Cesa-Bianchi, Gentile, Lugosi and Neu 2017; counts over all states as in keras-rl.
    """
    return boltzmann(draw, q_values, temperature / jnp.sqrt(counts.astype(jnp.float32)))


def epsilon_ladder(epsilon: Array | float, num_envs: int, power: Array | float) -> Array:
    """An epsilon for each of E environments, float32 ``[E]``.

    Returns:
        ``epsilon ** (1 + power * i / (E - 1))`` for environment ``i``.

    Source: Horgan et al. 2018 (Ape-X), with ``epsilon`` 0.4 and ``power`` 7.
    """
    checks.above_zero("each environment has an epsilon of its own", num_envs=num_envs)
    rung = jnp.arange(num_envs, dtype=jnp.float32) / max(num_envs - 1, 1)
    return jnp.power(jnp.asarray(epsilon, jnp.float32), 1.0 + power * rung)


def constant_schedule(start: Array | float) -> Array:
    """``start`` at every step: float32 ``[]``."""
    return jnp.asarray(start, jnp.float32)


def linear_schedule(
    step: Array, start: Array | float, end: Array | float, steps: Array | float
) -> Array:
    """A straight line from ``start`` at step 0 to ``end`` at ``steps``, then ``end``.

    Raises:
        AssertionError: at trace time, for 0 steps or fewer. Where ``steps`` is traced, checkify
            alone tells, and 0 of them give NaN at step 0.
    """
    checks.above_zero("constant_schedule(end) takes no steps", steps=steps)
    fraction = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    # Written so that both ends are met exactly, whether the schedule falls or rises.
    return start * (1.0 - fraction) + end * fraction


def exponential_schedule(
    step: Array, start: Array | float, end: Array | float, steps: Array | float
) -> Array:
    """``end + (start - end) * exp(-step / steps)``; ``steps`` is the time constant.

    Raises:
        AssertionError: as `linear_schedule` does.
    """
    checks.above_zero("constant_schedule(end) takes no steps", steps=steps)
    return end + (start - end) * jnp.exp(-jnp.asarray(step, jnp.float32) / steps)


def per_episode_schedule(
    episodes: Array, start: Array | float, end: Array | float, decay: Array | float
) -> Array:
    """``start * decay ** episodes``, held at ``end``; ``episodes`` counts finished ones."""
    value = start * jnp.power(jnp.asarray(decay, jnp.float32), jnp.asarray(episodes, jnp.float32))
    return jnp.where(jnp.asarray(start) >= end, jnp.maximum(value, end), jnp.minimum(value, end))
