"""Projection, cross-entropy and quantile Huber: by hand, against NumPy, against mutants."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dqx.core import distributional, losses
from tests.oracles import distributional as oracle

ATOMS = np.array([-1.0, 0.0, 1.0, 2.0], np.float32)


@pytest.mark.parametrize(
    ("returns", "probabilities", "expected"),
    [
        ([-1.0, 2.0], [0.25, 0.75], [0.25, 0, 0, 0.75]),  # at both ends
        ([0.0, 1.0], [0.25, 0.75], [0, 0.25, 0.75, 0]),  # on atoms between
        ([0.25, -0.5], [0.8, 0.2], [0.1, 0.1 + 0.6, 0.2, 0]),  # between atoms
        ([-7.0, 9.0], [0.25, 0.75], [0.25, 0, 0, 0.75]),  # beyond both ends
        ([1.9, 2.1, 1e6], [0.5, 0.25, 0.25], [0, 0, 0.05, 0.95]),
    ],
)
def test_projections_by_hand(returns, probabilities, expected):
    arrays = (np.array(x, np.float32) for x in (probabilities, returns))
    given = distributional.project(*arrays, ATOMS)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    np.testing.assert_allclose(oracle.project(probabilities, returns, ATOMS), expected, atol=1e-6)


def random_case(seed, size=11):
    rng = np.random.default_rng(seed)
    v_min, v_max = rng.uniform(-5, 0), rng.uniform(1, 5)
    probabilities = oracle.softmax(2 * rng.normal(size=size))
    returns = rng.normal() + rng.uniform(0, 1) * np.linspace(v_min, v_max, size)
    return v_min, v_max, probabilities, returns


def test_projections_equal_numpys_and_keep_probability_and_mean():
    project = jax.jit(distributional.project)
    for seed in range(50):
        v_min, v_max, probabilities, returns = random_case(seed)
        atoms = distributional.support(v_min, v_max, 11)
        np.testing.assert_allclose(atoms, np.linspace(v_min, v_max, 11), rtol=1e-5, atol=1e-6)
        given = project(probabilities.astype("f4"), returns.astype("f4"), atoms)
        expected = oracle.project(probabilities, returns, np.asarray(atoms, np.float64))
        np.testing.assert_allclose(given, expected, atol=2e-6)
        np.testing.assert_allclose(np.sum(given), 1, atol=1e-6)
        mean = np.sum(probabilities * np.clip(returns, v_min, v_max))
        np.testing.assert_allclose(np.sum(given * atoms), mean, atol=1e-4)


def test_cross_entropy_equals_numpys_with_its_gradient():
    rng = np.random.default_rng(0)
    for size in (2, 11, 51):
        logits, target = 5 * rng.normal(size=size), oracle.softmax(rng.normal(size=size))
        value, slope = oracle.cross_entropy(logits, target)
        both = jax.value_and_grad(distributional.cross_entropy, argnums=(0, 1))
        given, (to_logits, to_target) = both(logits.astype("f4"), target.astype("f4"))
        np.testing.assert_allclose(given, value, rtol=1e-5)
        np.testing.assert_allclose(to_logits, slope, atol=1e-5)
        assert not np.any(to_target)
    # Large logits overflow nothing.
    assert distributional.cross_entropy(jnp.array([1e4, 0.0]), jnp.array([1.0, 0.0])) == 0


def test_entropy_equals_scipys():
    rng = np.random.default_rng(3)
    rows = rng.dirichlet(np.full(9, 0.3), 20).astype(np.float32)
    rows[0], rows[1, :4] = np.eye(9)[2], 0.0  # certain, and with atoms that nothing falls on
    rows[1] /= rows[1].sum()
    for found in (jax.vmap(distributional.entropy)(rows), [*map(distributional.entropy, rows)]):
        expected = scipy.stats.entropy(rows.astype(np.float64), axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found[0] == 0


def test_quantile_huber_by_hand():
    # Errors of one target of 1: 1 of quantile 0, -2 of quantile 3; the second is linear.
    given = distributional.quantile_huber(
        jnp.array([0.0, 3.0]), jnp.array([0.25, 0.75]), jnp.array([1.0]), 1.0
    )
    np.testing.assert_allclose(given, 0.25 * 0.5 + 0.25 * 1.5)
    np.testing.assert_allclose(distributional.midpoints(4), [0.125, 0.375, 0.625, 0.875])


def test_a_batch_gives_what_its_transitions_give_one_at_a_time():
    """Whatever is mapped, over two axes, and with more atoms than are combined at once."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 2, 2, 150)).astype("f4")  # [lanes, batch, actions, atoms]
    atoms = distributional.support(-2.0, 3.0, 150)
    action, weight = rng.integers(2, size=(3, 2)), rng.random((3, 2, 2)).astype("f4")

    def one(logits, atoms, action, weight):
        shares = distributional.probabilities(logits)
        mixed = distributional.weighted(shares, weight)
        target = distributional.project(mixed, 0.3 + 0.9 * atoms, atoms)
        loss = distributional.cross_entropy(distributional.chosen(logits, action), target)
        return loss, distributional.expected(shares, atoms)

    both = jax.value_and_grad(lambda *given: one(*given)[0])
    axes = (0, None, 0, 0)
    (losses, means), slopes = jax.jit(
        lambda *given: (
            jax.vmap(jax.vmap(one, axes), axes)(*given),
            jax.grad(lambda *x: jnp.sum(jax.vmap(jax.vmap(one, axes), axes)(*x)[0]))(*given),
        )
    )(logits, atoms, action, weight)
    for place in np.ndindex(3, 2):
        given = (logits[place], atoms, action[place], weight[place])
        value, slope = both(*given)
        np.testing.assert_allclose(losses[place], value, rtol=1e-5)
        np.testing.assert_allclose(slopes[place], slope, atol=1e-6)
        p = oracle.softmax(logits[place].astype(float))
        np.testing.assert_allclose(means[place], p @ np.asarray(atoms, float), rtol=1e-4, atol=1e-5)
        target = oracle.project(weight[place] @ p, 0.3 + 0.9 * np.asarray(atoms, float), atoms)
        expected, to_chosen = oracle.cross_entropy(logits[place][action[place]], target)
        np.testing.assert_allclose(value, expected, rtol=1e-4)
        np.testing.assert_allclose(slope[action[place]], to_chosen, atol=1e-4)
        assert not np.any(slope[1 - action[place]])


