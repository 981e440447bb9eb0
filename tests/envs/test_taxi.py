"""Taxi against Gymnasium's table, its action masks, and its sampling of rain and fickleness."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.taxi import TaxiEnv
from scipy import stats

import envs
from envs.taxi import EnvState
from tests.oracles.environments import taxi_v3_rain

NAMES = ["Taxi-v3", "Taxi-v4"]
PAIRS = np.stack(np.meshgrid(np.arange(500), np.arange(6), indexing="ij"), axis=-1).reshape(-1, 2)


def make_state(numbers, fickle=False, time=0):
    """State of Gymnasium's numbers, of any shape."""
    numbers = jnp.asarray(numbers, jnp.int32)
    return EnvState(
        taxi=numbers // 20,
        passenger=numbers // 4 % 5,
        destination=numbers % 4,
        fickle=jnp.full(numbers.shape, fickle),
        time=jnp.full(numbers.shape, time, jnp.int32),
    )


def outcome_table(name, **changes):
    """Probability of every (number, reward, terminated) for each number and action."""
    env, params = envs.make(name)
    params = params.replace(**changes)
    one = jax.vmap(lambda state, action: env.outcomes(state, action, params))
    listed = jax.jit(one)(make_state(PAIRS[:, 0]), jnp.asarray(PAIRS[:, 1], jnp.int32))
    numbers = jax.vmap(jax.vmap(lambda state: env.observe(None, state, None, None)))(listed.state)
    columns = map(np.asarray, (listed.probability, numbers, listed.reward, listed.terminated))
    table = {}
    for pair, *rows in zip(PAIRS.tolist(), *columns, strict=True):
        table[tuple(pair)] = merged(zip(*(row.tolist() for row in rows), strict=True))
    return table


def merged(outcomes):
    total = {}
    for probability, *outcome in outcomes:
        if probability > 0:
            total[tuple(outcome)] = total.get(tuple(outcome), 0.0) + probability
    return total


def assert_equal_tables(have, want):
    for pair, outcomes in want.items():
        assert have[pair].keys() == outcomes.keys(), pair
        for outcome, probability in outcomes.items():
            assert have[pair][outcome] == pytest.approx(probability, abs=1e-6), pair


@pytest.mark.parametrize("name", NAMES)
def test_steps_equal_gymnasiums_table(name):
    env, params = envs.make(name)
    step = jax.jit(jax.vmap(env.step_env, in_axes=(0, 0, 0, None)))
    keys = jax.random.split(jax.random.key(0), len(PAIRS))
    actions = jnp.asarray(PAIRS[:, 1], jnp.int32)
    obs, state, reward, terminated, info = step(keys, make_state(PAIRS[:, 0]), actions, params)
    reference = TaxiEnv()
    rows = [reference.P[number][action] for number, action in PAIRS.tolist()]
    assert all(len(row) == 1 and row[0][0] == 1.0 for row in rows)
    _, numbers, rewards, ends = zip(*(row[0] for row in rows), strict=True)
    np.testing.assert_array_equal(obs, numbers)
    np.testing.assert_array_equal(reward, rewards)
    np.testing.assert_array_equal(terminated, ends)
    np.testing.assert_array_equal(info["discount"], 1.0 - np.array(ends))
    masks = [reference.action_mask(number) for number in numbers]
    np.testing.assert_array_equal(info["action_mask"], masks)
    np.testing.assert_array_equal(state.time, 1)
    assert np.sum(ends) == 4 and obs.dtype == jnp.int32


def test_action_masks_of_all_states_equal_gymnasiums():
    env, _ = envs.make("Taxi-v4")
    masks = jax.vmap(env.action_mask)(make_state(np.arange(500)))
    reference = TaxiEnv()
    np.testing.assert_array_equal(masks, [reference.action_mask(number) for number in range(500)])
    assert masks.dtype == jnp.int8


@pytest.mark.parametrize("probability", [0.8, 0.5])
def test_rain_of_v4_equals_gymnasiums_table(probability):
    reference = TaxiEnv(is_rainy=True, rainy_probability=probability)
    want = {(s, a): merged(reference.P[s][a]) for s, a in PAIRS.tolist()}
    have = outcome_table("Taxi-v4", is_rainy=True, rainy_probability=probability)
    assert_equal_tables(have, want)


