"""Returns of several steps, read from a replay or along a trajectory, against brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx.core import returns
from dqx.core.replay import Filled
from dqx.core.types import Transition
from tests.oracles import returns as oracle

GAMMA = 0.9
EXAMPLE = Transition(
    jax.ShapeDtypeStruct((1,), jnp.float32),
    jax.ShapeDtypeStruct((), jnp.int32),
    jax.ShapeDtypeStruct((), jnp.float32),
    jax.ShapeDtypeStruct((), jnp.float32),
    jax.ShapeDtypeStruct((1,), jnp.float32),
)


def stacked(history, frames):
    """Observations as stacks of a history's numbers, the episode's first in place of earlier."""
    steps = np.arange(history["obs"].shape[1])[None, :, None]
    layers = [
        np.take_along_axis(history["obs"], steps - np.minimum(history["age"], back), axis=1)
        for back in range(frames - 1, -1, -1)
    ]
    stack = np.stack(layers, axis=-1).astype(np.float32)
    after = history["next_obs"][..., None].astype(np.float32)
    return stack, np.concatenate([stack[..., 1:], after], axis=-1)


def written(store, history, capacity, frames):
    """The rows of a store of every layout after all steps, and how far they are filled."""
    obs, next_obs = stacked(history, frames)
    discount = 1.0 - history["terminated"].astype(np.float32)
    steps = Transition(obs, history["action"], history["reward"], discount, next_obs)
    num_envs = obs.shape[2]

    def one(steps, age):
        def add(rows, now):
            t, step, age = now
            at = Filled(
                (t * num_envs) % capacity, jnp.minimum(t * num_envs, capacity), t * num_envs
            )
            return store.write(rows, at, step, age), None

        times = jnp.arange(age.shape[0])
        return jax.lax.scan(add, store.init(), (times, steps, age))[0]

    return jax.jit(jax.vmap(one))(steps, history["age"])


def check_store(layouts, steps, envs, capacity, n, frames, seed=0, gamma=GAMMA, sample=40):
    """Compares every row that is kept with brute force, and a sample with slow brute force."""
    history = oracle.histories(np.random.default_rng(seed), layouts, steps, envs)
    example = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((frames,) if x.shape else (), x.dtype), EXAMPLE
    )
    store = returns.make_n_step_store(example, n, capacity, envs, frames)
    rows = written(store, history, capacity, frames)
    total = steps * envs
    size = min(total, capacity)
    filled = Filled(*(jnp.int32(x) for x in (total % capacity, size, total)))
    indices = jnp.arange(size)
    found, lengths = jax.jit(jax.vmap(lambda r: store.returns(r, filled, indices)))(rows)
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


@pytest.mark.parametrize("case", CASES[:3])
def test_transitions_of_several_steps_equal_brute_force(case):
    lengths, history = check_store(60, *case)
    assert set(lengths.flat) == set(range(1, case[3] + 1))
    assert history["terminated"].any() and (history["ends"] & ~history["terminated"]).any()


@pytest.mark.long
@pytest.mark.parametrize("case", [*CASES, *LONG])
def test_transitions_of_ten_thousand_layouts_equal_brute_force(case):
    check_store(10_000, *case, seed=1, sample=400)


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
    real = returns.columns

    def no_beginnings(rows, indices, place):
        found = real(rows, indices, place)
        return jnp.ones_like(found) if found.dtype == jnp.int32 else found

    monkeypatch.setattr(returns, "columns", no_beginnings)
    with pytest.raises(AssertionError, match="Not equal to tolerance|Arrays are not equal"):
        check_store(10, *CASES[0])


def test_no_transition_reaches_over_the_newest_step():
    store = returns.make_n_step_store(EXAMPLE, 3, 8)
    rows = store.init()
    for t in range(12):  # the last four steps lie before the four oldest ones
        step = jax.tree.map(lambda x: jnp.zeros((1, *x.shape), x.dtype), EXAMPLE)
        at = Filled(jnp.int32(t % 8), jnp.int32(min(t, 8)), jnp.int32(t))
        rows = store.write(rows, at, step, jnp.array([t], jnp.int32))
    filled = Filled(jnp.int32(4), jnp.int32(8), jnp.int32(12))
    _, lengths = store.returns(rows, filled, jnp.arange(8))
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
