"""TD errors and losses of one transition; the caller vmaps over the batch.

Sign convention: a TD error is ``target - prediction``, and no gradient flows through the target.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqx.core import checks
from dqx.core.types import Array


class Rescaling(NamedTuple):
    """A function of returns, ``h``, and its inverse, element by element."""

    h: Callable[[Array], Array]
    inverse: Callable[[Array], Array]


def q_learning(
    q_values: Array, action: Array, reward: Array, discount: Array, next_q_target: Array
) -> Array:
    """TD error of Q-learning with a target network.

    Args:
        q_values: float ``[A]``, online Q-values of the observation.
        action: int ``[]``, the action taken.
        reward: float ``[]``.
        discount: float ``[]``, gamma times the transition's discount (0 where it terminated).
        next_q_target: float ``[A]``, target-network Q-values of the next observation.

    Returns:
        float ``[]``: ``reward + discount * max(next_q_target) - q_values[action]``.

    Raises:
        AssertionError: at trace time, for other shapes or dtypes, saying which. An action
            out of range is found by checkify alone (docs/building-blocks.md).

    Source: Watkins and Dayan 1992; with a target network, Mnih et al. 2015, algorithm 1.
    """
    return double_q_learning(q_values, action, reward, discount, next_q_target, next_q_target)


def double_q_learning(
    q_values: Array,
    action: Array,
    reward: Array,
    discount: Array,
    next_q_target: Array,
    next_q_online: Array,
) -> Array:
    """TD error of Double Q-learning: action selected online, valued by the target network.

    Args:
        q_values: float ``[A]``, online Q-values of the observation.
        action: int ``[]``, the action taken.
        reward: float ``[]``.
        discount: float ``[]``, gamma times the transition's discount (0 where it terminated).
        next_q_target: float ``[A]``, target-network Q-values of the next observation.
        next_q_online: float ``[A]``, online Q-values of the next observation; only its argmax is
            used.

    Returns:
        float ``[]``: ``reward + discount * next_q_target[argmax(next_q_online)] -
        q_values[action]``.

    Raises:
        AssertionError: at trace time, for other shapes or dtypes, saying which. An action
            out of range is found by checkify alone (docs/building-blocks.md).

    Source: van Hasselt, Guez and Silver 2016, equation 4.
    """
    checks.one_value_an_action(
        q_values=q_values, next_q_target=next_q_target, next_q_online=next_q_online
    )
    checks.one_number(reward=reward, discount=discount)
    checks.an_action(action, q_values.shape[0])
    bootstrap = chosen(next_q_target, jnp.argmax(next_q_online))
    target = jax.lax.stop_gradient(reward + discount * bootstrap)
    return target - chosen(q_values, action)


def expected_q_learning(
    q_values: Array,
    action: Array,
    reward: Array,
    discount: Array,
    next_q_target: Array,
    weight: Array,
    scale: Rescaling | None = None,
) -> Array:
    """TD error where each action of the next observation counts by its weight.

    Args:
        q_values: float ``[A]``, online Q-values of the observation.
        action: int ``[]``, the action taken.
        reward: float ``[]``.
        discount: float ``[]``, gamma times the transition's discount (0 where it terminated).
        next_q_target: float ``[A]``, target-network Q-values of the next observation.
        weight: float ``[A]``, of each next action, with sum 1; see `targets`.
        scale: of the Q-values given; the target is made of returns and rescaled.

    Returns:
        float ``[]``: ``reward + discount * sum(weight * next_q_target) - q_values[action]``.

    Raises:
        AssertionError: at trace time, for other shapes or dtypes, saying which. An action
            out of range is found by checkify alone (docs/building-blocks.md).

    Source: van Seijen, van Hasselt, Whiteson and Wiering 2009 (expected SARSA).
    """
    checks.one_value_an_action(q_values=q_values, next_q_target=next_q_target, weight=weight)
    checks.one_number(reward=reward, discount=discount)
    checks.an_action(action, q_values.shape[0])
    h, inverse = scale or rescaling(0.0)
    target = h(reward + discount * weighted(inverse(next_q_target), weight))
    return jax.lax.stop_gradient(target) - chosen(q_values, action)


def chosen(outputs: Array, action: Array) -> Array:
    """What ``outputs [A, ...]`` say of one action, int ``[]``."""
    # A masked sum instead of outputs[action]: a gather's gradient is a scatter, slow under vmap on
    # a CPU.
    actions = jnp.arange(outputs.shape[0]).reshape(-1, *(1,) * (outputs.ndim - 1))
    return jnp.sum(jnp.where(actions == action, outputs, 0.0), axis=0)


def known_return(q_values: Array, action: Array, target: Array) -> Array:
    """TD error of an action whose return is known, such as a lambda return.

    Args:
        q_values: float ``[A]``, online Q-values of the observation.
        action: int ``[]``, the action taken.
        target: float ``[]``, the return.

    Returns:
        float ``[]``: ``target - q_values[action]``.

    Raises:
        AssertionError: at trace time, for other shapes or dtypes, saying which. An action
            out of range is found by checkify alone (docs/building-blocks.md).

    Source: Gallici et al. 2025, algorithm 1.
    """
    checks.one_value_an_action(q_values=q_values)
    checks.one_number(target=target)
    checks.an_action(action, q_values.shape[0])
    return jax.lax.stop_gradient(target) - chosen(q_values, action)


def weighted(values: Array, weight: Array) -> Array:
    """The sum of ``values [A, ...]`` over actions, each times its weight ``[A]``.

    What has no weight is left out even where it is not finite.
    """
    weight = weight.reshape(weight.shape + (1,) * (values.ndim - 1))
    return jnp.sum(jnp.where(weight > 0, weight * values, 0.0), axis=0)


def rescaling(epsilon: float) -> Rescaling:
    """``h(x) = sign(x) * (sqrt(|x| + 1) - 1) + epsilon * x``; of epsilon 0, nothing is done.

    Source: Pohlen et al. 2018, section 3.2 and proposition A.2.
    """
    if epsilon == 0:
        return Rescaling(lambda x: x, lambda x: x)

    # Both without subtracting nearly equal numbers, so that small values keep their digits.
    def h(x: Array) -> Array:
        return x / (jnp.sqrt(jnp.abs(x) + 1) + 1) + epsilon * x

    def inverse(x: Array) -> Array:
        size = jnp.abs(x)
        root = jnp.sqrt(1 + 4 * epsilon * (size + 1 + epsilon))
        less_one = 2 * size * (1 - 2 * epsilon / (root + 1 + 2 * epsilon)) / (root + 1)
        return jnp.sign(x) * less_one * (less_one + 2)

    return Rescaling(h, inverse)


def squared(td_error: Array) -> Array:
    """The square of the TD error, float ``[]``; its gradient is twice the error."""
    return jnp.square(td_error)


def huber(td_error: Array, delta: Array | float = 1.0) -> Array:
    """Half the square up to ``|td_error| = delta``, linear beyond, float ``[]``.

    An infinite ``delta`` gives half the square everywhere. Source: Huber 1964.
    """
    magnitude = jnp.abs(td_error)
    # Chosen by `where`, which gives a clipped error, exactly at delta, its whole gradient; a sum of
    # clipped parts would split it there and lose digits of small gradients. An infinite slope must
    # not reach the branch that is not taken.
    slope = jnp.where(jnp.isfinite(delta), delta, 0.0)
    linear = slope * (magnitude - 0.5 * slope)
    return jnp.where(magnitude <= delta, 0.5 * jnp.square(td_error), linear)


def clip_td_error(td_error: Array, limit: Array | float) -> Array:
    """Clips the TD error to ``[-limit, limit]`` but lets its gradient through.

    A plain clip inside a squared loss would have gradient zero beyond the limit, so the largest
    errors would teach nothing. An infinite ``limit`` changes nothing. Source: Mnih et al. 2015.
    """
    # The error minus itself carries the gradient. The other way round, error + (clipped - error),
    # would round the clip of a huge error to zero.
    clipped = jax.lax.stop_gradient(jnp.clip(td_error, -limit, limit))
    return clipped + (td_error - jax.lax.stop_gradient(td_error))
