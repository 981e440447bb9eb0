"""Updates against a float64 NumPy twin, and the contracts of the agent's state."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx import exploration
from dqx.agent import epsilon_at, global_norm, hyper_at, make_agent
from dqx.config import POLICIES, Config, Hyper, validate
from dqx.environment import Environment
from dqx.types import Transition
from tests.oracles import dqn

OBS, ACTIONS, BATCH = 3, 4, 40
ENV = Environment(
    obs_shape=(OBS,),
    obs_dtype=jnp.float32,
    num_categories=None,
    num_actions=ACTIONS,
    max_steps=10,
    reset=None,
    step=None,
    observe=None,
    model=None,
)
CONFIG = Config(hidden_sizes=(16, 8), batch_size=BATCH)


def random_batch(seed=0, size=BATCH):
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.normal(size=(size, OBS)).astype(np.float32),
        "action": rng.integers(0, ACTIONS, size).astype(np.int32),
        "reward": (3 * rng.normal(size=size)).astype(np.float32),
        "discount": (rng.random(size) > 0.3).astype(np.float32),
        "next_obs": rng.normal(size=(size, OBS)).astype(np.float32),
    }


def layers_of(params):
    layers = params["params"]
    return [
        tuple(np.asarray(layers[name][part], np.float64) for part in ("kernel", "bias"))
        for name in sorted(layers)
    ]


def random_state(agent, seed=0):
    """Online and target parameters that differ, with biases other than zero."""
    state = agent.init(jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def noisy(x):
        return x + rng.normal(size=x.shape, scale=0.2).astype(np.float32)

    return state.replace(
        params=jax.tree.map(noisy, state.params),
        target_params=jax.tree.map(noisy, state.target_params),
    )


def assert_close(layers, params, before):
    """To 1e-5 relative of the largest change of each array."""
    arrays = zip(layers, layers_of(params), layers_of(before), strict=True)
    for expected, given, start in (
        (e, g, s) for trio in arrays for e, g, s in zip(*trio, strict=1)
    ):
        scale = np.abs(expected - start).max()
        assert scale > 0
        # What is left by rounding the parameters themselves to float32.
        ulp = np.abs(expected).max() * 2.0**-23
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5 * scale + ulp)


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


def setup(fields):
    """Agent, hyperparameters and the twin's settings of one case."""
    twin = dqn.Settings(**fields)
    names = {field.name for field in dataclasses.fields(Config)}
    static = {k: v for k, v in dataclasses.asdict(twin).items() if k in names}
    traced = {
        k: np.inf if v is None else v
        for k, v in dataclasses.asdict(twin).items()
        if k not in static
    }
    config, hyper = dataclasses.replace(CONFIG, **static), Hyper(**traced)
    validate(config, hyper)
    return make_agent(config, ENV), hyper, twin


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_updates_equal_the_twin(fields):
    agent, hyper, twin = setup(fields)
    learn = jax.jit(agent.learn)
    state = random_state(agent)
    layers, target = layers_of(state.params), layers_of(state.target_params)
    zeros = dqn.zeros(layers)
    memory = {"count": 0, "first": zeros, "second": zeros}
    for count, sync in enumerate((True, False, True)):
        batch = random_batch(count)
        before = state
        state, metrics = learn(state, hyper, Transition(**batch), jnp.int32(count), jnp.bool_(sync))
        # From the same state each time, so that rounding does not add up over the updates.
        layers, target, memory, expected = dqn.update(
            layers_of(before.params), layers_of(before.target_params), memory, batch, twin, sync
        )
        assert_close(layers, state.params, before.params)
        if sync:
            assert_close(target, state.target_params, before.target_params)
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(metrics, name), value, rtol=1e-5, err_msg=name)


def test_the_cases_tell_the_settings_apart():
    # A setting without effect on the twin would be tested by nothing.
    results = {}
    for name, fields in CASES.items():
        agent, _, twin = setup(fields)
        state = random_state(agent)
        layers, target = layers_of(state.params), layers_of(state.target_params)
        zeros = dqn.zeros(layers)
        memory = {"count": 0, "first": zeros, "second": zeros}
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
    agent = make_agent(CONFIG, ENV)
    params = random_state(agent).params
    obs = random_batch(5, batch)["obs"]
    expected, _ = dqn.forward(layers_of(params), obs, "relu")
    np.testing.assert_allclose(agent.q_values(params, obs), expected, rtol=1e-5, atol=1e-6)


