"""WallDodge against the NumPy twin: states, rewards, ends and every pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import envs
from envs.wall_dodge import EnvState
from tests.oracles.environments import WALL_DODGE, wall_dodge_frames, wall_dodge_step

NAMES = {"v0": "WallDodge-v0", "v1": "WallDodge-v1"}
FIELDS = ("robot_y", "wall_x", "hole_top")
BATCH = 20_000


def make_state(values, time=0):
    """State from columns robot_y, wall_x, hole_top on the last axis of `values`, int32."""
    columns = jnp.moveaxis(jnp.asarray(values, jnp.int32), -1, 0)
    time = jnp.full(columns.shape[1:], time, jnp.int32)
    return EnvState(time=time, **dict(zip(FIELDS, columns, strict=True)))


def columns_of(state):
    return np.stack([getattr(state, field) for field in FIELDS], axis=-1)


def every_state_of_v0():
    """All that the game can reach, and a few more: robot_y -1..36, wall_x 0..40, hole_top 0..30."""
    axes = np.meshgrid(np.arange(-1, 37), np.arange(41), np.arange(31), indexing="ij")
    states = np.stack([axis.ravel() for axis in axes], axis=1)
    return np.repeat(states, 2, axis=0), np.tile([0, 1], len(states))


def random_states_of_v1():
    rng = np.random.default_rng(1)
    states = rng.integers([0, 0, 0], [71, 81, 61], (200_000, 3))
    return states, rng.integers(0, 3, 200_000)


@pytest.mark.parametrize("version", ["v0", pytest.param("v1", marks=pytest.mark.long)])
def test_steps_equal_the_twin(version):
    states, actions = every_state_of_v0() if version == "v0" else random_states_of_v1()
    env, params = envs.make(NAMES[version])
    step = jax.jit(jax.vmap(env.step_env, in_axes=(0, 0, 0, None)))
    crashes, fresh_holes = 0, []
    for begin in range(0, len(states), BATCH):
        part = slice(begin, begin + BATCH)
        keys = jax.random.split(jax.random.key(begin), len(states[part]))
        action = jnp.asarray(actions[part], jnp.int32)
        obs, state, reward, terminated, info = step(keys, make_state(states[part]), action, params)
        expected = wall_dodge_step(version, states[part], actions[part], np.asarray(state.hole_top))
        np.testing.assert_array_equal(columns_of(state), expected[0])
        np.testing.assert_array_equal(reward, expected[1].astype(np.float32))
        np.testing.assert_array_equal(terminated, expected[2])
        np.testing.assert_array_equal(info["discount"], 1.0 - expected[2])
        np.testing.assert_array_equal(state.time, 1)
        np.testing.assert_array_equal(obs, wall_dodge_frames(version, expected[0]))
        crashes += expected[2].sum()
        fresh_holes.append(np.asarray(state.hole_top)[states[part][:, 1] == 0])
    assert 0.05 < crashes / len(states) < 0.5
    # The twin takes over the hole of a new wall, so that is checked here: uniform over all.
    fresh = np.concatenate(fresh_holes)
    assert len(fresh) > 2000
    holes = WALL_DODGE[version]["holes"][1] + 1
    assert stats.chisquare(np.bincount(fresh, minlength=holes)).pvalue > 1e-3
    assert fresh.max() == holes - 1


@pytest.mark.parametrize(
    ("version", "robot_y", "action", "expected"),
    [
        ("v0", 1, 0, -1),
        ("v0", -1, 0, -1),
        ("v0", 0, 0, 0),
        ("v0", 34, 1, 36),
        ("v0", 35, 1, 35),
        ("v0", 36, 1, 36),
        ("v0", 36, 0, 34),
        ("v1", 1, 0, 0),
        ("v1", 0, 0, 0),
        ("v1", 69, 1, 70),
        ("v1", 70, 1, 70),
        ("v1", 33, 2, 33),
    ],
)
def test_arithmetic_at_the_borders(version, robot_y, action, expected):
    env, params = envs.make(NAMES[version])
    size = WALL_DODGE[version]["size"]
    state = make_state([robot_y, size, 0])
    obs, state, *_ = env.step_env(jax.random.key(0), state, action, params)
    assert int(state.robot_y) == expected
    seen = np.argwhere(np.asarray(obs)[:, :, 0] == 255)
    if expected < 0:
        assert len(seen) == 0
    else:
        drawn = WALL_DODGE[version]["drawn"]
        assert seen.min(axis=0).tolist() == [expected, size // 2]
        assert len(seen) == drawn * min(drawn, size - expected)


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("ahead", [-3, 1])
def test_a_wall_shows_as_far_as_it_is_inside(version, ahead):
    c = WALL_DODGE[version]
    env, params = envs.make(NAMES[version])
    wall_x = c["size"] - 1 + ahead
    frame = env.observe(None, make_state([0, wall_x, 3]), None, params)
    columns = np.flatnonzero((np.asarray(frame)[:, :, 0] == 128).any(axis=0))
    assert columns.tolist() == ([] if ahead > 0 else list(range(wall_x, c["size"])))


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_reset_draws_robot_and_hole_uniformly(version):
    c = WALL_DODGE[version]
    env, params = envs.make(NAMES[version])
    keys = jax.random.split(jax.random.key(3), 20_000)
    state = jax.jit(jax.vmap(lambda key: env.reset_env(key, params)[1]))(keys)
    for field, (low, high) in (("robot_y", c["starts"]), ("hole_top", c["holes"])):
        counts = np.bincount(np.asarray(getattr(state, field)), minlength=high + 1)
        assert counts[:low].sum() == 0 and len(counts) == high + 1
        assert stats.chisquare(counts[low:]).pvalue > 1e-3
    assert abs(np.corrcoef(state.robot_y, state.hole_top)[0, 1]) < 0.03
    np.testing.assert_array_equal(state.wall_x, c["size"])
    np.testing.assert_array_equal(state.time, 0)
    obs, first = env.reset_env(keys[0], params)
    np.testing.assert_array_equal(obs, wall_dodge_frames(version, columns_of(first)[None])[0])


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("crashes", [False, True])
def test_the_time_limit_is_truncation(version, crashes):
    c = WALL_DODGE[version]
    env, params = envs.make(NAMES[version])
    assert params.max_steps_in_episode == 500
    wall_x = c["column"] + c["height"] if crashes else c["size"]
    _, state = env.reset_env(jax.random.key(0), params)
    for time, over in ((498, False), (499, True)):
        state = make_state([c["lowest"], wall_x, 0], time)
        result = env.step(jax.random.key(0), state, 1, params)
        assert [bool(flag) for flag in result[3:5]] == [crashes, over]
        assert result[2] == np.float32(c["crash"] if crashes else 0.1)
        ended = over or crashes
        assert int(result[1].time) == (0 if ended else time + 1)


def test_rewards_and_speeds_can_differ_per_lane():
    env, params = envs.make("WallDodge-v0")
    state = make_state([10, 25, 30])
    lanes = params.replace(
        robot_speed=jnp.array([1, 3]),
        wall_speed=jnp.array([1, 4]),
        crash_reward=jnp.array([-1.0, -2.5]),
    )
    axes = jax.tree.map(lambda _: None, params).replace(robot_speed=0, wall_speed=0, crash_reward=0)
    step = jax.vmap(env.step_env, in_axes=(None, None, None, axes))
    _, state, reward, terminated, _ = step(jax.random.key(0), state, 1, lanes)
    assert state.robot_y.tolist() == [11, 13] and state.wall_x.tolist() == [24, 21]
    assert reward.tolist() == [-1.0, -2.5] and terminated.all()


def test_sizes_and_actions_are_options():
    env, params = envs.make("WallDodge-v0", size=24, robot_size=4, hole_height=6, num_actions=3)
    assert (env.num_actions, env.observation_space(params).shape) == (3, (24, 24, 1))
    starts, probability = env.start_states(params)
    assert (int(starts.robot_y.min()), int(starts.robot_y.max())) == (4, 20)
    assert int(starts.hole_top.max()) == 18 and set(starts.wall_x.tolist()) == {24}
    np.testing.assert_allclose(probability.sum(), 1, rtol=1e-6)
    state = make_state([20, 13, 0])
    obs, after, reward, terminated, _ = env.step_env(jax.random.key(0), state, 2, params)
    # Column 12, wall at 12: the robot, at the bottom and staying there, meets it.
    assert terminated and reward == 0.0 and int(after.robot_y) == 20
    assert np.argwhere(np.asarray(obs)[:, :, 0] == 255).tolist()[0] == [20, 12]
    assert (np.asarray(obs)[:6] == 0).all() and (np.asarray(obs)[6:20, 12:15] == 128).all()


def test_state_types_are_fixed_and_never_weak():
    for name in NAMES.values():
        env, params = envs.make(name)
        key = jax.random.key(0)
        obs, state = jax.eval_shape(env.reset_env, key, params)
        next_obs, next_state, reward, *_ = jax.eval_shape(env.step_env, key, state, 1, params)
        assert (obs, state) == (next_obs, next_state)
        leaves = jax.tree.leaves((obs, state, reward))
        assert not any(leaf.weak_type for leaf in leaves)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"int32"}
        assert obs.dtype == jnp.uint8
        assert set(vars(state)) == {"time", *FIELDS}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "v2"}, r"version 'v2' does not exist; choose one of v0, v1"),
        ({"size": 9}, r"size is 9; with robot_size 5 and hole_height 10 it must be at least 10"),
        ({"robot_size": 25, "hole_height": 30}, r"size is 40; .* at least 50"),
        ({"hole_height": 4}, r"hole_height is 4, but the robot is 5 high"),
        ({"robot_size": 1}, r"robot_size is 1; it must be at least 2"),
        ({"num_actions": 4}, r"num_actions is 4; it must be 2 \(up, down\) or 3"),
        ({"size": 40.0}, r"size is 40.0; it must be a whole number"),
        ({"num_actions": True}, r"num_actions is True; it must be a whole number"),
    ],
)
def test_bad_options_are_explained_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        envs.WallDodge(**options)
    assert "\n" not in str(caught.value)
