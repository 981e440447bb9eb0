"""Random play, for the contract test: what has to hold on every step of every episode."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from envs._verdict import calls, fail
from envs.sketches import sketch_of

LANES = 8
RESETS = 32
SHORT_LIMITS = (1, 3)
NEVER = 2**30
TOLERANCE = 1e-5

# Of XLA, 0 to 3. The plays are short: most of their time goes into compiling them.
OPTIMIZATION, QUICK_OPTIMIZATION = 1, 0


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
    sketch_ok: Any


def check_rollouts(
    env: Environment,
    params: Any,
    key: jax.Array,
    num_steps: int,
    deterministic: bool | None,
    quick: bool,
) -> None:
    """Play at random with the time limit of `params` and with short ones, and judge every step.

    `deterministic` says whether all resets must be equal, must not be, or (None) may be either.
    With `quick` compiling is quicker still, and playing slower.
    """
    optimization = QUICK_OPTIMIZATION if quick else OPTIMIZATION
    # The bounds of observations may be computed by NumPy, which could not trace params.
    space = env.observation_space(params)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": optimization})
    def play(key: jax.Array, params: Any) -> tuple[Any, _Rollout]:
        starts = jax.vmap(env.reset_env, (0, None))(jax.random.split(key, RESETS), params)
        keys = jax.random.split(key, LANES)
        played = jax.vmap(lambda lane_key: _play(env, lane_key, params, space, num_steps))(keys)
        # A key carried in the state always differs; it makes no start a random one.
        return [leaf for leaf in jax.tree.leaves(starts) if not is_key(leaf)], played

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
            sketch_ok=_drawn_again(env, raw_obs, raw_state, params),
        )
        return (next_state, jnp.where(done, 0, steps + 1)), record

    key_reset, key = jax.random.split(key)
    _, state = env.reset(key_reset, params)
    # The state of a step may be strongly typed where reset's is weak.
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), state)
    return jax.lax.scan(one_step, (state, jnp.int32(0)), jax.random.split(key, length))[1]


def _drawn_again(env: Environment, obs: Any, state: Any, params: Any) -> jax.Array:
    """Whether an observation is drawn from its sketch to the bit; true where there is none."""
    sketch = sketch_of(env)
    if sketch is None:
        return jnp.bool_(True)
    drawn = sketch.draw(sketch.take(obs, state, params), params)
    if (drawn.shape, drawn.dtype) != (obs.shape, obs.dtype):
        return jnp.bool_(False)
    if is_float(obs):  # the sign of a zero counts as well
        word = f"uint{8 * obs.dtype.itemsize}"
        drawn, obs = (jax.lax.bitcast_convert_type(x, word) for x in (drawn, obs))
    return jnp.all(drawn == obs)


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
        rollout.sketch_ok,
        "sketch",
        "an observation is not what draw makes of its sketch, to the bit: mend sketch(obs, state, "
        "params) and draw(sketch, params), or leave both out (of a base class: set sketch = None)",
    )
    demand(
        on_time,
        "time limit",
        "truncated is not true exactly on step max_steps_in_episode: it is {truncated} on step "
        "{steps} of an episode",
        truncated=rollout.truncated,
        steps=rollout.steps,
    )


def is_float(leaf: Any) -> bool:
    """Whether a leaf holds floats."""
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds random keys."""
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)


def _close(left: Any, right: Any) -> jax.Array:
    """Whether two pytrees of one structure agree to rounding; () bool."""

    def leaf_close(x: Any, y: Any) -> jax.Array:
        if is_float(x):
            return jnp.allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        return jnp.all(x == y)

    return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(leaf_close, left, right))))
