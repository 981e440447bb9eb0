"""One contract for environments of other suites, and the gymnax environment made of it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from envs.errors import UnusableEnvironment

# Stands in for a suite's own time limit, which must never show: ours is the only one.
NEVER = 2**30
# The limit where a suite has none. Greedy evaluation plays whole episodes, so there must be one.
LONG = 10_000


class Game(NamedTuple):
    """One environment of a suite as pure functions; keys are uint32 [2], as suites know them.

    Attributes:
        name: with the suite's prefix.
        reset: `reset(key) -> state`, any pytree.
        step: `step(key, state, action) -> (state, reward, terminated)`, action int32 []. It never
            begins a new episode and knows no time limit.
        observe: `observe(state) -> observation`, in shape and dtype of `observation`.
        num_actions: how many discrete actions there are.
        observation: the space of observations.
        time_limit: steps after which an episode is truncated by default.
        picture: `picture(state) -> uint8 [H, W, 3]`, where the suite draws into an array.
    """

    name: str
    reset: Callable[[jax.Array], Any]
    step: Callable[[jax.Array, Any, jax.Array], tuple[Any, Any, Any]]
    observe: Callable[[Any], jax.Array]
    num_actions: int
    observation: spaces.Box
    time_limit: int
    picture: Callable[[Any], Any] | None = None


@struct.dataclass
class EnvState(environment.EnvState):
    """Steps since reset (int32), whether the suite ended the episode (bool), the suite's state."""

    time: jax.Array
    terminated: jax.Array
    inner: Any


@struct.dataclass
class EnvParams(environment.EnvParams):
    """The time limit in steps; what else a suite lets vary is an option of `make`."""

    max_steps_in_episode: int = LONG


