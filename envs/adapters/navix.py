"""navix: MiniGrid in JAX.

Source: Pignatelli et al. 2024, "NAVIX: Scaling MiniGrid Environments with JAX".
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import navix
from gymnax.environments import spaces
from gymnax.environments.environment import Environment
from navix import observations
from navix.environments.environment import StepType
from navix.rendering.cache import RenderingCache

from envs.adapters.base import Game, adapt, check_at_least, number_options, option
from envs.errors import UnusableEnvironment

OBSERVATIONS = (
    "symbolic",
    "symbolic_first_person",
    "categorical",
    "categorical_first_person",
    "rgb",
    "rgb_first_person",
)
# The time limit is ours, resets are the trainer's, and no step reads the discount.
_NOT_SET = ("max_steps", "disable_autoreset", "gamma")

_DOCS = {
    "height": "cells of a column, walls included",
    "width": "cells of a row, walls included",
    "penalty_coeff": "how much less a reward is at the suite's own time limit than at once",
}


def names() -> tuple[str, ...]:
    """Name every environment that navix registers."""
    return tuple(sorted(navix.registry()))


def refused() -> Mapping[str, str]:
    """None: every environment has one player and discrete actions."""
    return {}


def options(name: str) -> list[inspect.Parameter]:
    """Describe the kind of observation, and what numbers the environment is made of."""
    kinds = f"one of {', '.join(OBSERVATIONS)}"
    numbers = number_options(navix.make(name), left_out=_NOT_SET, docs=_DOCS)
    return [option("observation", str, "symbolic", kinds), *numbers]


def make(name: str, *, observation: str = "symbolic", **numbers: Any) -> tuple[Environment, Any]:
    """Build an environment of navix.

    `observation` is one of OBSERVATIONS, as navix names them (uint8 but for the categorical
    ones, which are int32); the default shows the whole grid, uint8 [H, W, 3]: object, colour and
    state of each cell. `numbers` are fields of navix's environment, such as its height.
    """
    if observation not in OBSERVATIONS:
        raise UnusableEnvironment(
            f"navix has no observation {observation!r}: choose one of {', '.join(OBSERVATIONS)}"
        )
    env = _made(name, getattr(observations, observation), numbers)
    space = env.observation_space
    # The cached background of pictures is most of a state, and only observations of pixels read it.
    keeps_background = observation.startswith("rgb")

    def slim(timestep: Any) -> Any:
        if keeps_background:
            return timestep
        return timestep.replace(state=timestep.state.replace(cache=None))

    def reset(key: jax.Array) -> Any:
        return slim(env.reset(key))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, Any]:
        grid = state.state.replace(key=key)
        # Not `env.step`: it would compute a reset beside every step, to throw it away.
        timestep = env._step(state.replace(state=grid), action)
        return slim(timestep), timestep.reward, timestep.step_type == StepType.TERMINATION

    def picture(state: Any) -> jax.Array:
        grid = state.state
        return observations.rgb(grid.replace(cache=RenderingCache.init(grid.grid)))

    game = Game(
        name=f"navix:{name}",
        reset=reset,
        step=step,
        observe=lambda state: state.observation,
        num_actions=len(env.action_set),
        observation=spaces.Box(0, 255, tuple(space.shape), space.dtype),
        time_limit=int(env.max_steps),
        picture=picture,
    )
    return adapt(game)


def _made(name: str, observation_fn: Any, numbers: Mapping[str, Any]) -> Any:
    env = navix.make(name, observation_fn=observation_fn)
    if not numbers:
        return env
    # navix's own `make` fixes most of these numbers, so the class is built anew from its fields.
    fields = {field.name: getattr(env, field.name) for field in dataclasses.fields(env)}
    for follows in ("observation_space", "action_space", "reward_space"):
        del fields[follows]
    if env.max_steps == 4 * env.height * env.width:
        fields["max_steps"] = None  # it follows from the size
    made = type(env).create(**{**fields, **numbers})
    check_at_least(f"navix:{name}", made, {"height": 3, "width": 3})
    return made
