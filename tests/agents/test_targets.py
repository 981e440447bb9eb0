"""Every target rule, loss and number of steps against the float64 twin; mutants; by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
from dqx.agents import kit
from dqx.core import losses, targets
from dqx.settings import ConfigError
from tests.agents.dqn_kit import (
    assert_close,
    batch_of,
    layers_of,
    memory_of,
    now,
    random_batch,
    random_state,
    setup,
    several_steps,
)
from tests.oracles import dqn
from tests.shared import quickly

LONG = pytest.mark.long
RULES = {
    "max": {},
    "double": {"double": True},
    "clipped double": {"target": "clipped_double"},
    "clipped double, online": {"target": "clipped_double", "double": True},
    "expected": {"target": "expected_sarsa", "epsilon_start": 0.3},
    "expected, double": {"target": "expected_sarsa", "epsilon_start": 0.6, "double": True},
    "munchausen": {"target": "munchausen", "munchausen_temperature": 0.5, "munchausen_clip": 0.8},
    "munchausen, unclipped": {
        "target": "munchausen",
        "munchausen_scale": 0.4,
        "munchausen_clip": None,
    },
    "rescaled": {"value_rescaling": 1e-2},
    "rescaled expected": {
        "value_rescaling": 1e-3,
        "target": "expected_sarsa",
        "epsilon_start": 0.3,
    },
    "rescaled munchausen": {"target": "munchausen", "munchausen_temperature": 0.5,
                            "munchausen_clip": 0.8, "value_rescaling": 1e-2},
    "rescaled double": {"double": True, "value_rescaling": 1e-2},
    "rescaled clipped double": {"target": "clipped_double", "double": True,
                                "value_rescaling": 1e-2},
    "clipped rewards": {"double": True, "reward_clip": 0.5},
}  # fmt: skip
LOSSES = {
    "squared": {},
    "huber": {"loss": "huber", "huber_delta": 0.7},
    "keras_mse": {"loss": "keras_mse", "td_error_clip": 1.0},
}
# Of each rule one loss and one number of steps; `make test-long` crosses them all.
SHORT = [
    ("double", "huber", 3),
    ("clipped double", "squared", 1),
    ("expected", "keras_mse", 3),
    ("munchausen", "huber", 1),
    ("rescaled", "squared", 3),
]
ALL = [
    case
    for case in itertools.product(RULES, LOSSES, (1, 3))
    if not ("munchausen" in case[0] and case[2] > 1)
]


def learned(rule, loss, n_step, wrong_target=False):
    """One update and the twin's: state before and after, metrics, and what they should be."""
    fields = {**RULES[rule], **LOSSES[loss], "n_step": n_step, "gamma": 0.8, "optimizer": "sgd"}
    agent, hyper, twin = setup(fields)
    state, batch = random_state(agent), random_batch(7)
    if n_step > 1:
        batch = several_steps(batch, n_step)
    learn = quickly(agent.learn)
    given = state.replace(target_params=state.params) if wrong_target else state
    new, told = learn(given, batch_of(batch), (), now(hyper), jnp.bool_(False))
    layers, target = layers_of(state.params), layers_of(state.target_params)
    return state, new, told, dqn.update(layers, target, memory_of(layers), batch, twin, False)


