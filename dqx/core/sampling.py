"""Which rows of the replay an update learns from.

Random numbers are drawn ahead, without looking at the replay; rows are picked from them where an
update happens, so that a sampler may depend on what has been stored and learned by then.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqx.core.replay import Filled, uniform_rows
from dqx.core.types import Array, Key, PyTree
from dqx.settings import Config


class Sampler(NamedTuple):
    """The pure functions of a sampler of one seed.

    Attributes:
        init: ``init()``, what a lane keeps for it; None if nothing.
        add: ``add(state, position) -> state``: E rows from ``position`` on were written.
        draws: ``draws(key)``, the random numbers of one update.
        pick: ``pick(state, draws, filled) -> (int32 [B], weight)``: rows, and the weight of each in
            the loss, float32 ``[B]``, None where all count alike.
        feedback: ``feedback(state, rows, priority) -> state`` after an update from these rows.
    """

    init: Callable[[], PyTree]
    add: Callable[[PyTree, Array], PyTree]
    draws: Callable[[Key], PyTree]
    pick: Callable[[PyTree, PyTree, Filled], tuple[Array, Array | None]]
    feedback: Callable[[PyTree, Array, Array], PyTree]


def uniform(config: Config) -> Sampler:
    """Rows drawn uniformly with replacement from all that have been written.

    Source: Mnih et al. 2015.
    """
    return _stateless(
        draws=lambda key: jax.random.bits(key, (config.batch_size,), jnp.uint32),
        pick=lambda bits, filled: uniform_rows(bits, filled.size),
    )


def newest(config: Config) -> Sampler:
    """The transitions of the round itself, each once, the oldest first."""

    def pick(_: PyTree, filled: Filled) -> Array:
        first = filled.position - config.train_period
        return (first + jnp.arange(config.train_period)) % config.replay_capacity

    return _stateless(draws=lambda key: (), pick=pick)


SAMPLERS: dict[str, Callable[[Config], Sampler]] = {"uniform": uniform, "newest": newest}


def _stateless(draws: Callable[[Key], PyTree], pick: Callable[[PyTree, Filled], Array]) -> Sampler:
    return Sampler(
        init=lambda: None,
        add=lambda state, position: state,
        draws=draws,
        pick=lambda state, drawn, filled: (pick(drawn, filled), None),
        feedback=lambda state, rows, priority: state,
    )
