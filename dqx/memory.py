"""How much memory a chunk of seeds will need, known before anything is compiled."""

import math
from typing import NamedTuple

import jax

from dqx.config import Config, ConfigError
from dqx.environment import Environment
from dqx.loop import block_rounds, example_transition, make_trainer
from dqx.replay import row_bytes
from dqx.types import PyTree

# Share of the free memory that a prediction may take, for what it does not count: JAX itself,
# programs, results.
_USABLE = 0.9


class MemoryNeed(NamedTuple):
    """Bytes that one lane needs.

    Attributes:
        replay: the replay's rows.
        state: everything else of a lane's state.
        working: random numbers, activations and metrics of a segment.
    """

    replay: int
    state: int
    working: int

    @property
    def total(self) -> int:
        return sum(self)


def predict(config: Config, env: Environment) -> MemoryNeed:
    """Predicts the bytes of one lane from shapes alone."""
    lane = jax.eval_shape(make_trainer(config, env).init, jax.random.key(0))
    replay = config.replay_capacity * row_bytes(example_transition(env))
    widths = (env.num_categories or math.prod(env.obs_shape), *config.hidden_sizes, env.num_actions)
    # Online and target activations and their gradients, and the batch itself.
    learning = config.batch_size * (4 * 4 * sum(widths) + row_bytes(example_transition(env)))
    rounds = min(block_rounds(config, env), config.log_period // config.train_period)
    fresh = jax.eval_shape(env.reset, jax.random.key(0))
    draws = rounds * (
        config.train_period * (_bytes(fresh) + 8 * 4)
        + config.updates_per_train * config.batch_size * 8
    )
    episodes = config.log_period * 8
    return MemoryNeed(replay, _bytes(lane) - replay, learning + draws + episodes)


def check(config: Config, env: Environment, num_lanes: int, num_devices: int, free: int) -> None:
    """Refuses a run whose predicted need is beyond what is free.

    Raises:
        ConfigError: naming the need, what is free, and which capacity and chunk width would fit.
    """
    need = predict(config, env)
    usable = int(free * _USABLE)
    if need.total * num_lanes <= usable:
        return
    capacity = (usable // num_lanes - need.state - need.working) // (
        need.replay // config.replay_capacity
    )
    capacity -= capacity % config.num_envs
    width = usable // need.total // num_devices
    remedies = []
    if capacity >= config.batch_size:
        remedies.append(f"replay_capacity={capacity}")
    if width >= 1:
        remedies.append(f"chunk_width={width}")
    advice = (
        f"would fit: {' or '.join(remedies)}"
        if remedies
        else "neither a smaller replay nor a narrower chunk fits"
    )
    raise ConfigError(
        f"{num_lanes} seeds at a time need about {_gib(need.total * num_lanes)} "
        f"({_gib(need.replay * num_lanes)} of it replay), but {_gib(free)} is free; {advice}"
    )


def _bytes(tree: PyTree) -> int:
    leaves = jax.tree.leaves(jax.eval_shape(lambda t: jax.tree.map(_plain, t), tree))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _plain(leaf: jax.Array) -> jax.Array:
    return (
        jax.random.key_data(leaf)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
