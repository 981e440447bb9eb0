"""The known optima are what exact solutions and rules say."""

import pytest

import envs
from dqx import stats
from envs import exact
from envs.tabular import build_model


@pytest.mark.parametrize(
    "name",
    ["Taxi-v3", "Taxi-v4", "WallDodge-v0", pytest.param("WallDodge-v1", marks=pytest.mark.long),
     "FrozenLake-misc", "FourRooms-misc"],
)  # fmt: skip
def test_optima_are_those_of_exact_solutions(name):
    env, params = envs.make(name)
    found = exact.optimal_return(build_model(env, params))
    assert stats.OPTIMUM[name] == pytest.approx(found, abs=0.005)


@pytest.mark.parametrize("name", ["CartPole-v0", "CartPole-v1"])
def test_a_cart_that_never_falls_gets_one_a_step(name):
    _, params = envs.make(name)
    assert stats.OPTIMUM[name] == params.max_steps_in_episode


def test_no_optimum_is_without_its_test():
    tested = {"Taxi-v3", "Taxi-v4", "WallDodge-v0", "WallDodge-v1", "CartPole-v0", "CartPole-v1",
              "FrozenLake-misc", "FourRooms-misc"}  # fmt: skip
    assert set(stats.OPTIMUM) == tested
