"""Losses against hand-computed numbers, their gradients by hand, and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dqx.core import losses

Q = jnp.array([1.0, 2.0, 4.0])
NEXT_TARGET = jnp.array([5.0, -1.0, 3.0])
NEXT_ONLINE = jnp.array([0.0, 1.0, 7.0])  # its argmax is 2, the target's 0
ERRORS = jnp.array([-1e6, -3.0, -1.0, -0.5, -1e-3, 0.0, 0.2, 0.5, 1.0, 2.0, 1e4])


def q_error(**changes):
    arguments = {
        "q_values": Q,
        "action": jnp.int32(1),
        "reward": jnp.float32(0.5),
        "discount": jnp.float32(0.9),
        "next_q_target": NEXT_TARGET,
    }
    return losses.q_learning(**{**arguments, **changes})


def double_error(**changes):
    return losses.double_q_learning(
        **{
            "q_values": Q,
            "action": jnp.int32(1),
            "reward": jnp.float32(0.5),
            "discount": jnp.float32(0.9),
            "next_q_target": NEXT_TARGET,
            "next_q_online": NEXT_ONLINE,
            **changes,
        }
    )


@pytest.mark.parametrize(("action", "expected"), [(0, 4.0), (1, 3.0), (2, 1.0)])
def test_q_learning_by_hand(action, expected):
    # 0.5 + 0.9 * 5 = 5 is the target: the largest of all next values, whatever the action taken.
    np.testing.assert_allclose(q_error(action=jnp.int32(action)), expected, rtol=1e-6)


@pytest.mark.parametrize(("action", "expected"), [(0, 2.2), (1, 1.2), (2, -0.8)])
def test_double_q_learning_selects_online_and_values_by_target(action, expected):
    # 0.5 + 0.9 * next_q_target[argmax(next_q_online) = 2] = 3.2.
    np.testing.assert_allclose(double_error(action=jnp.int32(action)), expected, rtol=1e-6)


@pytest.mark.parametrize("error", [q_error, double_error])
def test_zero_discount_leaves_the_reward_alone(error):
    np.testing.assert_allclose(error(discount=jnp.float32(0.0)), 0.5 - 2.0, rtol=1e-6)


@pytest.mark.parametrize("best", [0, 1, 2, 3])
def test_no_off_by_one_in_the_bootstrap(best):
    online = jnp.full(4, -1.0).at[best].set(9.0)
    target = jnp.array([10.0, 20.0, 30.0, 40.0])
    error = double_error(
        q_values=jnp.zeros(4),
        reward=jnp.float32(0.0),
        discount=jnp.float32(1.0),
        next_q_target=target,
        next_q_online=online,
    )
    assert error == 10.0 * (best + 1)
    error = q_error(
        q_values=jnp.zeros(4),
        reward=jnp.float32(0.0),
        discount=jnp.float32(1.0),
        next_q_target=jnp.zeros(4).at[best].set(7.0),
    )
    assert error == 7.0


def test_double_with_equal_networks_is_q_learning():
    keys = jax.random.split(jax.random.key(0), 3)
    q, next_q = jax.random.normal(keys[0], (200, 5)), jax.random.normal(keys[1], (200, 5))
    action = jax.random.randint(keys[2], (200,), 0, 5)
    reward, discount = q[:, 0] * 3, jnp.abs(q[:, 1])
    single = jax.vmap(losses.q_learning)(q, action, reward, discount, next_q)
    double = jax.vmap(losses.double_q_learning)(q, action, reward, discount, next_q, next_q)
    np.testing.assert_array_equal(single, double)
    other = jax.vmap(losses.double_q_learning)(q, action, reward, discount, next_q, -next_q)
    assert np.any(np.asarray(other) != np.asarray(single))


@pytest.mark.parametrize("double", [False, True])
def test_gradient_reaches_the_prediction_only(double):
    def error(q, target, online, reward):
        if double:
            return double_error(
                q_values=q, next_q_target=target, next_q_online=online, reward=reward
            )
        return q_error(q_values=q, next_q_target=target, reward=reward)

    gradient = jax.grad(error, argnums=(0, 1, 2, 3))(Q, NEXT_TARGET, NEXT_ONLINE, jnp.float32(0.5))
    np.testing.assert_array_equal(gradient[0], [0.0, -1.0, 0.0])
    for through_target in gradient[1:]:
        np.testing.assert_array_equal(through_target, jnp.zeros_like(through_target))


@pytest.mark.parametrize(
    "wrong",
    [
        {"q_values": Q[None]},
        {"next_q_target": NEXT_TARGET[None]},
        {"next_q_target": jnp.float32(1.0)},
        {"action": jnp.array([1])},
        {"action": jnp.float32(1.0)},
        {"reward": jnp.array([0.5])},
        {"discount": jnp.array([0.9])},
    ],
    ids=lambda wrong: "-".join(f"{k}{v.shape}{v.dtype}" for k, v in wrong.items()),
)
@pytest.mark.parametrize("error", [q_error, double_error])
def test_wrong_ranks_and_dtypes_are_refused_while_tracing(error, wrong):
    with pytest.raises(AssertionError):
        jax.eval_shape(lambda: error(**wrong))


def test_wrong_rank_of_the_online_values_is_refused_while_tracing():
    with pytest.raises(AssertionError):
        jax.eval_shape(lambda: double_error(next_q_online=NEXT_ONLINE[None]))


def test_squared_and_its_gradient():
    np.testing.assert_array_equal(losses.squared(ERRORS), np.square(ERRORS))
    np.testing.assert_array_equal(jax.vmap(jax.grad(losses.squared))(ERRORS), 2 * ERRORS)


@pytest.mark.parametrize("delta", [0.1, 0.5, 1.0, 2.0, 100.0])
def test_huber_equals_optax(delta):
    ours, theirs = (
        jax.vmap(jax.value_and_grad(lambda error, f=f: f(error)))(ERRORS)
        for f in (lambda e: losses.huber(e, delta), lambda e: optax.huber_loss(e, delta=delta))
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    # optax's gradient is a difference of numbers of delta's size.
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6, atol=1e-7 * delta)


@pytest.mark.parametrize("delta", [0.5, 1.0, 3.0])
def test_huber_gradient_is_the_clipped_error_also_at_the_joint(delta):
    errors = jnp.array([-2 * delta, -delta, -delta / 2, 0.0, delta / 2, delta, 2 * delta])
    gradient = jax.vmap(jax.grad(lambda e: losses.huber(e, delta)))(errors)
    np.testing.assert_allclose(gradient, np.clip(errors, -delta, delta), rtol=1e-6)


def test_huber_with_infinite_delta_is_half_the_square():
    for delta in (jnp.inf, jnp.float32(jnp.inf)):  # a constant, and as a traced hyperparameter
        value, gradient = jax.jit(jax.vmap(jax.value_and_grad(losses.huber), in_axes=(0, None)))(
            ERRORS, delta
        )
        np.testing.assert_allclose(value, 0.5 * np.square(ERRORS), rtol=1e-6)
        np.testing.assert_allclose(gradient, ERRORS, rtol=1e-6)


@pytest.mark.parametrize("limit", [0.5, 1.0, 3.0, np.inf])
def test_clipped_error_keeps_a_gradient(limit):
    clipped, slope = jax.vmap(jax.value_and_grad(lambda e: losses.clip_td_error(e, limit)))(ERRORS)
    # Exact, however large the error: a rounded difference would turn the largest ones into zero.
    np.testing.assert_array_equal(clipped, np.clip(ERRORS, -limit, limit))
    np.testing.assert_array_equal(slope, np.ones_like(ERRORS))


@pytest.mark.parametrize("limit", [0.5, 1.0, np.inf])
def test_squared_loss_of_a_clipped_error_has_the_clipped_error_as_gradient(limit):
    def loss(error):
        return 0.5 * losses.squared(losses.clip_td_error(error, limit))

    np.testing.assert_allclose(
        jax.vmap(jax.grad(loss))(ERRORS), np.clip(ERRORS, -limit, limit), rtol=1e-6
    )


def test_huber_loss_of_a_clipped_error_has_the_clipped_error_as_gradient():
    # Clipped to exactly where the Huber loss turns linear, the most common pair of settings.
    def loss(error):
        return losses.huber(losses.clip_td_error(error, 1.0), 1.0)

    np.testing.assert_allclose(
        jax.vmap(jax.grad(loss))(ERRORS), np.clip(ERRORS, -1.0, 1.0), rtol=1e-6
    )


@pytest.mark.parametrize("limit", [1e10, 1e30])
def test_huge_errors_are_clipped_not_lost(limit):
    assert losses.clip_td_error(jnp.float32(limit), 1.0) == 1.0
    assert jax.grad(lambda e: losses.squared(losses.clip_td_error(e, 1.0)))(limit) == 2.0
