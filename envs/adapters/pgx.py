"""Pgx: games in JAX, of which those of one player can be trained: 2048 and MinAtar.

Source: Koyamada et al. 2023, "Pgx: Hardware-Accelerated Parallel Game Simulators for Reinforcement
Learning"; MinAtar is Young and Tian 2019.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import pgx
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from envs.adapters.base import LONG, Game, adapt, number_arguments, option

# MinAtar has no time limit of its own; this is the one of gymnax's versions.
MINATAR_LIMIT = 1_000


def names() -> tuple[str, ...]:
    """Name the games of one player."""
    return tuple(name for name in pgx.available_envs() if _is_single(name))


def refused() -> Mapping[str, str]:
    """Name the games of several players."""
    reason = "it is a game of several players, and dqx trains one against an environment"
    return {name: reason for name in pgx.available_envs() if not _is_single(name)}


def options(name: str) -> list[inspect.Parameter]:
    """Describe what the game's constructor takes."""
    return [option(*argument) for argument in number_arguments(type(pgx.make(name)))]


def make(name: str, **options: Any) -> tuple[Environment, Any]:
    """Build a game of one player; MinAtar takes `sticky_action_prob`, `use_minimal_action_set`.

    Observations are uint8 of zeros and ones (the suite's are bool). In 2048 a move that changes
    nothing ends the game with a reward of -1.
    """
    env = pgx.make(name)
    if options:
        env = type(env)(**options)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, Any]:
        next_state = env.step(state, action, key)
        return next_state, next_state.rewards[0], next_state.terminated

    game = Game(
        name=f"pgx:{name}",
        reset=env.init,
        step=step,
        observe=lambda state: state.observation,
        num_actions=env.num_actions,
        observation=spaces.Box(0, 1, tuple(env.observation_shape), jnp.uint8),
        time_limit=MINATAR_LIMIT if name.startswith("minatar-") else LONG,
    )
    return adapt(game)


def _is_single(name: str) -> bool:
    return name == "2048" or name.startswith("minatar-")
