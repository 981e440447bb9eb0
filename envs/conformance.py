"""A contract test for environments: run it on your own before you train on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

LANES = 8
RESETS = 32
SHORT_LIMITS = (1, 3)
NEVER = 2**30
TOLERANCE = 1e-5


class ConformanceError(AssertionError):
    """An environment breaks a clause of the contract; `clause` names it."""

    def __init__(self, env: Environment, clause: str, detail: str) -> None:
        """Say which clause `env` breaks and how."""
        super().__init__(f"{env.name} breaks the clause '{clause}': {detail}")
        self.clause = clause


class _Rollout(NamedTuple):
    """What happened on every step, arrays [L, T] (T steps of L lanes); `*_ok` are clauses held."""

    reward: Any
    terminated: Any
    truncated: Any
    steps: Any  # steps of the episode so far, this one included
    inside_ok: Any
    reward_ok: Any
    terminated_ok: Any
    final_observation_ok: Any
    next_ok: Any
    time_limit_ok: Any


def check_environment(
    env: Environment,
    params: Any,
    *,
    num_steps: int = 500,
    seed: int = 0,
    deterministic_reset: bool = False,
) -> None:
    """Check that `env` keeps the contract a trainer relies on; returns None if it does.

    Plays `num_steps` random steps in each of 8 lanes, then short episodes. The clauses:

    - spaces: actions Discrete, observations Box or Discrete;
    - shapes: observation, state, reward (float32), terminated and truncated (bool) keep shape and
      dtype from reset to step, and the observation those of its space (weak types do not count);
    - determinism: the same key gives the same result; jit: compiled equals not compiled;
    - reset keys: different keys give different starts (with `deterministic_reset`: the same start);
    - vmap: lanes equal single calls; params: every float of `params` can be traced and vmapped;
    - observation space: every observation lies inside; reward: finite;
    - step: `step(key, ...)` equals `step_env(key_step, ...)` with `key_step, key_reset =
      split(key)`; final observation: `info["final_observation"]` is that of `step_env`; reset:
      after an end, observation and state are those of `reset_env(key_reset, ...)`;
    - time limit: truncated exactly on step `params.max_steps_in_episode`, and never called
      termination (a step that also terminates may report either).

    Raises ConformanceError, an AssertionError, that names the broken clause.
    Source: the interface of gymnax 1.0.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    key = jax.random.key(seed)
    _check_spaces(env, params)
    _check_shapes(env, params)
    _check_resets(env, params, key, deterministic_reset)
    _check_purity(env, params, key)
    _check_rollouts(env, params, key, num_steps)


def _check_spaces(env: Environment, params: Any) -> None:
    clause = "spaces"
    with _calls(env, clause):
        actions, observations = env.action_space(params), env.observation_space(params)
        count = env.num_actions
    if not isinstance(actions, spaces.Discrete) or actions.n < 1:
        _fail(env, clause, f"action_space is {actions!r}, it must be Discrete of at least 1")
    if count != actions.n:
        _fail(env, clause, f"num_actions is {count}, but action_space is {actions!r}")
    if not isinstance(observations, spaces.Box | spaces.Discrete):
        _fail(env, clause, f"observation_space is {observations!r}, it must be Box or Discrete")
    if not hasattr(params, "max_steps_in_episode") or not hasattr(params, "replace"):
        _fail(
            env,
            "params",
            f"{type(params).__name__} must be a flax.struct.dataclass with a field "
            "max_steps_in_episode",
        )


def _check_shapes(env: Environment, params: Any) -> None:
    clause, key = "shapes", jax.random.key(0)
    space, action = env.observation_space(params), jnp.int32(0)
    with _calls(env, clause, "reset_env"):
        reset_obs, reset_state = jax.eval_shape(env.reset_env, key, params)
    _expect(
        env, "the observation of reset", reset_obs, jax.ShapeDtypeStruct(space.shape, space.dtype)
    )
    with _calls(env, clause, "step_env"):
        stepped = jax.eval_shape(env.step_env, key, reset_state, action, params)
    if not isinstance(stepped, tuple) or len(stepped) != 5:
        _fail(env, clause, "step_env must return five values: obs, state, reward, terminated, info")
    _expect(env, "the observation of step_env", stepped[0], reset_obs)
    _expect(env, "the state of step_env", stepped[1], reset_state)
    with _calls(env, clause, "step"):
        result = jax.eval_shape(env.step, key, reset_state, action, params)
    if not isinstance(result, tuple) or len(result) != 6:
        _fail(
            env,
            clause,
            "step must return six values: obs, state, reward, terminated, truncated, info",
        )
    obs, state, reward, terminated, truncated, info = result
    _expect(env, "the observation of step", obs, reset_obs)
    _expect(env, "the state of step", state, reset_state)
    for what, value in (("step_env", stepped[2]), ("step", reward)):
        _expect(env, f"the reward of {what}", value, jax.ShapeDtypeStruct((), jnp.float32))
    for what, value in (("terminated", terminated), ("truncated", truncated)):
        _expect(env, what, value, jax.ShapeDtypeStruct((), jnp.bool_))
    if not isinstance(info, dict) or "final_observation" not in info:
        _fail(env, "final observation", f"info has no entry final_observation: {info}")
    _expect(env, 'info["final_observation"]', info["final_observation"], reset_obs)


