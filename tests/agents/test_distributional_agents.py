"""Updates of C51, QR-DQN and IQN against float64 NumPy twins, and what their settings refuse."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dqx.agents import make_agent
from dqx.core import distributional
from dqx.settings import ConfigError, Hyper, override, validate
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
    several_steps,
)
from tests.agents.test_targets import MUTANTS
from tests.agents.test_targets import RULES as ALL_RULES
from tests.oracles import distributional as oracle
from tests.oracles import dqn
from tests.oracles.networks import embedding
from tests.shared import quickly

GAMMA, N = 0.9, 7
SIZES = {
    "c51": {"num_atoms": N, "v_min": -2.0, "v_max": 3.0},
    "qr": {"num_quantiles": N, "huber_delta": 0.7},
    "iqn": {"num_levels": 3, "num_target_levels": 4, "num_value_levels": 5, "num_cosines": 6,
            "huber_delta": 0.7},
}  # fmt: skip
ATOMS = np.linspace(-2.0, 3.0, N)


RULES = {
    name: {rule: fields for rule, fields in ALL_RULES.items()
           if name == "qr" or "value_rescaling" not in fields}
    for name in SIZES
}  # fmt: skip


def c51_loss(following, prediction, reward, discount, draws, i, s):
    """Loss of transition i, its slope by the prediction, the error of the means, and priority."""
    target = oracle.project(following, reward + discount * ATOMS, ATOMS)
    value, slope = oracle.cross_entropy(prediction, target)
    error = np.sum((target - oracle.softmax(prediction)) * ATOMS)
    return value, slope, error, scipy.stats.entropy(target, oracle.softmax(prediction))


def qr_loss(following, prediction, reward, discount, draws, i, s):
    levels = (np.arange(N) + 0.5) / N
    targets = dqn.rescaled(reward + discount * following, s.value_rescaling)
    value, slope = oracle.quantile_huber(prediction, levels, targets, 0.7)
    return value, slope, targets.mean() - prediction.mean(), value


def iqn_loss(following, prediction, reward, discount, draws, i, s):
    targets, levels = reward + discount * following[:4], np.asarray(draws.now[i], np.float64)
    value, slope = oracle.quantile_huber(prediction[:3], levels, targets, 0.7)
    return value, np.append(slope, np.zeros(5)), targets.mean() - prediction[:3].mean(), value


VALUES = {
    "c51": lambda outputs, s: np.sum(oracle.softmax(outputs) * ATOMS, axis=-1),
    "qr": lambda outputs, s: dqn.unscaled(outputs, s.value_rescaling).mean(axis=-1),
    "iqn": lambda outputs, s: outputs[..., -5:].mean(axis=-1),
}
LOSSES = {"c51": c51_loss, "qr": qr_loss, "iqn": iqn_loss}
# What is mixed where several next actions count.
MIXED = {
    "c51": lambda x, s: oracle.softmax(x),
    "qr": lambda x, s: dqn.unscaled(x, s.value_rescaling),
    "iqn": lambda x, s: x,
}


class Network:
    """Outputs [B, A, N] of a network with their tape, and the gradients of its layers."""

    def __init__(self, params):
        self.levels = params["params"].get("Levels")
        plain = {k: v for k, v in params["params"].items() if k != "Levels"}
        self.layers = layers_of({"params": plain})

    def forward(self, obs, levels=None):
        if self.levels is None:
            outputs, self.tape = dqn.forward(self.layers, obs, "relu")
            return outputs.reshape(len(obs), ACTIONS, -1)
        *hidden, (kernel, bias) = self.layers
        before, self.tape = dqn.forward(hidden, obs, "relu")
        self.slope = (before > 0) * 1.0
        self.features, self.given = np.maximum(before, 0), levels
        self.factors = np.stack([[embedding(self.levels, x) for x in row] for row in levels])
        return np.einsum("bf,bnf,fa->ban", self.features, self.factors, kernel) + bias[:, None]

    def gradients(self, slope):
        """Of all layers, those of the levels' embedding first, given that of the outputs."""
        if self.levels is None:
            return dqn.backward(self.layers, self.tape, slope.reshape(len(slope), -1))
        *hidden, (kernel, _) = self.layers
        products = np.einsum("bf,bnf->bnf", self.features, self.factors)
        last = (np.einsum("bnf,ban->fa", products, slope), slope.sum(axis=(0, 2)))
        to_products = np.einsum("fa,ban->bnf", kernel, slope)
        to_features = np.einsum("bnf,bnf->bf", to_products, self.factors)
        to_factors = np.einsum("bnf,bf->bnf", to_products, self.features) * (self.factors > 0)
        count = self.levels["kernel"].shape[0]
        cosines = np.cos(np.pi * np.arange(count) * np.asarray(self.given)[..., None])
        embed = (np.einsum("bnc,bnf->cf", cosines, to_factors), to_factors.sum(axis=(0, 1)))
        return [*dqn.backward(hidden, self.tape, to_features * self.slope), last, embed]


