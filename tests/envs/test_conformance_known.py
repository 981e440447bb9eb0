"""The contract test on this package's environments and on those of gymnax."""

import gymnax
import pytest

import envs
from envs.conformance import ConformanceError, check_environment

FAST = {"num_steps": 40}


@pytest.mark.parametrize("name", envs.own_names())
def test_own_environments_keep_the_contract(name):
    check_environment(*envs.make(name))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "deterministic"),
    [("CartPole-v1", False), ("SimpleBandit-bsuite", False), ("FrozenLake-misc", True)],
)
def test_gymnax_environments_that_keep_the_contract(name, deterministic):
    check_environment(*gymnax.make(name), deterministic_reset=deterministic, **FAST)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "clause", "message"),
    [
        ("Pendulum-v1", "spaces", "must be Discrete"),
        ("Catch-bsuite", "shapes", "float32.* expected int32"),
        ("UmbrellaChain-bsuite", "shapes", "reward of step_env is int32"),
        ("DeepSea-bsuite", "reset", "what a state carries over is lost"),
        ("MemoryChain-bsuite", "observation space", "outside its space"),
    ],
)
def test_gymnax_environments_that_break_it_are_named(name, clause, message):
    with pytest.raises(ConformanceError, match=message) as caught:
        env, params = gymnax.make(name)
        check_environment(env, params, deterministic_reset=name == "DeepSea-bsuite", **FAST)
    assert caught.value.clause == clause
