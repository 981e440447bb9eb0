"""Returns of several steps: read from the replay, folded, and along a trajectory.

A replay's rows are single steps. Those that follow a row are read where a batch is gathered, so
that storing costs what it does without them, and reading O(B n).
"""

import chex
import jax
import jax.numpy as jnp

from dqx.core.packing import Rows, columns, make_table, places
from dqx.core.replay import Filled, Store, make_stacked_store, ring_rows
from dqx.core.types import Array, Transition

_AGE = jax.ShapeDtypeStruct((), jnp.int32)


def make_n_step_store(
    example: Transition, n_step: int, capacity: int, num_envs: int = 1, frames: int = 1
) -> Store:
    """Builds storage from which transitions of up to ``n_step`` steps can be read.

    A row is followed by those of the same environment and episode. The end of the episode, by
    termination or truncation, and the newest step stop it: such a transition has fewer steps, and
    bootstraps from what was observed after the last of them, before any reset. So every row can be
    sampled, and none is read that is not written yet or older than the first.

    Args:
        example: one transition; its observations are stacks of ``frames`` along the last axis.
        n_step: n, at least 2.
        capacity, num_envs, frames: as of `make_store` and `make_stacked_store`.

    Returns:
        A store whose ``returns(rows, filled, indices [B])`` gives transitions, and how many steps m
        each has, int32 ``[B]``. Their ``reward [B, n]`` holds the rewards of the steps and zeros
        after them; ``discount`` and ``next_obs`` are those of the last step. Rows are those of a
        stacked store; of single frames, a row has four bytes more than without n steps, which say
        whether an episode begins.

    Raises:
        ValueError, AssertionError: as `make_store` does.

    Source: Watkins 1989, chapter 7; read from a replay, Hessel et al. 2018.
    """
    if frames > 1:
        base = make_stacked_store(example, frames, capacity, num_envs)
        width = example.obs.shape[-1] // frames
        frame = jax.ShapeDtypeStruct((*example.obs.shape[:-1], width), example.obs.dtype)
        kept = example._replace(obs=frame, next_obs=frame)
    else:
        base, kept = _marked_store(example, capacity, num_envs), example
    num_rows = ring_rows(capacity, num_envs, frames)
    age_place, place = places((_AGE, kept))

    def returns(rows: Rows, filled: Filled, indices: Array) -> tuple[Transition, Array]:
        newest = filled.written - 1
        number = newest - (newest - indices) % capacity
        # The steps that may follow, [B, n - 1], be they written or not.
        later = number[:, None] + num_envs * jnp.arange(1, n_step)
        at = later.reshape(-1) % num_rows
        begins = columns(rows, at, age_place).reshape(later.shape) == 0
        follows = jnp.cumprod((later <= newest) & ~begins, axis=1, dtype=jnp.int32)
        lengths = 1 + jnp.sum(follows, axis=1)
        rewards = columns(rows, at, place.reward).reshape(later.shape)
        first = base.gather(rows, filled, indices)
        last = base.gather(rows, filled, (number + num_envs * (lengths - 1)) % capacity)
        reward = jnp.concatenate(
            [first.reward[:, None], jnp.where(follows == 1, rewards, 0.0)], axis=1
        )
        steps = Transition(first.obs, first.action, reward, last.discount, last.next_obs)
        return steps, lengths

    return base._replace(returns=returns)


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


def _marked_store(example: Transition, capacity: int, num_envs: int) -> Store:
    """A store whose rows say too whether an episode begins: ages of 0, and 1 for all others."""
    table = make_table((_AGE, example), capacity, num_envs)
    return Store(
        init=table.init,
        write=lambda rows, filled, transitions, age: table.write(
            rows, filled.position, (jnp.minimum(age, 1), transitions)
        ),
        gather=lambda rows, filled, indices: table.gather(rows, indices)[1],
    )