def test_rain_of_v3_equals_the_twin():
    dry, want = TaxiEnv().P, {}
    for number, action in PAIRS.tolist():
        row, column = number // 100, number // 20 % 5
        if action > 3:
            want[number, action] = merged(dry[number][action])
            continue
        cells = taxi_v3_rain(row, column, action)
        numbers = [(5 * r + c) * 20 + number % 20 for r, c in cells]
        rows = zip((0.8, 0.1, 0.1), numbers, (-1.0,) * 3, (False,) * 3, strict=True)
        want[number, action] = merged(rows)
    have = outcome_table("Taxi-v3", is_rainy=True)
    assert_equal_tables(have, want)
    assert have != outcome_table("Taxi-v4", is_rainy=True)


@pytest.fixture(scope="module")
def sample_steps():
    return jax.jit(jax.vmap(envs.make("Taxi-v4")[0].step_env, in_axes=(0, None, None, None)))


@pytest.mark.parametrize("rainy", [False, True])
@pytest.mark.parametrize("fickle", [False, True])
@pytest.mark.parametrize(("number", "action"), [(258, 2), (258, 0), (138, 1), (252, 2), (97, 5)])
def test_sampled_steps_have_gymnasiums_frequencies(sample_steps, rainy, fickle, number, action):
    """Gymnasium's own sampled steps against ours, fickleness flag included."""
    count = 1500
    reference = TaxiEnv(is_rainy=rainy, fickle_passenger=True)
    reference.reset(seed=0)
    expected = []
    for _ in range(count):
        reference.s, reference.fickle_step = number, fickle
        result = reference.step(action)
        expected.append((*result[:3], reference.fickle_step))

    params = envs.make("Taxi-v4")[1].replace(is_rainy=rainy)
    keys = jax.random.split(jax.random.key(1), count)
    state = make_state(number, fickle)
    obs, state, reward, terminated, _ = sample_steps(keys, state, jnp.int32(action), params)
    columns = [np.asarray(column).tolist() for column in (obs, reward, terminated, state.fickle)]
    have = list(zip(*columns, strict=True))

    kinds = sorted(set(expected))
    assert set(have) == set(kinds)
    if len(kinds) > 1:
        counts = [[sample.count(kind) for kind in kinds] for sample in (have, expected)]
        assert stats.chi2_contingency(counts).pvalue > 1e-3


def test_a_fickle_passenger_turns_on_the_first_move_aboard_only():
    env, params = envs.make("Taxi-v4")
    keys = iter(jax.random.split(jax.random.key(0), 20))
    step = jax.jit(lambda key, state, action: env.step_env(key, state, action, params)[1])
    state = make_state(84, fickle=True)  # at G, where the passenger waits, bound for R
    for action in (1, 4, 1, 2, 5, 4):  # against the border, pick up, borders, out, and in again
        state = step(next(keys), state, jnp.int32(action))
        assert bool(state.fickle) and int(state.destination) == 0
    state = step(next(keys), state, jnp.int32(0))
    turned = int(state.destination)
    assert turned in (1, 2, 3) and not bool(state.fickle)
    for action in (0, 0, 3, 1):
        state = step(next(keys), state, jnp.int32(action))
        assert int(state.destination) == turned


def test_listed_outcomes_of_a_fickle_passenger_by_hand():
    """From cell 12 south, bound for Y: to cell 17, in rain 13 or 11, then for R, G or B."""
    env, params = envs.make("Taxi-v4")
    for rainy, cells in ((False, {17: 1.0}), (True, {17: 0.8, 13: 0.1, 11: 0.1})):
        listed = env.outcomes(make_state(258, fickle=True), 0, params.replace(is_rainy=rainy))
        columns = listed.probability, listed.state.taxi, listed.state.destination
        have = merged(zip(*(np.asarray(column).tolist() for column in columns), strict=True))
        assert have.keys() == {(cell, place) for cell in cells for place in (0, 1, 3)}
        for (cell, _), probability in have.items():
            assert probability == pytest.approx(cells[cell] / 3, abs=1e-6)
        assert not listed.state.fickle.any()


