"""PQN: a whole round against a float64 NumPy twin, its shuffles, and what it does without."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dqx
from dqx.agents import pqn
from dqx.agents.kit import optimizers
from dqx.core import rollout, steps
from dqx.core.keys import seed_key
from dqx.core.state import Clock
from dqx.settings import ConfigError
from tests.core.ledger import seed_keys
from tests.jaxprs import is_leaf, traced
from tests.oracles import pqn as twin
from tests.oracles.environments import cartpole_step
from tests.shared import quickly

ENVS, LENGTH, HIDDEN, LIMIT = 4, 16, (12, 10), 11
FIELDS = {
    "agent": "pqn", "env": "CartPole-v1", "time_limit": LIMIT, "hidden_sizes": HIDDEN,
    "layer_norm": True, "optimizer": "radam", "loss": "huber", "huber_delta": np.inf,
    "num_envs": ENVS, "train_period": ENVS * LENGTH, "batch_size": 16, "updates_per_train": 8,
    "learning_starts": 0, "log_period": 256, "total_steps": 256, "eval_period": 256,
    "eval_episodes": 2, "chunk_width": 2, "gamma": 0.9, "td_lambda": 0.7, "reward_scale": 0.5,
    "learning_rate": 0.02, "max_grad_norm": 3.0, "epsilon_start": 0.8, "epsilon_end": 0.1,
    "epsilon_steps": 128.0, "annealed": ("learning_rate",), "anneal_steps": 128.0,
}  # fmt: skip


def settled(**fields):
    config, hyper = dqx.override(dqx.Config(), dqx.Hyper(), **{**FIELDS, **fields})
    dqx.validate(config, hyper)
    return dqx.settings.rounded(config)[0], hyper


def layers_of(params):
    """The parameters as the twin has them."""
    named = jax.tree.map(np.float64, params["params"])
    found = [dict(named[f"Dense_{i}"]) for i in range(len(HIDDEN) + 1)]
    for i, layer in enumerate(found[:-1]):
        norm = named[f"LayerNorm_{i}"]
        layer |= {"scale": norm["scale"], "shift": norm["bias"]}
    return found


# --- A whole round.

draws_of, shuffled = steps.draw_steps, rollout._shuffled


def play(layers, obs, ages, draws, epsilon):
    """A rollout in float64: transitions ``[T, E]``, and observations and ages after it."""
    rows = {n: [] for n in ("obs", "action", "reward", "terminal", "ends", "next_obs")}
    for t in range(LENGTH):
        action = twin.act(layers, obs, draws.agent.coin[t], draws.agent.action[t], epsilon)
        after, reward, fallen = cartpole_step(obs, action)
        ages = ages + 1
        ends = fallen | (ages == LIMIT)
        found = (obs, action, reward, fallen, ends, after)
        for column, value in zip(rows.values(), found, strict=True):
            column.append(value)
        obs = np.where(ends[:, None], draws.fresh[0][t], after)
        ages = np.where(ends, 0, ages)
    return {name: np.array(column) for name, column in rows.items()}, obs, ages


def compare_two_rounds(terminal_limits=False, rescaling=0.0):
    """Trains two rounds, and the twin from the same numbers drawn; what happened is returned."""
    config, hyper = settled(time_limit_is_terminal=terminal_limits, value_rescaling=rescaling)
    env = dqx.environment_of(config)
    trainer = dqx.make_trainer(config, env)
    segment = quickly(functools.partial(trainer.segment, steps=config.train_period))
    parts = steps.Parts(config, env, dqx.make_agent(config, env))
    clock, lane = trainer.start(), trainer.init(seed_key(0, 3), {}, hyper)
    ages, memory = np.zeros(ENVS, int), twin.fresh(layers_of(lane.agent.params))
    happened = []
    for number in range(2):
        # From the same state each time, so that rounding does not add up over the rounds.
        layers = layers_of(lane.agent.params)
        start = number * config.train_period
        draws = jax.tree.map(np.asarray, draws_of(parts, clock, lane, LENGTH)._replace(step_keys=0))
        rows = np.asarray(shuffled(config, clock, lane))
        epsilon = np.float32(0.8 + (0.1 - 0.8) * start / 128)
        found, obs, ages = play(layers, np.float64(lane.obs), ages, draws, epsilon)
        terminal = found["ends"] if terminal_limits else found["terminal"]
        rest = (terminal, found["ends"], found["next_obs"])
        target = twin.targets(layers, 0.5 * found["reward"], *rest, 0.9, 0.7, rescaling)
        rates = 0.02 * (1 - (start + 8 * np.arange(8)) / 128)
        expected, losses, norms = twin.updates(layers, memory, found, target, rows, rates, 3.0)
        clock, lane, episodes, metrics = segment(clock, lane, hyper)
        np.testing.assert_array_equal(episodes.length > 0, found["ends"])
        np.testing.assert_allclose(lane.obs, obs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-3)
        np.testing.assert_allclose(metrics["grad_norm"], np.mean(norms), rtol=1e-3)
        for mine, theirs in zip(layers_of(lane.agent.params), expected, strict=True):
            for name, value in mine.items():
                np.testing.assert_allclose(value, theirs[name], rtol=1e-3, atol=2e-5, err_msg=name)
        happened.append({**found, "norms": norms})
    return happened


@pytest.mark.parametrize(
    ("terminal_limits", "rescaling"), [(False, 0.0), (True, 0.0), (True, 1e-2)]
)
def test_two_rounds_equal_the_twins(terminal_limits, rescaling):
    rounds = compare_two_rounds(terminal_limits, rescaling)
    ends, fallen = (np.concatenate([r[n] for r in rounds]) for n in ("ends", "terminal"))
    assert fallen.any() and (ends & ~fallen).any()  # both kinds of ends
    assert np.concatenate([r["action"] for r in rounds]).std() > 0
    norms = np.concatenate([r["norms"] for r in rounds])
    assert norms.min() < 3.0  # not clipped; and clipped where values are not small
    assert rescaling or norms.max() > 3.0


def test_two_rounds_equal_the_twins_where_values_are_computed_batch_by_batch(monkeypatch):
    numbers = ENVS * LENGTH * 4
    valued, over = [], jax.lax.map

    def watched(function, batches):
        valued.append(batches.shape)
        return over(function, batches)

    monkeypatch.setattr(jax.lax, "map", watched)
    monkeypatch.setattr(pqn, "_WHOLE_TO", numbers)
    compare_two_rounds()
    assert valued == []  # a round of so many goes in one pass
    monkeypatch.setattr(pqn, "_WHOLE_TO", numbers - 1)
    assert len(compare_two_rounds()) == 2
    assert set(valued) == {(4, 16, 4)}


def value_of_what_was_acted_on(reward, discount, value, continues, lambda_):
    return LAMBDA(reward, discount, jnp.roll(value, 1), continues, lambda_)


def across_ends(reward, discount, value, continues, lambda_):
    return LAMBDA(reward, discount, value, jnp.ones_like(continues), lambda_)


def same_order_in_every_epoch(config, clock, lane):
    half = shuffled(config, clock, lane)[: config.updates_per_train // 2]
    return jnp.concatenate([half, half])


LAMBDA = pqn.lambda_returns
MUTANTS = {
    "a shifted bootstrap": (pqn, "lambda_returns", value_of_what_was_acted_on),
    "returns across ends": (pqn, "lambda_returns", across_ends),
    "gamma for gamma times lambda": (
        pqn, "lambda_returns", lambda *given: LAMBDA(*given[:-1], lambda_=1.0)
    ),
    "one step alone": (pqn, "lambda_returns", lambda *given: LAMBDA(*given[:-1], lambda_=0.0)),
    "one shuffle for all epochs": (rollout, "_shuffled", same_order_in_every_epoch),
    "no shuffle": (
        rollout, "_shuffled", lambda config, *_: jnp.tile(jnp.arange(64).reshape(4, 16), (2, 1))
    ),
    "rates of the round's end": (
        rollout, "_told", lambda *given: TOLD(*given[:-1], jnp.int32(8))
    ),
}  # fmt: skip
TOLD = rollout._told


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if "bootstrap" in n else pytest.mark.long) for n in MUTANTS],
)
def test_a_wrong_round_would_be_noticed(name, monkeypatch):
    module, function, wrong = MUTANTS[name]
    given = wrong
    if function == "lambda_returns":  # called with lambda_ by name

        def given(*arrays, lambda_):
            return wrong(*arrays, lambda_)

    monkeypatch.setattr(module, function, given)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        compare_two_rounds()


def test_the_twins_gradient_equals_finite_differences():
    rng = np.random.default_rng(0)
    config, _ = settled()
    agent = dqx.make_agent(config, dqx.environment_of(config))
    layers = layers_of(agent.init(jax.random.key(1)).params)
    for layer in layers:
        for name in layer:
            layer[name] = layer[name] + 0.1 * rng.normal(size=layer[name].shape)
    obs, weight = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    found = twin.backward(layers, twin.forward(layers, obs)[1], weight)
    for layer, grad in zip(layers, found, strict=True):
        for name, array in layer.items():
            index = tuple(rng.integers(n) for n in array.shape)
            original, values = array[index], []
            for shift in (1e-6, -1e-6):
                array[index] = original + shift
                values.append((twin.forward(layers, obs)[0] * weight).sum())
            array[index] = original
            slope = (values[0] - values[1]) / 2e-6
            np.testing.assert_allclose(grad[name][index], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.long
def test_radam_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    params = {"a": np.zeros((3, 2), np.float32), "b": np.zeros(5, np.float32)}
    config, hyper = settled(optimizer_epsilon=1e-3, learning_rate=1.0)
    rule = optimizers.make_optimizer(config, hyper, jnp.int32(0))
    step = quickly(rule.update)
    state, memory = rule.init(params), twin.fresh([params])
    memory = {**jax.tree.map(np.float64, memory), "count": 0}
    for count in range(1, 41):
        grads = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in params.items()}
        changes, state = step(grads, state)
        (expected,) = twin.radam([jax.tree.map(np.float64, grads)], memory, 1.0, epsilon=1e-3)
        # Its first rectified steps lose digits where nearly equal lengths are subtracted.
        for name, value in changes.items():
            rtol = 2e-2 if 5 < count < 12 else 5e-3
            np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=1e-6)


# --- Shuffles.


def test_every_epoch_takes_each_transition_once_in_an_order_of_its_own():
    config, hyper = settled()
    trainer = dqx.make_trainer(config, dqx.environment_of(config))
    lane = trainer.init(seed_key(0, 0), {}, hyper)

    def of_round(key, updates):
        at = trainer.start().replace(updates=updates)
        return shuffled(config, at, lane.replace(key=key)).reshape(2, 64)

    of_rounds = jax.vmap(jax.vmap(of_round, (None, 0)), (0, None))
    orders = np.asarray(quickly(of_rounds)(seed_keys(500), jnp.array([0, 8])))
    orders = orders.reshape(2_000, 64)  # seeds x rounds x epochs
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(64), (2_000, 1)))
    assert len({tuple(order) for order in orders}) == 2_000
    for place in (0, 31, 63):  # what comes there is uniform
        assert scipy.stats.chisquare(np.bincount(orders[:, place], minlength=64)).pvalue > 1e-4
    # Nor does what comes in one epoch tell of the next one.
    pairs = np.histogram2d(orders[:-1, 0] // 8, orders[1:, 0] // 8, bins=8)[0]
    assert scipy.stats.chi2_contingency(pairs).pvalue > 1e-4


# --- What it does without.


def test_nothing_is_kept_from_round_to_round():
    """No replay, no target network, no condition, and no array of a round in the lanes."""
    config, hyper = settled()
    trainer = dqx.make_trainer(config, dqx.environment_of(config))
    width = 3
    lanes = jax.eval_shape(jax.vmap(trainer.init), seed_keys(width))
    assert lanes.replay_rows == {} and lanes.sampler is None and lanes.agent.target_params == {}
    clock = jax.eval_shape(trainer.start)
    hypers = jax.tree.map(
        lambda _: jax.ShapeDtypeStruct((width,), jnp.float32), dqx.settings.complete(config, hyper)
    )
    segment = functools.partial(trainer.segment, steps=3 * config.train_period)
    chunk = jax.vmap(segment, in_axes=(None, 0, 0), out_axes=(None, 0, 0, 0))
    after, _, _, _ = jax.eval_shape(chunk, clock, lanes, hypers)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, clock)
    found = traced(chunk, clock, lanes, hypers)
    assert "cond" not in {e.primitive.name for e in found}
    # The orders of the epochs are sorted once a round, not once an update.
    sorts = [e.outvars[0].aval for e in found if is_leaf(e) and e.primitive.name == "sort"]
    orders = [aval.shape for aval in sorts if aval.dtype == jnp.uint32]
    assert orders == [(width, 2, config.train_period)]


@pytest.mark.long
def test_the_clock_counts_steps_and_updates_alone():
    config, hyper = settled()
    trainer = dqx.make_trainer(config, dqx.environment_of(config))
    clock, lane = trainer.start(), trainer.init(seed_key(0, 1), {}, hyper)
    clock, lane, _ = quickly(functools.partial(trainer.warm_up, steps=8))(clock, lane)
    assert (clock.step, clock.updates, clock.position, clock.size) == (8, 0, 0, 0)
    segment = quickly(functools.partial(trainer.segment, steps=2 * config.train_period))
    clock, lane, episodes, _ = segment(clock, lane, hyper)
    assert (clock.step, clock.updates, clock.position, clock.size) == (8 + 128, 16, 0, 0)
    assert episodes.length.shape == (2 * LENGTH, ENVS)
    with pytest.raises(AssertionError, match="segment takes whole train_period steps"):
        trainer.segment(clock, lane, hyper, steps=32)


def test_updates_of_large_rounds_lie_evenly_between_the_steps():
    """4,096 environments of 128 steps, in 4 epochs of batches of 256."""
    config = settled()[0]
    config = dataclasses.replace(
        config, num_envs=4096, train_period=2**19, batch_size=256, updates_per_train=8192
    )
    clock = Clock(*(jnp.int32(x) for x in (2**19, 0, 0, 0)))
    numbers = np.arange(8192)
    told = jax.vmap(functools.partial(rollout._told, config, dqx.Hyper(), clock, 0))(numbers)
    np.testing.assert_array_equal(told.step, 2**19 + numbers * 64)


# --- Settings.

REFUSED = {
    "part of a batch": ({"batch_size": 24}, "train_period 64 is no multiple of batch_size 24: set"),
    "part of an epoch": ({"updates_per_train": 6}, "updates_per_train 6 is no multiple of that: "),
    "a replay": ({"replay_capacity": 64}, "replay_capacity = 64 belongs to agents with a replay"),
    "sampling": ({"sampling": "newest"}, "sampling = newest belongs to agents with a replay"),
    "priorities": ({"priority_exponent": 0.5}, "belongs to agents with a replay"),
    "steps": ({"n_step": 3}, "n_step = 3 belongs to agents with a replay"),
    "a target network": ({"target_period": 64}, "target_period = 64 belongs to agents with a targ"),
    "double": ({"double": True}, "double = true belongs to agents with a target "),
    "a rule": ({"target": "munchausen"}, "belongs to agents with a target rule"),
    "its age": ({"diagnostics": ("replay_age",)}, "replay_age needs agents with a replay "),
    "lambda above 1": ({"td_lambda": 1.5}, "td_lambda must be between 0 and 1, got 1.5"),
    "lambda of another": ({"agent": "dqn"}, "td_lambda belongs to agent pqn, and agent is dqn"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    fields, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        settled(**fields)


def test_a_replay_that_is_not_there_is_neither_rounded_nor_too_small():
    config, hyper = dqx.override(
        dqx.Config(), dqx.Hyper(), agent="pqn", num_envs=3 * 2**12, train_period=3 * 2**13,
        batch_size=3 * 2**12, updates_per_train=2, learning_starts=0, total_steps=3 * 2**13,
        log_period=3 * 2**13, eval_period=0,
    )  # fmt: skip
    dqx.validate(config, hyper)
    assert dqx.settings.rounded(config) == (config, ())


def test_choosing_it_forgets_replay_and_target():
    config, hyper = dqx.override(*dqx.preset("cartpole"), agent="pqn", batch_size=8)
    dqx.validate(config, hyper)
    assert (config.target_period, config.double) == (500, False)


@pytest.mark.parametrize("name", ["cartpole/pqn", "breakout/pqn"])
def test_the_presets_are_the_published_settings(name):
    """Their numbers of rollouts, steps, environments, batches and epochs, as their files say."""
    config, hyper = dqx.preset(name)
    dqx.validate(config, hyper)
    assert dqx.settings.rounded(config) == (config, ())
    total, length, envs, batches, epochs, share = {
        "cartpole/pqn": (5e5, 64, 32, 16, 4, 0.2),
        "breakout/pqn": (1e7, 32, 128, 32, 2, 0.1),
    }[name]
    rounds = int(total // length // envs)
    assert config.total_steps == rounds * length * envs == hyper.anneal_steps
    assert (config.num_envs, config.train_period) == (envs, length * envs)
    assert config.batch_size == length * envs // batches
    assert config.updates_per_train == batches * epochs
    np.testing.assert_allclose(hyper.epsilon_steps, share * rounds * length * envs)
    assert config.annealed == ("learning_rate",) and hyper.anneal_scale == 0