def weights_of(q_next, q_select, q_now, action, discount, s):
    """How much each next action counts, and what the rule adds to the reward."""
    weights = np.zeros(ACTIONS)
    weights[np.argmax(q_select)] = 1
    if s.target == "expected_sarsa":  # van Seijen et al. 2009, equation 5
        return s.epsilon_start / ACTIONS + (1 - s.epsilon_start) * weights, 0.0
    if s.target == "munchausen":  # Vieillard et al. 2020, equation 2
        warm = s.munchausen_temperature
        logs, own = (q / warm - np.log(np.sum(np.exp(q / warm))) for q in (q_next, q_now))
        log = max(-(s.munchausen_clip or np.inf), warm * own[action])
        entropy = -warm * np.sum(np.exp(logs) * logs)
        return np.exp(logs), s.munchausen_scale * log + discount * entropy
    return weights, 0.0


def twin(name, s, state, batch, draws, times=None):
    """Losses, errors and priorities, Q-values, and the gradients of the mean loss.

    Outputs are ``[B, A, H, N]``, of H heads; ``times`` is how often each transition counts.
    """
    size, heads = len(batch["action"]), 2 if s.target == "clipped_double" else 1
    even = np.broadcast_to((np.arange(5) + 0.5) / 5, (size, 5))
    levels = dict.fromkeys(("now", "following"))
    if name == "iqn":
        levels = {k: np.concatenate([getattr(draws, k), even], axis=1) for k in levels}

    def outputs_of(network, obs, which):
        found = network.forward(batch[obs], levels[which])
        return found.reshape(size, ACTIONS, heads, -1)

    online = Network(state.params)
    following = outputs_of(Network(state.target_params), "next_obs", "following")
    selecting = outputs_of(Network(state.params), "next_obs", "following")
    # Of levels only those of the means are read of what stands before the action.
    before = outputs_of(Network(state.target_params), "obs", "following")
    q_next, q_now = VALUES[name](following, s), VALUES[name](before, s)
    q_select = VALUES[name](selecting, s) if s.double else q_next
    outputs = outputs_of(online, "obs", "now")
    (values, errors, priorities), slopes = np.zeros((3, size)), np.zeros_like(outputs)
    for i, action in enumerate(batch["action"]):
        reward, discount = dqn.rewards_of(batch, i, s)
        weights, bonus = weights_of(
            q_next[i, :, 0], q_select[i, :, 0], q_now[i, :, 0], action, discount, s
        )
        head = np.argmin(weights @ q_next[i])
        mixed = weights @ MIXED[name](following[i, :, head], s)
        for h in range(heads):
            value, slope, error, priority = LOSSES[name](
                mixed, outputs[i, action, h], reward + bonus, discount, draws, i, s
            )
            count = 1.0 if times is None else float(times[i])
            values[i] += count * value
            errors[i] += abs(error) / heads
            priorities[i] += priority / heads
            slopes[i, action, h] = count * slope / size
    # A network of levels gives a number an action and head, and a level.
    flat = slopes.reshape(size, ACTIONS * heads, -1)
    return values, errors, priorities, VALUES[name](outputs, s)[..., 0], online.gradients(flat)


