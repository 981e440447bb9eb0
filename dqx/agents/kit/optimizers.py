"""How agents follow a gradient: clipped, by an optimizer, with a target network behind."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dqx.core.agent import AgentState, Now
from dqx.core.types import Array, Params
from dqx.settings import Config, Hyper


def make_optimizer(config: Config, hyper: Hyper, updates: Array) -> optax.GradientTransformation:
    """Adam, RAdam, SGD or RMSProp, then the learning rate, decayed by the count of updates.

    The hyperparameters may be traced: the state's structure depends on ``config`` alone.
    """
    rules: dict[str, Callable[[], Any]] = {
        "adam": lambda: optax.scale_by_adam(eps=hyper.optimizer_epsilon),
        "radam": lambda: optax.scale_by_radam(eps=hyper.optimizer_epsilon),
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


def follow(
    config: Config, state: AgentState, grads: Params, now: Now, sync: Array
) -> tuple[AgentState, Array]:
    """Follows the gradient, clipped; the target follows where ``sync``. Also the global norm."""
    hyper, grad_norm = now.hyper, global_norm(grads)
    # Scaled by exactly 1 up to the limit. Not optax's clip, which computes the norm once more.
    limit = hyper.max_grad_norm
    scale = jnp.where(grad_norm <= limit, 1.0, limit / grad_norm)
    grads = jax.tree.map(lambda g: g * scale, grads)
    optimizer = make_optimizer(config, hyper, now.updates)
    changes, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, changes)
    target_params = state.target_params
    if target_params:
        target_params = jax.lax.cond(
            sync,
            lambda: optax.incremental_update(params, state.target_params, hyper.tau),
            lambda: state.target_params,
        )
    return AgentState(params, target_params, opt_state, state.memory), grad_norm


def global_norm(tree: Params) -> Array:
    """The square root of the sum of all squares in a pytree, float32 ``[]``."""
    return jnp.sqrt(sum(_sum_of_squares(leaf.reshape(-1)) for leaf in jax.tree.leaves(tree)))


# Numbers of a layer from which its partial sums are computed whole before they are added up: those
# of four lanes fill a second-level cache.
_WHOLE_FROM = 65_536


def _sum_of_squares(x: Array) -> Array:
    # Sixteen partial sums side by side first: XLA's CPU backend runs one long reduction of a batch
    # of lanes without vector instructions, and the norm of the gradient would cost as much as its
    # largest matrix product.
    part = x.size // 16
    if part < 64:
        return jnp.sum(jnp.square(x))
    partial = sum(jnp.square(x[i * part : (i + 1) * part]) for i in range(16))
    if x.size >= _WHOLE_FROM:
        # Else the library of reductions takes the additions too, and the squares of what no longer
        # fits a cache are written to memory and read again.
        partial = jax.lax.optimization_barrier(partial)
    return jnp.sum(partial) + jnp.sum(jnp.square(x[16 * part :]))
