"""Losses, targets and returns against what rlax 0.1.9 makes of the same numbers.

A few transitions are recorded; where rlax is installed there are thousands more, and the recorded
numbers are still its own.
"""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx.core import losses, returns, targets
from tests.oracles import rlax


def recorded():
    return {
        name: np.array(value, np.float32)
        for name, value in json.loads(rlax.RECORDED.read_text()).items()
    }


def ours(x):
    """The same, by the name of rlax's function; more than one where ours are."""
    step, following = (x["q"], x["action"], x["reward"], x["discount"]), x["next_target"]
    of, best = jax.vmap(losses.expected_q_learning), following.max(axis=1)
    h, inverse = losses.rescaling(rlax.EPSILON)
    # Where discounts are 0 nothing follows, so that all may be said to continue.
    going = np.ones(len(best), bool)
    yield "q_learning", jax.vmap(losses.q_learning)(*step, following)
    yield "q_learning", of(*step, following, jax.vmap(targets.greedy)(following))
    double = jax.vmap(losses.double_q_learning)(*step, following, x["next_online"])
    yield "double_q_learning", double
    double = of(*step, following, jax.vmap(targets.greedy)(x["next_online"]))
    yield "double_q_learning", double
    yield "expected_sarsa", of(*step, following, x["weight"])
    yield "signed_hyperbolic", h(x["returns"])
    yield "signed_parabolic", inverse(x["returns"])
    yield "huber_loss", losses.huber(x["returns"], 1.5)
    yield "l2_loss", losses.huber(x["returns"], jnp.inf)
    found = returns.lambda_returns(x["reward"], x["discount"], best, going, rlax.LAMBDA)
    yield "lambda_returns", found
    yield "n_step_bootstrapped_returns", three_steps(x["reward"], x["discount"], best)


def three_steps(reward, discount, best):
    """Returns of up to three steps, fewer where nothing follows and at the end."""
    rewards, lengths, ends = np.zeros((len(best), 3), np.float32), [], []
    for start in range(len(best)):
        for end in range(start, min(start + 3, len(best))):
            rewards[start, end - start] = reward[end]
            if discount[end] == 0:
                break
        lengths.append(end - start + 1)
        ends.append(end)
    of_all = jax.vmap(returns.folded, in_axes=(0, 0, 0, None))
    total, after = of_all(rewards, np.float32(discount[ends] > 0), np.int32(lengths), 0.9)
    return total + after * best[ends]


def check(x, theirs, atol=1e-6):
    met = set()
    for name, found in ours(x):
        assert np.std(theirs[name]) > 0.1
        np.testing.assert_allclose(found, theirs[name], rtol=2e-5, atol=atol, err_msg=name)
        met.add(name)
    assert met == theirs.keys()


def test_what_is_recorded_is_ours():
    check(rlax.inputs(), recorded())


@pytest.mark.suites  # rlax and what it needs are in that environment alone
def test_thousands_more_are_ours_and_what_is_recorded_is_rlaxs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rlax's own, of what it imports
        pytest.importorskip("rlax")
        for name, value in rlax.theirs(rlax.inputs()).items():
            np.testing.assert_allclose(value, recorded()[name], rtol=1e-6, err_msg=name)
        for seed in range(3):
            x = rlax.inputs(seed, 1_000)
            check(x, rlax.theirs(x), atol=1e-5)  # rlax loses digits of small rescaled values
