"""Jumanji: puzzles, packing and routing in JAX, those that one player acts in.

Source: Bonnet et al. 2023, "Jumanji: a Diverse Suite of Scalable Reinforcement Learning
Environments in JAX".
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jumanji
from gymnax.environments.environment import Environment
from jumanji import specs

from envs.adapters.base import (
    LONG,
    NEVER,
    Game,
    adapt,
    flatten,
    number_arguments,
    option,
    scale_of,
    unbounded,
)

_AGENTS = "several agents act in it at once"
REFUSED = {
    "Cleaner-v0": _AGENTS,
    "Connector-v3": _AGENTS,
    "LevelBasedForaging-v0": _AGENTS,
    "MMST-v0": _AGENTS,
    "MultiCVRP-v0": _AGENTS,
    "RobotWarehouse-v0": _AGENTS,
    "SearchAndRescue-v0": "its actions are continuous, and several agents act in it at once",
    "JobShop-v0": "an action assigns ten machines at once, which makes 21^10 discrete ones",
    "FlatPack-v0": "an action is one of 8,100, and a network with an output for each is no use",
}
# The time limit is ours.
_NOT_SET = ("time_limit", "debug")


def names() -> tuple[str, ...]:
    """Name the environments with one player and at most 1,000 discrete actions."""
    return tuple(sorted(set(jumanji.registered_environments()) - set(REFUSED)))


def refused() -> Mapping[str, str]:
    """Name those with several agents, continuous actions or too many of them."""
    return REFUSED


@functools.cache
def options(name: str) -> tuple[inspect.Parameter, ...]:
    """Describe what numbers the constructor takes, and its generator of puzzles."""
    env = jumanji.make(name)
    own = [
        option(argument, kind, default)
        for argument, kind, default in number_arguments(type(env))
        if argument not in _NOT_SET
    ]
    made_by = _arguments(_generator(env))
    drawn = [
        option(argument, kind, made_by[argument])
        for argument, kind, _ in _numbers_of_generator(env)
        if argument in made_by
    ]
    return (*own, *drawn)


def make(name: str, **options: Any) -> tuple[Environment, Any]:
    """Build an environment of Jumanji.

    The parts of an observation are flattened to one float32 vector, in the suite's order; numbers
    with a bound above 1 are divided by it. An action of several parts (row, column and digit of
    Sudoku) is numbered as `numpy.ravel_multi_index` does. Sokoban fetches its levels.
    """
    env = _made(name, options)
    parts = _parts(env.action_spec)
    reset_like = jax.eval_shape(env.reset, jnp.zeros(2, jnp.uint32))[1].observation
    scales = _scales(env.observation_spec, reset_like)
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(reset_like))
    limit = int(getattr(env, "time_limit", LONG))
    if hasattr(env, "time_limit"):
        # The suite calls its time limit a termination.
        env.time_limit = NEVER

    def reset(key: jax.Array) -> Any:
        state, timestep = env.reset(key)
        return state, flatten(timestep.observation, scales)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, Any]:
        if len(parts) > 1:
            action = jnp.stack(jnp.unravel_index(action, parts)).astype(jnp.int32)
        inner, timestep = env.step(state[0], action)
        return (inner, flatten(timestep.observation, scales)), timestep.reward, timestep.last()

    game = Game(
        name=f"jumanji:{name}",
        reset=reset,
        step=step,
        observe=lambda state: state[1],
        num_actions=math.prod(parts),
        observation=unbounded(size),
        time_limit=limit,
    )
    return adapt(game)


def _made(name: str, options: Mapping[str, Any]) -> Any:
    env = jumanji.make(name)
    if not options:
        return env
    generator = _generator(env)
    drawn = {argument for argument, *_ in _numbers_of_generator(env)} & set(options)
    own = {argument: value for argument, value in options.items() if argument not in drawn}
    if drawn:
        own["generator"] = type(generator)(
            **{**_arguments(generator), **{argument: options[argument] for argument in drawn}}
        )
    return jumanji.make(name, **own)


def _generator(env: Any) -> Any:
    return getattr(env, "generator", None)


def _numbers_of_generator(env: Any) -> list[tuple[str, type, Any]]:
    generator = _generator(env)
    return [] if generator is None else list(number_arguments(type(generator)))


def _arguments(generator: Any) -> dict[str, Any]:
    """What a generator was built with, as far as it remembers."""
    if generator is None:
        return {}
    arguments = inspect.signature(type(generator)).parameters
    missing = object()
    kept = {
        name: getattr(generator, name, getattr(generator, f"_{name}", missing))
        for name in arguments
    }
    return {name: value for name, value in kept.items() if value is not missing}


def _parts(spec: Any) -> tuple[int, ...]:
    if isinstance(spec, specs.DiscreteArray):
        return (int(spec.num_values),)
    return tuple(int(values) for values in spec.num_values)


def _scales(spec: Any, like: Any) -> list[Any]:
    """One scale a leaf of an observation, from the bounds that the suite declares."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        part = spec
        for entry in path:
            part = part[entry.name]
        if isinstance(part, specs.BoundedArray):
            found.append(scale_of(part.minimum, part.maximum))
        else:
            found.append(scale_of(0, math.inf))
        assert jnp.broadcast_shapes(found[-1].shape, leaf.shape) == leaf.shape
    return found
