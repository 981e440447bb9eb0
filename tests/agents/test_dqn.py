"""Updates of DQN against a float64 NumPy twin, and the contracts of the agent's state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx.agents import make_agent
from tests.agents.dqn_kit import (
    ACTIONS,
    BATCH,
    CONFIG,
    SPEC,
    assert_close,
    batch_of,
    layers_of,
    memory_of,
    now,
    random_batch,
    random_state,
    setup,
)
from tests.oracles import dqn
from tests.shared import quickly

NO_SYNC, SYNC = jnp.bool_(False), jnp.bool_(True)

CASES = {
    "adam": {},
    "adam, tanh": {"activation": "tanh"},
    "adam, swish": {"activation": "swish"},
    "double": {"double": True},
    "double, huber": {"double": True, "loss": "huber", "huber_delta": 1.0},
    "huber 0.3": {"loss": "huber", "huber_delta": 0.3},
    "huber without limit": {"loss": "huber"},
    "keras_mse": {"loss": "keras_mse"},
    "reward clip": {"reward_clip": 1.0},
    "error clip": {"td_error_clip": 1.0},
    "error clip, huber": {"td_error_clip": 1.0, "loss": "huber", "huber_delta": 1.0},
    "error clip, sgd": {"td_error_clip": 0.5, "optimizer": "sgd"},
    "norm clip": {"max_grad_norm": 0.5, "optimizer": "sgd"},
    "norm clip out of reach": {"max_grad_norm": 1e4, "optimizer": "sgd"},
    "norm clip, adam": {"max_grad_norm": 0.5},
    "adam epsilon": {"optimizer_epsilon": 0.1},
    "gamma": {"gamma": 0.5},
    "sgd": {"optimizer": "sgd"},
    "sgd momentum": {"optimizer": "sgd", "momentum": 0.9},
    "sgd double": {"optimizer": "sgd", "double": True},
    "sgd keras_mse": {"optimizer": "sgd", "loss": "keras_mse"},
    "sgd huber": {"optimizer": "sgd", "loss": "huber", "huber_delta": 0.7},
    "rmsprop": {"optimizer": "rmsprop", "optimizer_epsilon": 0.01},
    "rmsprop decay, momentum": {
        "optimizer": "rmsprop",
        "optimizer_epsilon": 0.01,
        "rmsprop_decay": 0.95,
        "momentum": 0.5,
    },
    "learning rate decay": {"learning_rate_decay": 0.5},
    "learning rate decay, sgd": {"learning_rate_decay": 0.1, "optimizer": "sgd", "momentum": 0.5},
    "soft target": {"tau": 0.1},
    "soft target, sgd": {"tau": 0.005, "optimizer": "sgd"},
}  # fmt: skip


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_updates_equal_the_twin(fields):
    agent, hyper, twin = setup(fields)
    learn = quickly(agent.learn)
    state = random_state(agent)
    layers, target = layers_of(state.params), layers_of(state.target_params)
    memory = memory_of(layers)
    for count, sync in enumerate((True, False, True)):
        batch = random_batch(count)
        before = state
        at = now(hyper, updates=count)
        state, learned = learn(state, batch_of(batch), (), at, jnp.bool_(sync))
        # From the same state each time, so that rounding does not add up over the updates.
        layers, target, memory, expected = dqn.update(
            layers_of(before.params), layers_of(before.target_params), memory, batch, twin, sync
        )
        assert_close(layers, state.params, before.params)
        if sync:
            assert_close(target, state.target_params, before.target_params)
        errors, *_ = dqn.td_errors(
            layers_of(before.params), layers_of(before.target_params), batch, twin
        )
        np.testing.assert_allclose(learned.priority, np.abs(errors), rtol=1e-4, atol=1e-5)
        assert learned.metrics.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(learned.metrics[name], value, rtol=1e-5, err_msg=name)


def test_the_cases_tell_the_settings_apart():
    # A setting without effect on the twin would be tested by nothing.
    results = {}
    for name, fields in CASES.items():
        agent, _, twin = setup(fields)
        state = random_state(agent)
        layers, target = layers_of(state.params), layers_of(state.target_params)
        memory = memory_of(layers)
        for count, sync in enumerate((True, False, True)):
            layers, target, memory, _ = dqn.update(
                layers, target, memory, random_batch(count), twin, sync
            )
        results[name] = (float(layers[0][0].sum()), float(target[0][0].sum()))
    same = {tuple(np.round(result, 9)) for result in results.values()}
    assert len(same) == len(results) - 1  # the clip out of reach equals plain sgd
    assert results["sgd"] == results["norm clip out of reach"]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_q_values_equal_the_twins(batch):
    agent = make_agent(CONFIG, SPEC)
    params = random_state(agent).params
    obs = random_batch(5, batch)["obs"]
    expected, _ = dqn.forward(layers_of(params), obs, "relu")
    np.testing.assert_allclose(agent.q_values(params, obs), expected, rtol=1e-5, atol=1e-6)


def test_the_twins_gradient_equals_finite_differences():
    agent, _, twin = setup({"loss": "huber", "huber_delta": 0.7, "activation": "tanh"})
    state = random_state(agent)
    layers, target = layers_of(state.params), layers_of(state.target_params)
    batch, twin.optimizer, twin.learning_rate = random_batch(), "sgd", 1.0
    memory = memory_of(layers)
    new, *_ = dqn.update(layers, target, memory, batch, twin, False)

    def loss():
        errors, *_ = dqn.td_errors(layers, target, batch, twin)
        return np.mean([dqn.loss_and_slope(error, ACTIONS, twin)[0] for error in errors])

    # Nothing of the next Q-values depends on the online layers here, so the loss can be perturbed.
    for layer, part, index in [(0, 0, (1, 2)), (1, 0, (3, 4)), (2, 0, (0, 1)), (1, 1, (2,))]:
        array = layers[layer][part]
        original, losses = array[index], []
        for shift in (1e-5, -1e-5):
            array[index] = original + shift
            losses.append(loss())
        array[index] = original
        slope = (losses[0] - losses[1]) / 2e-5
        np.testing.assert_allclose(original - new[layer][part][index], slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_clipping_keeps_the_gradients_direction(optimizer):
    def change(limit):
        agent, hyper, _ = setup({"optimizer": optimizer, "max_grad_norm": limit, "momentum": 0.0})
        state = random_state(agent)
        hyper = hyper.replace(learning_rate=1.0, optimizer_epsilon=1e-8)
        new, learned = quickly(agent.learn)(
            state, batch_of(random_batch()), (), now(hyper), NO_SYNC
        )
        flat = [
            np.concatenate([x.ravel() for layer in layers_of(p) for x in layer])
            for p in (state.params, new.params)
        ]
        return flat[1] - flat[0], float(learned.metrics["grad_norm"])

    free, norm = change(None)
    clipped, same_norm = change(0.25 * norm)
    assert norm == same_norm  # of the gradient before clipping
    if optimizer == "sgd":
        np.testing.assert_allclose(clipped, 0.25 * free, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(clipped), 0.25 * norm, rtol=1e-4)
    else:  # Adam's first step does not see the gradient's scale
        np.testing.assert_allclose(clipped, free, rtol=1e-2, atol=1e-4)


def test_no_clip_leaves_the_update_bit_equal():
    states = []
    for limit in (None, 1e6):
        agent, hyper, _ = setup({"max_grad_norm": limit})
        states.append(
            quickly(agent.learn)(
                random_state(agent), batch_of(random_batch()), (), now(hyper), SYNC
            )
        )
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_gradient_of_zero_moves_nothing():
    agent, hyper, _ = setup({"optimizer": "sgd", "max_grad_norm": 1.0})
    state = random_state(agent)
    batch = random_batch()
    q_values = np.asarray(agent.q_values(state.params, batch["obs"]))
    batch["reward"] = q_values[np.arange(BATCH), batch["action"]]
    batch["discount"] = np.zeros(BATCH, np.float32)
    new, learned = jax.jit(agent.learn)(state, batch_of(batch), (), now(hyper), NO_SYNC)
    assert learned.metrics["grad_norm"] == 0 and learned.metrics["loss"] == 0
    jax.tree.map(np.testing.assert_array_equal, new.params, state.params)


def pointers(tree):
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize("jit", [False, True])
def test_parameters_and_target_start_equal_and_never_share_memory(jit):
    agent, hyper, _ = setup({})
    state = (jax.jit(agent.init) if jit else agent.init)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.params, state.target_params)
    assert not pointers(state.params) & pointers(state.target_params)
    learn = jax.jit(agent.learn, donate_argnums=0)
    for count in range(3):
        old = state
        state, _ = learn(state, batch_of(random_batch()), (), now(hyper, updates=count), SYNC)
        # A hard copy: equal numbers in memory of their own, which makes donation possible.
        jax.tree.map(np.testing.assert_array_equal, state.params, state.target_params)
        assert not pointers(state.params) & pointers(state.target_params)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((old.params, old.target_params)))


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_without_sync_the_target_stays_bit_equal(tau):
    agent, hyper, _ = setup({"tau": tau})
    state = random_state(agent)
    learn = quickly(agent.learn)
    arguments = (batch_of(random_batch()), (), now(hyper))
    new, _ = learn(state, *arguments, NO_SYNC)
    jax.tree.map(np.testing.assert_array_equal, new.target_params, state.target_params)
    synced, _ = learn(state, *arguments, SYNC)
    jax.tree.map(np.testing.assert_array_equal, new.params, synced.params)
    moved = jax.tree.map(
        lambda a, b: np.any(np.asarray(a) != b), synced.target_params, state.target_params
    )
    assert all(jax.tree.leaves(moved))


def test_no_gradient_reaches_the_target_parameters():
    agent, hyper, _ = setup({"double": True})
    state = random_state(agent)

    def loss(target_params):
        moved = state.replace(target_params=target_params)
        _, learned = agent.learn(moved, batch_of(random_batch()), (), now(hyper), NO_SYNC)
        return learned.metrics["loss"]

    gradient = quickly(jax.grad(loss))(state.target_params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_hyperparameters_are_traced():
    agent, hyper, _ = setup({})
    traces = []

    @jax.jit
    def learn(*arguments):
        traces.append(None)
        return agent.learn(*arguments)

    state = random_state(agent)
    results = []
    for rate in (1e-3, 1e-2):
        hyper = jax.tree.map(jnp.float32, hyper.replace(learning_rate=rate))
        new, _ = learn(state, batch_of(random_batch()), (), now(hyper), SYNC)
        results.append(layers_of(new.params)[0][0])
    assert len(traces) == 1 and np.any(results[0] != results[1])


# --- Weights of transitions.


@functools.cache
def learner(case):
    """State, hyperparameters, settings of the twin, and the compiled update of one case."""
    agent, hyper, twin = setup(CASES[case])
    return random_state(agent), hyper, twin, quickly(agent.learn)


def one_update(weight, case="sgd huber"):
    """State before and after, what was learned, and the twin's layers and metrics."""
    (state, hyper, twin, learn), batch = learner(case), random_batch()
    new, learned = learn(state, batch_of(batch, weight), (), now(hyper), SYNC)
    layers, target = layers_of(state.params), layers_of(state.target_params)
    expected = dqn.update(layers, target, memory_of(layers), batch, twin, True, weight)
    return state, new, learned, expected


