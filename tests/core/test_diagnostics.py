"""Diagnostics against arrays by hand, NumPy in float64, and environments whose values are known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
from dqx.compute.diagnostics import effective_ranks, overestimation
from dqx.core import diagnostics, evaluation, rollout
from dqx.core.agent import Agent, AgentState, Insight, Now
from dqx.core.forms import example_transition, make_store
from dqx.core.keys import seed_key
from dqx.core.replay import Filled
from dqx.core.sampling import Sampler
from dqx.core.state import Clock, Lane
from dqx.core.steps import Parts
from dqx.settings import ConfigError, validate
from tests import probes
from tests.jaxprs import traced
from tests.shared import TINY, quickly

ALL = ("overestimation", "dormant_units", "effective_rank", "replay_age", "target_distance")
GAMMA = 0.5  # so that every number below is exact in float32


# --- Units that say nothing.


def test_the_share_of_dormant_units_by_hand():
    layers = [np.array([0.0, 1.0, 1.0, 2.0]), np.array([0.02, 0.98])]
    # Scores 0, 1, 1, 2 and 0.04, 1.96.
    assert diagnostics.dormant_share(layers, 0.0) == np.float32(1 / 6)
    assert diagnostics.dormant_share(layers, 0.025) == np.float32(1 / 6)
    assert diagnostics.dormant_share(layers, 0.04) == np.float32(2 / 6)
    assert diagnostics.dormant_share(layers, 1.0) == np.float32(4 / 6)


def test_a_silent_layer_is_dormant_as_a_whole_and_a_diverged_one_has_no_share():
    silent, loud = np.zeros(3), np.ones(1)
    assert diagnostics.dormant_share([silent, loud], 0.025) == 0.75
    assert np.isnan(diagnostics.dormant_share([silent, np.array([np.nan])], 0.025))
    assert np.isnan(diagnostics.dormant_share([silent, np.array([np.inf, 1.0])], 0.025))


def made(config, env=None):
    """An agent, its parameters at the start, and 70 observations of the environment."""
    env = env or dqx.environment_of(config)
    agent = dqx.make_agent(config, env)

    def start():
        state = agent.init(jax.random.key(3))
        state = state if agent.begin is None else agent.begin(state, dqx.Hyper())
        obs, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 70))
        return state.params, obs

    return agent, *quickly(start)()


def test_a_network_with_known_dormant_units_and_a_known_rank():
    config = dataclasses.replace(TINY, hidden_sizes=(6,), diagnostics=("dormant_units",))
    agent, params, _ = made(config)
    # On observations of a single number x from 1 to 2: units 0, x, 2x, 0.01, 0 and 4.
    kernel = np.zeros((4, 6), np.float32)
    kernel[0] = [0, 1, 2, 0, 0, 0]
    bias = np.array([0, 0, 0, 0.01, -1, 4], np.float32)
    params = jax.tree.map(np.asarray, params)
    params["params"]["Dense_0"] = {"kernel": kernel, "bias": bias}
    obs = np.zeros((512, 4), np.float32)
    obs[:, 0] = np.linspace(1, 2, 512)
    found = diagnosed(config, agent, params, obs)
    assert found["dead_units"] == np.float32(2 / 6)
    assert found["dormant_units"] == np.float32(3 / 6)
    config = dataclasses.replace(config, diagnostics=("effective_rank",))
    features = diagnosed(config, agent, params, obs)["effective_rank"]
    assert features.shape == (512, 6) and np.linalg.matrix_rank(features) == 2
    assert effective_ranks(features) == 2


def diagnosed(config, agent, params, rows_of_obs, rows=None, filled=None):
    """What `diagnose` says of an agent with a replay of these observations; rows as given."""
    capacity = len(rows_of_obs)
    config = dataclasses.replace(config, replay_capacity=capacity)
    env = dqx.environment_of(config)
    example = example_transition(env)
    store, writer = make_store(env, capacity), make_store(env, capacity, capacity)
    whole = Filled(jnp.int32(0), jnp.int32(capacity), jnp.int32(capacity))
    sampler = Sampler(None, None, lambda key: (), lambda *_: (rows, None), None)

    def found(params, rows_of_obs, filled):
        steps = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example)
        steps = steps._replace(obs=rows_of_obs)
        packed = writer.write(writer.init(), whole, steps, jnp.zeros(capacity, jnp.int32))
        zero = jnp.zeros(())
        state, clock = AgentState(params, {}, None), Clock(*(jnp.int32(0) for _ in range(4)))
        lane = Lane(seed_key(0, 1), state, packed, None, None, zero, zero, zero, zero, zero, {})
        now = Now(dqx.Hyper(), jnp.int32(capacity), jnp.int32(0), jnp.int32(0))
        parts = Parts(config, env, agent, store, sampler)
        return diagnostics.diagnose(parts, clock, lane, filled, now)

    found = quickly(found)(params, jnp.asarray(rows_of_obs), filled or whole)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(
    ("env", "changes", "widths"),
    [
        ("CartPole-v1", {"head": "dueling_avg", "stream_sizes": (5,)}, [(16,), (5,), (5,)]),
        (
            "CartPole-v1",
            {"head": "dueling_avg", "stream_sizes": (6, 5)},
            [(16,), (6,), (5,), (6,), (5,)],
        ),
        (
            "CartPole-v1",
            {
                "agent": "iqn",
                "num_value_levels": 4,
                "head": "dueling_avg",
                "stream_sizes": (6, 5),
            },
            [(16,), (4, 6), (4, 5), (4, 6), (4, 5)],
        ),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                ("CartPole-v1", {"hidden_sizes": (12, 7)}, [(12,), (7,)]),
                ("CartPole-v1", {"dense": "noisy", "layer_norm": True}, [(16,)]),
                ("CartPole-v1", {"normalize_observations": True}, [(16,)]),
                ("CartPole-v1", {"averaging": "evaluation"}, [(16,)]),
                ("CartPole-v1", {"agent": "c51"}, [(16,)]),
                ("CartPole-v1", {"agent": "iqn"}, [(16,)]),
                ("FrozenLake-misc", {"network": "embedding"}, [(16,)]),
                ("Breakout-MinAtar", {"network": "minatar_cnn"}, [(8, 8, 16), (16,)]),
                (
                    "Breakout-MinAtar",
                    {"network": "minatar_cnn", "hidden_sizes": ()},
                    [(8, 8, 16)],
                ),
            )
        ),
    ],
)
def test_units_are_those_that_the_outputs_are_computed_from(env, changes, widths):
    """Q-values computed anew in float64 from the last hidden layers alone."""
    config = dqx.override(TINY, dqx.Hyper(), env=env, chunk_width=None, **changes)[0]
    agent, params, obs = made(config)
    units = agent.insight.units
    # Of 3 rows, too, which lie otherwise while they are computed.
    layers, few, given = quickly(
        lambda params, obs: (
            units(params, obs),
            units(params, obs[:3]),
            agent.q_values(params, obs),
        )
    )(params, obs)
    assert [layer.shape for layer in layers] == [(len(obs), *width) for width in widths]
    for one, other in zip(layers, few, strict=True):
        np.testing.assert_allclose(one[:3], other, rtol=1e-5, atol=1e-6)
    if config.agent in ("c51", "iqn") and not config.stream_sizes:
        return  # what they give is no product of the features and a layer
    tree = params["network"] if config.normalize_observations else params
    tree = tree["newest"] if config.averaging != "none" else tree  # the average is the same yet
    dense = {name: x for name, x in tree["params"].items() if name.startswith("Dense")}
    weights = jax.tree.map(np.float64, dense)
    features = np.float64(agent.insight.features(layers))

    def product(x, number):
        layer = weights[f"Dense_{number}"]
        return x @ layer["kernel"] + layer["bias"]

    if config.stream_sizes:
        # A value's stream and its last layer come before those of the advantages.
        of_value, of_rest = np.split(features, 2, axis=1)
        number = len(config.stream_sizes) + 1
        advantages = product(of_rest, 2 * number)
        q = product(of_value, number) + advantages - advantages.mean(axis=1, keepdims=True)
    else:
        q = product(features, len(weights) - 1)
    np.testing.assert_allclose(given, q, rtol=1e-4, atol=1e-5)


# --- Rank.


def brute_force(features, delta):
    values = np.linalg.svd(np.float64(features), compute_uv=False)
    for k in range(1, len(values) + 1):
        if values[:k].sum() / values.sum() >= 1 - delta:
            return k
    raise AssertionError


def with_singular_values(rng, count, values):
    left = np.linalg.qr(rng.normal(size=(count, len(values))))[0]
    right = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return left * values @ right


def test_effective_ranks_of_known_singular_values():
    rng = np.random.default_rng(0)
    # Without the last: 0.99 of the sum, less a little, and more than that.
    cases = {(1, 1, 1, 0.0301): 3, (1, 1, 1, 0.0305): 4, (5, 0, 0, 0): 1, (1, 1e-3, 1e-4, 0): 1}
    cases[1, 1, 1, 0.0301] = 3 if 3 / 3.0301 >= 0.99 else 4
    for values, rank in cases.items():
        features = with_singular_values(rng, 30, np.array(values, float))
        assert effective_ranks(features) == rank, values
    features = rng.normal(size=(5, 40, 9)) ** 3
    for delta in (0.01, 0.1, 0.5):
        expected = [brute_force(x, delta) for x in features]
        np.testing.assert_array_equal(effective_ranks(features, delta), expected)


def test_nothing_has_rank_0_and_what_is_not_finite_none():
    features = np.zeros((3, 4, 2), np.float32)
    features[1, 0, 0] = 1
    features[2, 0, 0] = np.inf
    np.testing.assert_array_equal(effective_ranks(features), [0, 1, np.nan])


# --- Age.


@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_ages_in_a_ring_that_wraps(num_envs):
    capacity, taken = 6, np.full(6, -1)
    for step in range(0, 30, num_envs):
        for env in range(num_envs):
            taken[(step + env) % capacity] = step  # environment steps before this one
        now, written = step, min(step + num_envs, capacity)
        filled = Filled((step + num_envs) % capacity, written, step + num_envs)
        rows = np.arange(written)
        ages = diagnostics.replay_ages(rows, filled, capacity, num_envs)
        np.testing.assert_array_equal(ages, now - taken[:written])


def test_the_age_of_what_a_sampler_picks():
    config = dataclasses.replace(TINY, num_envs=1, diagnostics=("replay_age",))
    agent, params, obs = made(config)
    filled = Filled(jnp.int32(3), jnp.int32(70), jnp.int32(73))
    # The newest, the one before, and the oldest.
    found = diagnosed(config, agent, params, obs, jnp.array([2, 1, 3]), filled)
    assert found == {"replay_age": np.float32((0 + 1 + 69) / 3)}


def test_an_agent_without_a_replay_is_looked_at_in_what_it_sees_next():
    config, hyper = dqx.override(
        *dqx.preset("cartpole/pqn"), hidden_sizes=(8,), num_envs=4, train_period=512,
        batch_size=64, updates_per_train=8, diagnostics=ALL[1:3], policy="ez_greedy",
    )  # fmt: skip
    validate(config, hyper)
    env = dqx.environment_of(config)
    agent, trainer = dqx.make_agent(config, env), dqx.make_trainer(config, env)
    lane, clock = trainer.init(seed_key(0, 2)), trainer.start()

    def both():  # the round itself goes on from there with the same draws
        _, happened, _ = rollout._act(Parts(config, env, agent), clock, lane, hyper)
        (units,) = agent.insight.units(lane.agent.params, happened.obs.reshape(512, -1))
        return trainer.diagnose(clock, lane, hyper), units

    found, units = jax.tree.map(np.asarray, quickly(both)())
    np.testing.assert_allclose(found["effective_rank"], units, rtol=1e-5, atol=1e-6)
    assert len(np.unique(units, axis=0)) == 512  # episodes go on, and begin anew
    magnitudes = np.abs(np.float64(units)).mean(axis=0)
    dormant = np.mean(magnitudes <= 0.025 * magnitudes.mean())
    assert found["dormant_units"] == np.float32(dormant)


# --- What is expected, and what comes.


def q_of_ledger(more=0.0, afterwards=64.0):
    """Exact Q-values of `probes.Ledger` at `GAMMA`, and ``more`` than that.

    Where a time limit ends an episode, whatever follows is worth ``afterwards``.
    """
    table = np.zeros((8, 11))
    for mark in range(8):
        length = probes.ledger_length(mark)
        table[mark, length] = 0.0 if length % 2 else afterwards
        for time in range(length - 1, -1, -1):
            table[mark, time] = 100.0 + length + time + GAMMA * table[mark, time + 1]
    values = jnp.asarray(table + more, jnp.float32)

    def q_values(obs):
        mark, time = obs[:, 0].astype(jnp.int32), obs[:, 1].astype(jnp.int32)
        return jnp.stack([values[mark, time] - 7, values[mark, time]], axis=1)

    return q_values


def foreseen(q_values, pieces=(), hyper=None, **changes):
    """Overestimation of each episode of an evaluation, its length, and the evaluation's mean."""
    env, config = probes.adapted(probes.Ledger), dataclasses.replace(TINY, eval_episodes=40)
    config = dataclasses.replace(config, **changes)
    hyper, key, step = hyper or dqx.Hyper(gamma=GAMMA), seed_key(0, 5), jnp.int32(0)
    hyper = jax.tree.map(jnp.float32, hyper)
    played = evaluation.begin(config, env, key, step)
    played = evaluation.foreseeing(config, played, hyper)
    going_on = quickly(functools.partial(evaluation.play, env, q_values, key, step))
    for until in pieces:
        played = going_on(played, jnp.int32(until))
    played = going_on(played, jnp.int32(10_000))
    assert not np.any(played.running) and not np.any(played.foreseen.open)
    found = played.foreseen.predicted - played.foreseen.received
    lifted = jax.tree.map(lambda x: jnp.asarray(x)[None], played.foreseen)
    return np.asarray(found), np.asarray(played.length), overestimation(lifted)


