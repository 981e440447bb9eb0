"""Maxmin DQN: one estimate taught towards the least of them, against a float64 twin; mutants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx.agents import make_agent, maxmin
from dqx.settings import Hyper, override, validate
from tests import probes
from tests.agents import test_learning as learning
from tests.agents.dqn_kit import (
    ACTIONS,
    CONFIG,
    SPEC,
    batch_of,
    layers_of,
    memory_of,
    now,
    random_batch,
    random_state,
)
from tests.oracles import dqn
from tests.shared import quickly

N = 3
GAMMA = 0.8
FIELDS = {"agent": "maxmin", "num_estimates": N, "optimizer": "sgd", "learning_rate": 0.1,
          "gamma": GAMMA}  # fmt: skip
CASES = {
    "max": {},
    "double": {"double": True, "value_rescaling": 1e-2},
    "expected": {"target": "expected_sarsa", "epsilon_start": 0.3},
}


def twin(state, batch, taught, config):
    """Gradients and errors ``[B]`` of the estimate that is taught, and Q-values ``[B, A]``."""
    online, target = layers_of(state.params), layers_of(state.target_params)
    epsilon = config.value_rescaling
    rule = dqn.Settings(target=config.target, double=config.double)

    def outputs(layers, obs):
        q, tape = dqn.forward(layers, batch[obs], "relu")
        return q.reshape(len(q), ACTIONS, N), tape

    (q, tape), (following, _) = outputs(online, "obs"), outputs(target, "next_obs")
    selecting = outputs(online, "next_obs")[0] if config.double else following
    slope, errors = np.zeros_like(q), np.empty(len(q))
    for i, action in enumerate(batch["action"]):
        least = dqn.unscaled(following[i].min(axis=1), epsilon)
        worth = dqn.next_value(least, selecting[i].min(axis=1), 0.3, rule)
        wanted = batch["reward"][i] + GAMMA * batch["discount"][i] * worth
        errors[i] = dqn.rescaled(wanted, epsilon) - q[i, action, taught]
        slope[i, action, taught] = -2 * errors[i] / len(q)
    gradients = dqn.backward(online, tape, slope.reshape(len(q), -1))
    return gradients, errors, dqn.unscaled(q.min(axis=-1), epsilon)


def check(case, seed=0):
    config, hyper = override(CONFIG, Hyper(), **FIELDS, **CASES[case])
    validate(config, hyper)
    agent = make_agent(config, SPEC)
    state, batch = random_state(agent), random_batch()
    taught = agent.learn_draws(jax.random.key(seed))
    learn = quickly(agent.learn)
    new, learned = learn(state, batch_of(batch), taught, now(hyper), jnp.bool_(False))
    gradients, errors, q = twin(state, batch, int(taught[0]), config)
    layers = layers_of(state.params)
    step, _ = dqn.step_of(gradients, memory_of(layers), dqn.Settings(optimizer="sgd"))
    for (kernel, bias), (d_kernel, d_bias), (given, given_bias) in zip(
        layers, step, layers_of(new.params), strict=True
    ):
        np.testing.assert_allclose(given, kernel - 0.1 * d_kernel, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(given_bias, bias - 0.1 * d_bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learned.priority, np.abs(errors), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(learned.metrics["loss"], np.mean(errors**2), rtol=1e-4)
    found = agent.q_values(state.params, batch["obs"])
    np.testing.assert_allclose(found, q, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.long] * (c != "double")) for c in CASES]
)
def test_an_update_equals_the_twins(case):
    check(case)


MUTANTS = {
    "the largest counts": ("min", lambda x, axis: jnp.max(x, axis=axis)),
    "the mean counts": ("min", lambda x, axis: jnp.mean(x, axis=axis)),
    "the first counts": ("min", lambda x, axis: x[..., 0]),
}


class Replaced:
    """jax.numpy with one function replaced, for the agent's module alone."""

    def __init__(self, name, function):
        setattr(self, name, function)

    def __getattr__(self, name):
        return getattr(jnp, name)


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_would_be_noticed(name, monkeypatch):
    monkeypatch.setattr(maxmin, "jnp", Replaced(*MUTANTS[name]))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check("max")


@pytest.mark.long
def test_another_estimate_would_be_noticed(monkeypatch):
    right = maxmin.losses.chosen

    def wrong(outputs, action):
        return right(outputs, (action + 1) % N if outputs.ndim == 2 else action)

    monkeypatch.setattr(maxmin.losses, "chosen", wrong)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check("max")


def test_every_estimate_is_taught_as_often_and_whole_batches_alike():
    config, _ = override(CONFIG, Hyper(), **FIELDS)
    keys = jax.random.split(jax.random.key(3), 3_000)
    taught = np.asarray(jax.vmap(make_agent(config, SPEC).learn_draws)(keys))
    assert np.all(taught == taught[:, :1])
    np.testing.assert_allclose(np.bincount(taught[:, 0]) / len(taught), 1 / N, atol=0.04)


@pytest.mark.long
def test_one_estimate_is_dqn_to_the_last_bit():
    results = []
    for fields in ({"agent": "maxmin", "num_estimates": 1}, {"agent": "dqn"}):
        config, hyper = override(CONFIG, Hyper(), double=True, loss="huber", **fields)
        agent = make_agent(config, SPEC)
        draws = agent.learn_draws(jax.random.key(0))
        given = (random_state(agent), batch_of(random_batch()), draws, now(hyper), jnp.bool_(True))
        new, learned = quickly(agent.learn)(*given)
        results.append((new.params, learned))
    jax.tree.map(np.testing.assert_array_equal, *results)


@pytest.mark.long
def test_more_estimates_lower_values_of_noise():
    """Of rewards that are noise, the largest of many actions is overestimated, the least is not."""

    class Noisy(probes.Probe):
        actions = 6

        def step_env(self, key, state, action, params):
            state = state.replace(time=state.time + 1)
            reward = jax.random.normal(key)
            return self.look(state), state, reward, self.is_terminated(state, params), {}

        def look(self, state):
            return state.time.astype(jnp.float32)[None]

        def is_terminated(self, state, params):
            return state.time >= 2

    best = []
    for count in (1, 4):
        config, hyper = override(
            learning.CONFIG, learning.HYPER, agent="maxmin", num_estimates=count
        )
        q = learning.learned_values(Noisy, [[0.0]], config, hyper, steps=2_000)
        best.append(q.max())
    assert best[0] > best[1]
