"""JAXtari: Atari games written anew in JAX, with their objects or their frames as observations.

Its sprites are no part of the package: they are fetched, and their licence agreed to, by the
suite's own command. Source: the JAXAtari project (the package jaxatari is an alias of jaxtari).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jaxtari
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment
from jaxtari import paths
from jaxtari import spaces as suite_spaces

from envs.adapters.base import Game, adapt, flatten, option, scale_of, unbounded
from envs.errors import UnusableEnvironment

FRAMES = "-frames"
FRAME = (84, 84)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue: ITU-R BT.601
# Half an hour at 60 frames a second, as in the protocol of Machado et al. 2018.
FRAME_LIMIT = 108_000


def names() -> tuple[str, ...]:
    """Name every game twice: `pong` observes objects, `pong-frames` observes frames."""
    games = sorted(jaxtari.list_available_games())
    return (*games, *(game + FRAMES for game in games))


def refused() -> Mapping[str, str]:
    """None: every game has one player and discrete actions."""
    return {}


def options(name: str) -> list[inspect.Parameter]:
    """Describe how the frames of a game become steps; the same for every game."""
    return [
        option("frame_skip", int, 4, "how many frames an action lasts"),
        option("sticky_actions", float, 0.25, "the chance that a frame repeats the action before"),
        option("stack", int, 4, "how many observations are one"),
    ]


def make(
    name: str, *, frame_skip: int = 4, sticky_actions: float = 0.25, stack: int = 4
) -> tuple[Environment, Any]:
    """Build a game: an action lasts `frame_skip` frames, and `stack` observations are one.

    In every frame the action before is repeated with probability `sticky_actions`. Objects are
    float32 vectors, numbers with a bound divided by it; frames are uint8 [84, 84, stack], grey. An
    episode is a whole game, and rewards are the score's changes.
    Raises UnusableEnvironment where the sprites are missing or too old.
    Source of the protocol: Machado et al. 2018, section 5.
    """
    _check_sprites(name)
    game = jaxtari.make(name.removesuffix(FRAMES))
    see, frame_space = _frames(game) if name.endswith(FRAMES) else _objects(game)

    def reset(key: jax.Array) -> Any:
        obs, inner = game.reset(key)
        return inner, jnp.int32(0), jnp.stack([see(obs, inner)] * stack, axis=-1)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, Any]:
        def frame(carry: Any, frame_key: jax.Array) -> tuple[Any, None]:
            obs, inner, before, total, done = carry
            sticks = jax.random.bernoulli(frame_key, sticky_actions)
            taken = jnp.where(sticks, before, action)
            new_obs, new_inner, reward, new_done, _ = game.step(inner, taken)
            # A game that is over stands still for the rest of the frames.
            kept = jax.tree.map(
                lambda old, new: jnp.where(done, old, new).astype(jnp.asarray(old).dtype),
                (obs, inner),
                (new_obs, new_inner),
            )
            total = total + jnp.where(done, 0.0, jnp.asarray(reward, jnp.float32))
            return (*kept, taken, total, done | jnp.asarray(new_done, bool)), None

        inner, before, seen = state
        obs = game._get_observation(inner)
        start = (obs, inner, before, jnp.float32(0.0), jnp.bool_(False))
        keys = jax.random.split(key, frame_skip)
        (obs, inner, before, total, done), _ = jax.lax.scan(frame, start, keys)
        seen = jnp.concatenate([seen[..., 1:], see(obs, inner)[..., None]], axis=-1)
        return (inner, before, seen), total, done

    if name.endswith(FRAMES):
        space = spaces.Box(0, 255, (*frame_space, stack), jnp.uint8)
    else:
        space = unbounded(math.prod(frame_space) * stack)
    return adapt(
        Game(
            name=f"jaxtari:{name}",
            reset=reset,
            step=step,
            observe=lambda state: state[2].reshape(space.shape),
            num_actions=int(game.action_space().n),
            observation=space,
            time_limit=FRAME_LIMIT // frame_skip,
            picture=lambda state: jnp.asarray(game.render(state[0]), jnp.uint8),
        )
    )


See = Callable[[Any, Any], jax.Array]


def _objects(game: Any) -> tuple[See, tuple[int, ...]]:
    is_leaf = (suite_spaces.Box, suite_spaces.Discrete)
    leaves = jax.tree.leaves(
        game.observation_space(), is_leaf=lambda node: isinstance(node, is_leaf)
    )
    scales = [scale_of(*leaf.range()) for leaf in leaves]
    like = jax.eval_shape(game.reset, jnp.zeros(2, jnp.uint32))[0]
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(like))
    return lambda obs, inner: flatten(obs, scales), (size,)


def _frames(game: Any) -> tuple[See, tuple[int, ...]]:
    def see(obs: Any, inner: Any) -> jax.Array:
        grey = jnp.asarray(game.render(inner), jnp.float32) @ LUMA
        return jnp.round(jax.image.resize(grey, FRAME, "bilinear")).astype(jnp.uint8)

    return see, FRAME


def _check_sprites(name: str) -> None:
    """Ask before the suite does, since it would ask on standard input."""
    command = "run `python -m jaxtari.install_sprites`, which asks whether you own the games"
    if not paths.ownership_or_alt_markers_present():
        raise UnusableEnvironment(
            f"jaxtari:{name} needs sprites, which are not installed: {command}"
        )
    storage = paths.get_storage_dir()
    stale = paths.sprite_update_needed(storage)
    if stale and not paths.declined_update_for_required_version(storage):
        raise UnusableEnvironment(
            f"jaxtari:{name} needs newer sprites than those in {storage}: {command}"
        )