@pytest.mark.parametrize("case", ["sgd huber", "adam", "norm clip", "double, huber"])
def test_weights_scale_the_loss_of_each_transition_as_the_twins_do(case):
    weight = np.random.default_rng(3).uniform(0, 2, BATCH).astype(np.float32)
    state, new, learned, (layers, _, _, metrics) = one_update(weight, case)
    assert_close(layers, new.params, state.params)
    for name, value in metrics.items():
        np.testing.assert_allclose(learned.metrics[name], value, rtol=1e-5, err_msg=name)
    # Errors, priorities and Q-values are of the transitions as they are.
    _, _, plain, (unweighted, *_, plain_metrics) = one_update(None, case)
    np.testing.assert_array_equal(learned.priority, plain.priority)
    assert np.abs(unweighted[0][0] - layers[0][0]).max() > 1e-6
    assert not np.isclose(metrics["loss"], plain_metrics["loss"], rtol=1e-2)


def test_equal_weights_of_one_change_nothing_and_of_zero_teach_nothing():
    state, ones, learned, _ = one_update(np.ones(BATCH, np.float32))
    _, plain, told, _ = one_update(None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ones, plain)
    np.testing.assert_allclose(learned.metrics["loss"], told.metrics["loss"], rtol=1e-6)
    _, none, learned, _ = one_update(np.zeros(BATCH, np.float32))
    jax.tree.map(np.testing.assert_array_equal, none.params, state.params)
    assert learned.metrics["loss"] == 0 and learned.metrics["td_error_abs"] > 0.1
