"""Agents with noisy layers: what each network and environment is disturbed by, and when not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx.agents import make_agent
from dqx.core import exploration
from dqx.core.noise import noise_of, noise_size, rows_of_noise
from dqx.settings import Hyper
from tests.agents.dqn_kit import (
    ACTIONS,
    CONFIG,
    SPEC,
    batch_of,
    layers_of,
    now,
    random_batch,
    random_state,
)
from tests.oracles import dqn
from tests.shared import quickly

NOISY = dataclasses.replace(CONFIG, dense="noisy", optimizer="sgd", double=True, policy="greedy")


def disturbed(params, noise):
    """Layers as the twin takes them, with the noise of one row added, and the noise of each."""
    layers, parts = params["params"], noise_of(params, np.asarray(noise, np.float64))
    found, outers = [], []
    for name in sorted(layers):
        layer = {key: np.asarray(value, np.float64) for key, value in layers[name].items()}
        outputs = np.asarray(parts[name]["outputs"])
        outer = np.outer(parts[name]["inputs"], outputs)
        found.append(
            (layer["kernel"] + layer["kernel_sigma"] * outer,
             layer["bias"] + layer["bias_sigma"] * outputs)
        )  # fmt: skip
        outers.append((outer, outputs))
    return found, outers


@pytest.fixture(scope="module")
def updated():
    """An agent, its state, draws of an update, and the state after a step of size 1."""
    agent = make_agent(NOISY, SPEC)
    state, draws = random_state(agent), agent.learn_draws(jax.random.key(3))
    hyper = Hyper(learning_rate=1.0)
    learn = quickly(agent.learn)
    new, learned = learn(state, batch_of(random_batch()), draws, now(hyper), jnp.bool_(False))
    return agent, state, draws, new, learned


def test_an_update_equals_the_twins_with_noise_of_its_own_for_each_network(updated):
    _, state, draws, new, learned = updated
    noise, batch = draws.noise, random_batch()
    layers, outers = disturbed(state.params, noise["now"])
    target, _ = disturbed(state.target_params, noise["next_target"])
    selecting, _ = disturbed(state.params, noise["next_online"])
    q, tape = dqn.forward(layers, batch["obs"], "relu")
    best = dqn.forward(selecting, batch["next_obs"], "relu")[0].argmax(axis=1)
    rows = np.arange(len(q))
    following = dqn.forward(target, batch["next_obs"], "relu")[0][rows, best]
    taken = q[rows, batch["action"]]
    errors = batch["reward"] + 0.99 * batch["discount"] * following - taken
    np.testing.assert_allclose(learned.priority, np.abs(errors), rtol=1e-4, atol=1e-4)
    slope = np.zeros_like(q)
    slope[rows, batch["action"]] = -2 * errors / len(q)
    changes = dqn.backward(layers, tape, slope)
    for i, (change, outer) in enumerate(zip(changes, outers, strict=True)):
        before, after = (s.params["params"][f"Dense_{i}"] for s in (state, new))
        for part, gradient, factor in zip(("kernel", "bias"), change, outer, strict=True):
            for name, expected in ((part, gradient), (f"{part}_sigma", gradient * factor)):
                moved = np.asarray(before[name], np.float64) - np.asarray(after[name])
                scale = np.abs(expected).max()
                np.testing.assert_allclose(moved, expected, atol=1e-4 * scale + 1e-6)


def test_networks_and_updates_have_independent_noise(updated):
    agent, state, draws, *_ = updated
    other = agent.learn_draws(jax.random.key(4))
    assert draws.noise.keys() == {"now", "next_target", "next_online"}  # what is read, no more
    rows = np.stack([*draws.noise.values(), *other.noise.values()])
    assert rows.shape == (6, noise_size(state.params))
    correlation = np.corrcoef(rows) - np.eye(6)
    assert np.abs(correlation).max() < 5 / rows.shape[1] ** 0.5


def test_acting_is_disturbed_in_each_environment_and_evaluation_is_not():
    agent = make_agent(NOISY, SPEC)
    state, obs = random_state(agent), random_batch(2, 6)["obs"]
    act, seen = quickly(agent.act), []
    for seed in range(20):
        draws = agent.act_draws(jax.random.key(seed))
        action, _ = act(state, obs, draws, now(Hyper()))
        expected = [
            dqn.forward(disturbed(state.params, row)[0], obs[i : i + 1], "relu")[0].argmax()
            for i, row in enumerate(rows_of_noise(draws.noise))
        ]
        np.testing.assert_array_equal(action, expected)
        seen.append(np.asarray(action))
        np.testing.assert_array_equal(agent.explore(state, draws)[0], draws.draws.action)
    quiet = dqn.forward(layers_of(state.params), obs, "relu")[0]
    np.testing.assert_allclose(agent.q_values(state.params, obs), quiet, rtol=1e-5, atol=1e-5)
    assert np.mean(np.stack(seen) != quiet.argmax(axis=1)) > 0.02  # the noise explores


def test_plain_layers_draw_no_noise():
    agent = make_agent(CONFIG, SPEC)
    assert jax.tree.leaves(agent.learn_draws(jax.random.key(0))) == []
    assert type(agent.act_draws(jax.random.key(0))) is exploration.Draw
    assert (
        agent.q_values(agent.init(jax.random.key(0)).params, np.zeros((1, 3))).shape[1] == ACTIONS
    )