@pytest.mark.parametrize("fickle", [False, True])
def test_resets_draw_gymnasiums_starts(fickle):
    env, params = envs.make("Taxi-v4")
    params = params.replace(fickle_passenger=fickle)
    keys = jax.random.split(jax.random.key(2), 30_000)
    obs, state = jax.jit(jax.vmap(env.reset_env, in_axes=(0, None)))(keys, params)
    distribution = TaxiEnv().initial_state_distrib
    counts = np.bincount(obs, minlength=500)
    assert np.array_equal(counts > 0, distribution > 0) and (distribution > 0).sum() == 300
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3
    # 30,000 draws of probability 0.3: five standard deviations are 0.013.
    assert abs(float(state.fickle.mean()) - 0.3 * fickle) < 0.013 * fickle + 1e-9

    starts, probability = env.start_states(params)
    listed = np.bincount(env.observe(None, starts, None, None), probability, 500)
    np.testing.assert_allclose(listed, distribution, atol=1e-6)
    np.testing.assert_allclose(probability[starts.fickle].sum(), 0.3 * fickle, atol=1e-6)


@pytest.mark.parametrize("delivers", [False, True])
def test_time_limit_equals_gymnasium(delivers):
    """Step by step from Gymnasium's state; on the last step the passenger may arrive as well."""
    limit = gymnasium.spec("Taxi-v4").max_episode_steps
    reference = gymnasium.wrappers.TimeLimit(TaxiEnv(), limit)
    reference.reset(seed=0)
    env, params = envs.make("Taxi-v4")
    step = jax.jit(env.step)
    _, state = env.reset(jax.random.key(0), params)
    for count in range(limit):
        last = delivers and count == limit - 1
        start, action = (16, 5) if last else (count % 500, count % 4)
        reference.unwrapped.s = start
        _, reward, terminated, truncated, _ = reference.step(action)
        state = make_state(start, time=int(state.time))
        _, state, *rest = step(jax.random.key(count), state, action, params)
        assert [float(rest[0]), *map(bool, rest[1:3])] == [reward, terminated, truncated]
    assert (terminated, truncated) == (delivers, True)
    assert int(state.time) == 0


def test_every_probability_can_differ_per_lane():
    env, params = envs.make("Taxi-v4")
    axes = jax.tree.map(lambda _: None, params).replace(rainy_probability=0, is_rainy=0)
    lanes = params.replace(
        rainy_probability=jnp.array([0.0, 1.0, 0.0]), is_rainy=jnp.array([True, True, False])
    )
    keys = jax.random.split(jax.random.key(0), 200)
    state = make_state(252)  # row 2, column 2: open on all sides

    def lane(params):
        return jax.vmap(lambda key: env.step_env(key, state, 0, params)[1].taxi)(keys)

    never, always, dry = np.asarray(jax.jit(jax.vmap(lane, in_axes=(axes,)))(lanes))
    assert set(never.tolist()) == {11, 13}
    assert set(always.tolist()) == set(dry.tolist()) == {17}


def test_state_types_are_fixed_and_never_weak():
    env, params = envs.make("Taxi-v4")
    key = jax.random.key(0)
    obs, state = jax.eval_shape(env.reset_env, key, params)
    next_obs, next_state, reward, *_ = jax.eval_shape(env.step_env, key, state, 1, params)
    assert (obs, state) == (next_obs, next_state)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((obs, state, reward)))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"int32", "bool"}


def test_the_terminated_hook_agrees_with_the_steps():
    env, params = envs.make("Taxi-v4")
    reachable = np.array([s for s in range(500) if s // 4 % 5 != s % 4])
    states = make_state(np.repeat(reachable, 6))
    actions = jnp.tile(jnp.arange(6), len(reachable))
    keys = jax.random.split(jax.random.key(0), len(actions))
    step = jax.jit(jax.vmap(env.step_env, in_axes=(0, 0, 0, None)))
    _, state, _, terminated, _ = step(keys, states, actions, params)
    np.testing.assert_array_equal(jax.vmap(env.is_terminated, (0, None))(state, params), terminated)
    assert terminated.sum() == 4


def test_unknown_version_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'v2' does not exist; choose one of v3, v4"):
        envs.Taxi("v2")