def _check_resets(env: Environment, params: Any, key: jax.Array, deterministic: bool) -> None:
    clause = "reset keys"
    with _calls(env, clause, "reset under vmap"):
        keys = jax.random.split(key, RESETS)
        starts = jax.jit(jax.vmap(env.reset_env, in_axes=(0, None)))(keys, params)
    # A key carried in the state always differs; it makes no start a random one.
    leaves = [leaf for leaf in jax.tree.leaves(starts) if not _is_key(leaf)]
    same = all(bool(jnp.all(leaf == leaf[:1])) for leaf in leaves)
    if same and not deterministic:
        _fail(
            env,
            clause,
            f"{RESETS} different keys gave the same start; if the start is fixed on purpose, "
            "pass deterministic_reset=True",
        )
    if deterministic and not same:
        _fail(env, clause, "deterministic_reset=True, but different keys gave different starts")


def _check_purity(env: Environment, params: Any, key: jax.Array) -> None:
    """Play a start uncompiled, twice, then compiled, then in lanes: all must agree."""
    with _calls(env, "determinism", "a start without compilation"):
        first, second = (jax.device_get(_start(env, key, params)) for _ in range(2))
    if difference := _difference(first, second, 0.0):
        _fail(env, "determinism", f"twice the same key gave different results: {difference}")

    start = jax.jit(partial(_start, env))
    with _calls(env, "jit"):
        compiled = jax.device_get(start(key, params))
    if difference := _difference(compiled, first):
        _fail(env, "jit", f"compiled and uncompiled differ: {difference}")

    keys = jax.random.split(key, LANES)
    with _calls(env, "vmap"):
        lanes = jax.device_get(jax.jit(jax.vmap(partial(_start, env), (0, None)))(keys, params))
    for index in range(LANES):
        alone = jax.device_get(start(keys[index], params))
        if difference := _difference(_lane(lanes, index), alone):
            _fail(env, "vmap", f"lane {index} differs from the same call alone: {difference}")

    _check_params(env, params, key, compiled)


def _check_params(env: Environment, params: Any, key: jax.Array, expected: Any) -> None:
    clause = "params"
    structure: Any  # JAX's own annotation hides its methods from type checkers.
    leaves, structure = jax.tree.flatten(params)
    floats = [jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) for leaf in leaves]
    if not any(floats):
        return
    axes = structure.unflatten([0 if is_float else None for is_float in floats])
    doubled = structure.unflatten(
        [
            np.stack([np.asarray(leaf, jnp.asarray(leaf).dtype)] * 2) if is_float else leaf
            for leaf, is_float in zip(leaves, floats, strict=True)
        ]
    )
    with _calls(env, clause, "vmap over the floats of params"):
        vmapped = jax.jit(jax.vmap(partial(_start, env), in_axes=(None, axes)))
        lanes = jax.device_get(vmapped(key, doubled))
    for index in range(2):
        if difference := _difference(_lane(lanes, index), expected):
            _fail(env, clause, f"vmap over the floats of params changes the result: {difference}")


def _check_rollouts(env: Environment, params: Any, key: jax.Array, num_steps: int) -> None:
    @jax.jit
    def play(key: jax.Array, params: Any) -> _Rollout:
        keys = jax.random.split(key, LANES)
        return jax.vmap(lambda lane_key: _play(env, lane_key, params, num_steps))(keys)

    _judge(env, params, jax.device_get(play(key, params)))
    # Short limits reach the time limit of environments whose episodes are long, or end early.
    for limit in SHORT_LIMITS:
        short = params.replace(max_steps_in_episode=limit)
        _judge(env, short, jax.device_get(play(key, short)))


def _play(env: Environment, key: jax.Array, params: Any, length: int) -> _Rollout:
    space, actions = env.observation_space(params), env.action_space(params)

    def one_step(carry: tuple[Any, jax.Array], key: jax.Array) -> tuple[Any, _Rollout]:
        state, steps = carry
        key_action, key = jax.random.split(key)
        action = actions.sample(key_action)
        obs, next_state, reward, terminated, truncated, info = env.step(key, state, action, params)

        key_step, key_reset = jax.random.split(key)
        raw_obs, raw_state, raw_reward, raw_terminated, _ = env.step_env(
            key_step, state, action, params
        )
        endless = params.replace(max_steps_in_episode=NEVER)
        endless_terminated = env.step_env(key_step, state, action, endless)[3]
        done = terminated | truncated
        reset = env.reset_env(key_reset, params)
        expected = jax.tree.map(partial(jnp.where, done), reset, (raw_obs, raw_state))

        final = info["final_observation"]
        record = _Rollout(
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            steps=steps + 1,
            inside_ok=space.contains(obs) & space.contains(final),
            reward_ok=_close(reward, raw_reward),
            terminated_ok=terminated == raw_terminated,
            final_observation_ok=_close(final, raw_obs),
            next_ok=_close((obs, next_state), expected),
            time_limit_ok=terminated == endless_terminated,
        )
        return (next_state, jnp.where(done, 0, steps + 1)), record

    key_reset, key = jax.random.split(key)
    _, state = env.reset(key_reset, params)
    # The state of a step may be strongly typed where reset's is weak.
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), state)
    return jax.lax.scan(one_step, (state, jnp.int32(0)), jax.random.split(key, length))[1]


