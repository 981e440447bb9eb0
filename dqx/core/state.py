"""What training changes: the clock that all seeds share, and what each seed has to itself."""

from typing import NamedTuple

from flax import struct

from dqx.core.agent import AgentState
from dqx.core.types import Array, Key, PyTree


class Clock(struct.PyTreeNode):
    """What all seeds share, each int32 ``[]``: steps, updates, replay position and size."""

    step: Array
    updates: Array
    position: Array
    size: Array


class Lane(struct.PyTreeNode):
    """What one seed has to itself.

    Attributes:
        key: the seed's key; never changes, the clock is folded in for every use.
        agent: parameters, target parameters, optimizer state.
        replay_rows: what its store holds, such as packed transitions ``{dtype: [C, width]}``.
        sampler: what the sampler keeps; None if nothing.
        env_state: states of the parallel environments, leading axis ``[E]``.
        obs: the observations to act on, ``[E, ...]``.
        episode_return: float32 ``[E]``, of the episodes under way.
        episode_length: int32 ``[E]``, in steps of each environment.
        episodes: int32 ``[]``, finished so far.
        diverged_at: int32 ``[]``, environment step at which loss or parameters became non-finite,
            -1 if never.
        env_inputs: float32 ``[]`` by name, parameters of its environment that are inputs.
    """

    key: Key
    agent: AgentState
    replay_rows: PyTree
    sampler: PyTree
    env_state: PyTree
    obs: Array
    episode_return: Array
    episode_length: Array
    episodes: Array
    diverged_at: Array
    env_inputs: dict[str, Array]


class Episodes(NamedTuple):
    """Episodes that finished, one entry for each environment step: ``[steps, E]``.

    Attributes:
        total: float32, the sum of rewards; only meaningful where ``length`` is positive.
        length: int32, steps of the episode that finished here, 0 where none did.
    """

    total: Array
    length: Array
