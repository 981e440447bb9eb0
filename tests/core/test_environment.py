"""The adapter: automatic reset, the final observation, ends of episodes, and gymnax's own types."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import envs
from dqx.core.agent import Spec
from dqx.core.environment import adapt, make_environment
from dqx.settings import ConfigError


@struct.dataclass
class CountState:
    count: Any
    time: Any


@struct.dataclass
class CountParams:
    end: int = 3
    max_steps_in_episode: int = 5


class Count(environment.Environment):
    """Counts up by one plus the action and terminates at ``end``; a reset starts at a random tenth.

    Its reset gives Python numbers and its step arrays, and its reward is an integer: what the
    adapter has to straighten.
    """

    obs_space: Any = spaces.Box(0, 100, (1,), jnp.float32)
    actions: Any = spaces.Discrete(2)

    @property
    def default_params(self):
        return CountParams()

    def reset_env(self, key, params):
        state = CountState(count=jax.random.randint(key, (), 0, 10) / 100, time=0)
        return jnp.array([state.count]), state

    def step_env(self, key, state, action, params):
        state = CountState(count=state.count + 1.0 + action, time=state.time + jnp.int32(1))
        terminated = state.count >= params.end
        return jnp.array([state.count]), state, jnp.where(action == 1, 2, 1), terminated, {}

    def action_space(self, params):
        return self.actions

    def observation_space(self, params):
        return self.obs_space


def fresh_of(env, seed=9):
    return env.reset(jax.random.key(seed))


def test_within_an_episode_nothing_is_reset():
    env = adapt(Count(), CountParams())
    obs, state = env.reset(jax.random.key(0))
    step = env.step(jax.random.key(1), state, jnp.int32(0), fresh_of(env))
    np.testing.assert_allclose(step.obs, obs + 1, rtol=1e-6)
    np.testing.assert_array_equal(step.final_obs, step.obs)
    assert step.state.time == 1 and step.state.count == step.obs[0]
    assert step.reward == 1.0 and not step.terminated and not step.truncated


def test_the_end_resets_to_the_fresh_state_and_keeps_the_final_observation():
    env = adapt(Count(), CountParams())
    obs, state = env.reset(jax.random.key(0))
    fresh = fresh_of(env)
    assert fresh[0][0] != obs[0]
    for action in (1, 1):  # 2, then 4 and past the end at 3
        step = env.step(jax.random.key(1), state, jnp.int32(action), fresh)
        state = step.state
    assert step.terminated and not step.truncated and step.reward == 2.0
    np.testing.assert_allclose(step.final_obs, obs + 4, rtol=1e-6)
    np.testing.assert_array_equal(step.obs, fresh[0])
    jax.tree.map(np.testing.assert_array_equal, step.state, fresh[1])


@pytest.mark.parametrize(
    ("end", "limit", "terminated", "truncated"),
    [(2, 9, True, False), (9, 2, False, True), (2, 2, True, True), (9, 9, False, False)],
)
def test_termination_and_truncation_are_apart(end, limit, terminated, truncated):
    env = adapt(Count(), CountParams(end=end, max_steps_in_episode=limit))
    obs, state = env.reset(jax.random.key(0))
    fresh = fresh_of(env)
    for _ in range(2):
        step = env.step(jax.random.key(1), state, jnp.int32(0), fresh)
        state = step.state
    assert (bool(step.terminated), bool(step.truncated)) == (terminated, truncated)
    np.testing.assert_allclose(step.final_obs, obs + 2, rtol=1e-6)
    expected = fresh[0] if terminated or truncated else step.final_obs
    np.testing.assert_array_equal(step.obs, expected)
    assert step.state.time == (0 if terminated or truncated else 2)


def test_each_environment_of_a_batch_resets_alone():
    env = adapt(Count(), CountParams())
    keys = jax.random.split(jax.random.key(0), 3)
    obs, state = jax.vmap(env.reset)(keys)
    fresh = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), 3))
    state = state.replace(count=jnp.array([0.5, 2.5, 0.5]))
    step = jax.vmap(env.step)(keys, state, jnp.zeros(3, jnp.int32), fresh)
    np.testing.assert_array_equal(step.terminated, [False, True, False])
    np.testing.assert_allclose(step.obs[:, 0], [1.5, fresh[0][1, 0], 1.5], rtol=1e-6)
    np.testing.assert_allclose(step.final_obs[:, 0], [1.5, 3.5, 1.5], rtol=1e-6)


def test_facts_of_the_environment():
    env = make_environment("CartPole-v1")
    assert (env.obs_shape, env.obs_dtype) == ((4,), jnp.float32)
    assert (env.name, env.num_actions, env.num_categories) == ("CartPole-v1", 2, None)
    assert make_environment("MountainCar-v0").num_actions == 3
    assert adapt(Count(), CountParams()).name == "Count"


def test_an_agent_is_told_shapes_and_counts():
    spec = make_environment("CartPole-v1").spec(num_envs=8)
    assert spec == Spec("CartPole-v1", (4,), jnp.float32, None, 2, 8)
    assert adapt(Categories(), CountParams()).spec() == Spec("Categories", (), jnp.int32, 50, 2, 1)


@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCar-v0", "Count"])
def test_steps_equal_gymnaxs_own_automatic_reset(name):
    # gymnax splits the key itself: the first half steps, the second resets.
    env, params = (Count(), CountParams()) if name == "Count" else envs.make(name)
    if name != "Count":
        params = params.replace(max_steps_in_episode=6)
    ours = adapt(env, params)

    @jax.jit
    def both(key, state, action):
        step_key, reset_key = jax.random.split(key)
        fresh = ours.reset(reset_key)
        return ours.step(step_key, state, action, fresh), env.step(key, state, action, params)

    _, state = ours.reset(jax.random.key(0))
    ends = 0
    for t in range(40):
        mine, (obs, next_state, reward, terminated, truncated, info) = both(
            jax.random.key(t), state, jnp.int32(t % 2)
        )
        np.testing.assert_allclose(mine.obs, obs, rtol=1e-6)
        np.testing.assert_allclose(mine.final_obs, info["final_observation"], rtol=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), mine.state, next_state
        )
        assert mine.reward == reward
        assert (mine.terminated, mine.truncated) == (terminated, truncated)
        ends += bool(terminated | truncated)
        state = mine.state
    assert ends >= 5


# Vectors, pixels, integers; resets of weak types or other dtypes than the steps'.
GYMNAX = [
    "CartPole-v0",
    "Acrobot-v1",
    "Breakout-MinAtar",
    "SpaceInvaders-MinAtar",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "UmbrellaChain-bsuite",
    "FrozenLake-misc",
    "FourRooms-misc",
]


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, bool(x.weak_type)), tree)


@pytest.mark.parametrize("name", GYMNAX)
def test_types_of_gymnaxs_environments_are_the_same_before_and_after_a_step(name):
    env = make_environment(name)
    key = jax.random.key(0)

    def scan(key):
        def body(carry, key):
            _, state = carry
            step = env.step(key, state, jnp.int32(0), env.reset(key))
            return (step.obs, step.state), step

        return jax.lax.scan(body, env.reset(key), jax.random.split(key, 30))

    fresh = jax.eval_shape(env.reset, key)
    (obs, state), steps = jax.jit(scan)(key)  # a carry of changing type would be refused
    assert types(fresh) == types((obs, state))
    assert not any(x.weak_type for x in jax.tree.leaves(fresh))
    assert obs.shape == env.obs_shape and obs.dtype == env.obs_dtype
    assert steps.reward.dtype == jnp.float32 and steps.reward.shape == (30,)
    assert steps.terminated.dtype == steps.truncated.dtype == jnp.bool_
    assert np.all(np.isfinite(np.asarray(steps.final_obs, np.float32)))


def test_integer_rewards_and_python_resets_become_arrays():
    env = adapt(Count(), CountParams())
    obs, state = env.reset(jax.random.key(0))
    assert state.time.dtype == jnp.int32 and state.count.dtype == jnp.float32
    step = env.step(jax.random.key(0), state, jnp.int32(1), (obs, state))
    assert step.reward.dtype == jnp.float32 and step.reward == 2.0


class Categories(Count):
    obs_space = spaces.Discrete(50)

    def reset_env(self, key, params):
        _, state = super().reset_env(key, params)
        return 0, state

    def step_env(self, key, state, action, params):
        _, state, *rest = super().step_env(key, state, action, params)
        return jnp.int32(state.count), state, *rest


def test_category_observations():
    env = adapt(Categories(), CountParams())
    assert (env.num_categories, env.obs_shape, env.obs_dtype) == (50, (), jnp.int32)
    obs, state = env.reset(jax.random.key(0))
    assert obs == 0 and obs.dtype == jnp.int32
    assert env.step(jax.random.key(0), state, jnp.int32(1), (obs, state)).final_obs == 2


@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_continuous_actions_are_refused(name):
    with pytest.raises(ConfigError, match="continuous actions .*Box.*discrete") as caught:
        make_environment(name)
    assert "\n" not in str(caught.value) and "choose" in str(caught.value)


def test_unsupported_observations_are_refused():
    class Structured(Count):
        obs_space = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(3)})

    with pytest.raises(ConfigError, match="Structured has Dict observations") as caught:
        adapt(Structured(), CountParams())
    assert "one array" in str(caught.value)


def test_unknown_names_are_configuration_errors_and_name_the_closest():
    with pytest.raises(ConfigError, match="unknown environment 'CartPole-v9'.*CartPole-v1"):
        make_environment("CartPole-v9")
