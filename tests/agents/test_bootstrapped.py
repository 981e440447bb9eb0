"""Bootstrapped DQN: heads against a float64 twin, their masks, and who acts when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx.agents import bootstrapped, make_agent
from dqx.settings import Hyper, override, validate
from tests.agents.dqn_kit import (
    ACTIONS,
    CONFIG,
    SPEC,
    assert_close,
    batch_of,
    layers_of,
    memory_of,
    now,
    random_batch,
    random_state,
)
from tests.oracles import dqn
from tests.shared import quickly

K = 3
FIELDS = {"agent": "bootstrapped", "num_heads": K, "optimizer": "sgd", "learning_rate": 0.1,
          "gamma": 0.8}  # fmt: skip


def made(**fields):
    config, hyper = override(CONFIG, Hyper(), **FIELDS, **fields)
    validate(config, hyper)
    agent = make_agent(config, SPEC)
    return config, agent, random_state(agent), hyper


def twin(state, batch, mask, config, hyper):
    """Gradients of the mean over transitions and heads, the loss, and mean Q-values ``[B, A]``."""
    online, target = layers_of(state.params), layers_of(state.target_params)
    epsilon, epsilon_start = config.value_rescaling, hyper.epsilon_start
    rule = dqn.Settings(target=config.target, munchausen_temperature=hyper.munchausen_temperature)

    def outputs(layers, obs):
        q, tape = dqn.forward(layers, batch[obs], "relu")
        return q.reshape(len(q), ACTIONS, K), tape

    (q, tape), (following, _) = outputs(online, "obs"), outputs(target, "next_obs")
    selecting = outputs(online, "next_obs")[0] if config.double else following
    before = outputs(target, "obs")[0]
    slope, loss, errors = np.zeros_like(q), 0.0, np.empty((len(q), K))
    for i, action in enumerate(batch["action"]):
        for k in range(K):
            own = dqn.unscaled(following[i, :, k], epsilon)
            worth = dqn.next_value(own, selecting[i, :, k], epsilon_start, rule)
            reward = float(batch["reward"][i])
            if config.target == "munchausen":
                temperature = hyper.munchausen_temperature
                logs = before[i, :, k] / temperature
                log = logs[action] - logs.max() - np.log(np.sum(np.exp(logs - logs.max())))
                reward += hyper.munchausen_scale * max(-hyper.munchausen_clip, temperature * log)
            wanted = reward + 0.8 * batch["discount"][i] * worth
            errors[i, k] = dqn.rescaled(wanted, epsilon) - q[i, action, k]
            if mask[i, k]:
                loss += errors[i, k] ** 2 / K / len(q)
                slope[i, action, k] = -2 * errors[i, k] / K / len(q)
    gradients = dqn.backward(online, tape, slope.reshape(len(q), -1))
    return gradients, loss, errors, dqn.unscaled(q, epsilon).mean(axis=-1)


CASES = {
    "double": {"double": True},
    "rescaled": {"value_rescaling": 1e-2, "mask_probability": 0.3},
    "expected": {"target": "expected_sarsa", "epsilon_start": 0.3},
    "munchausen": {"target": "munchausen", "munchausen_temperature": 0.5},
}


def check(fields):
    config, agent, state, hyper = made(**fields)
    batch = random_batch()
    given = batch_of(batch)
    learn = quickly(agent.learn)
    new, learned = learn(state, given, (), now(hyper), jnp.bool_(False))
    share = hyper.mask_probability
    mask = np.stack([jax.random.bernoulli(key, share, (K,)) for key in given.keys])
    gradients, loss, errors, q = twin(state, batch, mask, config, hyper)
    layers = layers_of(state.params)
    step, _ = dqn.step_of(gradients, memory_of(layers), dqn.Settings(optimizer="sgd"))
    expected = [
        tuple(p - 0.1 * d for p, d in zip(*pair, strict=True))
        for pair in zip(layers, step, strict=True)
    ]
    assert_close(expected, new.params, state.params)
    np.testing.assert_allclose(learned.metrics["loss"], loss, rtol=1e-4)
    np.testing.assert_allclose(learned.priority, np.abs(errors).mean(axis=1), rtol=1e-3, atol=1e-4)
    found = agent.q_values(state.params, batch["obs"])
    np.testing.assert_allclose(found, q, rtol=1e-4, atol=1e-4)
    return mask


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.long] * (c != "rescaled")) for c in CASES]
)
def test_an_update_equals_the_twins(case):
    mask = check(CASES[case])
    assert 0 < mask.mean() < 1 and not np.all(mask == mask[:, :1])


class Replaced:
    """A module with some of its functions replaced, for whoever holds it in place of the module."""

    def __init__(self, module, **functions):
        self._module = module
        self.__dict__.update(functions)

    def __getattr__(self, name):
        return getattr(self._module, name)


def with_masks(bernoulli):
    return {"jax": Replaced(jax, random=Replaced(jax.random, bernoulli=bernoulli))}


def first_head_as_target(function, in_axes=0):
    mapped = jax.vmap(function, in_axes)
    if in_axes == 0 or len(in_axes) != 6:
        return mapped
    return lambda *given: mapped(*given[:4], given[4][:, :1].repeat(K, 1), given[5])


# Wrong versions, each of which must be noticed: what the agent's module sees instead.
MUTANTS = {
    "every head learns from all": with_masks(lambda key, p, shape: jnp.ones(shape)),
    "one mask for all heads": with_masks(
        lambda key, p, shape: jnp.broadcast_to(jax.random.uniform(key) < p, shape)
    ),
    "one target for all heads": {"jax": Replaced(jax, vmap=first_head_as_target)},
}


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_would_be_noticed(name, monkeypatch):
    for module, wrong in MUTANTS[name].items():
        monkeypatch.setattr(bootstrapped, module, wrong)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(CASES["double"])


# --- Who acts.


def test_a_head_acts_for_whole_episodes():
    _, agent, state, hyper = made(policy="greedy", mask_probability=1.0)
    obs = random_batch(3, SPEC.num_envs)["obs"]
    outputs = dqn.forward(layers_of(state.params), obs, "relu")[0].reshape(-1, ACTIONS, K)
    act, heads, told = quickly(agent.act), np.zeros(SPEC.num_envs, int), now(hyper)
    seen = set()
    for seed in range(40):
        draws = agent.act_draws(jax.random.key(seed))
        ages = np.random.default_rng(seed).integers(0, 3, SPEC.num_envs).astype(np.int32)
        heads = np.where(ages == 0, draws.head, heads)
        action, state = act(state, obs, draws, told._replace(ages=jnp.asarray(ages)))
        np.testing.assert_array_equal(state.memory.head, heads)
        best = outputs[np.arange(len(obs)), :, heads].argmax(axis=1)
        np.testing.assert_array_equal(action, best)
        seen |= set(enumerate(heads))
    assert len(seen) == K * SPEC.num_envs  # every environment has had every head
    # Random actions before learning leave heads by chance behind.
    _, explored = agent.explore(state, draws)
    np.testing.assert_array_equal(explored.memory.head, draws.head)


def test_who_counts_no_steps_is_told():
    _, agent, state, hyper = made()
    draws = agent.act_draws(jax.random.key(0))
    with pytest.raises(AssertionError, match="ages of episodes"):
        agent.act(state, random_batch(3, 6)["obs"], draws, now(hyper)._replace(ages=None))


def test_heads_are_drawn_uniformly_and_independently():
    _, agent, *_ = made()
    heads = np.stack([agent.act_draws(jax.random.key(seed)).head for seed in range(300)])
    np.testing.assert_allclose(np.bincount(heads.ravel()) / heads.size, 1 / K, atol=0.05)
    correlation = np.corrcoef(heads.T) - np.eye(SPEC.num_envs)
    assert np.abs(correlation).max() < 5 / len(heads) ** 0.5


@pytest.mark.long
def test_one_head_that_learns_from_all_is_dqn_to_the_last_bit():
    results = {}
    for name, fields in (("bootstrapped", {"num_heads": 1, "mask_probability": 1.0}), ("dqn", {})):
        config, hyper = override(CONFIG, Hyper(), agent=name, double=True, loss="huber", **fields)
        agent = make_agent(config, SPEC)
        state = random_state(agent)
        new, learned = quickly(agent.learn)(
            state, batch_of(random_batch()), (), now(hyper), jnp.bool_(True)
        )
        results[name] = (new.params, learned)
    jax.tree.map(np.testing.assert_array_equal, *results.values())