def test_overestimation_is_exactly_zero_where_values_are_exact():
    found, lengths, mean = foreseen(q_of_ledger())
    assert set(lengths) == set(range(2, 10))
    np.testing.assert_array_equal(found, 0)
    assert mean == 0


def test_overestimation_is_what_is_added_to_exact_values():
    found, lengths, mean = foreseen(q_of_ledger(more=1.0))
    # What follows a time limit is the agent's own word, too high by as much.
    expected = np.where(lengths % 2, 1.0, 1.0 - GAMMA ** np.float64(lengths))
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    np.testing.assert_array_equal(mean, [np.float32(expected.mean())])


def test_time_limits_that_are_terminal_have_nothing_after_them():
    found, lengths, _ = foreseen(q_of_ledger(), time_limit_is_terminal=True)
    np.testing.assert_array_equal(found, np.where(lengths % 2, 0, 64 * GAMMA**lengths))


def test_overestimation_in_pieces_is_that_at_once():
    whole = foreseen(q_of_ledger(more=3.0))
    for one, other in zip(whole, foreseen(q_of_ledger(more=3.0), (1, 2, 3, 6)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_rewards_count_as_the_agent_learns_from_them():
    hyper = dqx.Hyper(gamma=GAMMA, reward_scale=0.5, reward_clip=52.0)
    found, lengths, _ = foreseen(q_of_ledger(), hyper=hyper, time_limit_is_terminal=True)
    table = q_of_ledger()
    first = np.stack([lengths - 2, np.zeros_like(lengths)], axis=1)
    for difference, length, said in zip(found, lengths, table(first).max(axis=1), strict=True):
        rewards = np.minimum(0.5 * (100 + length + np.arange(length)), 52.0)
        assert difference == said - np.sum(rewards * GAMMA ** np.arange(length))


# --- What has no meaning is refused.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"diagnostics": ("age",)}, "diagnostics must be one of overestimation, .*, got 'age'"),
        ({"diagnostics": ("replay_age",) * 2}, "names one twice"),
        ({"eval_period": 0, "diagnostics": ALL[:1]}, "overestimation is measured in evaluations"),
        ({"target": "munchausen", "diagnostics": ALL[:1]}, "hold the log of the policy"),
        ({"hidden_sizes": (), "diagnostics": ALL[1:2]}, "dormant_units needs hidden units"),
        (
            {"agent": "tabular", "env": "FrozenLake-misc", "diagnostics": ALL[2:3]},
            "effective_rank needs agents with a network .*, and agent is tabular",
        ),
        (
            {"agent": "tabular", "env": "FrozenLake-misc", "diagnostics": ALL[4:]},
            "target_distance needs agents with a target .*, and agent is tabular",
        ),
    ],
)
def test_what_there_is_not_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        validate(*dqx.override(TINY, dqx.Hyper(), **changes))


