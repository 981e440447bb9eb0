"""Sketches: what little of an observation must be kept, so that it can be drawn again.

A replay holds many thousand observations. Where one is a pure function of a few numbers of the
state, or of zeros and ones, or of small numbers, these are kept in its place.

An environment has a sketch if its class has two methods, of which the second undoes the first:
`sketch(obs, state, params)` gives a pytree of arrays, booleans for choice as they are kept as bits,
and `draw(sketch, params)` the observation, to the bit. `state` is the state that was observed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from gymnax.environments.bsuite.catch import Catch
from gymnax.environments.bsuite.deep_sea import DeepSea
from gymnax.environments.minatar.asterix import MinAsterix
from gymnax.environments.minatar.breakout import MinBreakout
from gymnax.environments.minatar.freeway import MinFreeway
from gymnax.environments.minatar.seaquest import MinSeaquest
from gymnax.environments.minatar.space_invaders import MinSpaceInvaders
from gymnax.environments.misc.frozen_lake import FrozenLake
from gymnax.environments.misc.pong import Pong
from gymnax.environments.misc.rooms import FourRooms

from envs.adapters.base import Adapted
from envs.taxi import Taxi


class Sketch(NamedTuple):
    """Pure functions of one environment.

    Attributes:
        take: `take(obs, state, params)`, what is kept of an observation of a state.
        draw: `draw(sketch, params)`, the observation.
    """

    take: Callable[[Any, Any, Any], Any]
    draw: Callable[[Any, Any], Any]


# Games of gymnax whose observations hold zeros and ones alone, as float32.
_BINARY = (
    Catch,
    DeepSea,
    MinAsterix,
    MinBreakout,
    MinFreeway,
    MinSeaquest,
    MinSpaceInvaders,
    Pong,
)


def sketch_of(env: environment.Environment) -> Sketch | None:
    """The sketch of an environment's observations; None where it has none.

    It has one if its class has the methods `sketch` and `draw`, if it is one of gymnax's games of
    zeros and ones or Taxi, FrozenLake or FourRooms, whose numbers are small (a class derived from
    one of these is not), or one of another suite with a space of whole numbers from 0 to 1.
    """
    take, draw = getattr(env, "sketch", None), getattr(env, "draw", None)
    if callable(take) and callable(draw):
        return Sketch(take, draw)
    if type(env) in _BINARY or (type(env) is FourRooms and env.use_visual_obs):
        return _bits(jnp.float32)
    if type(env) is FourRooms:
        return _small(max(env.env_map.shape))
    if type(env) in (Taxi, FrozenLake):
        with jax.ensure_compile_time_eval():
            return _small(env.observation_space(env.default_params).n - 1)
    if isinstance(env, Adapted):
        with jax.ensure_compile_time_eval():  # whoever asks may be traced
            space = env.observation_space(env.default_params)
            binary = _is_binary(space)
        if binary:
            return _bits(space.dtype)
    return None


def _is_binary(space: spaces.Box) -> bool:
    whole = jnp.issubdtype(space.dtype, jnp.integer)
    return bool(whole and jnp.min(space.low) >= 0 and jnp.max(space.high) <= 1)


def _bits(dtype: Any) -> Sketch:
    return Sketch(
        take=lambda obs, state, params: obs != 0,
        draw=lambda sketch, params: sketch.astype(dtype),
    )


def _small(largest: int) -> Sketch:
    """That of int32 numbers from 0 up to the largest."""
    dtype = np.min_scalar_type(largest)
    return Sketch(
        take=lambda obs, state, params: obs.astype(dtype),
        draw=lambda sketch, params: sketch.astype(jnp.int32),
    )
