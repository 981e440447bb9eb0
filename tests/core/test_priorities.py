"""Prioritized samplers against twins in plain NumPy, over writes that wrap around."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dqx
from dqx.core import sampling
from dqx.core.agent import Now
from dqx.core.replay import Filled

CAPACITY, NUM_ENVS, BATCH, PERIOD = 60, 4, 16, 3
CONFIG = dataclasses.replace(
    dqx.Config(), num_envs=NUM_ENVS, batch_size=BATCH, replay_capacity=CAPACITY, rank_period=PERIOD
)
HYPER = dqx.Hyper(
    priority_exponent=0.7, priority_floor=0.01, importance_start=0.5, importance_steps=1_000.0
)


def now_at(step=0, updates=0, hyper=HYPER):
    return Now(hyper, jnp.int32(step), jnp.int32(updates), jnp.int32(0))


def filled_after(steps):
    written = steps * NUM_ENVS
    values = (written % CAPACITY, min(written, CAPACITY), written)
    return Filled(*(jnp.int32(value) for value in values))


class Proportional:
    """The twin: what each row's priority is, and nothing else."""

    def __init__(self):
        self.priority, self.largest = np.zeros(CAPACITY), 1.0

    def add(self, rows):
        self.priority[rows] = self.largest

    def feedback(self, rows, errors, update):
        for row in set(rows):
            self.priority[row] = max(errors[rows == row] + 0.01) ** 0.7
        self.largest = max(self.largest, *(self.priority[rows]))


class Ranked:
    """The twin that sorts."""

    def __init__(self):
        self.priority, self.errors = np.zeros(CAPACITY), np.full(CAPACITY, -1.0)
        self.at_sort = self.errors.copy()

    def add(self, rows):
        self.priority[rows], self.errors[rows] = 1.0, np.inf

    def feedback(self, rows, errors, update):
        for row in set(rows):
            self.errors[row] = max(errors[rows == row])
            self.priority[row] = (1 + np.sum(self.at_sort > self.errors[row])) ** -0.7
        if (update + 1) % PERIOD == 0:
            for rank, row in enumerate(np.argsort(-self.errors, kind="stable")):
                self.priority[row] = (1 + rank) ** -0.7 if self.errors[row] >= 0 else 0
            self.at_sort = self.errors.copy()


TWINS = {"prioritized": Proportional, "ranked": Ranked}


def history(name, steps=50, seed=0):
    """Yields (sampler, its state, twin, filled, update) after each step of writing and learning."""
    sampler, twin, rng = sampling.SAMPLERS[name](CONFIG), TWINS[name](), np.random.default_rng(seed)
    state, update = sampler.init(), 0
    add, feedback = jax.jit(sampler.add), jax.jit(sampler.feedback)
    for step in range(steps):
        position = step * NUM_ENVS % CAPACITY
        state = add(state, jnp.int32(position))
        twin.add(np.arange(position, position + NUM_ENVS))
        filled = filled_after(step + 1)
        if step >= 4:
            rows = rng.integers(0, int(filled.size), BATCH)
            errors = rng.exponential(1, BATCH).astype(np.float32)
            state = feedback(state, rows, errors, now_at(updates=update))
            twin.feedback(rows, errors, update)
            update += 1
        yield sampler, state, twin, filled, update


@pytest.mark.parametrize("name", TWINS)
def test_no_priority_is_lost_or_wrong_at_any_step_across_wraps(name):
    for _, state, twin, filled, _ in history(name):
        leaves = np.asarray(state.tree[0])
        np.testing.assert_allclose(leaves[:CAPACITY], twin.priority, rtol=1e-5)
        assert np.all(leaves[: int(filled.size)] > 0) and not np.any(leaves[int(filled.size) :])


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("steps", [7, 40])
def test_rows_are_drawn_by_priority_and_weighed_against_it(name, steps):
    *_, (sampler, state, twin, filled, _) = history(name, steps)
    keys = jax.random.split(jax.random.key(steps), 3_000)
    draws = jax.vmap(sampler.draws)(keys)
    now = now_at(step=400)
    rows, weight = jax.jit(jax.vmap(lambda d: sampler.pick(state, d, filled, now)))(draws)
    counts = np.bincount(np.ravel(rows), minlength=CAPACITY)
    share = twin.priority / twin.priority.sum()
    there = share > 0
    assert not counts[~there].any()
    # Each part of the sum is drawn from once, so counts spread less than a multinomial's: the
    # statistic may be too small, never too large.
    expected = share[there] * counts.sum()
    assert scipy.stats.chisquare(counts[there], expected).pvalue > 1e-4
    power = -(0.5 * 0.6 + 1.0 * 0.4)  # 400 of 1,000 steps from 0.5 to 1
    by_hand = (int(filled.size) * share[np.asarray(rows)]) ** power
    by_hand /= by_hand.max(axis=1, keepdims=True)
    np.testing.assert_allclose(weight, by_hand, rtol=1e-4)


@pytest.mark.parametrize("name", TWINS)
def test_each_part_of_the_sum_is_drawn_from_once(name):
    sampler = sampling.SAMPLERS[name](CONFIG)
    tops = np.asarray(jax.vmap(sampler.draws)(jax.random.split(jax.random.key(0), 50)))[:, 0]
    np.testing.assert_array_equal(np.floor(tops * BATCH), np.tile(np.arange(BATCH), (50, 1)))


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("error", [np.nan, np.inf, 3e38, 0.0])
def test_a_seed_without_numbers_still_reads_only_what_was_written(name, error):
    sampler = sampling.SAMPLERS[name](CONFIG)
    state = sampler.init()
    for position in (0, NUM_ENVS):
        state = sampler.add(state, jnp.int32(position))
    rows = jnp.arange(BATCH) % (2 * NUM_ENVS)
    errors = jnp.full(BATCH, error, jnp.float32)
    for update in range(PERIOD):
        state = sampler.feedback(state, rows, errors, now_at(updates=update))
    draws = jax.vmap(sampler.draws)(jax.random.split(jax.random.key(1), 40))
    picked, weight = jax.vmap(lambda d: sampler.pick(state, d, filled_after(2), now_at()))(draws)
    assert np.all((picked >= 0) & (picked < 2 * NUM_ENVS)) and np.all(np.isfinite(weight))


def test_equal_priorities_weigh_nothing_and_the_exponents_end_at_theirs():
    flat = dqx.Hyper(priority_exponent=0.0)
    sampler = sampling.prioritized(CONFIG)
    state = sampler.add(sampler.init(), jnp.int32(0))
    errors = jnp.linspace(0, 9, BATCH)
    state = sampler.feedback(state, jnp.arange(BATCH) % NUM_ENVS, errors, now_at(hyper=flat))
    draws = sampler.draws(jax.random.key(0))
    _, weight = sampler.pick(state, draws, filled_after(1), now_at(hyper=flat))
    np.testing.assert_array_equal(weight, np.ones(BATCH, np.float32))
    assert [float(sampling.importance_at(now_at(step))) for step in (0, 1_000, 9_000)] == [
        0.5,
        1,
        1,
    ]
