"""A picture of a state of any environment: its own, one made for a gymnax game, or what it sees.

`render` chooses; what each file draws is pure JAX, so a picture can be jitted and mapped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import bsuite, classic_control, minatar, misc, spaces
from gymnax.environments.environment import Environment

from envs.pictures import bandits, chains, games, mazes, minatar_games
from envs.pictures.observations import observation

__all__ = ["observation", "render"]

Picture = Callable[[Any, Any, Any], jax.Array]

_PICTURES: dict[type, Picture] = {
    classic_control.Acrobot: games.acrobot,
    minatar.MinAsterix: minatar_games.asterix,
    minatar.MinBreakout: minatar_games.breakout,
    minatar.MinFreeway: minatar_games.freeway,
    minatar.MinSeaquest: minatar_games.seaquest,
    minatar.MinSpaceInvaders: minatar_games.space_invaders,
    bsuite.Catch: mazes.catch,
    bsuite.DeepSea: mazes.deep_sea,
    bsuite.DiscountingChain: chains.discounting_chain,
    bsuite.MemoryChain: chains.memory_chain,
    bsuite.UmbrellaChain: chains.umbrella_chain,
    bsuite.MNISTBandit: bandits.mnist_bandit,
    bsuite.SimpleBandit: bandits.simple_bandit,
    misc.BernoulliBandit: bandits.bernoulli_bandit,
    misc.GaussianBandit: bandits.gaussian_bandit,
    misc.FourRooms: mazes.four_rooms,
    misc.FrozenLake: mazes.frozen_lake,
    misc.MetaMaze: mazes.meta_maze,
    misc.Pong: games.pong,
}


def render(env: Any, state: Any, params: Any) -> jax.Array:
    """Picture one state of any environment for people, uint8 [H, W, 3]; can be jitted.

    The environment's own method `render(state, params)` wins; gymnax's games have pictures here
    (their methods of that name plot with matplotlib and are left aside). For any other environment
    its observation is drawn, as `observation` says. gymnax's wrappers are looked through.
    Raises TypeError for another environment's state, for a method that gives no picture and for
    observations that are no array, and ValueError for a batch of states.
    """
    if not callable(getattr(env, "step", None)):
        raise TypeError(f"env is {env!r}; it must be an environment, such as envs.make gives")
    env, state = _unwrapped(env, state)
    picture = _picture_of(env)
    if picture is not _own:
        _check_state(env, state, params)
    return picture(env, state, params)


def _unwrapped(env: Any, state: Any) -> tuple[Any, Any]:
    """The environment in gymnax's wrappers, and the part of the state that is its own."""
    while not isinstance(env, Environment) and "_env" in vars(env):
        env, state = env._env, getattr(state, "env_state", state)
    return env, state


def _picture_of(env: Any) -> Picture:
    """What draws the environment: the nearest picture or method among its classes."""
    for kind in type(env).__mro__:
        if kind in _PICTURES:
            return _PICTURES[kind]
        if "render" in vars(kind) and not kind.__module__.startswith("gymnax."):
            return _own
    return _observed


def _own(env: Any, state: Any, params: Any) -> jax.Array:
    """What the environment's own method draws, if that is a picture."""
    image = env.render(state, params)
    dtype, shape = getattr(image, "dtype", None), tuple(getattr(image, "shape", ()))
    if dtype != jnp.uint8 or len(shape) != 3 or shape[2] != 3:
        have = type(image).__name__ if dtype is None else f"{dtype} {list(shape)}"
        raise TypeError(
            f"{env.name}.render gave {have}, not a picture uint8 [H, W, 3]; mend the method, or "
            "leave it out and the observation is drawn"
        )
    return jnp.asarray(image)


def _observed(env: Any, state: Any, params: Any) -> jax.Array:
    """The observation as a picture."""
    space = env.observation_space(params)
    if not isinstance(space, spaces.Box | spaces.Discrete):
        raise TypeError(
            f"{env.name} has {type(space).__name__} observations, and only arrays (Box) and "
            "category numbers (Discrete) are drawn; give it a method render(state, params)"
        )
    # Observations may be random: with one key the picture of a state is always the same.
    obs = env.observe(jax.random.key(0), state, None, params)
    return observation(jnp.asarray(obs), space)


def _check_state(env: Any, state: Any, params: Any) -> None:
    """Check that `state` is one state of the environment, as a reset gives it.

    Raises TypeError for another kind of state and ValueError for a batch.
    """
    wanted = jax.eval_shape(lambda key: env.reset_env(key, params)[1], jax.random.key(0))
    # The structures of two flax classes with as many fields are equal, so the classes count, too.
    kinds = [f"{type(tree).__module__}.{type(tree).__qualname__}" for tree in (state, wanted)]
    structures = [str(jax.tree.structure(tree)) for tree in (state, wanted)]
    if kinds[0] != kinds[1] or structures[0] != structures[1]:
        have, want = kinds if kinds[0] != kinds[1] else structures
        raise TypeError(f"{env.name} renders its own state, {want}, not {have}")
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for (path, leaf), like in zip(leaves, jax.tree.leaves(wanted), strict=True):
        if jnp.shape(leaf) != like.shape:
            field = jax.tree_util.keystr(path).lstrip(".")
            raise ValueError(
                f"{env.name} renders one state, but {field} has the shape {jnp.shape(leaf)}, not "
                f"{like.shape}; take one of them, jax.tree.map(lambda leaf: leaf[0], state), or "
                "jax.vmap the render"
            )
