"""Tabular Q-learning: a table of values as the network, and its update from single transitions."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dqx.core import losses
from dqx.core.types import Array, Transition


class Table(nn.Module):
    """A Q-table: int ``[B]`` category numbers to ``[B, A]`` float32 Q-values.

    Its parameter is ``table``, ``[N, A]``.

    Attributes:
        num_actions: A.
        num_categories: N.
        initial_q: of every entry at the start.
    """

    num_actions: int
    num_categories: int
    initial_q: float = 0.0

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        shape = (self.num_categories, self.num_actions)
        table = self.param("table", nn.initializers.constant(self.initial_q), shape, jnp.float32)
        return table[obs]


class StepSize(NamedTuple):
    """How far an update goes, each float32 ``[]``.

    Attributes:
        learning_rate: of the first visit.
        visit_power: at visit ``n`` of a state and action the step is
            ``learning_rate / n ** visit_power``: constant at 0, the mean of all targets at 1.
        td_error_clip: largest magnitude of the TD error in the update.
    """

    learning_rate: Array | float
    visit_power: Array | float = 0.0
    td_error_clip: Array | float = jnp.inf


def q_learning(
    table: Array,
    visits: Array,
    step_size: StepSize,
    batch: Transition,
    weight: Array | None = None,
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Updates a table from transitions one after another, in their order.

    ``Q(s, a) += step size * (r + discount * max Q(s', .) - Q(s, a))``; every transition sees what
    those before it have changed.

    Args:
        table: float32 ``[N, A]``.
        visits: int32 ``[N, A]``, updates of each entry so far.
        step_size: of each update.
        batch: transitions ``[B]`` with category numbers as observations; ``discount`` is gamma
            times the transition's own.
        weight: float32 ``[B]``, multiplies the step of each transition; None where all count alike.

    Returns:
        The table, the visits, and of each transition before its update the TD error ``[B]`` and the
        Q-values ``[B, A]`` of its observation.

    Source: Watkins and Dayan 1992; the step sizes are those of Even-Dar and Mansour 2003.
    """

    def update(
        carry: tuple[Array, Array], xs: tuple[Transition, Array | None]
    ) -> tuple[Any, tuple[Array, Array]]:
        (table, visits), (step, weight) = carry, xs
        place = (step.obs, step.action)
        q = table[step.obs]
        error = losses.q_learning(q, step.action, step.reward, step.discount, table[step.next_obs])
        visits = visits.at[place].add(1)
        count = visits[place].astype(jnp.float32)
        rate = step_size.learning_rate / jnp.power(count, step_size.visit_power)
        limit = step_size.td_error_clip
        rate = rate if weight is None else rate * weight
        table = table.at[place].add(rate * jnp.clip(error, -limit, limit))
        return (table, visits), (error, q)

    one = batch.action.shape[0] == 1
    (table, visits), seen = jax.lax.scan(update, (table, visits), (batch, weight), unroll=one)
    return table, visits, seen
