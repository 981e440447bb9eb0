"""The transition record, and the array aliases used everywhere."""

from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
PyTree = Any
Params = PyTree


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
