"""CartPole against Gymnasium and against the float64 twin."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

import envs
from envs.cartpole import EnvState
from tests.oracles.environments import CARTPOLE, cartpole_step

COUNT = 10_000
VERSIONS = ["CartPole-v0", "CartPole-v1"]
X_EDGE, THETA_EDGE = CARTPOLE["x_threshold"], CARTPOLE["theta_threshold_radians"]


def make_state(values, time):
    """State from columns on the last axis of `values`, float32."""
    columns = jnp.moveaxis(jnp.asarray(values, jnp.float32), -1, 0)
    return EnvState(
        time=time, **dict(zip(("x", "x_dot", "theta", "theta_dot"), columns, strict=True))
    )


def batched_state(states):
    return make_state(states, jnp.zeros(len(states), jnp.int32))


def batched_step(env, params, states, actions):
    keys = jax.random.split(jax.random.key(0), len(states))
    step = jax.jit(jax.vmap(env.step_env, in_axes=(0, 0, 0, None)))
    return step(keys, batched_state(states), jnp.asarray(actions, jnp.int32), params)


def random_states(rng):
    """States that the game can reach, the last step before a fall included; float32 values."""
    scale = np.array([X_EDGE, 3.0, THETA_EDGE, 3.5])
    return rng.uniform(-scale, scale, (COUNT, 4)).astype(np.float32)


def edge_distance(following):
    """Distance of each state to the nearest threshold, in units of float32 spacing there."""
    x = np.abs(np.abs(following[:, 0]) - X_EDGE) / np.spacing(np.float32(X_EDGE))
    theta = np.abs(np.abs(following[:, 2]) - THETA_EDGE) / np.spacing(np.float32(THETA_EDGE))
    return np.minimum(x, theta)


@pytest.fixture(scope="module")
def gymnasium_steps():
    rng = np.random.default_rng(1)
    states, actions = random_states(rng), rng.integers(0, 2, COUNT)
    reference, results = CartPoleEnv(), []
    reference.reset(seed=0)
    for state, action in zip(states, actions, strict=True):
        reference.state = state.astype(np.float64)
        reference.steps_beyond_terminated = None
        _, reward, terminated, truncated, _ = reference.step(action)
        results.append((reference.state, reward, terminated, truncated))
    return states, actions, [np.array(column) for column in zip(*results, strict=True)]


@pytest.mark.parametrize("name", VERSIONS)
def test_random_steps_equal_gymnasium(name, gymnasium_steps):
    states, actions, (following, reward, terminated, truncated) = gymnasium_steps
    env, params = envs.make(name)
    obs, state, got_reward, got_terminated, _ = batched_step(env, params, states, actions)
    np.testing.assert_allclose(obs, following, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(got_reward, reward)
    np.testing.assert_array_equal(env.is_truncated(state, params), truncated)
    # Four roundings at the threshold's own spacing may decide either way; no state is that close.
    assert edge_distance(following).min() > 4
    np.testing.assert_array_equal(got_terminated, terminated)
    assert 0.01 < terminated.mean() < 0.5


def test_twin_equals_gymnasium(gymnasium_steps):
    states, actions, (following, reward, terminated, _) = gymnasium_steps
    got = cartpole_step(states, actions)
    np.testing.assert_allclose(got[0], following, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(got[1], reward)
    np.testing.assert_array_equal(got[2], terminated)


@pytest.mark.parametrize(("column", "edge"), [(0, X_EDGE), (2, THETA_EDGE)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_termination_at_the_edge_follows_the_twin(column, edge, sign):
    """Next states from 1e-7 to 1e-3 on both sides of a threshold.

    Within four float32 spacings of the threshold the state itself is not known better, so there
    only agreement with the environment's own rounded state is asked.
    """
    offsets = np.geomspace(1e-7, 1e-3, 500)
    offsets = np.concatenate([-offsets, offsets])
    states = np.zeros((1000, 4))
    states[:, column + 1] = sign * np.random.default_rng(2).uniform(0.1, 2.0, 1000)
    states[:, column] = sign * (edge + offsets) - CARTPOLE["tau"] * states[:, column + 1]
    states = states.astype(np.float32)
    actions = np.arange(1000) % 2
    following, _, expected = cartpole_step(states, actions)
    env, params = envs.make("CartPole-v1")
    obs, _, reward, terminated, info = batched_step(env, params, states, actions)

    decided = edge_distance(following) > 4
    np.testing.assert_array_equal(np.asarray(terminated)[decided], expected[decided])
    assert expected[decided].sum() > 350 and (~expected[decided]).sum() > 350
    np.testing.assert_array_equal(terminated, np.abs(obs[:, column]) > np.float32(edge))
    np.testing.assert_array_equal(reward, 1.0)
    np.testing.assert_array_equal(info["discount"], 1.0 - np.asarray(terminated))


@pytest.mark.parametrize("name", VERSIONS)
@pytest.mark.parametrize("falls", [False, True])
def test_time_limit_equals_gymnasium(name, falls):
    """Step by step from Gymnasium's state; on the last step the pole may fall as well."""
    limit = gymnasium.spec(name).max_episode_steps
    reference = gymnasium.wrappers.TimeLimit(CartPoleEnv(), limit)
    reference.reset(seed=0)
    env, params = envs.make(name)
    step = jax.jit(env.step)
    _, state = env.reset(jax.random.key(0), params)
    for count in range(limit):
        start = np.array([0.0, 0.1, 0.2 if falls and count == limit - 1 else 0.0, 1.0])
        reference.unwrapped.state = start
        _, reward, terminated, truncated, _ = reference.step(count % 2)
        state = make_state(start, state.time)
        _, state, *rest = step(jax.random.key(count), state, count % 2, params)
        assert [float(rest[0]), *map(bool, rest[1:3])] == [reward, terminated, truncated]
    assert (terminated, truncated) == (falls, True)
    assert int(state.time) == 0


