"""Sketches of observations: over random play, what is drawn from them is what was observed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
import envs
from dqx.settings import environments
from envs import sketches
from tests.shared import quickly

LANES, STEPS = 16, 300
GAMES = [
    "WallDodge-v0", "WallDodge-v1", "Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar",
    "Seaquest-MinAtar", "SpaceInvaders-MinAtar", "Catch-bsuite", "DeepSea-bsuite", "Pong-misc",
    "Taxi-v3", "Taxi-v4", "FrozenLake-misc", "FourRooms-misc",
]  # fmt: skip
FIELDS = {
    **{name: {"env": name} for name in GAMES},
    # These two end by a time limit alone.
    "Freeway-MinAtar": {"env": "Freeway-MinAtar", "time_limit": 40},
    # Robots and walls that leave the frame by more than a step, and a frame beyond 127 pixels.
    "fast": {"env": "WallDodge-v0", "env.robot_speed": 300, "env.wall_speed": 7},
    "backwards": {"env": "WallDodge-v0", "env.wall_speed": -3, "time_limit": 40},
    "large": {"env": "WallDodge-v1", "env.size": 130},
    "wrapped": {"env": "WallDodge-v1", "sticky_actions": 0.3, "action_repeat": 2, "time_limit": 9,
                "frame_stack": 2},
    "seas": {"env": "DeepSea-bsuite", "env.size": 5},
    "lake": {"env": "FrozenLake-misc", "env.map_name": "8x8"},
    "rooms": {"env": "FourRooms-misc", "env.use_visual_obs": True, "time_limit": 40},
    "FourRooms-misc": {"env": "FourRooms-misc", "time_limit": 40},
    "rain": {"env": "Taxi-v4", "env.is_rainy": True, "env.fickle_passenger": True},
}  # fmt: skip


def played(fields):
    """Whether frames equal what their sketches draw, ``[LANES, STEPS, 3]``, and how many ended.

    Of the observation that was acted on, the one after the step, and the one after any reset.
    """
    config, hyper = dqx.override(dqx.Config(), dqx.Hyper(), **{"network": "mlp", **fields})
    config, _ = environments.resolved(config, hyper)
    env = dqx.environment_of(config)
    width = env.obs_shape[-1] // config.frame_stack if env.obs_shape else 0  # 0: a category

    def same(obs, state):
        drawn = env.sketch.draw(env.sketch.take(obs, state))
        frame = obs[..., -width:] if width else obs
        assert (drawn.shape, drawn.dtype) == (frame.shape, frame.dtype)
        bits = functools.partial(
            jax.lax.bitcast_convert_type, new_dtype=f"uint{8 * obs.dtype.itemsize}"
        )
        return jnp.all(bits(drawn) == bits(frame))

    def step(carry, key):
        obs, state = carry
        keys = jax.random.split(key, 3)
        action = jax.random.randint(keys[0], (), 0, env.num_actions)
        found = env.step(keys[1], state, action, env.reset(keys[2]))
        ok = [
            same(obs, state),
            same(found.final_obs, found.final_state),
            same(found.obs, found.state),
        ]
        done = found.terminated | found.truncated
        told = jnp.stack(ok), done, jnp.any(obs != found.final_obs)
        return (found.obs, found.state), told

    def lane(key):
        first, rest = jax.random.split(key)
        return jax.lax.scan(step, env.reset(first), jax.random.split(rest, STEPS))[1]

    return jax.tree.map(
        np.asarray, quickly(jax.vmap(lane))(jax.random.split(jax.random.key(5), LANES))
    )


def check(name):
    same, done, moved = played(FIELDS[name])
    assert same.all(), np.argwhere(~same)[0]
    assert done.any() and moved.mean() > 0.2


def test_all_that_have_sketches_are_played():
    kinds = {type(envs.make(name)[0]) for name in GAMES}
    small = {sketches.Taxi, sketches.FrozenLake, sketches.FourRooms}
    assert kinds == {envs.WallDodge, *sketches._BINARY, *small}
    for name in ("CartPole-v1", "Acrobot-v1"):
        assert envs.sketch_of(envs.make(name)[0]) is None


@pytest.mark.parametrize("name", ["WallDodge-v0", "Breakout-MinAtar", "fast", "Taxi-v4"])
def test_what_is_drawn_from_a_sketch_is_what_was_observed(name):
    check(name)


@pytest.mark.long
@pytest.mark.parametrize("name", FIELDS)
def test_what_is_drawn_from_every_sketch_is_what_was_observed(name):
    check(name)


class Forgetful(envs.WallDodge):
    """Draws a hole at the top, wherever it is."""

    def sketch(self, obs, state, params):
        return super().sketch(obs, state.replace(hole_top=jnp.int32(0)), params)


def test_a_sketch_that_loses_something_breaks_the_contract():
    env = Forgetful()
    with pytest.raises(envs.ConformanceError, match="clause 'sketch': .* not what draw makes"):
        envs.check_environment(env, env.default_params, quick=True)
