"""A contract test for environments: run it on your own before you train on it."""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from envs._rollout import LANES, TOLERANCE, check_rollouts, is_float, is_key
from envs._verdict import ConformanceError, calls, difference, expect, fail

__all__ = ["ConformanceError", "check_environment"]

STEPS, QUICK_STEPS = 500, 100


class _Start(NamedTuple):
    """Everything that a reset and the first step return, as arrays without keys."""

    obs: Any
    state: Any
    next_obs: Any
    next_state: Any
    reward: Any
    terminated: Any
    truncated: Any


def check_environment(
    env: Environment,
    params: Any,
    *,
    num_steps: int | None = None,
    seed: int = 0,
    deterministic_reset: bool | None = False,
    quick: bool = False,
) -> None:
    """Check that `env` keeps the contract a trainer relies on; returns None if it does.

    Plays `num_steps` random steps (500 unless given) in each of 8 lanes, then short episodes. The
    clauses:

    - spaces: actions Discrete, observations Box or Discrete;
    - shapes: observation, state, reward (float32), terminated and truncated (bool) keep shape and
      dtype from reset to step, and the observation those of its space (weak types do not count);
    - determinism: the same key gives the same result; jit: compiled equals not compiled;
    - reset keys: different keys give different starts (with `deterministic_reset` True: the same
      start; with None either will do);
    - vmap: lanes equal single calls; params: every float of `params` can be traced and vmapped;
    - observation space: every observation lies inside; reward: finite;
    - step: `step(key, ...)` equals `step_env(key_step, ...)` with `key_step, key_reset =
      split(key)`; final observation: `info["final_observation"]` is that of `step_env`; reset:
      after an end, observation and state are those of `reset_env(key_reset, ...)`;
    - sketch: where there is one (`envs.sketches`), it draws every observation again to the bit;
    - time limit: truncated exactly on step `params.max_steps_in_episode`, and never called
      termination (a step that also terminates may report either).

    With `quick` one program is compiled instead of four, and 100 steps are played unless
    `num_steps` is given. All clauses are checked, but results are not compared between compiled
    and not compiled, lanes and single calls, and lanes of `params`: there it is enough that they
    can be traced, twice to the same program.

    Raises ConformanceError, an AssertionError, that names the broken clause in one line.
    Source: the interface of gymnax 1.0.
    """
    if num_steps is None:
        num_steps = QUICK_STEPS if quick else STEPS
    _check_arguments(env, num_steps, seed)
    key = jax.random.key(seed)
    _check_spaces(env, params)
    _check_shapes(env, params)
    if quick:
        _check_traces(env, params, key)
    else:
        _check_purity(env, params, key)
    check_rollouts(env, params, key, num_steps, deterministic_reset, quick)


def _check_arguments(env: Any, num_steps: Any, seed: Any) -> None:
    for name, value in (("num_steps", num_steps), ("seed", seed)):
        if not isinstance(value, Integral):
            raise ValueError(f"{name} is {value!r}; it must be a whole number")
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    if not all(callable(getattr(env, name, None)) for name in ("reset", "step", "step_env")):
        raise ValueError(f"env is {env!r}; it must be an environment, such as envs.make gives")


def _check_spaces(env: Environment, params: Any) -> None:
    clause = "spaces"
    with calls(env, clause, "action_space"):
        actions = env.action_space(params)
    with calls(env, clause, "observation_space"):
        observations = env.observation_space(params)
    with calls(env, clause, "num_actions"):
        count = env.num_actions
    if isinstance(actions, spaces.Box):
        fail(env, clause, f"action_space is continuous, {actions!r}; it must be Discrete")
    if not isinstance(actions, spaces.Discrete) or actions.n < 1:
        fail(env, clause, f"action_space is {actions!r}, it must be Discrete of at least 1")
    if count != actions.n:
        fail(env, clause, f"num_actions is {count}, but action_space is {actions!r}")
    if not isinstance(observations, spaces.Box | spaces.Discrete):
        fail(env, clause, f"observation_space is {observations!r}, it must be Box or Discrete")
    if not hasattr(params, "max_steps_in_episode") or not hasattr(params, "replace"):
        fail(
            env,
            "params",
            f"{type(params).__name__} must be a flax.struct.dataclass with a field "
            "max_steps_in_episode",
        )


def _check_shapes(env: Environment, params: Any) -> None:
    clause, key = "shapes", jax.random.key(0)
    space, action = env.observation_space(params), jnp.int32(0)
    with calls(env, clause, "reset_env"):
        reset = jax.eval_shape(env.reset_env, key, params)
    _expect_values(env, "reset_env", reset, "obs, state")
    reset_obs, reset_state = reset
    inside = jax.ShapeDtypeStruct(space.shape, space.dtype)
    expect(env, "the observation of reset", reset_obs, inside, "observation_space has it")
    as_reset, as_asked = "reset_env gives it", "the contract has it"
    with calls(env, clause, "step_env"):
        stepped = jax.eval_shape(env.step_env, key, reset_state, action, params)
    _expect_values(env, "step_env", stepped, "obs, state, reward, terminated, info")
    expect(env, "the observation of step_env", stepped[0], reset_obs, as_reset)
    expect(env, "the state of step_env", stepped[1], reset_state, as_reset)
    float_like, bool_like = (jax.ShapeDtypeStruct((), kind) for kind in (jnp.float32, jnp.bool_))
    expect(env, "the reward of step_env", stepped[2], float_like, as_asked)
    expect(env, "terminated of step_env", stepped[3], bool_like, as_asked)
    with calls(env, clause, "step"):
        result = jax.eval_shape(env.step, key, reset_state, action, params)
    _expect_values(env, "step", result, "obs, state, reward, terminated, truncated, info")
    obs, state, reward, terminated, truncated, info = result
    expect(env, "the observation of step", obs, reset_obs, as_reset)
    expect(env, "the state of step", state, reset_state, as_reset)
    expect(env, "the reward of step", reward, float_like, as_asked)
    expect(env, "terminated", terminated, bool_like, as_asked)
    expect(env, "truncated", truncated, bool_like, as_asked)
    if not isinstance(info, dict) or "final_observation" not in info:
        fail(env, "final observation", f"info has no entry final_observation: {info}")
    expect(env, 'info["final_observation"]', info["final_observation"], reset_obs, as_reset)