def test_every_constant_can_differ_per_lane(gymnasium_steps):
    """Each parameter alone, vmapped, gives the physics of a twin with that constant."""
    states, actions = gymnasium_steps[0][:64], gymnasium_steps[1][:64]
    env, params = envs.make("CartPole-v1")
    factors = np.linspace(0.5, 2.0, 4)

    def lane(params):
        keys = jax.random.split(jax.random.key(0), 64)
        step = jax.vmap(env.step_env, in_axes=(0, 0, 0, None))
        return step(keys, batched_state(states), jnp.asarray(actions), params)

    for field, value in CARTPOLE.items():
        values = jnp.asarray(value * factors, jnp.float32)
        axes = jax.tree.map(lambda _: None, params).replace(**{field: 0})
        results = jax.vmap(lane, in_axes=(axes,))(params.replace(**{field: values}))
        for index, constant in enumerate(np.asarray(values, np.float64)):
            following, _, terminated = cartpole_step(states, actions, **{field: constant})
            np.testing.assert_allclose(results[0][index], following, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(results[3][index], terminated)


def test_reset_draws_every_quantity_from_its_range():
    env, params = envs.make("CartPole-v1")
    keys = jax.random.split(jax.random.key(3), 2000)
    obs, state = jax.vmap(env.reset, in_axes=(0, None))(keys, params)
    assert obs.shape == (2000, 4)
    assert float(jnp.abs(obs).max()) <= 0.05
    # A uniform draw on [-0.05, 0.05] has standard deviation 0.1 / sqrt(12) = 0.0289.
    np.testing.assert_allclose(obs.std(axis=0), 0.1 / np.sqrt(12), rtol=0.05)
    np.testing.assert_allclose(np.corrcoef(obs.T), np.eye(4), atol=0.1)
    np.testing.assert_array_equal(state.time, 0)


def test_state_types_are_fixed_and_never_weak():
    env, params = envs.make("CartPole-v0")
    key = jax.random.key(0)
    obs, state = jax.eval_shape(env.reset_env, key, params)
    next_obs, next_state, reward, *_ = jax.eval_shape(env.step_env, key, state, 1, params)
    assert (obs, state) == (next_obs, next_state)
    leaves = jax.tree.leaves((obs, state, reward))
    assert not any(leaf.weak_type for leaf in leaves)
    assert [leaf.dtype.name for leaf in jax.tree.leaves(state)].count("float32") == 4
    assert state.time.dtype == jnp.int32


def test_unknown_version_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'v2' does not exist; choose one of v0, v1"):
        envs.CartPole("v2")
