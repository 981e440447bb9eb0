"""What a trained network is worth: greedy episodes, the values of fixed states, all Q-values."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dqx.core import exploration
from dqx.core.environment import Environment, Step
from dqx.core.keys import Purpose, purpose_key
from dqx.core.types import Array, Key, Params, PyTree
from dqx.settings import Config, Hyper

# States whose Q-values are computed at once for the exact metrics.
TABLE_BATCH = 64


class Evaluation(NamedTuple):
    """Whole greedy episodes, and the values of a fixed set of states.

    Attributes:
        total: float32 ``[eval_episodes]``, sums of rewards.
        length: int32 ``[eval_episodes]``, in steps.
        q_max: float32 ``[]``, the mean over ``eval_states`` states of the largest Q-value; NaN
            without such states.
    """

    total: Array
    length: Array
    q_max: Array


class Foreseen(NamedTuple):
    """What the agent said that episodes are worth, and what they brought; see `foreseeing`.

    Attributes:
        hyper: discount, scale and clip of the rewards that it learns from.
        is_cut: whether time limits leave something to come.
        weight: float32 ``[]``, the discount of the next step's reward.
        predicted: float32 ``[eval_episodes]``, the largest Q-value of each first observation.
        received: float32 ``[eval_episodes]``, discounted rewards so far.
        open: bool ``[eval_episodes]``, whether a time limit has just ended it, so that what would
            follow is still to be added.
    """

    hyper: Hyper
    is_cut: Array
    weight: Array
    predicted: Array
    received: Array
    open: Array


class Played(NamedTuple):
    """Greedy episodes under way; those that are over stay as they are.

    Attributes:
        time: int32 ``[]``, steps played.
        obs: observations to act on, ``[eval_episodes, ...]``.
        env_state: states of the environments, leading axis ``[eval_episodes]``.
        total: float32 ``[eval_episodes]``, sums of rewards so far.
        length: int32 ``[eval_episodes]``, in steps so far.
        running: bool ``[eval_episodes]``, whether each is still to end.
        foreseen: what overestimation is measured by; None where it is not.
    """

    time: Array
    obs: Array
    env_state: PyTree
    total: Array
    length: Array
    running: Array
    foreseen: Foreseen | None = None


QValues = Callable[[Array], Array]


def evaluate(
    config: Config, env: Environment, q_values: QValues, key: Key, step: Array
) -> Evaluation:
    """Plays whole greedy episodes on environments and keys of their own.

    Args:
        config: its ``eval_episodes`` and ``eval_states`` count.
        env: the environment.
        q_values: ``q_values(obs [B, ...])``: float32 ``[B, A]``, of what is evaluated.
        key: of the seed.
        step: environment steps trained so far, int32 ``[]``.
    """
    played = play(env, q_values, key, step, begin(config, env, key, step))
    return Evaluation(played.total, played.length, mean_q_max(config, env, q_values, key))


def begin(config: Config, env: Environment, key: Key, step: Array) -> Played:
    """Begins the greedy episodes of an evaluation; arguments as of `evaluate`."""
    num = config.eval_episodes
    reset_key, _ = _keys(key, step)
    obs, env_state = jax.vmap(env.reset)(jax.random.split(reset_key, num))
    zeros, ones = jnp.zeros(num), jnp.ones(num, bool)
    return Played(jnp.int32(0), obs, env_state, zeros, zeros.astype(jnp.int32), ones)


def foreseeing(config: Config, played: Played, hyper: Hyper) -> Played:
    """Episodes that are to begin, with what overestimation is measured by.

    The largest Q-value of an episode's first observation is compared with the discounted rewards of
    the greedy policy from there on, as the agent learns from them: scaled and clipped. Where a time
    limit ends the episode, what would follow counts as the largest Q-value of the last observation,
    as in learning; not with ``time_limit_is_terminal``.

    Source: van Hasselt, Guez and Silver 2016, figure 3.
    """
    zeros = jnp.zeros_like(played.total)
    is_cut = jnp.array(not config.time_limit_is_terminal)
    none_open = jnp.zeros_like(played.running)
    return played._replace(
        foreseen=Foreseen(hyper, is_cut, jnp.float32(1.0), zeros, zeros, none_open)
    )


def play(
    env: Environment,
    q_values: QValues,
    key: Key,
    step: Array,
    played: Played,
    until: Array | None = None,
) -> Played:
    """Plays episodes on, to their ends or up to a time; in pieces they go as they do at once.

    Args:
        env: as of `evaluate`, as are ``q_values``, ``key`` and ``step``.
        played: from `begin`, or from here.
        until: int32 ``[]``, steps since the beginning; to all ends without it.
    """
    _, step_key = _keys(key, step)

    def goes_on(carry: Played) -> Array:
        some = jnp.any(carry.running)
        some = some if until is None else some & (carry.time < until)
        return some if carry.foreseen is None else some | jnp.any(carry.foreseen.open)

    def body(carry: Played) -> Played:
        time, obs, env_state, total, length, running, foreseen = carry
        num = running.shape[0]
        keys = jax.random.split(jax.random.fold_in(step_key, time), num)
        q = q_values(obs)
        action = jax.vmap(exploration.greedy)(q)
        # The present stands in for a reset: an episode that is over is not read again.
        step = jax.vmap(env.step)(keys, env_state, action, (obs, env_state))
        total = total + jnp.where(running, step.reward, 0.0)
        length = length + running
        next_obs = step.obs
        if foreseen is not None:
            foreseen = _received(foreseen, time, q, running, step)
            ended = foreseen.open.reshape(-1, *(1,) * (obs.ndim - 1))
            next_obs = jnp.where(ended, step.final_obs, next_obs)
        running = running & ~(step.terminated | step.truncated)
        return Played(time + 1, next_obs, step.state, total, length, running, foreseen)

    last: Played = jax.lax.while_loop(goes_on, body, played)
    return last


def _received(before: Foreseen, time: Array, q: Array, running: Array, step: Step) -> Foreseen:
    """Adds a step of all episodes, or what would follow where a time limit has ended one."""
    hyper, best = before.hyper, jnp.max(q, axis=1)
    reward = jnp.clip(hyper.reward_scale * step.reward, -hyper.reward_clip, hyper.reward_clip)
    more = jnp.where(running, reward, jnp.where(before.open, best, 0.0))
    return before._replace(
        weight=before.weight * hyper.gamma,
        predicted=jnp.where(time == 0, best, before.predicted),
        received=before.received + before.weight * more,
        open=running & step.truncated & ~step.terminated & before.is_cut,
    )


def _keys(key: Key, step: Array) -> tuple[Key, Key]:
    """The keys of the resets and of the steps of an evaluation."""
    reset_key, step_key = jax.random.split(
        jax.random.fold_in(purpose_key(key, Purpose.EVALUATION), step)
    )
    return reset_key, step_key


def mean_q_max(config: Config, env: Environment, q_values: QValues, key: Key) -> Array:
    """The mean of max Q over the states of random play; they are played again, not kept."""
    if config.eval_states == 0:
        return jnp.float32(jnp.nan)
    num = config.eval_episodes
    first_key, key = jax.random.split(purpose_key(key, Purpose.FIXED_STATES))

    def body(carry: Any, time: Array) -> Any:
        obs, env_state, total = carry
        action_key, step_key, reset_key = jax.random.split(jax.random.fold_in(key, time), 3)
        q = q_values(obs)
        action = jax.random.randint(action_key, (num,), 0, env.num_actions)
        fresh = jax.vmap(env.reset)(jax.random.split(reset_key, num))
        keys = jax.random.split(step_key, num)
        step = jax.vmap(env.step)(keys, env_state, action, fresh)
        return (step.obs, step.state, total + jnp.sum(jnp.max(q, axis=1))), None

    obs, env_state = jax.vmap(env.reset)(jax.random.split(first_key, num))
    carry = (obs, env_state, jnp.float32(0.0))
    (*_, total), _ = jax.lax.scan(body, carry, jnp.arange(config.eval_states // num))
    return total / config.eval_states


def q_table(
    env: Environment,
    q_values: Callable[[Params, Array], Array],
    params: Params,
    states: PyTree,
) -> Array:
    """Q-values ``[N, A]`` that the agent is evaluated by, in ``states``, leaves ``[N, ...]``."""
    states = jax.tree.map(jnp.asarray, states)
    count = len(jax.tree.leaves(states)[0])
    size = min(count, TABLE_BATCH)
    # The last batch is filled up with the last state.
    index = jnp.minimum(jnp.arange(-(-count // size) * size), count - 1).reshape(-1, size)

    def batch(index: Array) -> Array:
        obs = jax.vmap(env.observe)(jax.tree.map(lambda leaf: leaf[index], states))
        return q_values(params, obs)

    return jax.lax.map(batch, index).reshape(-1, env.num_actions)[:count]
