"""XLand-MiniGrid: MiniGrid and worlds of rules in JAX.

Source: Nikulin et al. 2023, "XLand-MiniGrid: Scalable Meta-Reinforcement Learning Environments in
JAX".
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xminigrid
from gymnax.environments import spaces
from gymnax.environments.environment import Environment
from xminigrid.rendering.rgb_render import render

from envs.adapters.base import Game, adapt, check_at_least, number_options
from envs.errors import UnusableEnvironment

_DOCS = {
    "height": "cells of a column, walls included",
    "width": "cells of a row, walls included",
    "view_size": "cells of a side of what the agent sees; odd",
    "max_steps": "scale of the reward, and the time limit unless that is set itself",
    "num_objects": "how many objects lie about",
}


def names() -> tuple[str, ...]:
    """Name the environments with rules and a goal of their own."""
    return tuple(name for name in xminigrid.registered_environments() if not _has_rules(name))


def refused() -> Mapping[str, str]:
    """Name the worlds of rules: rules are arrays, and no setting can hold them."""
    reason = (
        "it has no goal until it is given rules; give them in a function of your own in games.py, "
        "`def world(): return xminigrid.make(NAME, ruleset=...)[0]` after `from envs.adapters "
        "import xminigrid`, and train env = games:world"
    )
    return {name: reason for name in xminigrid.registered_environments() if _has_rules(name)}


def options(name: str) -> list[inspect.Parameter]:
    """Describe the numbers among the fields of the parameters."""
    return number_options(xminigrid.make(name)[1], docs=_DOCS)


def make(name: str, **options: Any) -> tuple[Environment, Any]:
    """Build an environment of xminigrid; the options are fields of its parameters.

    Observations are uint8 [V, V, 2]: tile and colour of each of the `view_size` x `view_size`
    cells the agent sees. A reward is 1 - 0.9 of the share of `max_steps` that it took, and that
    scale stays the suite's whatever `params.max_steps_in_episode` becomes. Pictures are drawn on
    the host and cannot be jitted. A world of rules (XLand-...) needs the option `ruleset`, a
    `xminigrid.types.RuleSet`, such as one of `xminigrid.load_benchmark`.
    Raises UnusableEnvironment for sizes that make no environment.
    """
    env, settings = xminigrid.make(name, **options)
    check_at_least(f"xminigrid:{name}", settings, {"height": 3, "width": 3, "max_steps": 1})
    if settings.view_size < 3 or settings.view_size % 2 == 0:
        raise UnusableEnvironment(
            f"xminigrid:{name}: view_size is {settings.view_size}; an odd number from 3 on is "
            "asked, since the agent looks from the middle of a side"
        )

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


def _has_rules(name: str) -> bool:
    return name.startswith("XLand")
