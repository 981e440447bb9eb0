"""Training of every family: presets with budgets of their own, and environments of gymnax."""

import dataclasses

import jax
import numpy as np
import pytest

import dqx
from dqx.agents.kit import METRICS
from dqx.settings import ConfigWarning
from tests import probes
from tests.shared import HYPER, TINY

# --- Presets.

# Budgets that no period divides, of presets made small.
SMALL = {"hidden_sizes": (8,), "batch_size": 8, "eval_episodes": 2}
ODD = {
    "cartpole": (4_001, SMALL, [2_000, 4_000, 4_008]),
    "cartpole/keras-rl": (777, SMALL, [500, 777]),
    "taxi/tabular": (1_001, {"eval_episodes": 2}, [1_001]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "cartpole" else pytest.mark.long) for n in ODD],
)
def test_presets_with_another_budget(name):
    steps, fields, rows = ODD[name]
    config, hyper = dqx.preset(name)
    config = dataclasses.replace(config, **fields, total_steps=steps, chunk_width=2)
    arguments = (hyper, 2)
    if rows[-1] == steps:
        result = dqx.train(config, *arguments, devices="cpu:1")
    else:
        with pytest.warns(ConfigWarning, match="total_steps 4,001 is rounded up to 4,008"):
            result = dqx.train(config, *arguments, devices="cpu:1")
    assert result.metrics["step"].tolist() == rows and result.config.total_steps == rows[-1]
    evaluated = np.isfinite(result.metrics["eval_return"])
    np.testing.assert_array_equal(evaluated, np.tile(np.array(rows) == rows[-1], (2, 1)))
    assert np.all(np.isfinite(result.scores)) and np.all(result.diverged_at == -1)
    assert np.all(np.isfinite(result.metrics["loss"][:, -1]))
    # A longer run begins as a shorter one.
    if len(rows) > 1:
        shorter = dataclasses.replace(config, total_steps=rows[-2])
        before = dqx.train(shorter, *arguments, devices="cpu:1").metrics
        for metric in (*METRICS, "episode_count", "episode_return", "episode_length_max"):
            np.testing.assert_array_equal(
                before[metric], result.metrics[metric][:, : len(rows) - 1], err_msg=metric
            )


# --- Every family of environments.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "inputs", "actions"),
    [
        pytest.param("Acrobot-v1", 6, 3, marks=pytest.mark.long),
        pytest.param("Breakout-MinAtar", 400, 3, marks=pytest.mark.long),
        ("FrozenLake-misc", 16, 4),
    ],
)
def test_environments_of_gymnax_train(env, inputs, actions):
    config = dataclasses.replace(
        TINY, env=env, total_steps=352, eval_period=352, eval_episodes=2, chunk_width=2
    )
    result = dqx.train(config, HYPER, 2, devices="cpu:1")
    shapes = [leaf.shape for leaf in jax.tree.leaves(result.params)]
    assert sorted(shapes) == sorted([(2, inputs, 16), (2, 16), (2, 16, actions), (2, actions)])
    for name in METRICS:
        assert np.all(np.isfinite(result.metrics[name][:, 2:]))
    assert np.all(np.isfinite(result.metrics["eval_return"][:, -1]))
    assert np.all(result.diverged_at == -1)


@pytest.mark.long
def test_an_environment_registered_with_gymnax_trains():
    env = probes.registered(probes.ConstantReward)
    config = dataclasses.replace(TINY, env=env, eval_period=528, chunk_width=2)
    result = dqx.train(config, HYPER.replace(learning_rate=0.05), 2, devices="cpu:1")
    assert np.all(result.episodes["return"] == 1) and len(result.episodes) == 2 * 528
    np.testing.assert_array_equal(result.metrics["eval_return"][:, -1], 1.0)
    np.testing.assert_allclose(result.metrics["q_mean"][:, -1], 1.0, atol=0.25)
