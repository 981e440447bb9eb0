"""Tabular Q-learning against a NumPy twin, and what it converges to against exact solutions."""

import dataclasses
import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces

import dqx
from dqx.agents import make_agent
from dqx.core import tabular
from dqx.core.agent import Now, Spec
from dqx.core.keys import seed_key
from dqx.core.types import Batch
from dqx.settings import ConfigError
from tests import probes
from tests.core.ledger import unpacked
from tests.shared import quickly

GAMMA = 0.9


def twin(table, visits, rows, learning_rate, power=0.0, clip=np.inf, weight=None):
    """Watkins' update of each row in turn, float64; rows of (s, a, reward, discount, s')."""
    table, visits, errors = np.array(table, np.float64), np.array(visits), []
    weight = np.ones(len(rows[0])) if weight is None else weight
    for state, action, reward, discount, after, times in zip(*rows, weight, strict=True):
        error = reward + discount * table[after].max() - table[state, action]
        visits[state, action] += 1
        step = learning_rate / float(visits[state, action]) ** power
        table[state, action] += times * step * np.clip(error, -clip, clip)
        errors.append(error)
    return table, visits, np.array(errors)


def random_rows(count, states=4, actions=3, seed=0):
    """Few states, so that most rows meet what earlier ones have changed."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, states, count),
        rng.integers(0, actions, count),
        rng.normal(size=count),
        0.9 * (rng.random(count) > 0.3),
        rng.integers(0, states, count),
    )


def transitions(rows):
    kinds = (jnp.int32, jnp.int32, jnp.float32, jnp.float32, jnp.int32)
    return dqx.Transition(*(jnp.asarray(x, kind) for x, kind in zip(rows, kinds, strict=True)))


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize(("power", "clip"), [(0.0, np.inf), (1.0, np.inf), (0.6, np.inf), (0, 0.5)])
def test_updates_in_order_equal_the_twins(count, power, clip):
    rng = np.random.default_rng(1)
    table, visits = rng.normal(size=(4, 3)).astype(np.float32), rng.integers(0, 5, (4, 3))
    rows = random_rows(count)
    step_size = tabular.StepSize(0.5, power, clip)
    given, counts, (errors, q) = tabular.q_learning(
        jnp.asarray(table), jnp.asarray(visits, jnp.int32), step_size, transitions(rows)
    )
    expected, expected_counts, expected_errors = twin(table, visits, rows, 0.5, power, clip)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(errors, expected_errors, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(counts, expected_counts)
    np.testing.assert_array_equal(q[0], table[rows[0][0]])  # before any update
    if count == 40:  # taken all at once they would give something else
        once = [twin(table, visits, [x[i : i + 1] for x in rows], 0.5, power, clip)[2][0]
                for i in range(count)]  # fmt: skip
        assert np.abs(once - expected_errors).max() > 0.1


def test_visits_make_the_step_sizes_mean():
    # One state that always ends: at power 1 its value is the mean of its rewards.
    rewards = np.array([3.0, -1.0, 4.0, 1.0, 5.0])
    zeros = np.zeros(5, int)
    batch = transitions((zeros, zeros, rewards, np.zeros(5), zeros))
    table, visits, _ = tabular.q_learning(
        jnp.full((1, 2), 7.0), jnp.zeros((1, 2), jnp.int32), tabular.StepSize(1.0, 1.0), batch
    )
    np.testing.assert_allclose(table, [[rewards.mean(), 7.0]], rtol=1e-6)
    np.testing.assert_array_equal(visits, [[5, 0]])


# --- The agent.

SPEC = Spec("Some-v0", (), jnp.int32, 4, 3)


@pytest.mark.parametrize("weighted", [False, True])
def test_an_update_of_the_agent_equals_the_twins(weighted):
    config = dqx.Config(agent="tabular", initial_q=1.5)
    hyper = dqx.Hyper(
        learning_rate=0.5, learning_rate_decay=0.25, visit_power=0.7, gamma=0.8,
        reward_clip=1.0, td_error_clip=1.2,
    )  # fmt: skip
    agent = make_agent(config, SPEC)
    state, rows = agent.init(jax.random.key(0)), list(random_rows(40))
    rows[3] = (rows[3] > 0).astype(float)
    weight = np.random.default_rng(4).uniform(0, 2, 40) if weighted else None
    batch = Batch(transitions(rows), None if weight is None else jnp.float32(weight))
    now = Now(hyper, jnp.int32(9), jnp.int32(4), jnp.int32(0))
    new, learned = quickly(agent.learn)(state, batch, (), now, jnp.bool_(True))
    seen = [*rows[:2], np.clip(rows[2], -1, 1), 0.8 * rows[3], rows[4]]
    start = np.full((4, 3), 1.5)
    table, visits, errors = twin(start, np.zeros((4, 3), int), seen, 0.25, 0.7, 1.2, weight)
    np.testing.assert_allclose(new.params["params"]["table"], table, rtol=1e-5)
    np.testing.assert_array_equal(new.opt_state, visits)
    np.testing.assert_allclose(learned.priority, np.abs(errors), rtol=1e-4, atol=1e-5)
    times = np.ones(40) if weight is None else weight
    np.testing.assert_allclose(learned.metrics["loss"], np.mean(times * errors**2), rtol=1e-4)
    norm = np.linalg.norm(table)
    np.testing.assert_allclose(learned.metrics["weight_norm"], norm, rtol=1e-5)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Spec("Some-v0", (2,), jnp.float32, None, 2), ["Discrete", "float32", "[2]", "dqn"]),
        (Spec("Some-v0", (), jnp.int32, 2**30, 2), ["2**31", "1,073,741,824", "2 actions"]),
    ],
)
def test_observations_that_no_table_can_take_are_refused(spec, words):
    with pytest.raises(ConfigError) as caught:
        make_agent(dqx.Config(agent="tabular"), spec)
    message = str(caught.value)
    assert all(word in message for word in ("Some-v0 gives", *words)), message
    assert "\n" not in message


# --- Worlds made of Gymnasium's tables of transitions.


@struct.dataclass
class State(probes.environment.EnvState):
    place: jax.Array
    time: jax.Array


class World(probes.Probe):
    """A deterministic world from a table as Gymnasium's ``P``, started anywhere it says."""

    def __init__(self, name, starts=None, time_limit=200, **options):
        env = gymnasium.make(name, **options).unwrapped
        size = (env.observation_space.n, env.action_space.n)
        outcomes = [[env.P[s][a][0] for a in range(size[1])] for s in range(size[0])]
        assert all(len(env.P[s][a]) == 1 for s in range(size[0]) for a in range(size[1]))
        self.after, self.rewards, self.ends = (
            np.array([[o[i] for o in row] for row in outcomes]) for i in (1, 2, 3)
        )
        self.starts = np.flatnonzero(env.initial_state_distrib) if starts is None else starts
        self.actions, self.time_limit = size[1], time_limit

    def observation_space(self, params):
        return spaces.Discrete(len(self.after))

    def reset_env(self, key, params):
        start = jax.random.randint(key, (), 0, len(self.starts))
        state = State(place=jnp.asarray(self.starts, jnp.int32)[start], time=jnp.int32(0))
        return state.place, state

    def step_env(self, key, state, action, params):
        where = (state.place, action)
        place = jnp.asarray(self.after, jnp.int32)[where]
        state = State(place=place, time=state.time + 1)
        reward = jnp.asarray(self.rewards, jnp.float32)[where]
        return place, state, reward, jnp.asarray(self.ends)[where], {}

    def adapted(self):
        return dqx.adapt(self, self.default_params)


