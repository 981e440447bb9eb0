"""What each target rule and several steps learn where every value is known."""

import dataclasses

import numpy as np
import pytest

import dqx
from tests import probes, variants
from tests.agents.test_learning import CONFIG, GAMMA, HYPER, learned_values

LONG = pytest.mark.long
# So small a temperature that the soft policy is the greedy one wherever values differ.
SOFT = {"target": "munchausen", "munchausen_temperature": 1e-3, "munchausen_scale": 0.5}
RULES = {
    "max": {},
    "double": {"double": True},
    "clipped double": {"target": "clipped_double"},
    "expected": {"target": "expected_sarsa"},
    "munchausen": SOFT,
    "three steps": {"n_step": 3, "double": True},
    "three steps, clipped double": {"n_step": 3, "target": "clipped_double"},
    "rescaled": {"value_rescaling": 1e-2, "n_step": 2},
}
RAINBOW = {"agent": "c51", "double": True, "head": "dueling_avg", "dense": "noisy", "n_step": 3,
           "sampling": "prioritized"}  # fmt: skip
# Values of both actions in the situations of the probes' medley.
VALUES = [(1, 1), (-1, -1), (1, 1), (GAMMA, GAMMA), (1, 1), (-1, 1), (1, -1), (-1, 1)]
# What some variants need to come as close; atoms lie on the values.
NEEDS = {
    "c51": {"num_atoms": 41, "v_min": -2.0, "v_max": 2.0},
    "qr": {"num_quantiles": 5, "huber_delta": 0.1},
    "iqn": {"num_cosines": 8, "huber_delta": 0.1},
    "noisy": {"noisy_sigma": 0.1},
    "pqn": {
        "train_period": 64,
        "updates_per_train": 8,
        "batch_size": 16,
        "optimizer": "radam",
        "layer_norm": True,
    },  # fmt: skip
    "munchausen": SOFT,
}
NEEDS |= {"rainbow": {**NEEDS["c51"], **NEEDS["noisy"]}, "quantiles, rescaled": NEEDS["qr"],
          "pqn, rescaled": NEEDS["pqn"]}  # fmt: skip
AXES = ("agent", "head", "dense", "layer_norm", "n_step", "target", "double", "value_rescaling",
        "sampling")  # fmt: skip
VARIANTS = {
    name: variants.fields_of(row)
    for name, row in variants.singles().items()
    if set(row) <= set(AXES) and row.get("agent") != "tabular"
} | {rule: RULES[rule] for rule in ("three steps, clipped double", "rescaled")}
VARIANTS |= {"rainbow": RAINBOW, "quantiles, rescaled": {"agent": "qr", "value_rescaling": 1e-2},
             "pqn, rescaled": {"agent": "pqn", "value_rescaling": 1e-2}}  # fmt: skip


def munchausen(values):
    """Values where what is not best loses half of what it lacks, but at most half of 1.

    ``q = r - min(1, best - q) / 2``, where the difference is 1 or more in the probes, or 0.
    """
    return [q - 0.5 * min(1.0, max(values) - q) for q in values]


@LONG
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_learns_the_values_of_the_five_probes(name):
    config, hyper = dqx.override(CONFIG, HYPER, **{**VARIANTS[name], **NEEDS.get(name, {})})
    dqx.validate(config, hyper)
    q = learned_values(probes.Medley, np.eye(8), config, hyper, steps=16_000)
    values = [munchausen(one) for one in VALUES] if name == "munchausen" else VALUES
    # Q-values of noisy layers are those of their means, which nothing trains by themselves.
    close = 0.2 if VARIANTS[name].get("dense") == "noisy" else 0.05
    np.testing.assert_allclose(q, np.broadcast_to(values, q.shape), atol=close)


def two_rounds(rule):
    """Q-values ``[seeds, 3, 2]`` after training on the game of two rounds, as tables."""
    config, hyper = dqx.override(CONFIG, HYPER, **RULES[rule], epsilon_start=0.4)
    config = dataclasses.replace(config, hidden_sizes=(16,))
    return learned_values(probes.TwoRounds, np.eye(3), config, hyper)


@pytest.mark.parametrize(
    "rule", [pytest.param(r, marks=() if r == "three steps" else LONG) for r in RULES]
)
def test_two_rounds_end_at_the_best_return(rule):
    q = two_rounds(rule)
    first = np.argmax(q[:, 2], axis=1)
    second = np.argmax(q[np.arange(len(q)), first], axis=1)
    pays = np.array([[0.0, 3.0], [1.0, 2.0]])
    np.testing.assert_array_equal(pays[first, second], 3.0)
    if rule in ("max", "double", "clipped double"):
        np.testing.assert_allclose(q[:, 0], [[0.0, 3.0]] * len(q), atol=0.03)
        np.testing.assert_allclose(q[:, 1], [[1.0, 2.0]] * len(q), atol=0.03)
        np.testing.assert_allclose(q[:, 2], [[3 * GAMMA, 2 * GAMMA]] * len(q), atol=0.03)
    if rule == "expected":  # the second choice is by chance in two of five episodes
        worth = [0.8 * 3 + 0.2 * 0, 0.8 * 2 + 0.2 * 1]
        np.testing.assert_allclose(q[:, 2], GAMMA * np.array([worth] * len(q)), atol=0.03)


@LONG
@pytest.mark.parametrize("n_step", [2, 3, 7])
@pytest.mark.parametrize("time_limit_is_terminal", [False, True])
def test_several_steps_bootstrap_at_a_time_limit(n_step, time_limit_is_terminal):
    config = dataclasses.replace(
        CONFIG, hidden_sizes=(), optimizer="sgd", target_period=4, n_step=n_step,
        time_limit_is_terminal=time_limit_is_terminal,
    )  # fmt: skip
    hyper = HYPER.replace(gamma=0.99, learning_rate=0.8, learning_rate_decay=0.0)
    observations = np.eye(probes.TIME_LIMIT)
    q = learned_values(probes.ClockFace, observations, config, hyper, steps=24_000)
    left = probes.TIME_LIMIT - np.arange(probes.TIME_LIMIT)
    expected = (1 - 0.99**left) / 0.01 if time_limit_is_terminal else np.full(left.shape, 100.0)
    np.testing.assert_allclose(q, np.broadcast_to(expected[:, None], q.shape), rtol=2e-3)
