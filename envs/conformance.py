"""A contract test for environments: run it on your own before you train on it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from envs._verdict import ConformanceError, calls, difference, expect, fail

__all__ = ["ConformanceError", "check_environment"]

LANES = 8
RESETS = 32
SHORT_LIMITS = (1, 3)
NEVER = 2**30
TOLERANCE = 1e-5
STEPS, QUICK_STEPS = 500, 100

# A quick check runs for a moment: what takes the time is to compile it.
_COMPILE_FAST: dict[str, bool | int | str] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


class _Start(NamedTuple):
    """Everything that a reset and the first step return, as arrays without keys."""

    obs: Any
    state: Any
    next_obs: Any
    next_state: Any
    reward: Any
    terminated: Any
    truncated: Any


class _Rollout(NamedTuple):
    """What happened on every step, arrays [L, T] (T steps of L lanes); `*_ok` are clauses held."""

    reward: Any
    terminated: Any
    truncated: Any
    steps: Any  # steps of the episode so far, this one included
    inside_ok: Any
    outside: Any  # [L, T, 4]: place, value, low and high of an element outside the space
    reward_ok: Any
    terminated_ok: Any
    final_observation_ok: Any
    next_ok: Any
    time_limit_ok: Any


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
    - time limit: truncated exactly on step `params.max_steps_in_episode`, and never called
      termination (a step that also terminates may report either).

    With `quick` one program is compiled instead of five, and 100 steps are played unless
    `num_steps` is given. All clauses are checked, but results are not compared between compiled
    and not compiled, lanes and single calls, and lanes of `params`: there it is enough that they
    can be traced, twice to the same program.

    Raises ConformanceError, an AssertionError, that names the broken clause in one line.
    Source: the interface of gymnax 1.0.
    """
    if num_steps is None:
        num_steps = QUICK_STEPS if quick else STEPS
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    key = jax.random.key(seed)
    _check_spaces(env, params)
    _check_shapes(env, params)
    if quick:
        _check_traces(env, params, key)
    else:
        _check_purity(env, params, key)
    options = _COMPILE_FAST if quick else {}
    _check_rollouts(env, params, key, num_steps, deterministic_reset, options)


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
    axes = jax.tree.map(lambda leaf: 0 if _is_float(leaf) else None, params)
    return axes if jax.tree.leaves(axes) else None


def _doubled(params: Any) -> Any:
    """Params in which each float is there twice."""
    return jax.tree.map(
        lambda leaf: (
            np.stack([np.asarray(leaf, jnp.asarray(leaf).dtype)] * 2) if _is_float(leaf) else leaf
        ),
        params,
    )


def _check_rollouts(
    env: Environment,
    params: Any,
    key: jax.Array,
    num_steps: int,
    deterministic: bool | None,
    compiler_options: dict[str, bool | int | str],
) -> None:
    # The bounds of observations may be computed by NumPy, which could not trace params.
    space = env.observation_space(params)

    @partial(jax.jit, compiler_options=compiler_options)
    def play(key: jax.Array, params: Any) -> tuple[Any, _Rollout]:
        starts = jax.vmap(env.reset_env, (0, None))(jax.random.split(key, RESETS), params)
        keys = jax.random.split(key, LANES)
        played = jax.vmap(lambda lane_key: _play(env, lane_key, params, space, num_steps))(keys)
        # A key carried in the state always differs; it makes no start a random one.
        return [leaf for leaf in jax.tree.leaves(starts) if not _is_key(leaf)], played

    with calls(env, "jit", "a random play"):
        starts, rollout = jax.device_get(play(key, params))
    _judge_starts(env, starts, deterministic)
    _judge(env, params, rollout)
    # Short limits reach the time limit of environments whose episodes are long, or end early.
    for limit in SHORT_LIMITS:
        short = params.replace(max_steps_in_episode=limit)
        _judge(env, short, jax.device_get(play(key, short)[1]))


def _judge_starts(env: Environment, starts: list[Any], deterministic: bool | None) -> None:
    if deterministic is None:
        return
    clause = "reset keys"
    same = all(np.all(leaf == leaf[:1]) for leaf in starts)
    if same and not deterministic:
        fail(
            env,
            clause,
            f"{RESETS} different keys gave the same start; if the start is fixed on purpose, "
            "pass deterministic_reset=True",
        )
    if deterministic and not same:
        fail(env, clause, "deterministic_reset=True, but different keys gave different starts")


def _play(
    env: Environment, key: jax.Array, params: Any, space: spaces.Box | spaces.Discrete, length: int
) -> _Rollout:
    actions = env.num_actions

    def one_step(carry: tuple[Any, jax.Array], key: jax.Array) -> tuple[Any, _Rollout]:
        state, steps = carry
        key_action, key = jax.random.split(key)
        action = jax.random.randint(key_action, (), 0, actions, jnp.int32)
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
        final_ok = space.contains(final)
        record = _Rollout(
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            steps=steps + 1,
            inside_ok=space.contains(obs) & final_ok,
            outside=_outside(space, jnp.where(final_ok, obs, final)),
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


def _outside(space: spaces.Box | spaces.Discrete, obs: jax.Array) -> jax.Array:
    """The first element of an observation outside its space; float32 [4], see `_Rollout`."""
    low, high = (0, space.n - 1) if isinstance(space, spaces.Discrete) else (space.low, space.high)
    low, high, flat = (jnp.broadcast_to(x, obs.shape).ravel() for x in (low, high, obs))
    index = jnp.argmin((flat >= low) & (flat <= high))
    return jnp.stack([x.astype(jnp.float32) for x in (index, flat[index], low[index], high[index])])


def _judge(env: Environment, params: Any, rollout: _Rollout) -> None:
    limit = params.max_steps_in_episode
    done = rollout.terminated | rollout.truncated
    on_time = (rollout.truncated == (rollout.steps >= limit)) | rollout.terminated

    def demand(ok: Any, clause: str, detail: str, **shown: Any) -> None:
        broken = np.argwhere(~np.asarray(ok))
        if broken.size:
            lane, step = broken[0]
            detail = detail.format(**{name: array[lane, step] for name, array in shown.items()})
            at = f"step {step + 1} of random play in lane {lane}, time limit {limit}"
            fail(env, clause, f"{detail} ({at})")

    demand(
        np.isfinite(rollout.reward),
        "reward",
        "the reward is not finite but {reward}",
        reward=rollout.reward,
    )
    demand(
        rollout.inside_ok,
        "observation space",
        "an observation lies outside its space: element {where[0]:.0f} is {where[1]:g}, not within "
        "{where[2]:g} and {where[3]:g}",
        where=rollout.outside,
    )
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
    demand(
        on_time,
        "time limit",
        "truncated is not true exactly on step max_steps_in_episode: it is {truncated} on step "
        "{steps} of an episode",
        truncated=rollout.truncated,
        steps=rollout.steps,
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
        lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf), seen
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


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)


def _close(left: Any, right: Any) -> jax.Array:
    """Whether two pytrees of one structure agree to rounding; () bool."""

    def leaf_close(x: Any, y: Any) -> jax.Array:
        if _is_float(x):
            return jnp.allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        return jnp.all(x == y)

    return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(leaf_close, left, right))))
