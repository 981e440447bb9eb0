"""The contract test on this package's environments and on those of gymnax."""

import gymnax
import pytest

import envs
from envs.conformance import ConformanceError, check_environment

FAST = {"num_steps": 40}


# One version of each game is checked every time, the others in `make test-long`.
_OLDER = ("CartPole-v0", "Taxi-v3", "WallDodge-v0")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long if n in _OLDER else ()) for n in envs.own_names()],
)
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