def test_the_twins_gradient_equals_finite_differences():
    agent, _, twin = setup({"loss": "huber", "huber_delta": 0.7, "activation": "tanh"})
    state = random_state(agent)
    layers, target = layers_of(state.params), layers_of(state.target_params)
    batch, twin.optimizer, twin.learning_rate = random_batch(), "sgd", 1.0
    zeros = dqn.zeros(layers)
    memory = {"count": 0, "first": zeros, "second": zeros}
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
        new, metrics = agent.learn(
            state, hyper, Transition(**random_batch()), jnp.int32(0), jnp.bool_(False)
        )
        flat = [
            np.concatenate([x.ravel() for layer in layers_of(p) for x in layer])
            for p in (state.params, new.params)
        ]
        return flat[1] - flat[0], float(metrics.grad_norm)

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
            jax.jit(agent.learn)(
                random_state(agent),
                hyper,
                Transition(**random_batch()),
                jnp.int32(0),
                jnp.bool_(True),
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
    new, metrics = agent.learn(state, hyper, Transition(**batch), jnp.int32(0), jnp.bool_(False))
    assert metrics.grad_norm == 0 and metrics.loss == 0
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
        state, _ = learn(
            state, hyper, Transition(**random_batch()), jnp.int32(count), jnp.bool_(True)
        )
        # A hard copy: equal numbers in memory of their own, which makes donation possible.
        jax.tree.map(np.testing.assert_array_equal, state.params, state.target_params)
        assert not pointers(state.params) & pointers(state.target_params)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((old.params, old.target_params)))


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_without_sync_the_target_stays_bit_equal(tau):
    agent, hyper, _ = setup({"tau": tau})
    state = random_state(agent)
    learn = jax.jit(agent.learn)
    arguments = (hyper, Transition(**random_batch()), jnp.int32(0))
    new, _ = learn(state, *arguments, jnp.bool_(False))
    jax.tree.map(np.testing.assert_array_equal, new.target_params, state.target_params)
    synced, _ = learn(state, *arguments, jnp.bool_(True))
    jax.tree.map(np.testing.assert_array_equal, new.params, synced.params)
    moved = jax.tree.map(
        lambda a, b: np.any(np.asarray(a) != b), synced.target_params, state.target_params
    )
    assert all(jax.tree.leaves(moved))


def test_no_gradient_reaches_the_target_parameters():
    agent, hyper, _ = setup({"double": True})
    state = random_state(agent)

    def loss(target_params):
        batch = Transition(**random_batch())
        return agent.learn(
            state.replace(target_params=target_params), hyper, batch, jnp.int32(0), False
        )[1].loss

    gradient = jax.grad(loss)(state.target_params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_hyperparameters_are_traced():
    agent, hyper, _ = setup({})
    traces = []

    @jax.jit
    def learn(state, hyper, batch, updates, sync):
        traces.append(None)
        return agent.learn(state, hyper, batch, updates, sync)

    state = random_state(agent)
    results = []
    for rate in (1e-3, 1e-2):
        hyper = jax.tree.map(jnp.float32, hyper.replace(learning_rate=rate))
        new, _ = learn(state, hyper, Transition(**random_batch()), jnp.int32(0), jnp.bool_(True))
        results.append(layers_of(new.params)[0][0])
    assert len(traces) == 1 and np.any(results[0] != results[1])


def test_act_gives_each_environment_its_own_choice():
    agent = make_agent(CONFIG, ENV)
    params = random_state(agent).params
    obs = random_batch(2, 6)["obs"]
    greedy = np.argmax(dqn.forward(layers_of(params), obs, "relu")[0], axis=1)
    assert len(set(greedy)) > 1
    coins = jnp.array([0.1, 0.9, 0.29, 0.31, 0.0, 0.99])
    actions = jnp.array([3, 2, 1, 0, 3, 2], jnp.int32)
    chosen = agent.act(params, obs, exploration.Draw(coins, actions), jnp.float32(0.3))
    assert chosen.dtype == jnp.int32
    np.testing.assert_array_equal(chosen, np.where(np.asarray(coins) < 0.3, actions, greedy))


@pytest.mark.parametrize(
    "sizes",
    [(1,), (15,), (1023,), (1024,), (1025,), (1039,), (1040,), (5000,), (3, 1024, 2047), (17, 2)],
)
def test_global_norm_equals_numpys(sizes):
    # Longer arrays than 16 * 64 are summed in sixteen parts and a rest.
    rng = np.random.default_rng(sum(sizes))
    tree = {str(i): rng.normal(size=n).astype(np.float32) for i, n in enumerate(sizes)}
    for value in tree.values():
        value[-1] = 50.0  # the last number of the rest counts too
        value[0] = -30.0
    expected = np.linalg.norm(np.concatenate([v.astype(np.float64) for v in tree.values()]))
    np.testing.assert_allclose(global_norm(tree), expected, rtol=1e-6)


def test_global_norm_of_matrices():
    matrix = np.arange(1200.0, dtype=np.float32).reshape(30, 40)
    np.testing.assert_allclose(
        global_norm([matrix, matrix.T]), 2**0.5 * np.linalg.norm(matrix), 1e-6
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", 0.8),
        ("linear", 0.8 + (0.2 - 0.8) * 0.25),
        ("exponential", 0.2 + 0.6 * np.exp(-0.25)),
        ("per_episode", 0.8 * 0.9**7),
    ],
)
def test_epsilon_follows_the_named_schedule(name, expected):
    hyper = Hyper(epsilon_start=0.8, epsilon_end=0.2, epsilon_steps=1000.0, epsilon_decay=0.9)
    config = dataclasses.replace(CONFIG, exploration=name)
    value = epsilon_at(config, hyper, jnp.int32(250), jnp.int32(7))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


