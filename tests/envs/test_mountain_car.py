"""MountainCar against Gymnasium and against the float64 twin."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv

import envs
from envs.mountain_car import EnvState
from tests.oracles.environments import MOUNTAIN_CAR, mountain_car_step

COUNT = 10_000


def make_state(values, time):
    """State from columns on the last axis of `values`, float32."""
    columns = jnp.moveaxis(jnp.asarray(values, jnp.float32), -1, 0)
    return EnvState(time=time, **dict(zip(("position", "velocity"), columns, strict=True)))


def batched_state(states):
    return make_state(states, jnp.zeros(len(states), jnp.int32))


def batched_step(states, actions):
    env, params = envs.make("MountainCar-v0")
    keys = jax.random.split(jax.random.key(0), len(states))
    step = jax.jit(jax.vmap(env.step_env, in_axes=(0, 0, 0, None)))
    return step(keys, batched_state(states), jnp.asarray(actions, jnp.int32), params)


def unclipped_position(states, actions):
    position, velocity = np.asarray(states, np.float64).T
    velocity = velocity + 0.001 * (actions - 1) - 0.0025 * np.cos(3 * position)
    return position + np.clip(velocity, -0.07, 0.07)


def edge_distance(states, actions):
    """Distance of the next position to goal or left wall, in float32 spacings at 1."""
    position = unclipped_position(states, actions)
    nearest = np.minimum(np.abs(position - 0.5), np.abs(position + 1.2))
    return nearest / np.spacing(np.float32(1.0))


@pytest.fixture(scope="module")
def gymnasium_steps():
    rng = np.random.default_rng(1)
    states = rng.uniform([-1.2, -0.07], [0.6, 0.07], (COUNT, 2)).astype(np.float32)
    actions = rng.integers(0, 3, COUNT)
    reference, results = MountainCarEnv(), []
    for state, action in zip(states, actions, strict=True):
        reference.state = tuple(state.astype(np.float64))
        _, reward, terminated, truncated, _ = reference.step(action)
        results.append((np.array(reference.state), reward, terminated, truncated))
    return states, actions, [np.array(column) for column in zip(*results, strict=True)]


def test_random_steps_equal_gymnasium(gymnasium_steps):
    states, actions, (following, reward, terminated, truncated) = gymnasium_steps
    env, params = envs.make("MountainCar-v0")
    obs, state, got_reward, got_terminated, _ = batched_step(states, actions)
    # Within four roundings of the wall or the flag float32 may decide either way; at the wall
    # that decides whether the velocity is lost. No state is that close.
    assert edge_distance(states, actions).min() > 4
    np.testing.assert_allclose(obs, following, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(got_reward, reward)
    np.testing.assert_array_equal(got_terminated, terminated)
    np.testing.assert_array_equal(env.is_truncated(state, params), truncated)
    assert terminated.sum() > 100 and (following[:, 0] == -1.2).sum() > 50


def test_twin_equals_gymnasium(gymnasium_steps):
    states, actions, (following, reward, terminated, _) = gymnasium_steps
    got = mountain_car_step(states, actions)
    np.testing.assert_allclose(got[0], following, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(got[1], reward)
    np.testing.assert_array_equal(got[2], terminated)


@pytest.mark.parametrize(("edge", "direction"), [(0.5, 1.0), (-1.2, -1.0)])
def test_goal_and_wall_edges_follow_the_twin(edge, direction):
    """Next positions from 1e-7 to 1e-3 on both sides of the flag and of the left wall."""
    offsets = np.geomspace(1e-7, 1e-3, 500)
    offsets = np.concatenate([-offsets, offsets])
    actions = np.arange(1000) % 3
    speed = np.random.default_rng(2).uniform(0.01, 0.06, 1000)
    states = np.stack([edge - direction * speed, direction * speed], axis=1)
    states[:, 0] += edge + offsets - unclipped_position(states, actions)
    # Moving the start changes the slope a little: correct once more.
    states[:, 0] += edge + offsets - unclipped_position(states, actions)
    states = states.astype(np.float32)
    following, reward, expected = mountain_car_step(states, actions)
    obs, _, got_reward, terminated, info = batched_step(states, actions)

    decided = edge_distance(states, actions) > 4
    assert decided.mean() > 0.7
    np.testing.assert_allclose(obs[decided], following[decided], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(terminated)[decided], expected[decided])
    np.testing.assert_array_equal(got_reward, reward)
    np.testing.assert_array_equal(info["discount"], 1.0 - np.asarray(terminated))
    happened = expected if direction > 0 else following[:, 1] == 0.0
    assert happened[decided].sum() > 350 and (~happened[decided]).sum() > 350


@pytest.mark.parametrize("arrives", [False, True])
def test_time_limit_equals_gymnasium(arrives):
    """Step by step from Gymnasium's state; on the last step the car may arrive as well."""
    limit = gymnasium.spec("MountainCar-v0").max_episode_steps
    reference = gymnasium.wrappers.TimeLimit(MountainCarEnv(), limit)
    reference.reset(seed=0)
    env, params = envs.make("MountainCar-v0")
    step = jax.jit(env.step)
    _, state = env.reset(jax.random.key(0), params)
    for count in range(limit):
        start = np.array([0.49 if arrives and count == limit - 1 else -0.5, 0.03])
        reference.unwrapped.state = tuple(start)
        _, reward, terminated, truncated, _ = reference.step(count % 3)
        state = make_state(start, state.time)
        _, state, *rest = step(jax.random.key(count), state, count % 3, params)
        assert [float(rest[0]), *map(bool, rest[1:3])] == [reward, terminated, truncated]
    assert (terminated, truncated) == (arrives, True)
    assert int(state.time) == 0