def _expect_values(env: Environment, method: str, result: Any, names: str) -> None:
    count = names.count(",") + 1
    if not isinstance(result, tuple) or len(result) != count:
        have = len(result) if isinstance(result, tuple) else f"one {type(result).__name__}"
        words = {2: "two", 5: "five", 6: "six"}
        fail(
            env, "shapes", f"{method} must return {words[count]} values: {names}; it returns {have}"
        )


def _check_traces(env: Environment, params: Any, key: jax.Array) -> None:
    """Trace a start twice, and in lanes of params, without compiling it."""
    with calls(env, "jit", "a start"):
        first, second = (
            # A partial of its own, since JAX traces no function twice.
            jax.jit(partial(_start, env)).lower(key, params).as_text()
            for _ in range(2)
        )
    if first != second:
        # Different programs may still agree, say once something has been kept for later calls.
        _check_determinism(env, params, key)
    axes = _float_axes(params)
    if axes is not None:
        with calls(env, "params", "vmap over the floats of params"):
            jax.eval_shape(jax.vmap(partial(_start, env), (None, axes)), key, _doubled(params))


def _check_determinism(env: Environment, params: Any, key: jax.Array) -> Any:
    """Play a start twice, not compiled, and demand the same results; returns them."""
    with calls(env, "determinism", "a start without compilation"):
        first, second = (_named(_start(env, key, params)) for _ in range(2))
    if differs := difference(first, second, 0.0):
        fail(
            env,
            "determinism",
            f"twice the same key gave different results: {differs}; everything must follow from "
            "the arguments, not from Python's random or what was changed by an earlier call",
        )
    return first


def _check_purity(env: Environment, params: Any, key: jax.Array) -> None:
    """Play a start uncompiled, twice, then compiled, then in lanes: all must agree."""
    first = _check_determinism(env, params, key)
    start = jax.jit(partial(_start, env))
    with calls(env, "jit", "a start"):
        compiled = _named(start(key, params))
    if differs := difference(compiled, first, TOLERANCE):
        fail(env, "jit", f"compiled and uncompiled differ: {differs}")

    keys = jax.random.split(key, LANES)
    with calls(env, "vmap", "a start"):
        lanes = jax.device_get(jax.jit(jax.vmap(partial(_start, env), (0, None)))(keys, params))
    for index in range(LANES):
        alone = _named(start(keys[index], params))
        if differs := difference(_named(_lane(lanes, index)), alone, TOLERANCE):
            fail(env, "vmap", f"lane {index} differs from the same call alone: {differs}")

    _check_params(env, params, key, compiled)


def _check_params(env: Environment, params: Any, key: jax.Array, expected: Any) -> None:
    axes = _float_axes(params)
    if axes is None:
        return
    with calls(env, "params", "vmap over the floats of params"):
        vmapped = jax.jit(jax.vmap(partial(_start, env), in_axes=(None, axes)))
        lanes = jax.device_get(vmapped(key, _doubled(params)))
    for index in range(2):
        if differs := difference(_named(_lane(lanes, index)), expected, TOLERANCE):
            fail(env, "params", f"vmap over the floats of params changes the result: {differs}")


def _float_axes(params: Any) -> Any:
    """Axis 0 for each float of params and None for the rest; None if there are no floats."""
    axes = jax.tree.map(lambda leaf: 0 if is_float(leaf) else None, params)
    return axes if jax.tree.leaves(axes) else None


def _doubled(params: Any) -> Any:
    """Params in which each float is there twice."""
    return jax.tree.map(
        lambda leaf: (
            np.stack([np.asarray(leaf, jnp.asarray(leaf).dtype)] * 2) if is_float(leaf) else leaf
        ),
        params,
    )


def _start(env: Environment, key: jax.Array, params: Any) -> _Start:
    """Reset an environment and take the first step."""
    key_reset, key_step = jax.random.split(key)
    obs, state = env.reset_env(key_reset, params)
    # Action 0 is where an environment is likeliest to do nothing; the last one is not.
    action = jnp.int32(env.num_actions - 1)
    next_obs, next_state, reward, terminated, _ = env.step_env(key_step, state, action, params)
    truncated = env.is_truncated(next_state, params)
    seen = _Start(obs, state, next_obs, next_state, reward, terminated, truncated)
    return jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else jnp.asarray(leaf), seen
    )


def _named(start: _Start) -> dict[str, Any]:
    """The parts of a start by what they are called in messages, as NumPy arrays."""
    start = jax.device_get(start)
    return {
        "the observation of reset_env": start.obs,
        "the state of reset_env": start.state,
        "the observation of step_env": start.next_obs,
        "the state of step_env": start.next_state,
        "the reward of step_env": start.reward,
        "terminated of step_env": start.terminated,
        "is_truncated": start.truncated,
    }


def _lane(lanes: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], lanes)