# --- Policies, and what is annealed.

POLICY_DRAWS = exploration.Draw(
    jnp.array([0.1, 0.9, 0.29, 0.31, 0.0, 0.99]),
    jnp.array([3, 2, 1, 0, 3, 2], jnp.int32),
    3.0 * jax.random.gumbel(jax.random.key(5), (6, ACTIONS)),
)
COUNTS = np.array([1, 4, 100, 25])


def noisy(q, spread):
    return np.argmax(q + spread * np.asarray(POLICY_DRAWS.gumbel), axis=1)


# By the definition of each, from the same Q-values and draws; epsilon 0.3, temperature 0.5.
CHOICES = {
    "epsilon_greedy": lambda q: np.where(
        POLICY_DRAWS.coin < 0.3, POLICY_DRAWS.action, np.argmax(q, axis=1)
    ),
    "greedy": lambda q: np.argmax(q, axis=1),
    "boltzmann": lambda q: noisy(q, 0.5),
    "softmax": lambda q: noisy(q, 1.0),
    "max_boltzmann": lambda q: np.where(
        POLICY_DRAWS.coin < 0.3, noisy(q, 0.5), np.argmax(q, axis=1)
    ),
    "boltzmann_gumbel": lambda q: noisy(q, 0.5 / np.sqrt(COUNTS)),
}


def chosen(policy, epsilon=0.3):
    agent = make_agent(dataclasses.replace(CONFIG, policy=policy), ENV)
    params = random_state(agent).params
    obs = random_batch(2, 6)["obs"]
    actions = agent.act(
        params, obs, POLICY_DRAWS, jnp.asarray(epsilon), jnp.float32(0.5), jnp.asarray(COUNTS)
    )
    assert actions.dtype == jnp.int32
    return np.asarray(actions), dqn.forward(layers_of(params), obs, "relu")[0]


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_chooses_by_its_definition(policy):
    actions, q = chosen(policy)
    np.testing.assert_array_equal(actions, CHOICES[policy](q))


def test_the_policies_choices_differ_here():
    # Else the test above would not tell them apart.
    _, q = chosen("greedy")
    assert len({tuple(choice(q)) for choice in CHOICES.values()}) == len(POLICIES)


def test_environments_may_have_an_epsilon_each():
    epsilon = np.array([0.0, 1.0, 0.3, 0.3, 0.0, 1.0])
    actions, q = chosen("epsilon_greedy", epsilon)
    explores = np.asarray(POLICY_DRAWS.coin) < epsilon
    np.testing.assert_array_equal(
        actions, np.where(explores, POLICY_DRAWS.action, np.argmax(q, axis=1))
    )


def test_what_is_annealed_goes_linearly_to_its_scale_and_stays():
    config = dataclasses.replace(CONFIG, annealed=("temperature", "gamma"))
    hyper = Hyper(temperature=2.0, gamma=0.8, anneal_steps=1000.0, anneal_scale=0.25)
    for step, share in [(0, 0.0), (250, 0.25), (1000, 1.0), (9999, 1.0)]:
        now = hyper_at(config, hyper, jnp.int32(step))
        np.testing.assert_allclose(now.temperature, 2.0 - 1.5 * share, rtol=1e-6)
        np.testing.assert_allclose(now.gamma, 0.8 - 0.6 * share, rtol=1e-6)
        assert now.replace(temperature=2.0, gamma=0.8) == hyper  # all others as they were

    assert hyper_at(CONFIG, hyper, jnp.int32(500)) == hyper
