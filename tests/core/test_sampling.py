"""Samplers against hand-made rows, and what the loop tells and takes of one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dqx
from dqx.core import sampling
from dqx.core.keys import Purpose, purpose_key
from dqx.core.replay import Filled, uniform_rows
from dqx.core.sampling import Sampler
from dqx.settings import SETTINGS
from tests.core.ledger import CONFIG, LANES, run_ledger, seed_keys, unpacked

LEVEL = 1e-4  # all but one key in ten thousand pass by chance; keys are fixed


def config_of(**fields):
    return dataclasses.replace(dqx.Config(), **fields)


def filled(position, size):
    return Filled(jnp.int32(position), jnp.int32(size), jnp.int32(size))


def test_every_name_in_the_configuration_is_a_sampler():
    assert set(sampling.SAMPLERS) == set(SETTINGS["sampling"].names())


@pytest.mark.parametrize("name", ["uniform", "newest"])
def test_samplers_without_a_memory_keep_none_and_weigh_nothing(name):
    sampler = sampling.SAMPLERS[name](config_of(batch_size=8, train_period=8))
    assert sampler.init() is None and sampler.add(None, jnp.int32(3)) is None
    rows, weight = sampler.pick(None, sampler.draws(jax.random.key(0)), filled(16, 16), None)
    assert (rows.shape, rows.dtype, weight) == ((8,), jnp.int32, None)
    assert sampler.feedback(None, rows, jnp.ones(8), None) is None


# --- Uniform.


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_uniform_rows_are_random_words_modulo_the_size(size):
    bits = np.array([0, 1, 2, 5, 2**31, 2**32 - 1], np.uint32)
    expected = [int(word) % size for word in bits]
    rows = uniform_rows(jnp.asarray(bits), jnp.int32(size))
    np.testing.assert_array_equal(rows, expected)
    sampler = sampling.uniform(config_of(batch_size=6))
    picked, _ = sampler.pick(None, jnp.asarray(bits), filled(0, size), None)
    np.testing.assert_array_equal(picked, expected)


@pytest.mark.parametrize(("position", "size"), [(7, 7), (0, 40), (13, 40)])
def test_uniform_draws_every_written_row_alike_and_no_other(position, size):
    # Draws know nothing of the replay: the rows are those written when an update happens.
    sampler = sampling.uniform(config_of(batch_size=64, replay_capacity=40))
    keys = jax.random.split(jax.random.key(size), 500)
    draws = jax.vmap(sampler.draws)(keys)
    rows = jax.vmap(lambda d: sampler.pick(None, d, filled(position, size), None)[0])(draws)
    counts = np.bincount(np.ravel(rows), minlength=size)
    assert len(counts) == size
    assert scipy.stats.chisquare(counts).pvalue > LEVEL


# --- Newest.


@pytest.mark.parametrize(
    ("position", "expected"),
    [(4, [0, 1, 2, 3]), (9, [5, 6, 7, 8]), (0, [8, 9, 10, 11]), (3, [11, 0, 1, 2])],
)
def test_newest_takes_the_rows_before_the_position_around_the_end(position, expected):
    sampler = sampling.newest(config_of(train_period=4, batch_size=4, replay_capacity=12))
    draws = sampler.draws(jax.random.key(0))
    assert jax.tree.leaves(draws) == []  # nothing is left to chance
    rows, _ = sampler.pick(None, draws, filled(position, 12), None)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("num_envs", [1, 4])
def test_newest_hands_an_agent_every_transition_once_in_its_order(num_envs, n_step):
    steps = 48 + 240  # as `run_ledger` takes
    fields = {"train_period": 8, "batch_size": 8, "replay_capacity": steps, "num_envs": num_envs}
    _, lanes, _, _ = run_ledger(sampling="newest", n_step=n_step, **fields)
    _, singles, _, _ = run_ledger(**fields)  # the same transitions, a row each
    for lane in range(LANES):
        notes = jax.tree.map(lambda x, at=lane: np.asarray(x[at, :30]), lanes.agent.opt_state)
        learned = {k: notes[k].reshape(240, -1) for k in ("obs", "next_obs", "lengths")}
        begun = 48 - (n_step - 1) * num_envs
        rows = unpacked(singles, lane, steps)
        np.testing.assert_array_equal(learned["obs"], rows.obs[begun:][:240])
        # A mark is 2 less than the steps of its episode, a time how many are behind.
        left = rows.obs[begun:][:240, 0] + 2 - rows.obs[begun:][:240, 1]
        np.testing.assert_array_equal(learned["lengths"][:, 0], np.minimum(left, n_step))
        ends = begun + np.arange(240) + num_envs * (learned["lengths"][:, 0] - 1)
        np.testing.assert_array_equal(learned["next_obs"], rows.next_obs[ends])


# --- What the loop picks where.


NUM_ENVS, PERIOD, WARM_UP, STEPS, CAPACITY = 4, 8, 16, 120, 80
ROUNDS = {"num_envs": NUM_ENVS, "train_period": PERIOD, "updates_per_train": 2}
UPDATES = 2 * STEPS // PERIOD


def run(capacity=CAPACITY, sampler=None):
    """Lanes of a run whose replay is filled up while learning, and wraps around."""
    return run_ledger(WARM_UP, STEPS, sampler=sampler, replay_capacity=capacity, **ROUNDS)[1]


@pytest.fixture(scope="module")
def history():
    """The rewards of all steps, of each lane: the ledger agent learns nothing, they are the same
    whatever the replay holds and gives."""
    lanes = run(capacity=WARM_UP + STEPS)
    return [unpacked(lanes, lane, WARM_UP + STEPS).reward for lane in range(LANES)]


def test_rows_picked_at_an_update_are_those_its_key_draws_from_what_is_written(history):
    lanes = run()
    key = purpose_key(seed_keys(LANES)[0], Purpose.REPLAY)
    sizes = set()
    for update in range(UPDATES):
        step = WARM_UP + PERIOD * (update // 2 + 1)
        size = min(step, CAPACITY)
        sizes.add(size)
        bits = np.asarray(jax.random.bits(jax.random.fold_in(key, update), (8,), jnp.uint32))
        rows = bits % size
        written = np.arange(step)  # a row holds the latest step that was written there
        at = np.array([written[written % CAPACITY == row][-1] for row in rows])
        np.testing.assert_array_equal(lanes.agent.opt_state["reward"][0, update], history[0][at])
    assert min(sizes) == WARM_UP + PERIOD and max(sizes) == CAPACITY < WARM_UP + STEPS


class _Kept:
    """Oracle of the sampler below, in plain Python."""

    def __init__(self, capacity):
        self.priority = np.zeros(capacity)

    def add(self, position, num_envs):
        self.priority[position : position + num_envs] = 1000.0

    def pick(self, count):
        order = np.argsort(-self.priority, kind="stable")[:count]
        return order, self.priority[order] / 2

    def feedback(self, rows, priority):
        self.priority[rows] = priority


def greediest(config):
    """The rows of highest priority, weighed by half of it; new ones have a thousand."""

    def add(priority, position):
        ones = jnp.full(config.num_envs, 1000.0)
        return jax.lax.dynamic_update_slice_in_dim(priority, ones, position, axis=0)

    def pick(priority, draws, filled, now):
        rows = jnp.argsort(-priority, stable=True)[: config.batch_size]
        return rows.astype(jnp.int32), priority[rows] / 2

    return Sampler(
        init=lambda: jnp.zeros(config.replay_capacity),
        add=add,
        draws=lambda key: (),
        pick=pick,
        feedback=lambda state, rows, priority, now: state.at[rows].set(priority),
    )


def test_a_sampler_is_told_of_every_write_and_priority_and_weighs_the_batch(history):
    lanes = run(sampler=greediest)
    for lane in range(LANES):
        rewards, notes = history[lane], lanes.agent.opt_state
        kept, held, update = _Kept(CAPACITY), np.zeros(CAPACITY), 0
        for step in range(0, WARM_UP + STEPS, NUM_ENVS):
            rows = (step + np.arange(NUM_ENVS)) % CAPACITY
            held[rows] = rewards[step : step + NUM_ENVS]
            kept.add(rows[0], NUM_ENVS)
            done = step + NUM_ENVS - WARM_UP
            for _ in range(2 if done > 0 and done % PERIOD == 0 else 0):
                picked, weight = kept.pick(CONFIG.batch_size)
                np.testing.assert_array_equal(notes["reward"][lane, update], held[picked])
                np.testing.assert_allclose(notes["weight"][lane, update], weight, rtol=1e-6)
                kept.feedback(picked, held[picked])  # the ledger agent's priorities
                update += 1
        assert update == lanes.agent.params[lane] == UPDATES
        np.testing.assert_allclose(lanes.sampler[lane], kept.priority, rtol=1e-6)