def _judge(env: Environment, params: Any, rollout: _Rollout) -> None:
    limit = params.max_steps_in_episode
    done = rollout.terminated | rollout.truncated
    on_time = (rollout.truncated == (rollout.steps >= limit)) | rollout.terminated

    def demand(ok: Any, clause: str, detail: str) -> None:
        broken = np.argwhere(~np.asarray(ok))
        if broken.size:
            lane, step = broken[0]
            _fail(env, clause, f"{detail} (step {step} of lane {lane}, limit {limit})")

    demand(np.isfinite(rollout.reward), "reward", "the reward is not finite")
    demand(rollout.inside_ok, "observation space", "an observation lies outside its space")
    demand(rollout.reward_ok, "step", "the reward of step is not that of step_env")
    demand(rollout.terminated_ok, "step", "terminated of step is not that of step_env")
    demand(
        rollout.final_observation_ok,
        "final observation",
        'info["final_observation"] is not the observation that step_env returns',
    )
    demand(
        rollout.next_ok | done,
        "step",
        "within an episode observation and state are not those of step_env",
    )
    demand(
        rollout.next_ok | ~done,
        "reset",
        "after the end of an episode observation and state are not those of reset_env; what a "
        "state carries over is lost in trainers that call reset_env themselves",
    )
    demand(
        rollout.time_limit_ok,
        "time limit",
        "terminated depends on max_steps_in_episode; a time limit is truncation",
    )
    demand(on_time, "time limit", "truncated is not true exactly on step max_steps_in_episode")


def _lane(lanes: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], lanes)


def _start(env: Environment, key: jax.Array, params: Any) -> Any:
    """Everything that a reset and the first step return, as arrays without keys."""
    key_reset, key_step = jax.random.split(key)
    obs, state = env.reset_env(key_reset, params)
    # Action 0 is where an environment is likeliest to do nothing; the last one is not.
    action = jnp.int32(env.num_actions - 1)
    next_obs, next_state, reward, terminated, _ = env.step_env(key_step, state, action, params)
    truncated = env.is_truncated(next_state, params)
    seen = (obs, state, next_obs, next_state, reward, terminated, truncated)
    return jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf), seen
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)


def _close(left: Any, right: Any) -> jax.Array:
    """Whether two pytrees of one structure agree to rounding; () bool."""

    def leaf_close(x: Any, y: Any) -> jax.Array:
        if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating):
            return jnp.allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        return jnp.all(x == y)

    return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(leaf_close, left, right))))


def _difference(left: Any, right: Any, tolerance: float = TOLERANCE) -> str:
    """Name the first leaf in which two pytrees differ beyond `tolerance`; empty if none does."""
    right_leaves = jax.tree.leaves(right)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(left), right_leaves, strict=True):
        exact = not jnp.issubdtype(x.dtype, jnp.floating)
        bound = 0.0 if exact else tolerance
        if not np.allclose(x, y, rtol=bound, atol=bound, equal_nan=not exact):
            return f"{jax.tree_util.keystr(path)} is {x} and {y}"
    return ""


def _expect(env: Environment, what: str, value: Any, wanted: Any) -> None:
    """Demand that `value` has the structure, shapes and dtypes of `wanted`."""
    have_structure: Any = jax.tree.structure(value)
    want_structure: Any = jax.tree.structure(wanted)
    if have_structure != want_structure:
        _fail(env, "shapes", f"{what} has the structure {have_structure}, not {want_structure}")
    paths = jax.tree_util.tree_leaves_with_path(value)
    for (path, have), want in zip(paths, jax.tree.leaves(wanted), strict=True):
        if have.shape != tuple(want.shape) or have.dtype != want.dtype:
            _fail(
                env,
                "shapes",
                f"{what}{jax.tree_util.keystr(path)} is {have.dtype}{list(have.shape)}, "
                f"expected {jnp.dtype(want.dtype)}{list(want.shape)}",
            )


@contextmanager
def _calls(env: Environment, clause: str, what: str = "it") -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ConformanceError(env, clause, f"{what} fails with {reason}") from error


def _fail(env: Environment, clause: str, detail: str) -> None:
    raise ConformanceError(env, clause, detail)
