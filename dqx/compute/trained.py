"""A trained agent: the network of a configuration with the parameters of a seed."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dqx.compute.build import environment_of, make_agent
from dqx.core import exploration
from dqx.core.environment import Environment
from dqx.core.types import Params
from dqx.settings import Config, ConfigError


class TrainedAgent:
    """What training has made of one seed, ready to act.

    Args:
        config: that was trained.
        params: as training left them (of the online network), without a leading axis.
        env_inputs: values of the environment's parameters that are inputs; defaults if left out.

    Attributes:
        config: as given.
        params: as given.
        env: the environment it was trained on.

    Raises:
        ConfigError: for parameters of another network, or as `environment_of` does.
    """

    def __init__(
        self, config: Config, params: Params, env_inputs: Mapping[str, float] | None = None
    ) -> None:
        self.config, self.params = config, params
        env = environment_of(config)
        self.env: Environment = env.at(env_inputs) if env_inputs else env
        agent = make_agent(config, self.env)
        _check_params(config, params, jax.eval_shape(agent.init, jax.random.key(0)).params)
        self._q_values = jax.jit(agent.q_values)

    def q_values(self, obs: Any) -> np.ndarray:
        """Q-values of an observation, float32 ``[A]``, or of a batch ``[B, ...]``: ``[B, A]``.

        Raises:
            ValueError: for an observation of another shape than the environment's.
        """
        obs = np.asarray(obs, self.env.obs_dtype)
        extra = obs.ndim - len(self.env.obs_shape)
        if extra not in (0, 1) or obs.shape[extra:] != self.env.obs_shape:
            raise ValueError(
                f"obs must have the shape {list(self.env.obs_shape)} of {self.config.env}, with or "
                f"without a leading axis, got {list(obs.shape)}"
            )
        q = np.asarray(self._q_values(self.params, obs if extra else obs[None]))
        return q if extra else q[0]

    def act(self, obs: Any) -> Any:
        """The greedy action: an int for one observation, int32 ``[B]`` for a batch.

        Raises:
            ValueError: as `q_values` does.
        """
        q = self.q_values(obs)
        action = np.asarray(jax.vmap(exploration.greedy)(jnp.atleast_2d(q)))
        return int(action[0]) if q.ndim == 1 else action


def _check_params(config: Config, params: Params, like: Params) -> None:
    """Refuses parameters that have other names, shapes or types than those of the network."""
    found, wanted = (
        {jax.tree_util.keystr(path): (leaf.shape, leaf.dtype) for path, leaf in leaves}
        for leaves, _ in map(jax.tree_util.tree_flatten_with_path, (params, like))
    )
    if found != wanted:
        names = [n for n in {**wanted, **found} if found.get(n) != wanted.get(n)]
        raise ConfigError(
            f"the parameters are not those of agent {config.agent} on {config.env}: "
            f"{names[0][:200]} is another"
        )
