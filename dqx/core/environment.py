"""One environment as the trainer sees it: fixed dtypes, and resets drawn beforehand."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import envs
from dqx.arguments import TEXT, Kind, instance, require
from dqx.core import checks
from dqx.core.agent import Spec
from dqx.core.types import Array, Key, PyTree
from dqx.settings import ConfigError
from dqx.settings.field import INT_END
from envs import spaces
from envs.tabular import Model, build_model, is_enumerable

_METHODS = ("reset_env", "step_env", "is_truncated", "action_space", "observation_space")
_GYMNAX = Kind(
    f"a gymnax 1.0 environment, with {', '.join(_METHODS)}",
    lambda env: all(callable(getattr(env, name, None)) for name in _METHODS),
)


class Step(NamedTuple):
    """What one step gives; at an episode's end ``obs`` and ``state`` are the next one's.

    Attributes:
        obs: the observation to act on next.
        state: the environment's state to step next.
        final_obs: the observation before any automatic reset; equals ``obs`` within an episode.
        reward: float32 ``[]``.
        terminated: bool ``[]``, the environment ended the episode.
        truncated: bool ``[]``, the time limit did; both may be true at once.
        final_state: the state that ``final_obs`` shows.
    """

    obs: Array
    state: PyTree
    final_obs: Array
    reward: Array
    terminated: Array
    truncated: Array
    final_state: PyTree = None


class Sketch(NamedTuple):
    """What little must be kept of an observation, so that it can be drawn again to the bit.

    Of observations that are stacked it is the newest frame's.

    Attributes:
        take: ``take(obs, state) -> sketch``, a pytree of arrays; ``state`` is what ``obs`` shows.
        draw: ``draw(sketch) -> obs``; the newest frame alone where observations are stacked.
    """

    take: Callable[[Array, PyTree], PyTree]
    draw: Callable[[PyTree], Array]


class Wrappers(NamedTuple):
    """What `core.wrappers` has put around an environment; named and read as the settings are."""

    sticky_actions: float = 0.0
    action_repeat: int = 1
    time_limit: int = 0
    frame_stack: int = 1


class Environment(NamedTuple):
    """Pure functions of one environment with its parameters filled in.

    Attributes:
        name: for messages.
        obs_shape: shape of an observation.
        obs_dtype: its dtype; pixels stay uint8.
        num_categories: where observations are category numbers, how many; else None.
        num_actions: A.
        reset: ``reset(key) -> (obs, state)``.
        step: ``step(key, state, action, fresh) -> Step``; ``fresh`` is a ``reset`` result used if
            the episode ends; ``action`` is int ``[]`` below A.
        observe: ``observe(state) -> obs``, where observations are not random.
        model: ``model() -> Model`` lists all states; None where they cannot be listed.
        at: ``at(inputs)``: the same environment with other values, ``{name: float32 []}``, of the
            parameters that are inputs of the programs.
        limited: ``limited(steps) -> Environment``, the same with another time limit of its own;
            None where the environment has no such parameter.
        wrappers: what was put around it.
        sketch: of its observations, see `envs.sketches`; None where there is none.
    """

    name: str
    obs_shape: tuple[int, ...]
    obs_dtype: Any
    num_categories: int | None
    num_actions: int
    reset: Callable[[Key], tuple[Array, PyTree]]
    step: Callable[[Key, PyTree, Array, tuple[Array, PyTree]], Step]
    observe: Callable[[PyTree], Array]
    model: Callable[[], Model] | None
    at: Callable[[Mapping[str, Any]], "Environment"]
    limited: Callable[[int], "Environment"] | None = None
    wrappers: Wrappers = Wrappers()
    sketch: Sketch | None = None

    def spec(self, num_envs: int = 1) -> Spec:
        """What an agent is told of ``num_envs`` such environments."""
        return Spec(
            self.name,
            self.obs_shape,
            self.obs_dtype,
            self.num_categories,
            self.num_actions,
            num_envs,
        )


def make_environment(name: str, **settings: Any) -> Environment:
    """Adapts the environment ``envs.make(name)``.

    Args:
        name: one that ``envs.make`` takes.
        settings: its options and parameters by name, see ``envs.describe``.

    Raises:
        ConfigError: if the name or a setting is unknown, a value has the wrong type, or its actions
            or observations are none that DQN can use.
    """

    require(ConfigError, name=(name, TEXT))

    def at(inputs: Mapping[str, Any]) -> Environment:
        try:
            if not inputs:
                _check_foreign(name, tuple(sorted(settings.items())))
            env, params = _configured(name, {**settings, **inputs})
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from error
        except OSError as error:  # gymnax's MNIST bandit fetches its data
            raise ConfigError(f"environment {name!r} cannot be made: {error}") from error
        return adapt(env, params)._replace(name=name, at=at)

    return at({})


def _configured(name: str, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """The environment and its parameters, both with what is set of them."""
    if not settings:
        return envs.make(name)
    own = _option_names(name)
    options = {key: value for key, value in settings.items() if key in own}
    return envs.configure(name, options, {k: v for k, v in settings.items() if k not in own})


@functools.cache
def _option_names(name: str) -> frozenset[str]:
    return frozenset(option.name for option in envs.describe(name).options)


@functools.cache
def _check_foreign(name: str, settings: tuple[tuple[str, Any], ...]) -> None:
    """Refuses an environment of a user's own that breaks the contract, naming the clause."""
    if not envs.is_foreign(name):
        return
    env, params = _configured(name, dict(settings))
    try:
        envs.check_environment(env, params, quick=True, deterministic_reset=None)
    except envs.ConformanceError as error:
        # What else an environment truncates by is its own matter: the trainer asks `is_truncated`.
        if error.clause != "time limit":
            raise ConfigError(str(error)) from error


