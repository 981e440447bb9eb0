"""A trained agent against a forward pass in NumPy."""

import dataclasses

import jax
import numpy as np
import pytest

import dqx
from dqx.compute.trained import TrainedAgent
from tests.agents.dqn_kit import layers_of
from tests.oracles import dqn
from tests.shared import HYPER, TINY

CONFIG = dqx.Config(env="CartPole-v1", hidden_sizes=(16, 8), activation="tanh")


@pytest.fixture(scope="module")
def agent():
    """Parameters as no training gives them: biases too are far from zero."""
    env = dqx.make_environment(CONFIG.env)
    params = dqx.make_agent(CONFIG, env).init(jax.random.key(0)).params
    rng = np.random.default_rng(0)
    return TrainedAgent(CONFIG, jax.tree.map(lambda x: x + rng.normal(size=x.shape), params))


def observations(count):
    return np.random.default_rng(1).normal(size=(count, 4)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_q_values_and_actions_equal_numpys(agent, count):
    obs = observations(count)
    expected, _ = dqn.forward(layers_of(agent.params), obs, "tanh")
    q = agent.q_values(obs)
    assert isinstance(q, np.ndarray) and q.dtype == np.float32
    np.testing.assert_allclose(q, expected, rtol=1e-4, atol=1e-5)
    actions = agent.act(obs)
    assert actions.shape == (count,) and actions.dtype == np.int32
    np.testing.assert_array_equal(actions, np.argmax(expected, axis=1))
    if count == 40:
        assert set(actions) == {0, 1}


def test_one_observation_gives_one_action(agent):
    for obs in observations(10):
        expected, _ = dqn.forward(layers_of(agent.params), obs[None], "tanh")
        q, action = agent.q_values(obs), agent.act(obs)
        assert q.shape == (2,) and type(action) is int
        np.testing.assert_allclose(q, expected[0], rtol=1e-4, atol=1e-5)
        assert action == np.argmax(expected[0])
        np.testing.assert_array_equal(agent.q_values(list(obs.tolist())), q)  # lists will do


@pytest.mark.parametrize("shape", [(), (3,), (5, 3), (2, 5, 4), (4, 1)])
def test_another_shape_is_refused_and_both_are_named(agent, shape):
    for ask in (agent.q_values, agent.act):
        with pytest.raises(ValueError, match=r"shape \[4\] of CartPole-v1") as caught:
            ask(np.zeros(shape))
        assert f"got {list(shape)}" in str(caught.value)


def test_category_numbers_have_no_axis_of_their_own():
    config = dqx.Config(env="FrozenLake-misc", agent="tabular")
    table = np.random.default_rng(2).normal(size=(16, 4)).astype(np.float32)
    agent = TrainedAgent(config, {"params": {"table": table}})
    np.testing.assert_array_equal(agent.q_values(7), table[7])
    np.testing.assert_array_equal(agent.act([3, 0, 15]), np.argmax(table[[3, 0, 15]], axis=1))
    with pytest.raises(ValueError, match=r"shape \[\] of FrozenLake-misc.* got \[1, 1\]"):
        agent.act([[3]])


def test_a_result_hands_out_the_agent_of_each_seed():
    result = dqx.train(dataclasses.replace(TINY, eval_period=0), HYPER, seeds=[5, 3])
    obs = observations(6)
    found = {seed: result.agent(seed) for seed in (5, 3)}
    for index, (_, agent) in enumerate(found.items()):
        params = jax.tree.map(lambda x, i=index: x[i], result.params)
        expected, _ = dqn.forward(layers_of(params), obs, "relu")
        np.testing.assert_allclose(agent.q_values(obs), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result.agent().q_values(obs), found[5].q_values(obs))
    assert np.any(found[5].q_values(obs) != found[3].q_values(obs))
    with pytest.raises(dqx.ConfigError, match="seed 4 was not trained"):
        result.agent(4)
