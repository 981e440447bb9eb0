"""Craftax: Crafter and a larger game on the same rules, in JAX.

Source: Matthews et al. 2024, "Craftax: A Lightning-Fast Benchmark for Open-Ended Reinforcement
Learning".
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from craftax.craftax_env import make_craftax_env_from_name
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from envs.adapters.base import NEVER, Game, adapt, number_options

# Name -> the package of its pictures.
GAMES = {
    "Craftax-Classic-Symbolic-v1": "craftax_classic",
    "Craftax-Classic-Pixels-v1": "craftax_classic",
    "Craftax-Symbolic-v1": "craftax",
    "Craftax-Pixels-v1": "craftax",
}
BLOCK = 16  # pixels of a block in a picture
_LIMIT = "max_timesteps"


def names() -> tuple[str, ...]:
    """Name the two games, each as symbols and as pixels."""
    return tuple(GAMES)


def refused() -> Mapping[str, str]:
    """None: every environment has one player and discrete actions."""
    return {}


def options(name: str) -> list[inspect.Parameter]:
    """Describe the fields of the game's parameters, but for the time limit, which is ours."""
    settings = make_craftax_env_from_name(name, auto_reset=False).default_params
    return number_options(settings, left_out=[_LIMIT])


def make(name: str, **options: Any) -> tuple[Environment, Any]:
    """Build an environment of Craftax; the options are fields of its parameters.

    Observations of symbols are float32 vectors; pixels are uint8 [H, W, 3], where the suite has
    floats in [0, 1]. The first use of pixels or pictures on a machine makes the suite prepare its
    textures, which takes a minute or two.
    """
    env = make_craftax_env_from_name(name, auto_reset=False)
    settings = env.default_params.replace(**options, **{_LIMIT: NEVER})
    suite_space = env.observation_space(settings)
    pixels = len(suite_space.shape) == 3
    if pixels:
        space = spaces.Box(0, 255, tuple(suite_space.shape), jnp.uint8)
    else:
        space = spaces.Box(0.0, 1.0, tuple(suite_space.shape), jnp.float32)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, Any]:
        _, next_state, reward, done, _ = env.step_env(key, state, action, settings)
        return next_state, reward, done

    def observe(state: Any) -> jax.Array:
        obs = env.get_obs(state)
        return jnp.round(obs * 255.0) if pixels else obs

    def picture(state: Any) -> jax.Array:
        return _renderer(GAMES[name])(state).astype(jnp.uint8)

    game = Game(
        name=f"craftax:{name}",
        reset=lambda key: env.reset_env(key, settings)[1],
        step=step,
        observe=observe,
        num_actions=int(env.num_actions),
        observation=space,
        time_limit=int(getattr(env.default_params, _LIMIT)),
        picture=picture,
    )
    return adapt(game)


@functools.cache
def _renderer(package: str) -> Any:
    module = importlib.import_module(f"craftax.{package}.renderer")
    # The textures are constants even where a picture is first asked for inside a jitted function.
    with jax.ensure_compile_time_eval():
        return module.make_craftax_pixel_renderer(BLOCK)