def adapt(env: Any, params: Any) -> Environment:
    """Adapts a gymnax 1.0 environment and its parameters.

    Raises:
        ConfigError: if it is none, the parameters are another's, the actions are not discrete, or
            the observations neither an array nor category numbers.
    """
    require(ConfigError, env=(env, _GYMNAX))
    usual = type(getattr(env, "default_params", params))
    require(ConfigError, params=(params, instance(f"parameters of it, a {usual.__name__}", usual)))
    action_space, obs_space = env.action_space(params), env.observation_space(params)
    if not isinstance(action_space, spaces.Discrete):
        raise ConfigError(
            f"{env.name} has continuous actions ({action_space!r}), and DQN needs discrete ones: "
            "choose an environment whose action space is Discrete"
        )
    if not isinstance(obs_space, spaces.Box | spaces.Discrete):
        raise ConfigError(
            f"{env.name} has {type(obs_space).__name__} observations ({obs_space!r}), and dqx "
            "takes one array (Box) or category number (Discrete): wrap it so that it gives one"
        )
    obs_like, state_like = _fixed_types(env, params)
    num_actions = int(action_space.n)

    def reset(key: Key) -> tuple[Array, PyTree]:
        obs, state = env.reset_env(key, params)
        return _cast(obs, obs_like), _cast(state, state_like)

    def step(key: Key, state: PyTree, action: Array, fresh: tuple[Array, PyTree]) -> Step:
        checks.an_action(action, num_actions)
        final_obs, next_state, reward, terminated, _ = env.step_env(key, state, action, params)
        final_obs, final_state = _cast(final_obs, obs_like), _cast(next_state, state_like)
        terminated = jnp.asarray(terminated, bool)
        truncated = jnp.asarray(env.is_truncated(final_state, params), bool)
        done = terminated | truncated
        obs, state = jax.tree.map(
            lambda new, old: jnp.where(done, new, old), fresh, (final_obs, final_state)
        )
        reward = jnp.asarray(reward, jnp.float32)
        return Step(obs, state, final_obs, reward, terminated, truncated, final_state)

    def observe(state: PyTree) -> Array:
        return _cast(env.observe(None, state, None, params), obs_like)

    def limited(steps: int) -> Environment:
        # Its own count is an int32.
        return adapt(env, params.replace(max_steps_in_episode=min(steps, INT_END - 1)))

    return Environment(
        name=str(env.name),
        obs_shape=tuple(obs_like.shape),
        obs_dtype=obs_like.dtype,
        num_categories=obs_space.n if isinstance(obs_space, spaces.Discrete) else None,
        num_actions=num_actions,
        reset=reset,
        step=step,
        observe=observe,
        model=functools.partial(build_model, env, params) if is_enumerable(env) else None,
        at=lambda inputs: adapt(env, params.replace(**inputs)),
        limited=limited if hasattr(params, "max_steps_in_episode") else None,
        sketch=_sketch(env, params, obs_like),
    )


def _sketch(env: Any, params: Any, obs_like: jax.ShapeDtypeStruct) -> Sketch | None:
    declared = envs.sketch_of(env)
    if declared is None:
        return None
    return Sketch(
        take=lambda obs, state: declared.take(obs, state, params),
        draw=lambda sketch: _cast(declared.draw(sketch, params), obs_like),
    )


def _fixed_types(env: Any, params: Any) -> tuple[jax.ShapeDtypeStruct, PyTree]:
    """Shapes and dtypes that a step gives; a gymnax reset may differ in dtype or weak type."""

    def two_steps(key: Key) -> tuple[Any, Any]:
        _, state = env.reset_env(key, params)
        for _ in range(2):
            obs, state, *_ = env.step_env(key, state, jnp.int32(0), params)
        return obs, state

    return jax.eval_shape(two_steps, jax.random.key(0))


def _cast(tree: PyTree, like: PyTree) -> PyTree:
    def cast(x: Any, struct: jax.ShapeDtypeStruct) -> Array:
        return jax.lax.convert_element_type(jnp.broadcast_to(x, struct.shape), struct.dtype)

    return jax.tree.map(cast, tree, like)