def exact(outcomes, gamma):
    """Q* by value iteration in float64; ``outcomes[s][a]`` as in Gymnasium's ``P``."""
    num_states, num_actions = len(outcomes), len(outcomes[0])
    q = np.zeros((num_states, num_actions))
    for _ in range(1_000):
        values = q.max(axis=1)
        q = np.array(
            [
                [sum(p * (r + gamma * values[n] * (not end)) for p, n, r, end in outcomes[s][a])
                 for a in range(num_actions)]
                for s in range(num_states)
            ]
        )  # fmt: skip
        if np.abs(q.max(axis=1) - values).max() < 1e-9:
            return q
    raise AssertionError("no convergence")


ONLINE = dqx.Config(
    agent="tabular",
    sampling="newest",
    num_envs=1,
    train_period=1,
    batch_size=1,
    learning_starts=1,
    replay_capacity=8,
    epsilon_schedule="constant",
)
HYPER = dqx.Hyper(gamma=GAMMA, epsilon_start=1.0, learning_rate=1.0)


def trained(env, config, hyper, steps, num_seeds=2):
    trainer = dqx.make_trainer(config, env)
    keys = jax.vmap(functools.partial(seed_key, 0))(jnp.arange(num_seeds))
    return probes.run_trainer(trainer, hyper, keys, config.learning_starts, steps)


def tables_of(lanes):
    return lanes.agent.params["params"]["table"]


@pytest.fixture(scope="module")
def taxi():
    return World("Taxi-v4")


