"""Averaged parameters against NumPy's in float64, and the agent that is judged by them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
from dqx import agents
from dqx.compute.digest import flatten
from dqx.compute.trained import TrainedAgent
from dqx.core import averaging
from dqx.core.evaluation import evaluate
from dqx.core.keys import seed_key
from dqx.settings import Config, Hyper
from tests.agents.dqn_kit import CONFIG, SPEC, batch_of, now, random_batch, random_state
from tests.shared import quickly


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99, 1.0])
def test_the_average_is_the_mean_at_first_and_then_decays(decay):
    rng = np.random.default_rng(1)
    path = np.cumsum(rng.normal(size=(300, 5)), axis=0).astype(np.float32)

    def update(average, given):
        step, newest = given
        share = averaging.share_of_newest(jnp.float32(decay), step)
        average = averaging.moved(average, {"w": newest}, share)
        return average, average["w"]

    start = {"w": jnp.full(5, 1e6)}  # what was before the first update never counts
    _, found = quickly(lambda x: jax.lax.scan(update, start, (jnp.arange(300), x)))(path)
    whole = path.astype(np.float64)
    expected = np.empty_like(whole)
    first = 300 if decay == 1 else max(1, round(1 / (1 - decay)))
    for i in range(300):
        mean = whole[: i + 1].mean(axis=0)
        expected[i] = mean if i < first else decay * expected[i - 1] + (1 - decay) * whole[i]
    # At the start 1e6 goes away by subtraction, which leaves float32's rounding of it.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=0.1)
    np.testing.assert_allclose(found[50:], expected[50:], rtol=1e-4, atol=5e-3)


def pair(**fields):
    """An agent, and the one around it."""
    config = dataclasses.replace(CONFIG, double=True, **fields)
    around = dataclasses.replace(config, averaging="evaluation")
    acting = dataclasses.replace(config, averaging="acting")
    return [agents.make_agent(c, SPEC) for c in (config, around, acting)]


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_learns_as_the_agent_inside_and_is_judged_by_the_average():
    inner, outer, acting = pair()
    state, obs = random_state(inner), random_batch(9)["obs"][:6]
    average = jax.tree.map(lambda x: -x + 0.1, state.params)
    around = state.replace(params={"newest": state.params, "average": average})
    at = now(Hyper(learning_rate=1e-2, average_decay=0.75, epsilon_end=0.0), 10**6, updates=7)
    draws = inner.act_draws(jax.random.key(1))

    batch, sync = batch_of(random_batch()), jnp.bool_(True)
    expected, learned = quickly(inner.learn)(state, batch, (), at, sync)
    found, same = quickly(outer.learn)(around, batch, (), at, sync)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, found.params["newest"], expected.params)
    rest = ("target_params", "opt_state", "memory")
    jax.tree.map(close, [getattr(found, x) for x in rest], [getattr(expected, x) for x in rest])
    jax.tree.map(close, same, learned)
    old, new = flatten(average), flatten(expected.params)
    for name, value in flatten(found.params["average"]).items():
        by_hand = 0.75 * old[name].astype(np.float64) + 0.25 * new[name]
        np.testing.assert_allclose(value, by_hand, rtol=1e-5, atol=1e-6)

    of_average = inner.q_values(average, obs)
    equal(outer.q_values(around.params, obs), of_average)
    best = {"newest": np.argmax(inner.q_values(state.params, obs), axis=1),
            "average": np.argmax(of_average, axis=1)}  # fmt: skip
    assert (best["newest"] != best["average"]).any()
    for agent, which in ((outer, "newest"), (acting, "average")):
        action, after = agent.act(around, obs, draws, at)
        np.testing.assert_array_equal(action, best[which])
        equal(after, around)
        action, after = agent.explore(around, draws)
        np.testing.assert_array_equal(action, inner.explore(state, draws)[0])
        equal(after, around)


@pytest.mark.parametrize("fields", [{}, {"dense": "noisy"}, {"normalize_observations": True}])
def test_the_average_begins_as_the_parameters_that_the_hyperparameters_want(fields):
    inner, outer, _ = pair(**fields)
    states = [agent.init(jax.random.key(3)) for agent in (inner, outer)]
    if inner.begin is not None:
        states = [agent.begin(s, Hyper(noisy_sigma=0.1)) for agent, s in
                  zip((inner, outer), states, strict=True)]  # fmt: skip
    expected, found = states
    inside = lambda p: p["network"] if "normalize_observations" in fields else p  # noqa: E731
    equal(inside(found.params)["newest"], inside(expected.params))
    equal(inside(found.params)["average"], inside(expected.params))
    assert (inner.see is None) == (outer.see is None)
    if outer.see is not None:  # the moments of observations are no parameters to average
        seen = [a.see(s, jnp.ones((2, 3))) for a, s in zip((inner, outer), states, strict=True)]
        equal(seen[1].params["observations"], seen[0].params["observations"])


TINY = {"total_steps": 480, "learning_starts": 40, "train_period": 8, "num_envs": 2,
        "batch_size": 8, "replay_capacity": 200, "target_period": 16, "log_period": 80,
        "eval_period": 240, "eval_episodes": 2, "hidden_sizes": (8,), "chunk_width": 2}  # fmt: skip


@pytest.mark.long
def test_training_keeps_both_and_whoever_loads_it_gets_what_was_evaluated():
    config, seeds = Config(**TINY), (4, 9)
    plain = dqx.train(config, Hyper(), seeds)
    judged = dataclasses.replace(config, averaging="evaluation")
    kept = dqx.train(judged, Hyper(average_decay=0.8), seeds)
    # It acts and learns the same: only what is judged is another.
    for name, values in plain.metrics.items():
        if not name.startswith("eval_"):
            np.testing.assert_allclose(kept.metrics[name], values, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                 kept.params["newest"], plain.params)  # fmt: skip
    obs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    for i, seed in enumerate(seeds):
        agent = kept.agent(seed)
        by_hand = TrainedAgent(config, jax.tree.map(lambda x, i=i: x[i], kept.params["average"]))
        np.testing.assert_array_equal(agent.q_values(obs), by_hand.q_values(obs))
        assert np.abs(agent.q_values(obs) - plain.agent(seed).q_values(obs)).max() > 1e-4
        q_values = functools.partial(dqx.make_agent(judged, agent.env).q_values, agent.params)
        again = quickly(functools.partial(evaluate, judged, agent.env, q_values))(
            seed_key(0, seed), jnp.int32(480)
        )
        assert np.mean(again.total) == kept.metrics["eval_return"][i, -1]
