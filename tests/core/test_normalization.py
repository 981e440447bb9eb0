"""Running moments against NumPy's in float64, and the agent that sees through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
from dqx import agents
from dqx.core import normalization
from dqx.core.agent import Spec
from dqx.settings import Config, ConfigError, Hyper
from tests import probes
from tests.agents.dqn_kit import CONFIG, SPEC, batch_of, now, random_batch, random_state
from tests.core.ledger import seed_keys, unpacked
from tests.shared import quickly

SCALES, OFFSETS = np.array([1.0, 1e-3, 50.0, 0.0]), np.array([0.0, 5.0, -400.0, 7.25])


def observations(steps, num_envs):
    rng = np.random.default_rng(num_envs)
    return (rng.normal(size=(steps, num_envs, 4)) * SCALES + OFFSETS).astype(np.float32)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_moments_are_those_of_all_that_was_seen(num_envs):
    obs = observations(2_000, num_envs)

    def see(moments, obs):
        moments = normalization.seen(moments, obs)
        return moments, moments

    _, after = quickly(lambda o: jax.lax.scan(see, normalization.no_moments((4,)), o))(obs)
    for steps in (1, 2, 10, 2_000):
        flat = obs[:steps].reshape(-1, 4).astype(np.float64)
        assert after["count"][steps - 1] == len(flat) and after["count"].dtype == jnp.int32
        mean, variance = (np.asarray(after[n][steps - 1], np.float64) for n in ("mean", "variance"))
        np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-5, atol=1e-5)
        # A spread of a thousandth around 5 is at the end of what float32 resolves.
        np.testing.assert_allclose(variance, flat.var(axis=0), rtol=2e-3, atol=1e-9)
    assert variance[3] == 0 and mean[3] == 7.25  # what never changes is known exactly


def test_what_is_seen_is_less_its_mean_over_its_deviation_within_ten():
    moments = {"count": jnp.int32(9), "mean": jnp.array([1.0, 2, 7]),
               "variance": jnp.array([4.0, 1e-4, 0.0])}  # fmt: skip
    obs = jnp.array([[3.0, 2.01, 7.0], [-5.0, 0.0, 7.0], [100.0, 2.0, 8.0]])
    expected = [[1.0, 1.0, 0.0], [-3.0, -10.0, 0.0], [10.0, 0.0, 10.0]]
    np.testing.assert_allclose(normalization.normalized(moments, obs), expected, rtol=1e-3)
    # Nothing seen so far: observations as they are, and as float32.
    as_is = normalization.normalized(normalization.no_moments(()), jnp.array([-3, 4], jnp.int8))
    assert as_is.dtype == jnp.float32
    np.testing.assert_array_equal(as_is, [-3.0, 4.0])


# --- The agent.

MOMENTS = {"count": jnp.int32(5), "mean": jnp.array([0.5, -1.0, 0.0]),
           "variance": jnp.array([4.0, 0.25, 1.0])}  # fmt: skip


def around(state):
    params = {"network": state.params, "observations": MOMENTS}
    return state.replace(params=params)


@pytest.fixture(scope="module")
def pair():
    """A double DQN and the one around it."""
    config = Config(**{**vars(CONFIG), "double": True})
    inner = agents.make_agent(config, SPEC)
    changed = Config(**{**vars(config), "normalize_observations": True})
    return inner, agents.make_agent(changed, SPEC)


def test_it_is_the_agent_inside_with_normalised_observations(pair):
    inner, outer = pair
    state, batch = random_state(inner), random_batch()
    by_hand = lambda x: (  # noqa: E731
        (x - np.array([0.5, -1.0, 0.0])) / np.sqrt(np.array([4.0, 0.25, 1.0]))
    ).astype(np.float32)
    normal = {**batch, "obs": by_hand(batch["obs"]), "next_obs": by_hand(batch["next_obs"])}
    at, draws = now(Hyper(learning_rate=1e-2)), inner.act_draws(jax.random.key(1))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731

    expected, learned = quickly(inner.learn)(state, batch_of(normal), (), at, jnp.bool_(True))
    found, same = quickly(outer.learn)(around(state), batch_of(batch), (), at, jnp.bool_(True))
    jax.tree.map(close, found.params["network"], expected.params)
    jax.tree.map(close, (found.target_params, same), (expected.target_params, learned))
    jax.tree.map(np.testing.assert_array_equal, found.params["observations"], MOMENTS)
    moved = [a - b for a, b in zip(*map(jax.tree.leaves, (found.params["network"], state.params)),
                                   strict=True)]  # fmt: skip
    assert any(np.abs(x).max() > 1e-3 for x in moved)

    close(outer.q_values(around(state).params, batch["obs"]),
          inner.q_values(state.params, normal["obs"]))  # fmt: skip
    for method, given in (("act", batch["obs"][:6]), ("act", 3 + batch["obs"][:6])):
        action, after = getattr(outer, method)(around(state), given, draws, at)
        action_inside, _ = inner.act(state, by_hand(given), draws, at)
        np.testing.assert_array_equal(action, action_inside)
        jax.tree.map(np.testing.assert_array_equal, after.params, around(state).params)
    action, after = outer.explore(around(state), draws)
    np.testing.assert_array_equal(action, inner.explore(state, draws)[0])
    jax.tree.map(np.testing.assert_array_equal, after.params, around(state).params)


def test_it_begins_as_the_agent_inside(pair):
    inner, outer = pair
    expected, found = (agent.init(jax.random.key(3)) for agent in pair)
    assert inner.see is None
    jax.tree.map(np.testing.assert_array_equal, found.params["network"], expected.params)
    jax.tree.map(np.testing.assert_array_equal, found.target_params, expected.target_params)
    once = outer.see(found, jnp.array([[1.0, 2, 3], [3.0, 2, -3]])).params["observations"]
    np.testing.assert_allclose(once["mean"], [2, 2, 0], rtol=1e-6)
    np.testing.assert_allclose(once["variance"], [1, 0, 9], atol=1e-6)


@pytest.mark.parametrize(
    ("env", "fields", "words"),
    [("Taxi-v4", {"network": "embedding"}, "Taxi-v4 gives category numbers: leave it at false"),
     ("WallDodge-v0", {}, "WallDodge-v0 gives uint8 frames: .* scale_pixels = true")],
)  # fmt: skip
def test_categories_and_frames_are_refused(env, fields, words):
    config = Config(env=env, normalize_observations=True, **fields)
    with pytest.raises(ConfigError, match=f"normalize_observations takes .*{words}"):
        dqx.make_agent(config, dqx.environment_of(config))


def test_whole_numbers_become_float32_for_the_network():
    spec = Spec("Counts-v0", (3,), jnp.int8, None, 4, num_envs=6)
    agent = agents.make_agent(Config(hidden_sizes=(4,), normalize_observations=True), spec)
    q = agent.q_values(agent.init(jax.random.key(0)).params, jnp.ones((2, 3), jnp.int8))
    assert q.shape == (2, 4) and q.dtype == jnp.float32


def test_training_shows_it_every_observation_acted_on_and_stores_them_raw():
    env = probes.adapted(probes.Ledger)
    config = Config(hidden_sizes=(4,), num_envs=2, batch_size=8, replay_capacity=200,
                    learning_starts=40, train_period=4, normalize_observations=True)  # fmt: skip
    trainer = dqx.make_trainer(config, env)
    _, lanes, _, _ = probes.run_trainer(trainer, Hyper(), seed_keys(2), 40, 80)
    for lane in range(2):
        obs = unpacked(lanes, lane, 200, env).obs[:120].astype(np.float64)
        assert obs.max() > 5  # marks and times as they are
        moments = jax.tree.map(lambda x, i=lane: x[i], lanes.agent.params["observations"])
        assert moments["count"] == 120
        np.testing.assert_allclose(moments["mean"], obs.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(moments["variance"], obs.var(axis=0), rtol=1e-4)
