"""XLand-MiniGrid: MiniGrid and worlds of rules in JAX.

Source: Nikulin et al. 2023, "XLand-MiniGrid: Scalable Meta-Reinforcement Learning Environments in
JAX".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xminigrid
from gymnax.environments import spaces
from gymnax.environments.environment import Environment
from xminigrid.rendering.rgb_render import render

from envs.adapters.base import Game, adapt


def names() -> tuple[str, ...]:
    """Name every environment that xminigrid registers."""
    return tuple(xminigrid.registered_environments())


def refused() -> Mapping[str, str]:
    """None by name: `make` refuses a world of rules that is given none."""
    return {}


def make(name: str, **options: Any) -> tuple[Environment, Any]:
    """Build an environment of xminigrid; the options are fields of its parameters.

    Observations are uint8 [7, 7, 2]: tile and colour of each cell the agent sees. A reward is
    1 - 0.9 of the share of `max_steps` that it took, and that scale stays the suite's whatever
    `params.max_steps_in_episode` becomes. Pictures are drawn on the host and cannot be jitted.
    Raises ValueError for a world of rules (XLand-...) without the option `ruleset`.
    """
    if name.startswith("XLand") and "ruleset" not in options:
        raise ValueError(
            f"xminigrid:{name} has no goal until it is given rules: "
            f"envs.make('xminigrid:{name}', ruleset=...), with one of a benchmark "
            "such as xminigrid.load_benchmark('trivial-1m').get_ruleset(0)"
        )
    env, settings = xminigrid.make(name, **options)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, Any]:
        # The suite ends an episode at its own limit with discount 1, and goes on when stepped.
        timestep = env.step(settings, state, action)
        return timestep, timestep.reward, timestep.discount == 0.0

    def picture(state: Any) -> np.ndarray:
        agent = jax.tree.map(np.asarray, state.state.agent)
        return np.asarray(render(np.asarray(state.state.grid), agent, settings.view_size), np.uint8)

    game = Game(
        name=f"xminigrid:{name}",
        reset=lambda key: env.reset(settings, key),
        step=step,
        observe=lambda state: state.observation,
        num_actions=int(env.num_actions(settings)),
        observation=spaces.Box(0, 255, tuple(env.observation_shape(settings)), jnp.uint8),
        time_limit=int(settings.max_steps),
        picture=picture,
    )
    return adapt(game)
