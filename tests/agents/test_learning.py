"""What is learned: probes with known values, time limits, and CartPole on a small budget."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
from tests import probes

GAMMA = 0.9
SEEDS = 2
CONFIG = dqx.Config(
    hidden_sizes=(16,),
    num_envs=4,
    learning_starts=400,
    train_period=4,
    batch_size=32,
    replay_capacity=2_000,
    target_period=40,
    epsilon_schedule="constant",
)
HYPER = dqx.Hyper(learning_rate=0.01, learning_rate_decay=5e-3, gamma=GAMMA, epsilon_start=1.0)


def learned_values(probe, observations, config=CONFIG, hyper=HYPER, steps=8_000):
    """Q-values [seeds, observations, A] after training on a probe."""
    env = probes.adapted(probe)
    keys = jax.random.split(jax.random.key(3), SEEDS)
    trainer = dqx.make_trainer(config, env)
    _, lanes, _, _ = probes.run_trainer(trainer, hyper, keys, config.learning_starts, steps)
    q_values = dqx.make_agent(config, env).q_values
    obs = jnp.asarray(observations, jnp.float32)
    return np.stack(
        [
            np.asarray(q_values(jax.tree.map(lambda x, i=i: x[i], lanes.agent.params), obs))
            for i in range(SEEDS)
        ]
    )


DOUBLE = {"double": True}
SOFT_HUBER = {"loss": "huber", "target_period": 4, "tau": 0.1}


@pytest.mark.parametrize(
    ("probe", "fields", "expected"),
    [
        (probes.ConstantReward, {}, {0.0: (1.0, 1.0)}),
        (probes.ObservedReward, {}, {-1.0: (-1.0, -1.0), 1.0: (1.0, 1.0)}),
        (probes.DelayedReward, {}, {0.0: (GAMMA, GAMMA), 1.0: (1.0, 1.0)}),
        (probes.DelayedReward, DOUBLE, {0.0: (GAMMA, GAMMA), 1.0: (1.0, 1.0)}),
        (probes.DelayedReward, SOFT_HUBER, {0.0: (GAMMA, GAMMA), 1.0: (1.0, 1.0)}),
        (probes.ChosenReward, {}, {0.0: (-1.0, 1.0)}),
        (probes.MatchedReward, {}, {-1.0: (1.0, -1.0), 1.0: (-1.0, 1.0)}),
    ],
)
def test_probe_values(probe, fields, expected):
    config, hyper = dqx.override(CONFIG, HYPER, **fields)
    q = learned_values(probe, [[obs] for obs in expected], config, hyper)
    np.testing.assert_allclose(q, np.broadcast_to(list(expected.values()), q.shape), atol=0.01)


@pytest.mark.long
def test_a_dueling_head_finds_the_best_of_two_rounds():
    """keras-rl's own test: the greedy policy is paid 3.0, the most there is."""
    fields = {"total_steps": 8_000, "log_period": 4_000, "eval_period": 8_000}
    fields |= {"head": "dueling_avg", "env": probes.registered(probes.TwoRounds)}
    config, hyper = dqx.override(CONFIG, HYPER, **fields)
    result = dqx.train(config, hyper, seeds=4, devices="cpu:1")
    np.testing.assert_array_equal(result.metrics["eval_return"][:, -1], np.full(4, 3.0))


# Tabular (one-hot observations, no hidden layer), so the fixed points are those of the equations.
LIMIT_CONFIG = dataclasses.replace(CONFIG, hidden_sizes=(), optimizer="sgd", target_period=4)
LIMIT_HYPER = HYPER.replace(gamma=0.99)


@pytest.mark.parametrize("time_limit_is_terminal", [False, True])
def test_time_limit_with_the_step_observed(time_limit_is_terminal):
    config = dataclasses.replace(LIMIT_CONFIG, time_limit_is_terminal=time_limit_is_terminal)
    hyper = LIMIT_HYPER.replace(learning_rate=0.8, learning_rate_decay=0.0)
    observations = np.eye(probes.TIME_LIMIT)
    q = learned_values(probes.ClockFace, observations, config, hyper, steps=24_000)
    if time_limit_is_terminal:  # what is left of 1 + 0.99 + ... + 0.99 ** 4 = 4.901
        left = probes.TIME_LIMIT - np.arange(probes.TIME_LIMIT)
        expected = (1 - 0.99**left) / (1 - 0.99)
        assert expected[0] == pytest.approx(4.901, abs=1e-4)
    else:
        expected = np.full(probes.TIME_LIMIT, 100.0)
    np.testing.assert_allclose(q, np.broadcast_to(expected[:, None], q.shape), rtol=2e-3)


@pytest.mark.parametrize("time_limit_is_terminal", [False, True])
def test_time_limit_with_nothing_observed(time_limit_is_terminal):
    # Where nothing tells the steps apart, one in five of them ends: Q = 1 + 0.8 * 0.99 * Q.
    expected = 1 / (1 - 0.8 * 0.99) if time_limit_is_terminal else 100.0
    config = dataclasses.replace(
        LIMIT_CONFIG, time_limit_is_terminal=time_limit_is_terminal, batch_size=256
    )
    decay = 0.05 if time_limit_is_terminal else 0.0
    hyper = LIMIT_HYPER.replace(learning_rate=0.25, learning_rate_decay=decay)
    q = learned_values(probes.Blind, [[0.0]], config, hyper, steps=24_000)
    np.testing.assert_allclose(q, np.full(q.shape, expected), rtol=1e-2)


CARTPOLE = dqx.Config(
    env="CartPole-v1",
    hidden_sizes=(32,),
    num_envs=4,
    total_steps=20_000,
    learning_starts=1_000,
    train_period=4,
    batch_size=64,
    replay_capacity=10_000,
    target_period=100,
    log_period=1_000,
    eval_period=20_000,
    eval_episodes=10,
)
CARTPOLE_HYPER = dqx.Hyper(learning_rate=1e-3, epsilon_steps=8_000.0)


@pytest.mark.parametrize(
    ("fields", "hyper_fields"),
    [
        ({}, {}),
        pytest.param(
            {"double": True, "loss": "huber"},
            {"huber_delta": math.inf, "max_grad_norm": 10.0},
            marks=pytest.mark.long,
        ),
    ],
    ids=["dqn", "double"],
)
def test_cartpole_is_learned(fields, hyper_fields):
    config = dataclasses.replace(CARTPOLE, **fields)
    hyper = CARTPOLE_HYPER.replace(**hyper_fields)
    result = dqx.train(config, hyper, seeds=4)
    random_return = result.metrics["episode_return"][:, 0].mean()
    assert 18 < random_return < 27  # uniformly random actions last 22 steps in the mean
    assert result.metrics["eval_return"][:, -1].mean() > 150
    assert np.all(result.diverged_at == -1)
