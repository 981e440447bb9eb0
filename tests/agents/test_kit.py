"""What agents share: policies and schedules, the loss that a variant brings, norms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx.agents import kit, make_agent
from dqx.agents.kit import optimizers, policies
from dqx.core import exploration
from dqx.core.types import Transition
from dqx.settings import SETTINGS, Hyper
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
)
from tests.oracles import dqn
from tests.shared import quickly

POLICIES = SETTINGS["policy"].names()


@pytest.mark.parametrize(
    "sizes",
    [
        *[(1,), (15,), (1023,), (1024,), (1025,), (1039,), (1040,), (5000,), (3, 1024, 2047)],
        *[(17, 2), (65_535,), (65_536,), (65_551,), (70_000, 3)],
    ],
)
def test_global_norm_equals_numpys(sizes):
    # Longer arrays than 16 * 64 are summed in sixteen parts and a rest, those of 65,536 whole.
    rng = np.random.default_rng(sum(sizes))
    tree = {str(i): rng.normal(size=n).astype(np.float32) for i, n in enumerate(sizes)}
    for value in tree.values():
        value[-1] = 50.0  # the last number of the rest counts too
        value[0] = -30.0
    expected = np.linalg.norm(np.concatenate([v.astype(np.float64) for v in tree.values()]))
    np.testing.assert_allclose(optimizers.global_norm(tree), expected, rtol=1e-6)


@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="JAX 0.10 writes them either way")
def test_the_norm_of_wide_layers_writes_no_squares_to_memory():
    lanes = jax.ShapeDtypeStruct((4, 1024, 306), np.float32)
    memory = jax.jit(jax.vmap(optimizers.global_norm)).lower(lanes).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= 4 * lanes.size // 16


@pytest.mark.parametrize("sync", [False, True])
def test_the_distance_is_that_from_the_target_before_it_follows(sync):
    config = dataclasses.replace(CONFIG, diagnostics=("target_distance",))
    agent = make_agent(config, SPEC)
    state, batch = random_state(agent), batch_of(random_batch())
    at = now(Hyper(tau=0.5, learning_rate=0.1))
    after, learned = quickly(agent.learn)(state, batch, (), at, jnp.bool_(sync))
    first, before = (layers_of(x.target_params)[0][0] for x in (after, state))
    assert np.any(first != before) == sync

    def distance(params, target):
        arrays = [
            np.ravel(mine - np.asarray(its, np.float64))
            for layers in zip(layers_of(params), layers_of(target), strict=True)
            for mine, its in zip(*layers, strict=True)
        ]
        return np.linalg.norm(np.concatenate(arrays))

    expected = distance(after.params, state.target_params)
    np.testing.assert_allclose(learned.metrics["target_distance"], expected, rtol=1e-6)
    others = [distance(state.params, state.target_params), distance(after.params, state.params)]
    others += [distance(after.params, after.target_params)] if sync else []
    assert all(abs(other / expected - 1) > 1e-4 for other in others)


def test_global_norm_of_matrices():
    matrix = np.arange(1200.0, dtype=np.float32).reshape(30, 40)
    np.testing.assert_allclose(
        optimizers.global_norm([matrix, matrix.T]), 2**0.5 * np.linalg.norm(matrix), 1e-6
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
    config = dataclasses.replace(CONFIG, epsilon_schedule=name)
    at = now(hyper, step=250, updates=3, episodes=7)
    np.testing.assert_allclose(policies.epsilon_at(config, at), expected, rtol=1e-5)
    status = policies.make_policy(config, SPEC).status(at)
    assert status.keys() == {"epsilon"}
    np.testing.assert_allclose(status["epsilon"], expected, rtol=1e-5)


def test_as_learned_scales_and_clips_rewards_and_multiplies_gamma_in():
    steps = Transition(
        np.zeros(4), np.zeros(4), np.array([-9.0, -0.5, 0.5, 9.0]), np.array([0.0, 1, 0, 1]), None
    )
    learned = kit.as_learned(steps, Hyper(gamma=0.75, reward_clip=2.0))
    np.testing.assert_array_equal(learned.reward, [-2.0, -0.5, 0.5, 2.0])
    np.testing.assert_array_equal(learned.discount, [0.0, 0.75, 0.0, 0.75])
    assert learned.obs is steps.obs and learned.action is steps.action
    # Scaled before they are clipped.
    scaled = kit.as_learned(steps, Hyper(reward_scale=0.5, reward_clip=2.0))
    np.testing.assert_array_equal(scaled.reward, [-2.0, -0.25, 0.25, 2.0])
    scaled = kit.as_learned(steps, Hyper(reward_scale=8.0, reward_clip=4.0))
    np.testing.assert_array_equal(scaled.reward, [-4.0, -4.0, 4.0, 4.0])


@pytest.mark.parametrize(("updates", "expected"), [(0, 0.5), (1, 0.4), (12, 0.125)])
def test_the_learning_rate_decays_with_updates(updates, expected):
    hyper = Hyper(learning_rate=0.5, learning_rate_decay=0.25)
    np.testing.assert_allclose(
        optimizers.learning_rate_at(hyper, jnp.int32(updates)), expected, rtol=1e-6
    )


# --- Policies.

POLICY_DRAWS = exploration.Draw(
    jnp.array([0.1, 0.9, 0.29, 0.31, 0.0, 0.99]),
    jnp.array([3, 2, 1, 0, 3, 2], jnp.int32),
    3.0 * jax.random.gumbel(jax.random.key(5), (6, ACTIONS)),
    jnp.array([0.3, 0.1, 0.6, 0.1, 0.1, 0.1]),
)
COUNTS = np.array([1, 4, 100, 25], np.int32)
REPEAT = exploration.Repeat(
    np.array([0, 1, 2, 3, 0, 1], np.int32), np.array([2, 1, 0, 0, 5, 0], np.int32)
)
AGES = jnp.array([0, 3, 3, 3, 3, 3])  # what was repeated in the first one's last episode is over
MEMORIES = {"boltzmann_gumbel": COUNTS, "ez_greedy": REPEAT}
HYPER = Hyper(epsilon_start=0.3, temperature=0.5)


def noisy(q, spread):
    return np.argmax(q + spread * np.asarray(POLICY_DRAWS.gumbel), axis=1)


# By the definition of each, from the same Q-values and draws; epsilon 0.3, temperature 0.5.
CHOICES = {
    "epsilon_greedy": lambda q: np.where(
        POLICY_DRAWS.coin < 0.3, POLICY_DRAWS.action, np.argmax(q, axis=1)
    ),
    "ez_greedy": lambda q: np.array([3, 1, 1, np.argmax(q[3]), 0, np.argmax(q[5])]),
    "greedy": lambda q: np.argmax(q, axis=1),
    "boltzmann": lambda q: noisy(q, 0.5),
    "softmax": lambda q: noisy(q, 1.0),
    "max_boltzmann": lambda q: np.where(
        POLICY_DRAWS.coin < 0.3, noisy(q, 0.5), np.argmax(q, axis=1)
    ),
    "boltzmann_gumbel": lambda q: noisy(q, 0.5 / np.sqrt(COUNTS)),
}


def chosen(policy, hyper=HYPER, **fields):
    """Actions, Q-values, and the memory before and after, of an agent that acts once."""
    config = dataclasses.replace(CONFIG, policy=policy, epsilon_schedule="constant", **fields)
    agent = kit.value_agent(config, SPEC, loss=None)
    state = random_state(agent)
    assert (state.memory is not None) == (policy in MEMORIES)
    if state.memory is not None:
        state = state.replace(memory=jax.tree.map(jnp.asarray, MEMORIES[policy]))
    obs = random_batch(2, 6)["obs"]
    at = now(hyper)._replace(ages=AGES)
    actions, new = quickly(agent.act)(state, obs, POLICY_DRAWS, at)
    assert actions.dtype == jnp.int32
    q = dqn.forward(layers_of(state.params), obs, "relu")[0]
    return np.asarray(actions), q, state.memory, new.memory


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_chooses_by_its_definition(policy):
    actions, q, before, after = chosen(policy)
    assert len(set(np.argmax(q, axis=1))) > 1
    np.testing.assert_array_equal(actions, CHOICES[policy](q))
    assert (before is None) == (after is None) == (policy not in MEMORIES)
    if policy == "boltzmann_gumbel":
        np.testing.assert_array_equal(after, COUNTS + np.bincount(actions, minlength=ACTIONS))
    if policy == "ez_greedy":  # 1 / 0.3 and 1 / 0.6, in whole steps, of which one is taken
        np.testing.assert_array_equal(after.action, [3, 1, 1, 3, 0, 1])
        np.testing.assert_array_equal(after.left, [2, 0, 0, 0, 4, 0])


def test_the_policies_choices_differ_here():
    # Else the test above would not tell them apart.
    _, q, *_ = chosen("greedy")
    assert len({tuple(choice(q)) for choice in CHOICES.values()}) == len(POLICIES)


def test_each_environment_has_its_rung_of_the_ladder():
    epsilons = 0.4 ** (1 + 3.0 * np.arange(6) / 5)
    seen = set()
    for share in (0.9, 1.1):  # coins just below and just above each environment's epsilon
        draws = POLICY_DRAWS._replace(coin=jnp.asarray(share * epsilons, jnp.float32))
        policy = policies.make_policy(
            dataclasses.replace(CONFIG, epsilon_schedule="constant", epsilon_ladder=True), SPEC
        )
        q = jnp.asarray(np.eye(6, ACTIONS), jnp.float32)
        hyper = Hyper(epsilon_start=0.4, ladder_power=3.0)
        actions, _ = policy.choose(q, policy.memory(), draws, now(hyper))
        expected = draws.action if share < 1 else np.argmax(q, axis=1)
        np.testing.assert_array_equal(actions, expected)
        seen.add(tuple(np.asarray(actions)))
        np.testing.assert_allclose(policy.status(now(hyper))["epsilon"], 0.4)  # the ladder's foot
    assert len(seen) == 2


@pytest.mark.parametrize("policy", POLICIES)
def test_epsilon_is_told_of_policies_that_have_one(policy):
    config = dataclasses.replace(CONFIG, policy=policy, epsilon_schedule="constant")
    told = policies.make_policy(config, SPEC).status(now(Hyper(epsilon_start=0.25)))["epsilon"]
    expected = 0.25 if policy in ("epsilon_greedy", "ez_greedy", "max_boltzmann") else np.nan
    np.testing.assert_array_equal(told, expected)


# --- What a variant's loss is given.


def test_a_loss_reads_the_networks_it_names_and_no_others():
    seen = []

    def loss(outputs, step, hyper, draws):
        seen.append(outputs)
        return outputs.now[0], outputs.now[0]

    for reads in ((), ("now_target",), ("next_online", "next_target")):
        agent = kit.value_agent(CONFIG, SPEC, loss, reads=reads)
        state, batch = jax.eval_shape(agent.init, jax.random.key(0)), random_batch()
        jax.eval_shape(agent.learn, state, batch_of(batch), (), now(Hyper()), jnp.bool_(False))
        given = seen.pop()._asdict()
        assert {name for name, value in given.items() if value is not None} == {"now", *reads}
        assert all(given[name].shape == (ACTIONS,) for name in ("now", *reads))


def test_a_loss_of_all_four_networks_equals_numpys():
    names = ("next_target", "next_online", "now_target")

    def loss(outputs, step, hyper, draws):
        others = outputs.next_target + 3 * outputs.next_online + 5 * outputs.now_target
        error = jnp.sum(others) + 7 * step.reward + 11 * step.discount + draws - outputs.now[0]
        return 0.5 * error**2, error

    config = dataclasses.replace(CONFIG, optimizer="sgd")
    hyper = Hyper(gamma=0.5, reward_clip=1.0, learning_rate=1e-4)

    def learn_draws(key):
        return jax.random.normal(key, (BATCH,))

    agent = kit.value_agent(config, SPEC, loss, reads=names, learn_draws=learn_draws)
    state, batch = random_state(agent), random_batch()
    draws = agent.learn_draws(jax.random.key(3))
    learn = quickly(agent.learn)
    new, learned = learn(state, batch_of(batch), draws, now(hyper), jnp.bool_(True))

    layers, target = layers_of(state.params), layers_of(state.target_params)
    q, tape = dqn.forward(layers, batch["obs"], "relu")
    weighed = [(target, "next_obs", 1), (layers, "next_obs", 3), (target, "obs", 5)]
    errors = sum(n * dqn.forward(w, batch[obs], "relu")[0].sum(axis=1) for w, obs, n in weighed)
    errors += 7 * np.clip(batch["reward"], -1, 1) + 11 * 0.5 * batch["discount"] + draws - q[:, 0]
    np.testing.assert_allclose(learned.priority, np.abs(errors), rtol=1e-4)
    np.testing.assert_allclose(learned.metrics["loss"], np.mean(0.5 * errors**2), rtol=1e-4)
    # Only what the online network says of the present has a gradient.
    slope = np.zeros_like(q)
    slope[:, 0] = -errors / BATCH
    gradients = dqn.backward(layers, tape, slope)
    settings = dqn.Settings(optimizer="sgd")
    step, _ = dqn.step_of(gradients, memory_of(layers), settings)
    expected = [
        tuple(p - 1e-4 * d for p, d in zip(layer, change, strict=True))
        for layer, change in zip(layers, step, strict=True)
    ]
    # The second layers' gradients reach every parameter, so `assert_close` applies.
    assert_close(expected, new.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, new.params, new.target_params)


def test_values_say_what_the_q_values_in_wider_outputs_are():
    # A network of two outputs an action, of which the first are its Q-values.
    def values(outputs):
        return outputs[..., :2]

    def loss(outputs, step, hyper, draws):
        return jnp.sum(outputs.now**2), outputs.now[3]

    agent = kit.value_agent(CONFIG, SPEC, loss, reads=(), values=values)
    state, batch = random_state(agent), random_batch()
    batch["action"] %= 2
    q, _ = dqn.forward(layers_of(state.params), batch["obs"], "relu")
    given = agent.q_values(state.params, batch["obs"])
    np.testing.assert_allclose(given, q[:, :2], rtol=1e-5, atol=1e-6)
    learn = quickly(agent.learn)
    _, learned = learn(state, batch_of(batch), (), now(Hyper()), jnp.bool_(False))
    np.testing.assert_allclose(learned.metrics["q_max"], q[:, :2].max(), rtol=1e-5)
    taken = q[np.arange(BATCH), batch["action"]]
    np.testing.assert_allclose(learned.metrics["q_mean"], taken.mean(), rtol=1e-5)
    np.testing.assert_allclose(learned.metrics["td_error_abs"], np.abs(q[:, 3]).mean(), rtol=1e-5)
    obs = batch["obs"][:6]
    greedy, _ = agent.act(state, obs, POLICY_DRAWS, now(HYPER.replace(epsilon_start=0.0)))
    assert set(np.asarray(greedy)) <= {0, 1}
