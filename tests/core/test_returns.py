"""Returns of several steps, read from a replay or along a trajectory, against brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx.core import returns, stores
from tests.core.layouts import FORMS, filled_to, number_store, recorded, stacked, written
from tests.oracles import returns as oracle

GAMMA = 0.9


def check_store(
    layouts, steps, envs, capacity, n, frames, form="plain", seed=0, gamma=GAMMA, sample=40
):
    """Compares every row that is kept with brute force, and a sample with slow brute force."""
    history = oracle.histories(np.random.default_rng(seed), layouts, steps, envs)
    store = number_store(form, capacity, envs, frames, n)
    rows, newest = written(store, history, capacity, frames)
    total = steps * envs
    size = min(total, capacity)
    filled, indices = filled_to(total, capacity), jnp.arange(size)
    read = jax.jit(jax.vmap(lambda rows, newest: store.returns(rows, filled, indices, newest)))
    found, lengths = read(rows, newest)
    fold = functools.partial(returns.folded, gamma=jnp.float32(gamma))
    reward, discount = jax.jit(jax.vmap(jax.vmap(fold)))(found.reward, found.discount, lengths)

    # Which step of which environment lies in a row: the last that came to its place.
    number = total - 1 - (total - 1 - np.arange(size)) % capacity
    t, env = number // envs, number % envs
    obs, next_obs = stacked(history, frames)
    expected = oracle.n_step_all(history, n, gamma)
    at = lambda x: x[:, t, env]  # noqa: E731
    np.testing.assert_array_equal(found.obs, at(obs))
    np.testing.assert_array_equal(found.action, at(history["action"]))
    np.testing.assert_array_equal(lengths, at(expected[3]))
    np.testing.assert_allclose(reward, at(expected[0]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(discount, at(expected[1]), rtol=1e-5)
    np.testing.assert_array_equal(found.next_obs[..., -1], at(expected[2]))
    last = (np.arange(steps)[None, :, None] + expected[3] - 1)[..., None]
    np.testing.assert_array_equal(
        found.next_obs, np.take_along_axis(next_obs, last, axis=1)[:, t, env]
    )
    rng = np.random.default_rng(seed)
    for _ in range(sample):  # the fast brute force against the slow one
        where = rng.integers(layouts), rng.integers(steps), rng.integers(envs)
        slow = oracle.n_step(history, where[0], where[2], where[1], n, gamma)
        for fast, value in zip(expected, slow, strict=True):
            np.testing.assert_allclose(fast[where], value, rtol=1e-12)
    return np.asarray(lengths), history


CASES = [  # steps, environments, capacity, n, frames
    (30, 1, 16, 3, 1),  # wrapped around
    (12, 3, 60, 5, 1),  # not full yet
    (25, 2, 24, 3, 4),  # stacked, wrapped around
    (9, 2, 18, 20, 1),  # more steps than there are
]
LONG = [(40, 4, 32, n, frames) for n in (2, 3, 10) for frames in (1, 3)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES[:3])
def test_transitions_of_several_steps_equal_brute_force(case, form):
    lengths, history = check_store(60, *case, form)
    assert set(lengths.flat) == set(range(1, case[3] + 1))
    assert history["terminated"].any() and (history["ends"] & ~history["terminated"]).any()


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", [*CASES, *LONG])
def test_transitions_of_ten_thousand_layouts_equal_brute_force(case, form):
    check_store(10_000, *case, form, seed=1, sample=400)


# Wrong ways of folding, by what they make of rewards and discount.
MUTANTS = {
    "gamma in place of its power": lambda rewards, right, discount, gamma: (
        right[0],
        gamma * discount,
    ),
    "a bootstrap one step later": lambda rewards, right, discount, gamma: (
        right[0],
        gamma * right[1],
    ),
    "rewards without discount": lambda rewards, right, discount, gamma: (
        jnp.sum(rewards),
        right[1],
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_discounts_would_be_noticed(name, monkeypatch):
    right = returns.folded

    def wrong(rewards, discount, lengths, gamma):
        found = right(rewards, discount, lengths, gamma)
        return MUTANTS[name](rewards, found, discount, gamma)

    monkeypatch.setattr(returns, "folded", wrong)
    with pytest.raises(AssertionError, match="Not equal to tolerance|Arrays are not equal"):
        check_store(10, *CASES[0])


def test_joined_episodes_would_be_noticed(monkeypatch):
    real = stores.columns

    def no_beginnings(rows, indices, place):
        found = real(rows, indices, place)
        return jnp.ones_like(found) if found.dtype == jnp.int32 else found

    monkeypatch.setattr(stores, "columns", no_beginnings)
    with pytest.raises(AssertionError, match="Not equal to tolerance|Arrays are not equal"):
        check_store(10, *CASES[0])


def test_no_transition_reaches_over_the_newest_step():
    store = number_store("plain", 8, n=3)
    step = jax.tree.map(
        lambda x: x[0],
        recorded(store, oracle.histories(np.random.default_rng(0), 1, 1, 1), 1)[0][0],
    )
    rows = store.init()
    for t in range(12):  # the last four steps lie before the four oldest ones
        new = jax.tree.map(lambda x: x[0], step)
        rows = store.write(
            rows, filled_to(t, 8), new, jnp.array([t], jnp.int32), jnp.array([False])
        )
    _, lengths = store.returns(rows, filled_to(12, 8), jnp.arange(8), None)
    np.testing.assert_array_equal(lengths, [3, 3, 2, 1, 3, 3, 3, 3])


def test_folding_by_hand():
    rewards = jnp.array([1.0, 2.0, 4.0, 0.0])
    found = returns.folded(rewards, jnp.float32(1.0), jnp.int32(3), 0.5)
    assert found == (1 + 0.5 * 2 + 0.25 * 4, 0.125)
    assert returns.folded(rewards, jnp.float32(0.0), jnp.int32(3), 0.5)[1] == 0
    found = returns.folded(rewards, jnp.float32(1.0), jnp.int32(3), 0.0)
    assert found == (1.0, 0.0)
    with pytest.raises(AssertionError, match="assert_rank"):
        returns.folded(rewards[0], jnp.float32(1.0), jnp.int32(1), 0.5)


# --- Along a trajectory.


def lambda_case(layouts, steps, seed, lambda_, limits_are_terminal=False):
    history = oracle.histories(np.random.default_rng(seed), layouts, steps, 1)
    if limits_are_terminal:
        history["terminated"] = history["ends"]
    flat = {name: x[:, :, 0] for name, x in history.items()}
    value = lambda obs: np.sin(obs * 0.7)  # noqa: E731
    discount = np.where(flat["terminated"], 0.0, GAMMA).astype(np.float32)
    of = functools.partial(returns.lambda_returns, lambda_=jnp.float32(lambda_))
    found = jax.jit(jax.vmap(of))(
        flat["reward"], discount, value(flat["next_obs"]).astype(np.float32), ~flat["ends"]
    )
    return history, value, np.asarray(found)


@pytest.mark.parametrize("limits_are_terminal", [False, True])
@pytest.mark.parametrize("lambda_", [0.0, 0.65, 1.0])
def test_lambda_returns_equal_the_mean_of_all_n_step_returns(lambda_, limits_are_terminal):
    history, value, found = lambda_case(40, 9, 3, lambda_, limits_are_terminal)
    for layout, start in np.ndindex(found.shape):
        expected = oracle.lambda_return(history, value, layout, 0, start, GAMMA, lambda_)
        np.testing.assert_allclose(found[layout, start], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_lambda_returns_of_ten_thousand_layouts_equal_brute_force():
    history, value, found = lambda_case(10_000, 12, 4, 0.8)
    # The definition, for all layouts at once.
    whole = oracle.n_step_all(history, 12, GAMMA)[3]
    expected = np.zeros(whole.shape)
    for n in range(1, 13):
        total, discount, after, _ = oracle.n_step_all(history, n, GAMMA)
        weight = np.where(n < whole, 0.2 * 0.8 ** (n - 1), np.where(n == whole, 0.8 ** (n - 1), 0))
        expected += weight * (total + discount * value(after))
    np.testing.assert_allclose(found, expected[:, :, 0], rtol=1e-4, atol=1e-5)


def test_what_is_cut_off_never_reaches_a_lambda_return():
    reward, discount = jnp.ones(4), jnp.full(4, 0.5)
    continues = jnp.array([True, False, True, True])  # the last one's is not read
    found = returns.lambda_returns(reward, discount, jnp.full(4, 2.0), continues, 1.0)
    np.testing.assert_array_equal(found, [2.0, 2.0, 2.0, 2.0])
    later = jnp.array([1.0, 1.0, jnp.inf, jnp.inf])
    found = returns.lambda_returns(later, discount, jnp.full(4, 2.0), continues, 1.0)
    np.testing.assert_array_equal(found[:2], [2.0, 2.0])
