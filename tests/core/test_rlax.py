"""Losses, targets and returns against what rlax 0.1.9 makes of the same numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from dqx.core import losses, returns, targets
from tests.oracles import rlax

THEIRS = {
    name: np.array(value, np.float32)
    for name, value in json.loads(rlax.RECORDED.read_text()).items()
}
X = rlax.inputs()


def same(found, name):
    assert np.std(THEIRS[name]) > 0.1
    np.testing.assert_allclose(found, THEIRS[name], rtol=2e-5, atol=1e-6)


def test_td_errors():
    step = (X["q"], X["action"], X["reward"], X["discount"])
    following, of = X["next_target"], jax.vmap(losses.expected_q_learning)
    same(jax.vmap(losses.q_learning)(*step, following), "q_learning")
    same(of(*step, following, jax.vmap(targets.greedy)(following)), "q_learning")
    double = jax.vmap(losses.double_q_learning)(*step, following, X["next_online"])
    same(double, "double_q_learning")
    same(of(*step, following, jax.vmap(targets.greedy)(X["next_online"])), "double_q_learning")
    same(of(*step, following, X["weight"]), "expected_sarsa")


def test_rescaling_and_losses():
    h, inverse = losses.rescaling(rlax.EPSILON)
    same(h(X["returns"]), "signed_hyperbolic")
    same(inverse(X["returns"]), "signed_parabolic")
    same(losses.huber(X["returns"], 1.5), "huber_loss")
    same(losses.huber(X["returns"], jnp.inf), "l2_loss")


def test_returns_along_a_trajectory():
    best = X["next_target"].max(axis=1)
    # Where discounts are 0 nothing follows, so that all may be said to continue.
    going = np.ones(rlax.SIZE, bool)
    found = returns.lambda_returns(X["reward"], X["discount"], best, going, rlax.LAMBDA)
    same(found, "lambda_returns")
    for start in range(rlax.SIZE):
        rewards, count = [], 0
        for t in range(start, min(start + 3, rlax.SIZE)):
            rewards.append(X["reward"][t])
            count += 1
            if X["discount"][t] == 0:
                break
        padded = np.pad(np.array(rewards), (0, 3 - count))
        alive = np.float32(X["discount"][start + count - 1] > 0)
        total, discount = returns.folded(padded, alive, jnp.int32(count), 0.9)
        whole = total + discount * best[start + count - 1]
        np.testing.assert_allclose(
            whole, THEIRS["n_step_bootstrapped_returns"][start], rtol=2e-5, atol=1e-6
        )