MUTANTS = {
    "levels shifted to the upper ends": lambda q, t, y, d: oracle.quantile_huber(
        q, t + 0.5 / len(t), y, d
    ),
    "no weight": lambda q, t, y, d: oracle.quantile_huber(q, np.full(len(t), 0.5), y, d),
    "target and prediction exchanged": lambda q, t, y, d: oracle.quantile_huber(y, t, q, d),
    "mean over quantiles": lambda q, t, y, d: [
        x / len(q) for x in oracle.quantile_huber(q, t, y, d)
    ],
}


@pytest.mark.parametrize("delta", [0.3, 1.0, np.inf])
def test_quantile_huber_equals_numpys_and_no_mutant(delta):
    both = jax.jit(jax.value_and_grad(distributional.quantile_huber, argnums=(0, 2)))
    rng = np.random.default_rng(0)
    quantiles, targets = rng.normal(size=9), 1 + rng.normal(size=9)
    levels = (np.arange(9) + 0.5) / 9
    arrays = (x.astype("f4") for x in (quantiles, levels, targets))
    given, (slope, to_targets) = both(*arrays, delta)
    value, expected = oracle.quantile_huber(quantiles, levels, targets, delta)
    np.testing.assert_allclose(given, value, rtol=1e-5)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)
    assert not np.any(to_targets)
    for mutant in MUTANTS.values():
        assert abs(mutant(quantiles, levels, targets, delta)[0] / value - 1) > 1e-3


def test_the_least_quantile_loss_is_at_the_quantiles():
    """Of many samples of a target the loss has no slope at their quantiles, and falls to them."""
    targets = np.random.default_rng(0).exponential(size=2_001).astype("f4")
    levels = distributional.midpoints(5)
    slope = jax.jit(jax.grad(distributional.quantile_huber))
    quantiles = np.quantile(targets, levels).astype("f4")
    for shift, sign in ((-0.05, -1), (0.0, 0), (0.05, 1)):
        given = np.asarray(slope(quantiles + shift, levels, targets, 1e-4)) / 1e-4
        assert np.all(np.abs(given) < 1.5e-3 if sign == 0 else sign * given > 2e-3)


@pytest.mark.suites  # rlax and what it needs are in that environment alone
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_losses_equal_rlaxs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rlax's own, of what it imports
        rlax = pytest.importorskip("rlax")
    rng = np.random.default_rng(0)
    for seed in range(5):
        v_min, v_max, probabilities, returns = random_case(seed)
        atoms = distributional.support(v_min, v_max, 11)
        ours = distributional.project(probabilities.astype("f4"), returns.astype("f4"), atoms)
        theirs = rlax.categorical_l2_project(
            returns.astype("f4"), probabilities.astype("f4"), atoms
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        # A whole update of C51 and of QR-DQN: one transition of three actions.
        now, following, selecting = rng.normal(size=(3, 3, 11)).astype("f4")
        reward, discount = np.float32(rng.normal()), np.float32(0.9)
        best = int(np.argmax((jax.nn.softmax(selecting) * atoms).sum(-1)))
        theirs = rlax.categorical_double_q_learning(
            atoms, now, 1, reward, discount, atoms, following,
            (jax.nn.softmax(selecting) * atoms).sum(-1),
        )  # fmt: skip
        target = distributional.project(
            jax.nn.softmax(following[best]), reward + discount * atoms, atoms
        )
        np.testing.assert_allclose(
            distributional.cross_entropy(now[1], target), theirs, rtol=1e-4, atol=1e-5
        )
        levels = distributional.midpoints(11)
        best = int(np.argmax(selecting.mean(axis=-1)))
        theirs = rlax.quantile_q_learning(
            now.T, levels, 1, reward, discount, selecting.T, following.T, 0.7
        )
        ours = distributional.quantile_huber(
            now[1], levels, reward + discount * following[best], 0.7
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    np.testing.assert_allclose(losses.huber(2.0, 0.7), rlax.huber_loss(2.0, 0.7), rtol=1e-6)
