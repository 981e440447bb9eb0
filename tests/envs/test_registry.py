"""Names, options and errors of `envs.make`."""

import gymnax
import pytest

import envs

OWN = (
    "CartPole-v0",
    "CartPole-v1",
    "MountainCar-v0",
    "Taxi-v3",
    "Taxi-v4",
    "WallDodge-v0",
    "WallDodge-v1",
)


def test_own_names_come_first_and_each_name_once():
    assert envs.own_names() == OWN
    assert envs.names()[: len(OWN)] == OWN
    assert set(envs.names()) == set(OWN) | set(gymnax.registered_envs)
    assert len(set(envs.names())) == len(envs.names())


@pytest.mark.parametrize(
    ("name", "limit"), [("CartPole-v0", 200), ("CartPole-v1", 500), ("MountainCar-v0", 200)]
)
def test_own_environments_shadow_those_of_gymnax(name, limit):
    env, params = envs.make(name)
    assert type(env).__module__.startswith("envs.")
    assert env.name == name
    assert params.max_steps_in_episode == limit


def test_other_names_and_their_options_go_to_gymnax():
    env, params = envs.make("DeepSea-bsuite", size=5)
    assert isinstance(env, gymnax.environments.DeepSea)
    assert params.max_steps_in_episode == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole-v2", r"unknown environment 'CartPole-v2': did you mean CartPole-v"),
        ("mountaincar-v0", r"did you mean MountainCar-v0"),
        ("zzz", r"unknown environment 'zzz': `dqx envs`"),
        (7, r"unknown environment 7: "),
    ],
)
def test_unknown_name_suggests_names(name, message):
    with pytest.raises(ValueError, match=message):
        envs.make(name)


@pytest.mark.parametrize("name", ["CartPole-v0", "MountainCar-v0", "Breakout-MinAtar"])
def test_unknown_option_is_named(name):
    with pytest.raises(TypeError, match=rf"{name} does not take the options \['gravity'\]"):
        envs.make(name, gravity=5.0)
