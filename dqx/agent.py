"""DQN, Double DQN and tabular Q-learning: how a seed's networks start, act and learn.

This is the algorithm; ``loop`` decides when each part runs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from dqx import exploration, losses, tabular
from dqx.config import Config, Hyper
from dqx.convolution import TORSOS, seed_by_seed
from dqx.environment import Environment
from dqx.networks import check_observations, make_network
from dqx.types import Array, Key, Params, Transition


class AgentState(struct.PyTreeNode):
    """What learning changes: online and target parameters, never aliased, and the optimizer.

    A table has no target parameters (``{}``); its optimizer is the count of visits, int32
    ``[N, A]``.
    """

    params: Params
    target_params: Params
    opt_state: Any


class LearnMetrics(NamedTuple):
    """Numbers of one update, each float32 ``[]``.

    Attributes:
        loss: mean over the batch.
        q_mean: mean Q-value of the actions taken in the batch.
        q_max: largest Q-value in the batch, over all actions.
        td_error_abs: mean magnitude of the TD error before any clipping.
        grad_norm: global norm of the gradient before clipping; NaN for a table, which has none.
        weight_norm: global norm of the parameters after the update.
    """

    loss: Array
    q_mean: Array
    q_max: Array
    td_error_abs: Array
    grad_norm: Array
    weight_norm: Array


class Agent(NamedTuple):
    """The pure functions of an agent; ``make_agent`` documents each."""

    init: Callable[[Key], AgentState]
    q_values: Callable[[Params, Array], Array]
    act: Callable[..., Array]
    learn: Callable[..., tuple[AgentState, LearnMetrics]]


class _Parts(NamedTuple):
    """What the functions below are made of."""

    config: Config
    env: Environment
    network: nn.Module


def make_agent(config: Config, env: Environment) -> Agent:
    """Builds the agent that ``config`` describes for environments like ``env``.

    Returns:
        ``Agent`` of
        ``init(key)``: fresh parameters, an equal copy as target, and the optimizer's state;
        ``q_values(params, obs [B, ...])``: float32 ``[B, A]``;
        ``act(params, obs [E, ...], draws [E], epsilon, temperature=1.0, counts=None)``: int32
            ``[E]``, the policy's choice for each environment; ``epsilon`` is one number or ``[E]``,
            ``counts`` int32 ``[A]`` are those of ``exploration.boltzmann_gumbel``;
        ``learn(state, hyper, batch [B], updates, sync)``: one update from a batch of transitions.
            ``updates`` (int32 ``[]``) counts the updates before this one, ``sync`` (bool ``[]``)
            says whether the target follows it; both come from the clock, which all seeds share.

    Raises:
        ConfigError: if the network cannot take the environment's observations.

    Source: Mnih et al. 2015 (DQN); van Hasselt, Guez and Silver 2016 (Double DQN); Watkins and
    Dayan 1992 (tabular Q-learning).
    """
    check_observations(config, env)
    parts = _Parts(config, env, make_network(config, env.num_actions, env.num_categories))
    return Agent(
        init=functools.partial(_init, parts),
        q_values=functools.partial(_q_values, parts),
        act=functools.partial(_act, parts),
        learn=functools.partial(_learn_table if config.network == "table" else _learn, parts),
    )


def _init(parts: _Parts, key: Key) -> AgentState:
    obs = jnp.zeros((1, *parts.env.obs_shape), parts.env.obs_dtype)
    params = parts.network.init(key, obs)
    if parts.config.network == "table":
        return AgentState(params, {}, jnp.zeros_like(params["params"]["table"], jnp.int32))
    opt_state = make_optimizer(parts.config, Hyper(), jnp.int32(0)).init(params)
    return AgentState(params, jax.tree.map(jnp.copy, params), opt_state)


def _q_values(parts: _Parts, params: Params, obs: Array) -> Array:
    q: Array = parts.network.apply(params, obs)  # type: ignore[assignment]
    return q


def _act(
    parts: _Parts,
    params: Params,
    obs: Array,
    draws: exploration.Draw,
    epsilon: Array,
    temperature: Array | float = 1.0,
    counts: Array | None = None,
) -> Array:
    def choose(draw: exploration.Draw, q: Array, epsilon: Array) -> Array:
        match parts.config.policy:
            case "epsilon_greedy":
                return exploration.epsilon_greedy(draw, q, epsilon)
            case "boltzmann":
                return exploration.boltzmann(draw, q, temperature)
            case "max_boltzmann":
                return exploration.max_boltzmann(draw, q, epsilon, temperature)
            case "boltzmann_gumbel":
                return exploration.boltzmann_gumbel(draw, q, jnp.asarray(counts), temperature)
            case "softmax":
                return exploration.boltzmann(draw, q, 1.0)
            case _:
                return exploration.greedy(q)

    axes = (0, 0, 0 if jnp.ndim(epsilon) else None)
    return jax.vmap(choose, in_axes=axes)(draws, _q_values(parts, params, obs), epsilon)


def _learn(
    parts: _Parts,
    state: AgentState,
    hyper: Hyper,
    batch: Transition,
    updates: Array,
    sync: Array,
) -> tuple[AgentState, LearnMetrics]:
    gradient = jax.value_and_grad(functools.partial(_loss, parts), has_aux=True)
    if parts.config.network in TORSOS and parts.config.convolution == "blocks":
        gradient = seed_by_seed(gradient)
    (value, (errors, q)), grads = gradient(state.params, state.target_params, hyper, batch)
    grad_norm = global_norm(grads)
    # Scaled by exactly 1 up to the limit. Not optax's clip, which computes the norm once more.
    limit = hyper.max_grad_norm
    scale = jnp.where(grad_norm <= limit, 1.0, limit / grad_norm)
    grads = jax.tree.map(lambda g: g * scale, grads)
    optimizer = make_optimizer(parts.config, hyper, updates)
    changes, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, changes)
    target_params = jax.lax.cond(
        sync,
        lambda: optax.incremental_update(params, state.target_params, hyper.tau),
        lambda: state.target_params,
    )
    taken = jnp.take_along_axis(q, batch.action[:, None], axis=1)
    metrics = LearnMetrics(
        loss=value,
        q_mean=jnp.mean(taken),
        q_max=jnp.max(q),
        td_error_abs=jnp.mean(jnp.abs(errors)),
        grad_norm=grad_norm,
        weight_norm=global_norm(params),
    )
    return AgentState(params, target_params, opt_state), metrics


def _learn_table(
    parts: _Parts,
    state: AgentState,
    hyper: Hyper,
    batch: Transition,
    updates: Array,
    sync: Array,
) -> tuple[AgentState, LearnMetrics]:
    """One step of tabular Q-learning for each transition of the batch, in their order."""
    table, visits = state.params["params"]["table"], state.opt_state
    step_size = tabular.StepSize(
        learning_rate_at(hyper, updates), hyper.visit_power, hyper.td_error_clip
    )
    table, visits, (errors, q) = tabular.q_learning(
        table, visits, step_size, _as_learned(batch, hyper)
    )
    params = {"params": {"table": table}}
    metrics = LearnMetrics(
        loss=jnp.mean(jnp.square(errors)),
        q_mean=jnp.mean(jnp.take_along_axis(q, batch.action[:, None], axis=1)),
        q_max=jnp.max(q),
        td_error_abs=jnp.mean(jnp.abs(errors)),
        grad_norm=jnp.float32(jnp.nan),
        weight_norm=global_norm(params),
    )
    return AgentState(params, {}, visits), metrics


def _loss(
    parts: _Parts, params: Params, target_params: Params, hyper: Hyper, batch: Transition
) -> tuple[Array, tuple[Array, Array]]:
    """The mean loss of a batch; beside it the TD errors ``[B]`` and the Q-values ``[B, A]``."""
    q = _q_values(parts, params, batch.obs)
    errors = _td_errors(parts, q, params, target_params, hyper, batch)
    clipped = losses.clip_td_error(errors, hyper.td_error_clip)
    if parts.config.loss == "huber":
        values = losses.huber(clipped, hyper.huber_delta)
    else:
        values = losses.squared(clipped)
    if parts.config.loss == "keras_mse":
        # Keras averages over the Q-vector, whose other entries equal their own predictions.
        values = values / parts.env.num_actions
    return jnp.mean(values), (errors, q)


def _td_errors(
    parts: _Parts,
    q: Array,
    params: Params,
    target_params: Params,
    hyper: Hyper,
    batch: Transition,
) -> Array:
    batch = _as_learned(batch, hyper)
    next_q_target = _q_values(parts, target_params, batch.next_obs)
    given = (q, batch.action, batch.reward, batch.discount, next_q_target)
    if not parts.config.double:
        return jax.vmap(losses.q_learning)(*given)
    next_q_online = _q_values(parts, jax.lax.stop_gradient(params), batch.next_obs)
    return jax.vmap(losses.double_q_learning)(*given, next_q_online)


def _as_learned(batch: Transition, hyper: Hyper) -> Transition:
    """Transitions with rewards clipped, and discounts that gamma has been multiplied into."""
    return batch._replace(
        reward=jnp.clip(batch.reward, -hyper.reward_clip, hyper.reward_clip),
        discount=hyper.gamma * batch.discount,
    )


def make_optimizer(config: Config, hyper: Hyper, updates: Array) -> optax.GradientTransformation:
    """Adam, SGD or RMSProp, then the learning rate, decayed by the count of updates.

    The hyperparameters may be traced: the state's structure depends on ``config`` alone.
    """
    rules = {
        "adam": lambda: optax.scale_by_adam(eps=hyper.optimizer_epsilon),
        "sgd": lambda: optax.trace(decay=hyper.momentum),
        "rmsprop": lambda: optax.chain(
            optax.scale_by_rms(decay=hyper.rmsprop_decay, eps=hyper.optimizer_epsilon),
            optax.trace(decay=hyper.momentum),
        ),
    }
    return optax.chain(rules[config.optimizer](), optax.scale(-learning_rate_at(hyper, updates)))


def learning_rate_at(hyper: Hyper, updates: Array) -> Array:
    """The step size, float32 ``[]``, after ``updates`` updates."""
    return jnp.asarray(hyper.learning_rate / (1.0 + hyper.learning_rate_decay * updates))


def epsilon_at(config: Config, hyper: Hyper, step: Array, episodes: Array) -> Array:
    """Epsilon of one seed, float32 ``[]``, after ``step`` steps and ``episodes`` episodes."""
    start, end = hyper.epsilon_start, hyper.epsilon_end
    match config.exploration:
        case "constant":
            return exploration.constant_schedule(start)
        case "linear":
            return exploration.linear_schedule(step, start, end, hyper.epsilon_steps)
        case "exponential":
            return exploration.exponential_schedule(step, start, end, hyper.epsilon_steps)
        case _:
            return exploration.per_episode_schedule(episodes, start, end, hyper.epsilon_decay)


def hyper_at(config: Config, hyper: Hyper, step: Array) -> Hyper:
    """The hyperparameters after ``step`` environment steps: those that are annealed have moved."""
    moved = {}
    for name in config.annealed:
        value = getattr(hyper, name)
        end = value * hyper.anneal_scale
        moved[name] = exploration.linear_schedule(step, value, end, hyper.anneal_steps)
    return hyper.replace(**moved)


def global_norm(tree: Params) -> Array:
    """The square root of the sum of all squares in a pytree, float32 ``[]``."""
    return jnp.sqrt(sum(_sum_of_squares(leaf.reshape(-1)) for leaf in jax.tree.leaves(tree)))


def _sum_of_squares(x: Array) -> Array:
    # Sixteen partial sums side by side first: XLA's CPU backend runs one long reduction of a batch
    # of lanes without vector instructions, and the norm of the gradient would cost as much as its
    # largest matrix product.
    part = x.size // 16
    if part < 64:
        return jnp.sum(jnp.square(x))
    partial = sum(jnp.square(x[i * part : (i + 1) * part]) for i in range(16))
    return jnp.sum(partial) + jnp.sum(jnp.square(x[16 * part :]))
