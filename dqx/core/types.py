"""The records that rooms hand one another, and the array aliases used everywhere."""

import dataclasses
from typing import Any, NamedTuple

import jax

from dqx.settings import Hyper

Array = jax.Array
Key = jax.Array
PyTree = Any
Params = PyTree

# A pytree of floats, declared in a room that knows no JAX.
jax.tree_util.register_dataclass(Hyper, [f.name for f in dataclasses.fields(Hyper)], [])


class Transition(NamedTuple):
    """One step of one environment, as the replay stores it and the losses read it.

    Attributes:
        obs: observation the action was chosen from, ``[...]`` in the environment's dtype.
        action: int32 ``[]``, the action taken.
        reward: float32 ``[]``, the reward of this step, never clipped here.
        discount: float32 ``[]``, 0 where the environment terminated, else 1. A time limit leaves it
            at 1.
        next_obs: observation after the step and before any automatic reset, as ``obs``.

    Any leading axes (``[E]`` environments, ``[B]`` batch) are shared by all five fields.
    """

    obs: Any
    action: Any
    reward: Any
    discount: Any
    next_obs: Any


class Batch(NamedTuple):
    """What one update learns from.

    Attributes:
        steps: transitions ``[B]``. Those of up to n steps have ``reward [B, n]``, zeros after the
            last step, of which they have ``discount`` and ``next_obs``.
        weight: float32 ``[B]``, of each transition in the loss; None where all count alike.
        lengths: int32 ``[B]``, how many steps each transition has; None where all have one.
        target: float32 ``[B]``, what the value of each action is to become, where that is known
            before; None where it has to be worked out.
        keys: keys ``[B]``, one for each transition, the same whenever it is sampled; None where
            nobody says which transition is which.
    """

    steps: Transition
    weight: Array | None = None
    lengths: Array | None = None
    target: Array | None = None
    keys: Key | None = None
