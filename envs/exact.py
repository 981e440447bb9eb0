"""Exact solutions of environments whose states can be listed, and a run's distance from them.

`envs.tabular.build_model` lists the states, `optimal_q` and `finite_horizon_q` solve, `q_table`
lists an agent's Q-values, and `max_abs_error`, `optimal_share` and `regret` compare the two.

Everything is computed in float64 (JAX with `jax.enable_x64` for the duration of a call, arrays
of NumPy in and out): sums over hundreds of float32 steps would be off by more than 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.environment import Environment

from envs.tabular import Model


def optimal_q(
    model: Model, discount: float, *, tolerance: float = 1e-10, max_sweeps: int = 1_000_000
) -> np.ndarray:
    """Q* without time limit, float64 [N, A], each entry within `tolerance`, by value iteration.

    This is what an agent learns that bootstraps from truncated steps. With `discount` 1 it exists
    only where the optimal policy surely terminates, and `tolerance` bounds the change of the last
    sweep. Raises ValueError for a discount outside [0, 1] and where `max_sweeps` do not
    suffice.

    Source: Sutton and Barto 2018, section 4.4.
    """
    _check_discount(discount)
    # After a sweep that changes nothing by more than c, the rest is below c * d / (1 - d).
    bound = tolerance if discount in (0.0, 1.0) else tolerance * (1 - discount) / discount
    with jax.enable_x64(True):
        tables = _tables(model)
        values, change, sweeps = _iterate(tables, discount, bound, max_sweeps)
        if not change <= bound:
            raise ValueError(
                f"value iteration with discount {discount} still changes by {float(change):.3g} "
                f"after {int(sweeps)} sweeps; use a smaller discount, more max_sweeps, or "
                "finite_horizon_q"
            )
        return np.asarray(_q_of(tables, values, discount))


def finite_horizon_q(
    model: Model, horizon: int | None = None, *, discount: float = 1.0
) -> np.ndarray:
    """Q* of an episode's first step when `horizon` steps are left, float64 [N, A].

    `horizon` is the model's time limit unless given, and the last step counts as an end. The
    policy behind it is optimal for every number of steps left, so no agent that does not see the
    time can do better. Raises ValueError for a horizon below 1 or a discount outside [0, 1].
    """
    steps = _checked_horizon(model, horizon)
    _check_discount(discount)
    with jax.enable_x64(True):
        tables = _tables(model)
        values = _backups(tables, jnp.zeros(model.num_states), None, discount, steps - 1)
        return np.asarray(_q_of(tables, values, discount))


def optimal_return(model: Model, horizon: int | None = None, *, discount: float = 1.0) -> float:
    """The largest mean return of an episode over the starts, by `finite_horizon_q`."""
    q_star = finite_horizon_q(model, horizon, discount=discount)
    return float(model.start @ q_star.max(axis=1))


def greedy_return(
    model: Model, q: np.ndarray, horizon: int | None = None, *, discount: float = 1.0
) -> float:
    """The mean return over the starts of the policy that is greedy in `q` [N, A], exactly.

    Ties go to the first action. Nothing is sampled: the policy is evaluated for `horizon` steps,
    the model's time limit unless given. Raises ValueError if `q` is not [N, A] or not finite.
    """
    steps = _checked_horizon(model, horizon)
    _check_discount(discount)
    policy = np.argmax(_checked_q(model, q), axis=1)
    with jax.enable_x64(True):
        start = jnp.zeros(model.num_states)
        values = _backups(_tables(model), start, jnp.asarray(policy), discount, steps)
        return float(model.start @ np.asarray(values))


def max_abs_error(q: np.ndarray, q_star: np.ndarray) -> float:
    """The largest |Q - Q*| over all states that the model lists and all actions; both [N, A].

    Raises ValueError for different shapes.
    """
    q, q_star = _same_shape(q, q_star)
    return float(np.abs(q - q_star).max())


def optimal_share(
    q: np.ndarray, q_star: np.ndarray, mask: np.ndarray | None = None, *, tolerance: float = 1e-6
) -> float:
    """The share of states in which the greedy action of `q` [N, A] is an optimal one.

    Counts all states that the model lists, each once, or those where `mask` (bool [N]) is true.
    An action is optimal if its `q_star` is within `tolerance` of the best; ties in `q` go to the
    first action. Raises ValueError for different shapes and for a mask that keeps no state.
    """
    q, q_star = _same_shape(q, q_star)
    mask = np.ones(len(q), bool) if mask is None else np.asarray(mask, bool)
    if mask.shape != (len(q),) or not mask.any():
        raise ValueError(
            f"mask has the shape {mask.shape} and keeps {mask.sum()} states; it must be bool "
            f"[{len(q)}] and keep at least one"
        )
    chosen = np.take_along_axis(q_star, np.argmax(q, axis=1)[:, None], axis=1)[:, 0]
    return float(np.mean((chosen >= q_star.max(axis=1) - tolerance)[mask]))


def regret(
    model: Model, q: np.ndarray, horizon: int | None = None, *, discount: float = 1.0
) -> float:
    """How much less the greedy policy of `q` [N, A] returns in the mean than an optimal one.

    Both returns are exact means over the starts, of episodes of `horizon` steps (the model's time
    limit unless given): `optimal_return` minus `greedy_return`.
    """
    best = optimal_return(model, horizon, discount=discount)
    return best - greedy_return(model, q, horizon, discount=discount)


def q_table(
    env: Environment,
    params: Any,
    model: Model,
    q_values: Callable[[jax.Array], jax.Array],
    *,
    batch_size: int = 1024,
) -> np.ndarray:
    """Tabulate an agent's Q-values over the model's states, float64 [N, A].

    `q_values` maps a batch of observations [B, ...] to [B, A]; it is called with whole batches of
    `batch_size` and can be jitted. Observations are drawn without a key, so they cannot be random.
    Raises ValueError if `q_values` gives another shape.
    """
    observe = jax.jit(jax.vmap(lambda state: env.observe(None, state, None, params)))
    rows = []
    for start in range(0, model.num_states, batch_size):
        # The last batch is filled up with its last state, so that nothing compiles twice.
        index = np.minimum(np.arange(start, start + batch_size), model.num_states - 1)
        values = np.asarray(q_values(observe(jax.tree.map(lambda x, i=index: x[i], model.states))))
        if values.shape != (batch_size, model.num_actions):
            raise ValueError(
                f"q_values gave the shape {values.shape} for a batch of {batch_size} "
                f"observations; it must be ({batch_size}, {model.num_actions})"
            )
        rows.append(values[: model.num_states - start])
    return np.concatenate(rows).astype(np.float64)


class _Tables(NamedTuple):
    """A model as the solver reads it: mean rewards, and by what weight which value follows.

    The first outcome of each pair is apart: a gather does for it, where the others need a slower
    scatter, and most pairs have no other.
    """

    reward: Any  # [N, A]
    first_next: Any  # [N * A]
    first_weight: Any  # [N * A]
    pair: Any  # [L], of the other outcomes
    next_state: Any  # [L]
    weight: Any  # [L]


def _tables(model: Model) -> _Tables:
    size = model.num_states * model.num_actions
    mean = np.bincount(model.pair, model.probability * model.reward, size)
    first = np.concatenate([[True], model.pair[1:] != model.pair[:-1]])
    weight = model.probability * ~model.terminated
    tables = _Tables(
        reward=mean.reshape(model.num_states, model.num_actions),
        first_next=model.next_state[first],
        first_weight=weight[first],
        pair=model.pair[~first],
        next_state=model.next_state[~first],
        weight=weight[~first],
    )
    return jax.tree.map(jnp.asarray, tables)


@jax.jit
def _q_of(tables: _Tables, values: jax.Array, discount: float | jax.Array) -> jax.Array:
    following = tables.first_weight * values[tables.first_next]
    if tables.pair.size:
        more = tables.weight * values[tables.next_state]
        following = following.at[tables.pair].add(more, indices_are_sorted=True)
    return tables.reward + discount * following.reshape(tables.reward.shape)


@jax.jit
def _iterate(
    tables: _Tables, discount: float, bound: float, max_sweeps: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Value iteration: values [N], the last sweep's largest change and the number of sweeps."""

    def sweep(carry: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        values, _, count = carry
        following = _q_of(tables, values, discount).max(axis=1)
        return following, jnp.abs(following - values).max(), count + 1

    def goes_on(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return (carry[1] > bound) & (carry[2] < max_sweeps)

    start = jnp.zeros(tables.reward.shape[0])
    return jax.lax.while_loop(goes_on, sweep, (start, jnp.float64(jnp.inf), jnp.int32(0)))


@jax.jit
def _backups(
    tables: _Tables,
    values: jax.Array,
    policy: jax.Array | None,
    discount: float,
    count: int,
) -> jax.Array:
    """Values [N] after `count` backups by the policy [N], or by the best action if it is None."""

    def backup(_: Any, values: jax.Array) -> jax.Array:
        q = _q_of(tables, values, discount)
        if policy is None:
            return q.max(axis=1)
        return jnp.take_along_axis(q, policy[:, None], axis=1)[:, 0]

    return jax.lax.fori_loop(0, count, backup, values)


def _check_discount(discount: float) -> None:
    if not 0 <= discount <= 1:
        raise ValueError(f"discount is {discount}; it must lie between 0 and 1")


def _checked_horizon(model: Model, horizon: int | None) -> int:
    steps = model.time_limit if horizon is None else horizon
    if steps < 1:
        raise ValueError(f"horizon is {steps}; it must be at least 1 step")
    return steps


def _checked_q(model: Model, q: np.ndarray) -> np.ndarray:
    q = np.asarray(q, np.float64)
    wanted = (model.num_states, model.num_actions)
    if q.shape != wanted:
        raise ValueError(f"q has the shape {q.shape}; this model needs {wanted}, see q_table")
    if not np.isfinite(q).all():
        raise ValueError(f"q has {np.sum(~np.isfinite(q))} entries that are not finite")
    return q


def _same_shape(q: np.ndarray, q_star: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q, q_star = np.asarray(q, np.float64), np.asarray(q_star, np.float64)
    if q.shape != q_star.shape or q.ndim != 2:
        raise ValueError(
            f"q has the shape {q.shape} and q_star {q_star.shape}; both must be [states, actions]"
        )
    return q, q_star