def test_a_table_has_an_age_and_an_overestimation():
    config, hyper = dqx.override(
        TINY, dqx.Hyper(), agent="tabular", env="FrozenLake-misc", diagnostics=(ALL[0], ALL[3])
    )
    validate(config, hyper)
    diagnostics.check(config, dqx.make_agent(config, dqx.environment_of(config)))


def test_an_agent_that_shows_nothing_is_refused():
    config = dataclasses.replace(TINY, diagnostics=ALL)
    agent = dqx.make_agent(config, dqx.environment_of(config))
    diagnostics.check(config, agent)
    blind: Agent = agent._replace(insight=Insight())
    with pytest.raises(ConfigError, match="dormant_units needs hidden units, and agent dqn shows"):
        diagnostics.check(config, blind)
    metrics = {n: m for n, m in agent.metrics.items() if n != "target_distance"}
    with pytest.raises(ConfigError, match="target_distance needs a target network"):
        diagnostics.check(config, agent._replace(metrics=metrics))
    own = agent.metrics | {"replay_age": agent.metrics["loss"]}
    with pytest.raises(ConfigError, match="a metric replay_age of its own: rename it"):
        diagnostics.check(config, agent._replace(metrics=own))


# --- Nothing is added where nothing is asked for.


def programs_of(config):
    env = dqx.environment_of(config)
    trainer = dqx.make_trainer(config, env)
    lane, clock = jax.eval_shape(trainer.init, seed_key(0, 0)), jax.eval_shape(trainer.start)
    segment = functools.partial(trainer.segment, steps=16)
    found = (
        traced(segment, clock, lane, dqx.Hyper()),
        traced(trainer.begin, clock, lane, jnp.int32(9)),
    )
    # Not as text: checks are numbered through.
    return [[(e.primitive.name, shapes(e.invars), shapes(e.outvars)) for e in p] for p in found]


def shapes(variables):
    return [str(variable.aval) for variable in variables]


def test_the_loop_is_the_same_program_with_and_without_diagnostics():
    plain = programs_of(TINY)
    assert programs_of(dataclasses.replace(TINY, diagnostics=ALL[:4])) == plain
    # That of the target alone is measured in every update.
    assert programs_of(dataclasses.replace(TINY, diagnostics=ALL[4:]))[0] != plain[0]
