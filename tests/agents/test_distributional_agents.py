"""Updates of C51, QR-DQN and IQN against float64 NumPy twins, and what their settings refuse."""

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
)
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


def c51_loss(following, prediction, reward, discount, draws, i):
    """Loss of transition i, its slope by the prediction, the error of the means, and priority."""
    target = oracle.project(oracle.softmax(following), reward + discount * ATOMS, ATOMS)
    value, slope = oracle.cross_entropy(prediction, target)
    error = np.sum((target - oracle.softmax(prediction)) * ATOMS)
    return value, slope, error, scipy.stats.entropy(target, oracle.softmax(prediction))


def qr_loss(following, prediction, reward, discount, draws, i):
    levels, targets = (np.arange(N) + 0.5) / N, reward + discount * following
    value, slope = oracle.quantile_huber(prediction, levels, targets, 0.7)
    return value, slope, targets.mean() - prediction.mean(), value


def iqn_loss(following, prediction, reward, discount, draws, i):
    targets, levels = reward + discount * following[:4], np.asarray(draws.now[i], np.float64)
    value, slope = oracle.quantile_huber(prediction[:3], levels, targets, 0.7)
    return value, np.append(slope, np.zeros(5)), targets.mean() - prediction[:3].mean(), value


VALUES = {
    "c51": lambda outputs: np.sum(oracle.softmax(outputs) * ATOMS, axis=-1),
    "qr": lambda outputs: outputs.mean(axis=-1),
    "iqn": lambda outputs: outputs[..., -5:].mean(axis=-1),
}
LOSSES = {"c51": c51_loss, "qr": qr_loss, "iqn": iqn_loss}


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


def twin(name, double, state, batch, draws):
    """Losses, errors and priorities, Q-values, and the gradients of the mean loss."""
    size = len(batch["action"])
    even = np.broadcast_to((np.arange(5) + 0.5) / 5, (size, 5))
    levels = dict.fromkeys(("now", "following"))
    if name == "iqn":
        levels = {k: np.concatenate([getattr(draws, k), even], axis=1) for k in levels}
    online, target = Network(state.params), Network(state.target_params)
    following = target.forward(batch["next_obs"], levels["following"])
    selecting = Network(state.params) if double else target
    chosen = VALUES[name](selecting.forward(batch["next_obs"], levels["following"])).argmax(axis=1)
    outputs = online.forward(batch["obs"], levels["now"])
    (values, errors, priorities), slopes = np.empty((3, size)), np.zeros_like(outputs)
    for i, action in enumerate(batch["action"]):
        values[i], slope, errors[i], priorities[i] = LOSSES[name](
            following[i, chosen[i]], outputs[i, action], float(batch["reward"][i]),
            GAMMA * float(batch["discount"][i]), draws, i,
        )  # fmt: skip
        slopes[i, action] = slope / size
    return values, errors, priorities, VALUES[name](outputs), online.gradients(slopes)


def made(name, **fields):
    config, hyper = override(CONFIG, Hyper(gamma=GAMMA), agent=name, **SIZES[name], **fields)
    validate(config, hyper)
    agent = make_agent(config, SPEC)
    state = random_state(agent)
    return agent, state if agent.begin is None else agent.begin(state, hyper), hyper


@pytest.mark.parametrize(
    ("name", "double"),
    [("c51", False), ("qr", True), ("iqn", True),
     *(pytest.param(*case, marks=pytest.mark.long)
       for case in (("c51", True), ("qr", False), ("iqn", False)))],
)  # fmt: skip
def test_updates_equal_the_twins(name, double):
    agent, state, hyper = made(name, double=double, optimizer="sgd", learning_rate=0.1)
    batch, draws = random_batch(), agent.learn_draws(jax.random.key(5))
    learn = quickly(agent.learn)
    new, learned = learn(state, batch_of(batch), draws, now(hyper), jnp.bool_(True))
    values, errors, priorities, q, gradients = twin(name, double, state, batch, draws)
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
        np.testing.assert_allclose(agent.q_values(state.params, batch["obs"]), expected, atol=1e-4)


def test_the_twins_gradients_equal_finite_differences():
    for name in SIZES:
        agent, state, _ = made(name)
        batch, draws = random_batch(), agent.learn_draws(jax.random.key(5))
        *_, gradients = twin(name, False, state, batch, draws)
        names = sorted(state.params["params"])
        for layer, gradient in zip(names, gradients, strict=True):
            losses = []
            for shift in (1e-4, -1e-4):
                params = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params)
                params["params"][layer]["kernel"][1, 2] += shift
                losses.append(twin(name, False, state.replace(params=params), batch, draws)[0])
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