def check(rule, loss, n_step, wrong_target=False):
    state, new, told, (layers, _, _, metrics) = learned(rule, loss, n_step, wrong_target)
    assert_close(layers, new.params, state.params)
    for name, value in metrics.items():
        np.testing.assert_allclose(told.metrics[name], value, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize(("rule", "loss", "n_step"), SHORT)
def test_an_update_equals_the_twins(rule, loss, n_step):
    check(rule, loss, n_step)


@LONG
@pytest.mark.parametrize(("rule", "loss", "n_step"), ALL)
def test_updates_of_every_rule_loss_and_number_of_steps_equal_the_twins(rule, loss, n_step):
    check(rule, loss, n_step)


def test_the_rules_tell_themselves_apart():
    results = {}
    for rule in RULES:
        agent, _, twin = setup({**RULES[rule], "gamma": 0.8})
        state = random_state(agent)
        layers, target = layers_of(state.params), layers_of(state.target_params)
        results[rule] = float(dqn.td_errors(layers, target, random_batch(7), twin)[0].mean())
    assert len(set(np.round(list(results.values()), 9))) == len(RULES)


# Wrong versions, each of which must be noticed: what to replace, and by what.
MUTANTS = {
    "the mean over actions": (
        "double",
        targets,
        "greedy",
        lambda right: lambda q: jnp.full(q.shape, 1 / q.shape[0]),
    ),
    "the last of the largest": (
        "double",
        targets,
        "greedy",
        lambda right: lambda q: jnp.roll(right(q), 1),
    ),
    "gamma in place of its power": (
        "double",
        kit,
        "folded",
        lambda right: (
            lambda rewards, discount, lengths, gamma: (
                right(rewards, discount, lengths, gamma)[0],
                gamma * discount,
            )
        ),
    ),
    "the larger of two heads": (
        "clipped double",
        jnp,
        "argmin",
        lambda right: jnp.argmax,
    ),
    "no entropy": (
        "munchausen",
        targets,
        "soft_policy",
        lambda right: lambda q, temperature: (right(q, temperature)[0], 0.0),
    ),
    "no log of the policy": (
        "munchausen",
        targets,
        "log_policy",
        lambda right: lambda *given: 0.0,
    ),
}


SOME = [pytest.param(n, marks=() if n == "the mean over actions" else LONG) for n in MUTANTS]


@pytest.mark.parametrize("name", SOME)
def test_a_mutant_would_be_noticed(name, monkeypatch):
    rule, module, attribute, wrong = MUTANTS[name]
    monkeypatch.setattr(module, attribute, wrong(getattr(module, attribute)))
    with pytest.raises(AssertionError, match="Not equal to tolerance|Arrays are not equal"):
        check(rule, "squared", 1 if rule == "munchausen" else 3)


def test_the_online_network_in_place_of_the_target_would_be_noticed():
    with pytest.raises(AssertionError, match="Not equal to tolerance|Arrays are not equal"):
        check("double", "huber", 3, wrong_target=True)


# --- The parts by hand.


def test_weights_by_hand():
    q = jnp.array([1.0, 3.0, 3.0, 0.0])
    np.testing.assert_array_equal(targets.greedy(q), [0, 1, 0, 0])
    np.testing.assert_allclose(targets.epsilon_greedy(q, 0.4), [0.1, 0.7, 0.1, 0.1], rtol=1e-6)
    policy, entropy = targets.soft_policy(jnp.log(jnp.array([1.0, 2.0, 5.0])), 1.0)
    np.testing.assert_allclose(policy, [0.125, 0.25, 0.625], rtol=1e-6)
    share = np.array([0.125, 0.25, 0.625])
    np.testing.assert_allclose(entropy, -np.sum(share * np.log(share)), rtol=1e-6)
    # Of large values and a small temperature all weight is on the largest; nothing overflows.
    policy, entropy = targets.soft_policy(jnp.array([1e6, 1e6 - 1, -1e9]), 0.03)
    np.testing.assert_allclose(policy, [1, 0, 0], atol=1e-12)
    assert np.isfinite(entropy) and abs(entropy) < 1e-6
    log = functools.partial(targets.log_policy, jnp.array([0.0, -0.5]), temperature=0.5, limit=0.2)
    found = 0.5 * np.log(1 / (1 + np.exp(-1)))
    np.testing.assert_allclose(log(jnp.int32(0)), found, rtol=1e-5)
    assert log(jnp.int32(1)) == np.float32(-0.2)


def test_what_has_no_weight_counts_nothing_whatever_it_is():
    values, weight = jnp.array([jnp.nan, 2.0, jnp.inf]), jnp.array([0.0, 1.0, 0.0])
    assert losses.weighted(values, weight) == 2
    rows = jnp.array([[1.0, 2.0], [3.0, 5.0]])
    np.testing.assert_allclose(losses.weighted(rows, jnp.array([0.25, 0.75])), [2.5, 4.25])


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 1e-2, 0.5])
def test_rescaling_equals_the_papers_and_is_undone(epsilon):
    x = np.array([-1e6, -30.0, -1.0, -1e-3, -1e-6, 0.0, 1e-6, 0.1, 7.0, 1e4], np.float32)
    h, inverse = losses.rescaling(epsilon)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(h(x), dqn.rescaled(exact, epsilon), rtol=1e-5)
    np.testing.assert_allclose(inverse(x / 100), dqn.unscaled(exact / 100, epsilon), rtol=1e-4)
    np.testing.assert_allclose(inverse(h(x)), x, rtol=1e-5)


# --- What cannot be combined.

REFUSED = [
    ({"target": "munchausen", "n_step": 3}, "of the steps between only rewards are known"),
    ({"target": "munchausen", "double": True}, "leave double at false"),
    ({"target": "expected_sarsa", "policy": "boltzmann"}, "got policy = boltzmann"),
    ({"target": "expected_sarsa", "epsilon_ladder": True, "num_envs": 2}, "got epsilon_ladder"),
    ({"munchausen_scale": 0.5}, "belongs to targets with a soft policy"),
    ({"agent": "tabular", "target": "clipped_double"}, "belongs to agents with a target rule"),
    ({"agent": "tabular", "value_rescaling": 0.01}, "belongs to agents with rescaled values"),
    ({"n_step": 20_000}, "n_step 20000 of 1 environments is more than replay_capacity 10000"),
    ({"target": "double"}, "target must be one of max"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_what_cannot_be_combined_is_refused(fields, words):
    if fields.get("agent") == "tabular":
        fields = {**fields, "env": "Taxi-v4"}
    with pytest.raises(ConfigError, match=words):
        dqx.validate(*dqx.override(dqx.Config(), dqx.Hyper(), **fields))


def test_a_grid_over_a_rules_numbers_shares_a_program():
    names = ("munchausen_scale", "munchausen_temperature", "munchausen_clip")
    agent, hyper, _ = setup({"target": "munchausen"})
    state, batch = random_state(agent), batch_of(random_batch())
    traces = []

    def learn(hyper):
        traces.append(1)
        new, _ = agent.learn(state, batch, (), now(hyper), jnp.bool_(False))
        return jax.tree.leaves(new.params)[0].sum()

    compiled = quickly(learn)
    found = {float(compiled(hyper.replace(**{name: 0.25}))) for name in names}
    assert len(found) == 3 and len(traces) == 1