def made(name, **fields):
    config, hyper = override(CONFIG, Hyper(gamma=GAMMA), agent=name, **SIZES[name], **fields)
    validate(config, hyper)
    agent = make_agent(config, SPEC)
    state = random_state(agent)
    if agent.begin is not None:  # which begins with a target network that is the online one
        begun = agent.begin(state, hyper)
        target = {**begun.target_params, "params": state.target_params["params"]}
        state = begun.replace(target_params=target)
    return agent, state, hyper


SHORT = [("c51", "max", 1), ("qr", "rescaled double", 3), ("iqn", "double", 1)]
ALL = [
    case
    for name in SIZES
    for case in itertools.product((name,), RULES[name], (1, 3))
    if case not in SHORT and not ("munchausen" in case[1] and case[2] > 1)
]


@pytest.mark.parametrize(
    ("name", "rule", "n_step"),
    [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in ALL)],
)
def test_updates_equal_the_twins(name, rule, n_step):
    check(name, rule, n_step)


@pytest.mark.long
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("mutant", [*MUTANTS, "the online network for the target"])
def test_a_mutant_would_be_noticed(name, mutant, monkeypatch):
    rule, module, attribute, wrong = MUTANTS.get(mutant, ("double", None, "", None))
    if module is not None:
        monkeypatch.setattr(module, attribute, wrong(getattr(module, attribute)))
    with pytest.raises(AssertionError, match="Not equal to tolerance|Arrays are not equal"):
        check(name, rule, 1 if rule == "munchausen" else 3, wrong_target=module is None)


def check(name, rule, n_step, wrong_target=False):
    """One update, and what evaluation sees, against the twin's."""
    s = dqn.Settings(**RULES[name][rule], n_step=n_step, gamma=GAMMA)
    fields = {k: np.inf if v is None else v for k, v in RULES[name][rule].items()}
    agent, state, hyper = made(name, **fields, n_step=n_step, optimizer="sgd", learning_rate=0.1)
    batch, draws = random_batch(), agent.learn_draws(jax.random.key(5))
    if n_step > 1:
        batch = several_steps(batch, n_step)
    times = None if rule == "max" else np.random.default_rng(3).random(len(batch["action"]))
    weight = None if times is None else jnp.asarray(times, jnp.float32)
    learn = quickly(agent.learn)
    given = state.replace(target_params=state.params) if wrong_target else state
    new, learned = learn(given, batch_of(batch, weight), draws, now(hyper), jnp.bool_(True))
    values, errors, priorities, q, gradients = twin(name, s, state, batch, draws, times)
    np.testing.assert_allclose(learned.metrics["loss"], values.mean(), rtol=1e-4)
    np.testing.assert_allclose(learned.priority, priorities, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(learned.metrics["td_error_abs"], np.abs(errors).mean(), rtol=1e-4)
    np.testing.assert_allclose(learned.metrics["q_max"], q.max(), rtol=1e-4)
    before, after = (
        {"params": s.params["params"]} for s in (state, new)
    )  # names in order: Dense_0 and so on, Levels
    layers = layers_of(before)
    step, _ = dqn.step_of(gradients, memory_of(layers), dqn.Settings(optimizer="sgd"))
    expected = [
        tuple(p - 0.1 * d for p, d in zip(layer, change, strict=True))
        for layer, change in zip(layers, step, strict=True)
    ]
    assert_close(expected, after, before)
    jax.tree.map(np.testing.assert_array_equal, new.params["params"], new.target_params["params"])
    # What evaluation sees.
    if name != "iqn":
        shown = agent.q_values(state.params, batch["obs"])
        np.testing.assert_allclose(shown, q, rtol=1e-4, atol=1e-4)
    else:
        even = np.broadcast_to((np.arange(5) + 0.5) / 5, (len(q), 5))
        expected = Network(state.params).forward(batch["obs"], even).mean(axis=-1)
        expected = expected.reshape(len(q), ACTIONS, -1)[..., 0]
        np.testing.assert_allclose(agent.q_values(state.params, batch["obs"]), expected, atol=1e-4)


PLAIN = dqn.Settings(gamma=GAMMA)


def test_the_twins_gradients_equal_finite_differences():
    for name in SIZES:
        agent, state, _ = made(name)
        batch, draws = random_batch(), agent.learn_draws(jax.random.key(5))
        *_, gradients = twin(name, PLAIN, state, batch, draws)
        names = sorted(state.params["params"])
        for layer, gradient in zip(names, gradients, strict=True):
            losses = []
            for shift in (1e-4, -1e-4):
                params = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params)
                params["params"][layer]["kernel"][1, 2] += shift
                losses.append(twin(name, PLAIN, state.replace(params=params), batch, draws)[0])
            slope = (losses[0].mean() - losses[1].mean()) / 2e-4
            np.testing.assert_allclose(gradient[0][1, 2], slope, rtol=1e-3, atol=1e-6)