class Adapted(environment.Environment[EnvState, EnvParams]):
    """A game of another suite as a gymnax environment.

    Every leaf of the state keeps the dtype that a step gives it, in resets too.
    """

    def __init__(self, game: Game) -> None:
        """Take a game; traces one reset and one step of it."""
        super().__init__()
        self._game = game
        space = game.observation
        self.__doc__ = (
            f"observations {jnp.dtype(space.dtype).name} {list(space.shape)}, "
            f"{game.num_actions} actions"
        )

        def stepped(key: jax.Array) -> Any:
            return game.step(key, game.reset(key), jnp.int32(0))[0]

        self._inner_like = jax.eval_shape(stepped, jnp.zeros(2, jnp.uint32))

    @property
    def default_params(self) -> EnvParams:
        """The suite's own time limit, where it has one."""
        return EnvParams(max_steps_in_episode=self._game.time_limit)

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Begin an episode of the suite."""
        inner = self._fixed(self._game.reset(_raw(key)))
        state = EnvState(time=jnp.int32(0), terminated=jnp.bool_(False), inner=inner)
        return self.observe(key, state, None, params), state

    def step_env(
        self,
        key: jax.Array,
        state: EnvState,
        action: int | float | jax.Array,
        params: EnvParams,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Advance one step of the suite, without time limit or reset.

        Returns observation, state, reward () float32, terminated () bool and info.
        """
        step = self._game.step(_raw(key), state.inner, jnp.asarray(action, jnp.int32))
        inner, reward, ended = step
        terminated = jnp.asarray(ended, bool).reshape(())
        next_state = EnvState(time=state.time + 1, terminated=terminated, inner=self._fixed(inner))
        obs = self.observe(key, next_state, action, params)
        info = {"discount": 1.0 - terminated.astype(jnp.float32)}
        return obs, next_state, jnp.asarray(reward, jnp.float32).reshape(()), terminated, info

    def observe(
        self,
        key: jax.Array | None,
        state: EnvState,
        action: int | float | jax.Array | None,
        params: EnvParams | None,
    ) -> jax.Array:
        """Observe the state, in shape and dtype of the observation space."""
        obs = self._game.observe(state.inner)
        return jax.lax.convert_element_type(obs, self._game.observation.dtype)

    def get_obs(
        self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Observe through the older hook, which gymnax's wrappers still call."""
        return self.observe(key, state, None, params)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Say whether the suite ended the episode; () bool. A time limit never does."""
        return state.terminated

    @property
    def name(self) -> str:
        """The name with the suite's prefix, such as "pgx:2048"."""
        return self._game.name

    @property
    def num_actions(self) -> int:
        """How many discrete actions there are."""
        return self._game.num_actions

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Discrete(num_actions)."""
        return spaces.Discrete(self._game.num_actions)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """The Box of one array."""
        return self._game.observation

    def _fixed(self, inner: Any) -> Any:
        def cast(leaf: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
            return jax.lax.convert_element_type(jnp.broadcast_to(leaf, like.shape), like.dtype)

        return jax.tree.map(cast, inner, self._inner_like)


class Drawn(Adapted):
    """An adapted environment whose suite draws pictures into an array."""

    def render(self, state: EnvState, params: EnvParams) -> Any:
        """Picture one state for people, uint8 [H, W, 3].

        Raises TypeError for another environment's state and ValueError for a batch of states.
        """
        if not isinstance(state, EnvState):
            raise TypeError(f"{self.name} renders its own state, not {type(state).__qualname__}")
        if jnp.ndim(state.time) != 0:
            raise ValueError(
                f"{self.name} renders one state, and there are {jnp.shape(state.time)} of them: "
                "take one, jax.tree.map(lambda leaf: leaf[0], state)"
            )
        assert self._game.picture is not None
        return self._game.picture(state.inner)


def adapt(game: Game) -> tuple[Adapted, EnvParams]:
    """Make a gymnax environment of a game, with its default parameters."""
    env = Adapted(game) if game.picture is None else Drawn(game)
    return env, env.default_params


def option(name: str, kind: Any, default: Any, doc: str = "") -> inspect.Parameter:
    """Describe an option that `make` of a suite takes.

    Args:
        name: its name.
        kind: bool, int, float or str. Of other types it can be given in Python alone.
        default: what the suite takes where none is given.
        doc: one sentence without a full stop.
    """
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, doc]
    )


def number_options(
    settings: Any, left_out: Sequence[str] = (), docs: Mapping[str, str] = MappingProxyType({})
) -> list[inspect.Parameter]:
    """Describe the fields of a dataclass that are bools, whole numbers or floats."""
    fields = ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings))
    return [
        option(name, type(value), value, docs.get(name, ""))
        for name, value in fields
        if type(value) in (bool, int, float) and name not in left_out
    ]


def number_arguments(function: Callable[..., Any]) -> Iterator[tuple[str, type, Any]]:
    """Name, type and default of the arguments of a suite's function that are single numbers.

    The default is `inspect.Parameter.empty` where there is none.
    """
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.annotation in (bool, int, float):
            yield parameter.name, parameter.annotation, parameter.default


def check_at_least(name: str, settings: Any, least: Mapping[str, int]) -> None:
    """Refuse numbers, fields of `settings`, that are smaller than makes an environment.

    Raises UnusableEnvironment. Suites leave that to chance: walls over walls, or an agent in one.
    """
    for field, low in least.items():
        if getattr(settings, field) < low:
            raise UnusableEnvironment(
                f"{name}: {field} is {getattr(settings, field)}; at least {low} is asked"
            )


def unbounded(size: int) -> spaces.Box:
    """The space of flattened observations, float32 [size], any finite number."""
    most = float(np.finfo(np.float32).max)
    return spaces.Box(-most, most, (size,), jnp.float32)


def flatten(tree: Any, scales: Sequence[Any]) -> jax.Array:
    """Flatten the leaves of an observation to one vector, each divided by its scale; float32."""
    leaves = jax.tree.leaves(tree)
    parts = [
        jnp.ravel(jnp.asarray(leaf).astype(jnp.float32) / scale)
        for leaf, scale in zip(leaves, scales, strict=True)
    ]
    return jnp.concatenate(parts)


def scale_of(low: Any, high: Any) -> np.ndarray:
    """The scale that takes numbers between `low` and `high` into [-1, 1]; 1 where unbounded."""
    most = np.maximum(np.abs(np.asarray(low, np.float64)), np.abs(np.asarray(high, np.float64)))
    usable = np.isfinite(most) & (most > 1.0) & (most < 2**31 - 1)
    return np.where(usable, most, 1.0).astype(np.float32)


def _raw(key: jax.Array) -> jax.Array:
    """A key as the uint32 [2] that every suite takes, so that states hold no typed keys."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(key)
    return key
