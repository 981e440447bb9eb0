"""What is put around an environment, each against a plain loop over the environment itself."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dqx
from dqx.core import loop, sampling, wrappers
from dqx.core.environment import Wrappers
from dqx.core.forms import make_store
from dqx.settings import Config, ConfigError
from tests import probes
from tests.core.ledger import seed_keys
from tests.shared import quickly

LEVEL = 1e-4  # all but one key in ten thousand pass by chance; keys are fixed
LIMIT = 6


class Drift(probes.Probe):
    """A number that actions and chance move, observed with the action taken and the time.

    Episodes end where the number is a multiple of 7, or by a time limit of their own.
    """

    actions, width, marks, time_limit = 3, 3, 50, LIMIT

    def look(self, state, action=-1):
        return jnp.stack([state.mark, action, state.time]).astype(jnp.float32)

    def step_env(self, key, state, action, params):
        moved = state.mark + 3 * action + jax.random.randint(key, (), 1, 12)
        state = state.replace(mark=moved, time=state.time + 1)
        reward = jnp.float32(moved) / 8  # sums of these are exact
        return self.look(state, action), state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state, params):
        return state.mark % 7 == 0


class Film(Drift):
    """The same as uint8 frames of 3 x 2 pixels in 2 channels."""

    def observation_space(self, params):
        return probes.spaces.Box(0, 255, (3, 2, 2), jnp.uint8)

    def look(self, state, action=-1):
        noise = (state.mark * 37 + jnp.arange(12) * (5 + state.time)) % 251
        return noise.astype(jnp.uint8).reshape(3, 2, 2)


DRIFT = probes.adapted(Drift)


@pytest.fixture(scope="module")
def drift_step():
    """A step of the environment itself, compiled."""
    return quickly(DRIFT.step)


def play(env, seed=0):
    """What each of 64 steps is given and what comes of it: obs, state, key, action, fresh, step."""

    def step(now, key):
        obs, state = now
        key, fresh_key, action_key = jax.random.split(key, 3)
        fresh, action = env.reset(fresh_key), jax.random.randint(action_key, (), 0, 3)
        found = env.step(key, state, action, fresh)
        kept = (obs, state, jax.random.key_data(key), action, fresh, found)
        return (found.obs, found.state), kept

    def run(seed):
        keys = jax.random.split(jax.random.key(seed), 65)
        return jax.lax.scan(step, env.reset(keys[0]), keys[1:])[1]

    seen = jax.tree.map(np.asarray, quickly(run)(seed))
    for i in range(64):
        obs, state, data, action, fresh, found = jax.tree.map(lambda x, i=i: x[i], seen)
        yield obs, state, jax.random.wrap_key_data(data), action, fresh, found


def ended(step):
    return bool(step.terminated | step.truncated)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_nothing_asked_for_leaves_the_environment_as_it_is():
    env = dqx.make_environment("CartPole-v1")
    for one, other in zip(wrappers.wrapped(env, Config()), env, strict=True):
        assert one is other or one == other
    assert env.wrappers == Wrappers()
    assert all(getattr(Config(), name) == value for name, value in env.wrappers._asdict().items())


# --- Repeated actions.


def test_a_repeated_action_is_a_plain_loop_up_to_the_end(drift_step):
    counts = collections.Counter()
    for _, state, key, action, fresh, found in play(wrappers.action_repeat(DRIFT, 4)):
        total, steps = np.float32(0), 0
        for inner_key in jax.random.split(key, 4):
            last = drift_step(inner_key, state, action, fresh)
            state, total, steps = last.state, total + np.float32(last.reward), steps + 1
            if ended(last):
                break
        assert_equal(found, last._replace(reward=total))
        counts[steps, ended(last)] += 1
    # Ends after fewer steps than four, at the very last, and none at all.
    assert {steps for steps, over in counts if over} == {1, 2, 3, 4} and counts[4, False]


# --- Sticky actions.


def test_sticky_actions_are_a_coin_and_what_was_taken_last(drift_step):
    last, stuck = None, collections.Counter()
    for _, state, key, action, fresh, found in play(wrappers.sticky_actions(DRIFT, 0.4)):
        coin_key, step_key = jax.random.split(key)
        sticks = last is not None and bool(jax.random.bernoulli(coin_key, 0.4))
        taken = last if sticks else action
        inner = (fresh[0], fresh[1].inner)
        expected = drift_step(step_key, state.inner, jnp.int32(taken), inner)
        inside = {name: getattr(found, name).inner for name in ("state", "final_state")}
        assert_equal(found._replace(**inside), expected)
        stuck[sticks, ended(found)] += 1
        last = None if ended(found) else int(taken)
    assert all(stuck[sticks, over] for sticks in (False, True) for over in (False, True))


def test_as_many_actions_stick_as_were_asked_for():
    class Long(Drift):
        time_limit = 3_000

        def is_terminated(self, state, params):
            return jnp.bool_(False)

    env = wrappers.sticky_actions(probes.adapted(Long), 0.25)
    chosen = np.random.default_rng(0).integers(0, 3, 3_000)

    def step(state, given):
        key, action = given
        found = env.step(key, state, action, env.reset(key))
        return found.state, found.final_obs[1]

    keys = jax.random.split(jax.random.key(4), len(chosen))
    _, state = env.reset(jax.random.key(0))
    _, taken = quickly(lambda s: jax.lax.scan(step, s, (keys, jnp.int32(chosen))))(state)
    assert taken[0] == chosen[0]
    before, chosen, taken = np.asarray(taken[:-1]), chosen[1:], np.asarray(taken[1:])
    differs = chosen != before
    assert np.all((taken == chosen) | (taken == before))
    count = int(np.sum(taken[differs] == before[differs]))
    assert scipy.stats.binomtest(count, int(differs.sum()), 0.25).pvalue > LEVEL
    # Whether one sticks says nothing of the next.
    sticks = (taken == before)[differs]
    table = np.histogram2d(sticks[:-1], sticks[1:], bins=2)[0]
    assert scipy.stats.chi2_contingency(table).pvalue > LEVEL


def test_an_action_always_sticks_from_the_first_of_an_episode_on():
    first, episodes = None, 0
    for _, _, _, action, _, found in play(wrappers.sticky_actions(DRIFT, 1.0)):
        first = int(action) if first is None else first
        assert found.final_obs[1] == first
        episodes += ended(found)
        first = None if ended(found) else first
    assert episodes > 5


# --- Time limits.


def test_a_time_limit_cuts_what_has_not_ended_and_calls_it_truncated():
    env = probes.adapted(probes.Ledger)  # whose own limit is no parameter
    lengths = collections.Counter()
    for _, state, _, _, fresh, found in play(wrappers.time_limit(env, 5)):
        length, steps = int(probes.ledger_length(state.inner.mark)), int(state.steps) + 1
        terminated, own = steps == length and length % 2, steps == length and not length % 2
        assert bool(found.terminated) == bool(terminated)
        assert bool(found.truncated) == (own or steps == 5)
        assert found.reward == 100 + length + steps - 1
        assert found.final_obs[1] == steps
        assert int(found.state.steps) == (0 if ended(found) else steps)
        if ended(found):
            lengths[length, bool(terminated)] += 1
            assert_equal((found.obs, found.state), fresh)
        else:
            assert_equal(found.obs, found.final_obs)
    # The environment's own limit, its termination, both at once, and a cut.
    assert {(4, False), (3, True), (5, True), (8, False)} <= set(lengths)


@pytest.mark.parametrize(
    ("limit", "repeat", "steps"), [(0, 1, 200), (50, 1, 50), (300, 1, 300), (0, 3, 67), (90, 3, 90)]
)
def test_a_time_limit_takes_the_place_of_the_environments_own(limit, repeat, steps):
    # Pushing nowhere never climbs out of the valley, which MountainCar allows 200 steps for.
    env = dqx.environment_of(Config(env="MountainCar-v0", time_limit=limit, action_repeat=repeat))
    assert env.name == "MountainCar-v0"

    def step(state, _):
        found = env.step(jax.random.key(0), state, jnp.int32(1), env.reset(jax.random.key(1)))
        return found.state, (found.terminated, found.truncated)

    _, state = env.reset(jax.random.key(0))
    run = quickly(lambda s: jax.lax.scan(step, s, None, length=2 * steps))
    _, (terminated, truncated) = run(state)
    assert not np.any(terminated)
    np.testing.assert_array_equal(np.flatnonzero(truncated), [steps - 1, 2 * steps - 1])


def test_the_list_of_states_has_the_limit_and_can_be_observed():
    plain = dqx.make_environment("FrozenLake-misc")
    env = dqx.environment_of(Config(env="FrozenLake-misc", agent="tabular", time_limit=7))
    model = env.model()
    assert model.time_limit == 7 and not np.any(model.states.steps)
    seen = jax.vmap(plain.observe)(model.states.inner)
    assert_equal(jax.vmap(env.observe)(model.states), seen)
    assert sorted(set(seen.tolist())) == sorted(seen.tolist()) and model.num_states > 5
    assert wrappers.action_repeat(plain, 2).model is None


# --- Stacked observations.


@pytest.mark.parametrize("probe", [Drift, Film])
@pytest.mark.parametrize("count", [2, 4])
def test_a_stack_is_a_deque_filled_up_with_the_first(probe, count):
    plain = probes.adapted(probe)
    inner_step = quickly(plain.step)
    env = wrappers.frame_stack(plain, count)
    assert env.obs_shape == (*plain.obs_shape[:-1], count * plain.obs_shape[-1])
    frames = collections.deque(maxlen=count)
    for obs, state, key, action, fresh, found in play(env):
        if not frames:  # at the start
            frames.extend([obs[..., : plain.obs_shape[-1]]] * count)
            inner = state.inner
        np.testing.assert_array_equal(obs, np.concatenate(frames, axis=-1))
        assert obs.dtype == env.obs_dtype == plain.obs_dtype
        assert_equal(env.observe(state), obs)
        fresh_frame = fresh[0][..., -plain.obs_shape[-1] :]
        expected = inner_step(key, inner, action, (fresh_frame, fresh[1].inner))
        frames.append(expected.final_obs)
        np.testing.assert_array_equal(found.final_obs, np.concatenate(frames, axis=-1))
        if ended(expected):
            frames.extend([fresh_frame] * count)
        inner = expected.state
        assert_equal(found.state.inner, inner)
        for name in ("reward", "terminated", "truncated"):
            assert_equal(getattr(found, name), getattr(expected, name))


def test_what_has_no_axis_is_not_stacked():
    with pytest.raises(ConfigError, match=r"frame_stack = 3 stacks.*Taxi-v4 gives category numb"):
        dqx.environment_of(Config(env="Taxi-v4", network="embedding", frame_stack=3))


def test_training_learns_from_stacks_of_one_episode_each():
    config = Config(hidden_sizes=(), num_envs=2, train_period=2, batch_size=16, replay_capacity=40,
                    learning_starts=20, frame_stack=3)  # fmt: skip
    env = wrappers.wrapped(probes.adapted(probes.Ledger), config)
    agent, seen = dqx.make_agent(config, env), []

    def learn(state, batch, draws, now, sync):
        jax.debug.callback(lambda steps: seen.append(jax.tree.map(np.asarray, steps)), batch.steps)
        return agent.learn(state, batch, draws, now, sync)

    trainer = loop.make_trainer(
        config,
        env,
        agent._replace(learn=learn),
        make_store(env, 40, 2),
        sampling.uniform(config),
    )
    probes.run_trainer(trainer, dqx.Hyper(), seed_keys(1), 20, 120)
    jax.effects_barrier()
    steps = jax.tree.map(lambda *xs: np.concatenate([x.reshape(-1, *x.shape[-1:]) for x in xs]),
                         *[(s.obs, s.next_obs) for s in seen])  # fmt: skip
    # The probe's observations are the mark of the episode and the time within it.
    (mark, time), (next_mark, next_time) = (np.moveaxis(x.reshape(-1, 3, 2), 2, 0) for x in steps)
    assert len(mark) == 60 * 16 and set(time[:, 2]) == set(range(9))
    now = time[:, 2:]
    assert np.all(mark == mark[:, 2:]) and np.all(next_mark == mark)
    np.testing.assert_array_equal(time, np.maximum(now - [2, 1, 0], 0))
    np.testing.assert_array_equal(next_time, np.maximum(now - [1, 0, -1], 0))


# --- Together.


def test_all_at_once_is_one_around_the_other():
    config = Config(sticky_actions=0.3, action_repeat=2, time_limit=4, frame_stack=3)
    one = wrappers.wrapped(DRIFT, config)
    other = wrappers.frame_stack(
        wrappers.time_limit(wrappers.action_repeat(wrappers.sticky_actions(DRIFT, 0.3), 2), 4),
        3,
    )
    assert one.wrappers == Wrappers(0.3, 2, 4, 3)
    assert_equal([t[-1] for t in play(one)], [t[-1] for t in play(other)])


def test_a_trainer_is_refused_an_environment_without_what_its_configuration_says():
    plain = dqx.make_environment("CartPole-v1")
    for name, value in Wrappers(0.25, 2, 9, 4)._asdict().items():
        config = dataclasses.replace(Config(), **{name: value})
        for make in (dqx.make_agent, dqx.make_trainer):
            with pytest.raises(
                ConfigError, match=f"CartPole-v1 was made with {name} = .*says {value}"
            ):
                make(config, plain)
        assert dqx.make_agent(config, dqx.environment_of(config))
    with pytest.raises(ConfigError, match="with time_limit = 9, and the configuration says 0"):
        dqx.make_agent(Config(), dqx.environment_of(Config(time_limit=9)))