def test_c51s_q_values_follow_the_ends_that_it_began_with():
    _, state, _ = made("c51")
    for v_min, v_max in ((-2.0, 3.0), (0.0, 100.0)):
        agent, _, hyper = made("c51")
        begun = agent.begin(state, hyper.replace(v_min=v_min, v_max=v_max))
        obs = random_batch()["obs"]
        logits = Network(state.params).forward(obs)
        expected = oracle.softmax(logits) @ np.linspace(v_min, v_max, N)
        np.testing.assert_allclose(
            agent.q_values(begun.params, obs), expected, rtol=1e-4, atol=1e-4
        )


def test_levels_are_uniform_and_independent():
    agent, *_ = made("iqn")
    draws = [agent.learn_draws(jax.random.key(seed)) for seed in range(30)]
    levels = np.concatenate([np.concatenate([d.now, d.following], axis=1) for d in draws])
    assert levels.shape == (30 * CONFIG.batch_size, 7)
    assert levels.min() >= 0 and levels.max() < 1
    np.testing.assert_allclose(levels.mean(axis=0), 0.5, atol=0.05)
    correlation = np.corrcoef(levels.T) - np.eye(7)
    assert np.abs(correlation).max() < 5 / len(levels) ** 0.5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"agent": "c51", "v_min": 3.0, "v_max": 3.0}, "v_min must be less than v_max 3, got 3"),
        (
            {"agent": "c51", "v_min": 1e8, "v_max": 1e8 + 1},
            "v_min 100000000.0 and v_max 100000001.0 are too close for 51 atoms",
        ),
        ({"agent": "c51", "num_atoms": 1}, "num_atoms must be at least 2, got 1"),
        ({"num_atoms": 21}, "num_atoms belongs to agent c51, and agent is dqn"),
        ({"agent": "qr", "num_quantiles": 0}, "num_quantiles must be at least 1"),
        ({"agent": "c51", "loss": "huber"}, "loss = huber belongs to agents with a scalar target"),
        (
            {"agent": "c51", "huber_delta": 2.0},
            "belongs to agents with a Huber delta .*dqn.*qr",
        ),
        (
            {"agent": "qr", "td_error_clip": 1.0},
            "td_error_clip = 1 belongs to agents with a TD err",
        ),
        (
            {"agent": "iqn", "loss": "keras_mse"},
            "loss = keras_mse belongs to agents with a scalar t",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        validate(*override(CONFIG, Hyper(), **fields))


def test_atoms_of_the_twin_are_those_of_the_agent():
    np.testing.assert_allclose(distributional.support(-2.0, 3.0, N), ATOMS, rtol=1e-6, atol=1e-6)
