"""Returns of several steps: folded from what a replay gives, and along a trajectory."""

import chex
import jax
import jax.numpy as jnp

from dqx.core.types import Array


def folded(
    rewards: Array, discount: Array, lengths: Array, gamma: Array | float
) -> tuple[Array, Array]:
    """The return of a transition's steps, and the discount of what follows them.

    Args:
        rewards: float ``[n]``, of m steps and zeros after them.
        discount: float ``[]``, of the last step: 0 where the episode terminated, else 1.
        lengths: int ``[]``, m.
        gamma: discount a step.

    Returns:
        ``sum(gamma ** k * rewards[k])`` and ``gamma ** m * discount``, float ``[]``.
    """
    chex.assert_rank([rewards, discount, lengths], [1, 0, 0])
    steps = jnp.full(rewards.shape, gamma, rewards.dtype)
    powers = jnp.cumprod(jnp.concatenate([jnp.ones(1, rewards.dtype), steps]))
    return jnp.sum(powers[:-1] * rewards), powers[lengths] * discount


def lambda_returns(
    reward: Array, discount: Array, next_value: Array, continues: Array, lambda_: Array | float
) -> Array:
    """Lambda returns of all steps of a trajectory, which may hold several episodes.

    Args:
        reward: float ``[T]``.
        discount: float ``[T]``, gamma, and 0 where the episode terminated.
        next_value: float ``[T]``, the value of what was observed after each step, before any reset;
            for Q(lambda) the largest Q-value.
        continues: bool ``[T]``, whether the next step belongs to the same episode; that of the last
            step is not read, as nothing is known to follow it.
        lambda_: share of the next step's own return in what follows a step, 0 to 1.

    Returns:
        float ``[T]``: ``reward + discount * ((1 - lambda_) * next_value + lambda_ * next return)``,
        and ``reward + discount * next_value`` where the trajectory or the episode is cut.

    Raises:
        AssertionError: at trace time, on ranks or lengths that differ.

    Source: Sutton and Barto 2018, section 12.8; with the largest Q-value, without cutting traces of
    actions that explore, Gallici et al. 2025 (Peng and Williams 1996).
    """
    chex.assert_rank([reward, discount, next_value, continues], 1)
    chex.assert_equal_shape([reward, discount, next_value, continues])
    share = jnp.where(continues, lambda_, 0.0).at[-1].set(0.0)

    def step(following: Array, now: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        reward, discount, value, share = now
        # Not a sum of products: what is cut off may be anything.
        mixed = jnp.where(share > 0, (1 - share) * value + share * following, value)
        found = reward + discount * mixed
        return found, found

    _, found = jax.lax.scan(
        step, jnp.zeros((), reward.dtype), (reward, discount, next_value, share), reverse=True
    )
    return found
