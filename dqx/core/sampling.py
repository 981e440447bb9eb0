"""Which rows of the replay an update learns from.

Random numbers are drawn ahead, without looking at the replay; rows are picked from them where an
update happens, so that a sampler may depend on what has been stored and learned by then.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from dqx.core.agent import Now
from dqx.core.exploration import linear_schedule
from dqx.core.replay import Filled, uniform_rows
from dqx.core.sum_tree import Levels, SumTree, make_sum_tree
from dqx.core.types import Array, Key, PyTree
from dqx.settings import Config


class Sampler(NamedTuple):
    """The pure functions of a sampler of one seed.

    Attributes:
        init: ``init()``, what a lane keeps for it; None if nothing.
        add: ``add(state, position) -> state``: E rows from ``position`` on were written.
        draws: ``draws(key)``, the random numbers of one update.
        pick: ``pick(state, draws, filled, now) -> (int32 [B], weight)``: rows, and the weight of
            each in the loss, float32 ``[B]``, None where all count alike.
        feedback: ``feedback(state, rows, priority, now) -> state`` after an update from these rows.
    """

    init: Callable[[], PyTree]
    add: Callable[[PyTree, Array], PyTree]
    draws: Callable[[Key], PyTree]
    pick: Callable[[PyTree, PyTree, Filled, Now], tuple[Array, Array | None]]
    feedback: Callable[[PyTree, Array, Array, Now], PyTree]


def uniform(config: Config) -> Sampler:
    """Rows drawn uniformly with replacement from all that have been written.

    Source: Mnih et al. 2015.
    """
    return _stateless(
        draws=lambda key: jax.random.bits(key, (config.batch_size,), jnp.uint32),
        pick=lambda bits, filled: uniform_rows(bits, filled.size),
    )


def newest(config: Config) -> Sampler:
    """The transitions of a round, each once, the oldest first.

    They are those of the round itself; of n steps those that began n - 1 steps earlier, for which
    all n are known.
    """
    behind = config.train_period + (config.n_step - 1) * config.num_envs

    def pick(_: PyTree, filled: Filled) -> Array:
        first = filled.position - behind
        return (first + jnp.arange(config.train_period)) % config.replay_capacity

    return _stateless(draws=lambda key: (), pick=pick)


class Priorities(struct.PyTreeNode):
    """What a prioritized sampler keeps.

    Attributes:
        tree: of the priorities, each to the power of ``priority_exponent``.
        largest: float32 ``[]``, the largest of them so far and of 1, which new rows get.
    """

    tree: Levels
    largest: Array


class Ranks(Priorities):
    """What a sampler by ranks keeps beside them.

    Attributes:
        errors: float32 ``[C]``, by what rows are ranked; infinite for those not learned from
            yet, -1 where nothing was written.
        ranked: float32 ``[C]``, the errors at the last sort, rising.
    """

    errors: Array
    ranked: Array


# No priority grows beyond it, so that a million of them can be added.
_MOST = 1e30


def prioritized(config: Config) -> Sampler:
    """Rows drawn in proportion to their priorities, with replacement, from all that were written.

    A priority is ``(p + priority_floor) ** priority_exponent`` with the p that the agent gave when
    it learned from the row last, the magnitude of the TD error for most; a row not learned from yet
    has the largest there has been, at least 1. Each of the B equal parts of the priorities' sum is
    drawn from once, down to the highest node of the tree. A weight is
    ``(size * probability) ** -importance``, over the largest of the batch.

    Source: Schaul et al. 2016, algorithm 1.
    """
    tree = make_sum_tree(config.replay_capacity)

    def init() -> Priorities:
        return Priorities(tree.init(), jnp.float32(1.0))

    def feedback(state: Priorities, rows: Array, priority: Array, now: Now) -> Priorities:
        powers = (priority + now.hyper.priority_floor) ** now.hyper.priority_exponent
        # A seed that has diverged has no number any more.
        powers = jnp.where(powers < _MOST, powers, _MOST)
        largest = jnp.maximum(state.largest, jnp.max(powers))
        return state.replace(tree=tree.update(state.tree, rows, powers), largest=largest)

    return Sampler(init, *_by_priority(config, tree), feedback)


def ranked(config: Config) -> Sampler:
    """Like `prioritized`, with the priority ``rank ** -priority_exponent`` of a row.

    Rows are sorted by the magnitude of their TD errors every ``rank_period`` updates, those that
    were not learned from before all others; equal errors are ranked in the order of the rows.
    What is learned between has the rank that its error would have had at the last sort, and what is
    written rank 1.

    Source: Schaul et al. 2016, section 3.3.
    """
    tree, capacity = make_sum_tree(config.replay_capacity), config.replay_capacity
    write, draws, pick = _by_priority(config, tree)

    def init() -> Ranks:
        # Nothing was written: less than any error. What was not learned from has an infinite one.
        nothing = jnp.full(capacity, -1.0)
        return Ranks(tree.init(), jnp.float32(1.0), nothing, jnp.copy(nothing))

    def add(state: Ranks, position: Array) -> Ranks:
        new = jnp.full(config.num_envs, jnp.inf)
        errors = jax.lax.dynamic_update_slice(state.errors, new, (position,))
        return write(state, position).replace(errors=errors)

    def power(rank: Array, now: Now) -> Array:
        return jnp.asarray(rank, jnp.float32) ** -now.hyper.priority_exponent

    def sort(state: Ranks, now: Now) -> Ranks:
        order = jnp.argsort(-state.errors, stable=True)
        rank = jnp.zeros(capacity, jnp.int32).at[order].set(1 + jnp.arange(capacity))
        written = state.errors >= 0
        values = jnp.where(written, power(rank, now), 0.0)
        return state.replace(tree=tree.rebuild(values), ranked=state.errors[order[::-1]])

    def feedback(state: Ranks, rows: Array, priority: Array, now: Now) -> Ranks:
        errors = jnp.where(priority < _MOST, priority, _MOST)
        # As in the tree: the largest of a row that was drawn several times.
        kept = state.errors.at[rows].set(errors).at[rows].max(errors)
        greater = capacity - jnp.searchsorted(state.ranked, errors, side="right")
        levels = tree.update(state.tree, rows, power(1 + greater, now))
        state = state.replace(tree=levels, errors=kept)
        return jax.lax.cond(
            (now.updates + 1) % config.rank_period == 0, lambda: sort(state, now), lambda: state
        )

    return Sampler(init, add, draws, pick, feedback)


def _by_priority(
    config: Config, tree: SumTree
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """What samplers share that draw by a tree of priorities: ``add``, ``draws`` and ``pick``."""

    def add(state: Priorities, position: Array) -> Priorities:
        new = jnp.full(config.num_envs, 1.0) * state.largest
        return state.replace(tree=tree.write(state.tree, position, new))

    def draws(key: Key) -> Array:
        uniforms = jax.random.uniform(key, (tree.depth, config.batch_size))
        parts = jnp.arange(config.batch_size) + uniforms[0]
        return uniforms.at[0].set(parts / config.batch_size)

    def pick(
        state: Priorities, uniforms: Array, filled: Filled, now: Now
    ) -> tuple[Array, Array | None]:
        rows, priority = tree.draw(state.tree, uniforms)
        weight = (priority / tree.total(state.tree) * filled.size) ** -importance_at(now)
        return rows, weight / jnp.max(weight)

    return add, draws, pick


def importance_at(now: Now) -> Array:
    """How far weights make up for uneven sampling, float32 ``[]``: 0 not at all, 1 wholly."""
    hyper = now.hyper
    return linear_schedule(
        now.step, hyper.importance_start, hyper.importance_end, hyper.importance_steps
    )


SAMPLERS: dict[str, Callable[[Config], Sampler]] = {
    "uniform": uniform,
    "newest": newest,
    "prioritized": prioritized,
    "ranked": ranked,
}


def _stateless(draws: Callable[[Key], PyTree], pick: Callable[[PyTree, Filled], Array]) -> Sampler:
    return Sampler(
        init=lambda: None,
        add=lambda state, position: state,
        draws=draws,
        pick=lambda state, drawn, filled, now: (pick(drawn, filled), None),
        feedback=lambda state, rows, priority, now: state,
    )