def test_every_constant_can_differ_per_lane(gymnasium_steps):
    """Each parameter alone, vmapped, gives the physics of a twin with that constant."""
    states, actions = gymnasium_steps[0][:256], gymnasium_steps[1][:256]
    env, params = envs.make("MountainCar-v0")
    shifts = np.array([0.0, 0.01, 0.03])

    def lane(params):
        keys = jax.random.split(jax.random.key(0), 256)
        step = jax.vmap(env.step_env, in_axes=(0, 0, 0, None))
        return step(keys, batched_state(states), jnp.asarray(actions), params)

    for field, value in MOUNTAIN_CAR.items():
        values = jnp.asarray(value + shifts, jnp.float32)
        axes = jax.tree.map(lambda _: None, params).replace(**{field: 0})
        results = jax.vmap(lane, in_axes=(axes,))(params.replace(**{field: values}))
        for index, constant in enumerate(np.asarray(values, np.float64)):
            following, _, terminated = mountain_car_step(states, actions, **{field: constant})
            np.testing.assert_allclose(results[0][index], following, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(results[3][index], terminated)


def test_reset_starts_at_rest_in_the_valley():
    env, params = envs.make("MountainCar-v0")
    keys = jax.random.split(jax.random.key(3), 2000)
    obs, state = jax.vmap(env.reset, in_axes=(0, None))(keys, params)
    position = np.asarray(obs[:, 0])
    assert -0.6 <= position.min() < -0.595 and -0.405 < position.max() <= -0.4
    # A uniform draw of width 0.2 has standard deviation 0.2 / sqrt(12).
    np.testing.assert_allclose(position.std(), 0.2 / np.sqrt(12), rtol=0.05)
    np.testing.assert_array_equal(obs[:, 1], 0.0)
    np.testing.assert_array_equal(state.time, 0)


def test_state_types_are_fixed_and_never_weak():
    env, params = envs.make("MountainCar-v0")
    key = jax.random.key(0)
    obs, state = jax.eval_shape(env.reset_env, key, params)
    next_obs, next_state, reward, *_ = jax.eval_shape(env.step_env, key, state, 1, params)
    assert (obs, state) == (next_obs, next_state)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((obs, state, reward)))
    assert [leaf.dtype.name for leaf in jax.tree.leaves(state)] == ["int32", "float32", "float32"]