def test_taxi_is_solved_exactly(taxi):
    # Without chance in the world, a step size of 1 makes Q-learning asynchronous value iteration.
    _, lanes, _, metrics = trained(taxi.adapted(), ONLINE, HYPER, 600_000)
    q_star = exact(gymnasium.make("Taxi-v4").unwrapped.P, GAMMA)
    visited = lanes.agent.opt_state > 0
    assert visited[0].any(axis=1).sum() == 400  # all places but those of a delivered passenger
    for table, seen in zip(tables_of(lanes), visited, strict=True):
        assert seen.sum() == 400 * 6
        np.testing.assert_allclose(table[seen], q_star[seen], atol=1e-4)
    assert np.all(np.isfinite(metrics["weight_norm"])) and np.all(np.isnan(metrics["grad_norm"]))
    assert np.any(lanes.agent.opt_state[0] != lanes.agent.opt_state[1])  # seeds of their own


@pytest.mark.long
def test_frozen_lake_converges_under_chance():
    env = dqx.make_environment("FrozenLake-misc")
    config = dataclasses.replace(ONLINE, num_envs=4, train_period=4, batch_size=4,
                                 learning_starts=4, policy="boltzmann")  # fmt: skip
    # Q-values lie below 1: a temperature of 1 chooses nearly uniformly.
    hyper = HYPER.replace(visit_power=0.85)
    _, lanes, _, _ = trained(env, config, hyper, 1_000_000)
    world = gymnasium.make("FrozenLake-v1", is_slippery=True).unwrapped.P
    q_star, ends = exact(world, GAMMA), [5, 7, 11, 12, 15]
    alive = np.setdiff1d(np.arange(16), ends)
    for table in tables_of(lanes):
        np.testing.assert_allclose(table[alive], q_star[alive], atol=0.02)
        np.testing.assert_array_equal(table[ends], np.zeros((5, 4)))  # nobody acts there


# --- The order of updates within training.


def test_training_learns_every_transition_once_in_order(taxi):
    num_envs = 4
    steps, env = 400, taxi.adapted()
    config = dataclasses.replace(
        ONLINE, num_envs=num_envs, train_period=8, batch_size=8, learning_starts=16,
        replay_capacity=1_000, initial_q=2.0,
    )  # fmt: skip
    hyper = HYPER.replace(learning_rate=0.3, epsilon_start=0.3, visit_power=0.5)
    _, lanes, _, _ = trained(env, config, hyper, steps)
    for seed in range(2):
        replay = unpacked(lanes, seed, 1_000, env)
        stored = jax.tree.map(lambda x: x[16 : 16 + steps], replay)  # all since learning started
        rows = [np.asarray(x) for x in (*stored[:3], GAMMA * stored.discount, stored.next_obs)]
        start = np.full((500, 6), 2.0)
        expected, visits, _ = twin(start, np.zeros((500, 6), int), rows, 0.3, power=0.5)
        np.testing.assert_allclose(tables_of(lanes)[seed], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(lanes.agent.opt_state[seed], visits)
    # A replay that holds no more than what the next updates need changes nothing.
    small = dataclasses.replace(config, replay_capacity=16)
    _, same, _, _ = trained(env, small, hyper, steps)
    np.testing.assert_array_equal(tables_of(same), tables_of(lanes))


def test_optimism_tries_every_action_without_chance():
    # Greedy from the start on, a high table still tries all; a low one stays with the first.
    env = World("Taxi-v4", starts=np.array([328])).adapted()
    hyper = HYPER.replace(epsilon_start=0.0, learning_rate=0.5)
    tried = {}
    for initial_q in (0.0, -1000.0):
        config = dataclasses.replace(ONLINE, initial_q=initial_q)
        _, lanes, _, _ = trained(env, config, hyper, 2_000)
        tried[initial_q] = (lanes.agent.opt_state[0] > 0).any(axis=0).sum()
    assert tried[0.0] == 6 and tried[-1000.0] < 6


def test_the_replay_may_be_sampled_for_a_table_too(taxi):
    config = dataclasses.replace(
        ONLINE, sampling="uniform", batch_size=16, replay_capacity=2_000, learning_starts=100
    )
    _, lanes, _, _ = trained(taxi.adapted(), config, HYPER, 2_000)
    assert lanes.agent.opt_state[0].sum() == 2_000 * 16


def test_a_table_trains_stores_and_evaluates_as_any_network():
    config = dataclasses.replace(
        ONLINE, env="FrozenLake-misc", total_steps=4_000, learning_starts=1_000, log_period=1_000,
        eval_period=2_000, eval_episodes=5, chunk_width=2,
    )  # fmt: skip
    result = dqx.train(config, HYPER, seeds=2)
    assert result.params["params"]["table"].shape == (2, 16, 4)
    assert np.isfinite(result.metrics["eval_return"][:, 1::2]).all()
    np.testing.assert_allclose(
        result.metrics["weight_norm"][:, -1],
        np.linalg.norm(result.params["params"]["table"].reshape(2, -1), axis=1),
        rtol=1e-5,
    )
