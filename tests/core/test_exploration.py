"""Exploration against analytic probabilities, and schedules against optax and float64 formulas."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import dqx
from dqx.core import exploration
from tests.core.ledger import unpacked

# A true hypothesis fails a test of this level once in ten thousand; all keys are fixed.
LEVEL = 1e-4


def draws(count: int, num_actions: int, seed: int = 0, **more: bool) -> exploration.Draw:
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.vmap(lambda key: exploration.draw(key, num_actions, **more))(keys)


def choices(count, q_values, epsilon, seed=0):
    drawn = draws(count, len(q_values), seed)
    return np.asarray(
        jax.vmap(exploration.epsilon_greedy, in_axes=(0, None, None))(drawn, q_values, epsilon)
    )


@pytest.mark.parametrize("num_actions", [2, 3, 7])
@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.9])
def test_frequencies_are_epsilon_greedys(num_actions, epsilon):
    best = num_actions // 2
    actions = choices(40_000, jnp.zeros(num_actions).at[best].set(1.0), epsilon)
    probabilities = np.full(num_actions, epsilon / num_actions)
    probabilities[best] += 1 - epsilon
    observed = np.bincount(actions, minlength=num_actions)
    assert len(observed) == num_actions
    assert scipy.stats.chisquare(observed, 40_000 * probabilities).pvalue > LEVEL


def test_the_ends_of_epsilon():
    q_values = jnp.array([0.0, 3.0, 1.0])
    assert np.all(choices(1000, q_values, 0.0) == 1)
    drawn = draws(1000, 3)
    np.testing.assert_array_equal(choices(1000, q_values, 1.0), drawn.action)


def test_greedy_takes_the_first_of_equals():
    assert exploration.greedy(jnp.array([1.0, 5.0, 5.0])) == 1
    assert exploration.greedy(jnp.zeros(4)) == 0
    assert exploration.greedy(jnp.array([-2.0, -3.0, -1.0])) == 2
    assert exploration.greedy(jnp.zeros(4)).dtype == jnp.int32


def test_ties_within_epsilon_greedy_go_to_the_first():
    assert np.all(choices(100, jnp.ones(3), 0.0) == 0)


@pytest.mark.parametrize("num_actions", [2, 3, 6])
def test_draws_are_uniform_and_independent_of_one_another(num_actions):
    drawn = draws(30_000, num_actions, seed=1)
    coin, action = np.asarray(drawn.coin), np.asarray(drawn.action)
    assert drawn.coin.dtype == jnp.float32 and drawn.action.dtype == jnp.int32
    assert coin.min() >= 0 and coin.max() < 1
    assert scipy.stats.kstest(coin, "uniform").pvalue > LEVEL
    counts = np.bincount(action, minlength=num_actions)
    assert len(counts) == num_actions and scipy.stats.chisquare(counts).pvalue > LEVEL
    table = np.histogram2d(coin, action, bins=(10, num_actions))[0]
    assert scipy.stats.chi2_contingency(table).pvalue > LEVEL


def test_equal_keys_draw_alike_and_others_do_not():
    one, again, other = (exploration.draw(jax.random.key(k), 1_000_000) for k in (3, 3, 4))
    assert one.coin == again.coin and one.action == again.action
    assert one.coin != other.coin and one.action != other.action


def softmax(q_values, temperature=1.0):
    """In float64, as the definition says."""
    z = np.asarray(q_values, np.float64) / temperature
    weights = np.exp(z - z.max())
    return weights / weights.sum()


def observed(policy, num_actions, *arguments, count=40_000, seed=0):
    """How often each action is chosen."""
    drawn = draws(count, num_actions, seed, gumbel=True)
    axes = (0, *(None for _ in arguments))
    actions = jax.vmap(policy, in_axes=axes)(drawn, *arguments)
    assert actions.dtype == jnp.int32
    return np.bincount(np.asarray(actions), minlength=num_actions)


def assert_follows(counts, probabilities):
    assert counts.size == probabilities.size
    possible = probabilities > 0
    assert np.all(counts[~possible] == 0)
    expected = counts.sum() * probabilities[possible]
    assert scipy.stats.chisquare(counts[possible], expected).pvalue > LEVEL


Q_VALUES = [[0.3, -0.7, 0.1], [0.0, 0.0], [2.0, 1.0, 0.5, 0.0, -1.0, 1.9]]


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("q_values", Q_VALUES)
def test_frequencies_are_boltzmanns(q_values, temperature, offset):
    q = jnp.asarray(q_values, jnp.float32) + offset
    counts = observed(exploration.boltzmann, len(q_values), q, temperature)
    assert_follows(counts, softmax(q, temperature))


@pytest.mark.parametrize("epsilon", [0.2, 0.9])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_frequencies_are_max_boltzmanns(temperature, epsilon):
    q = jnp.array([0.3, 0.9, 0.1, -0.5])
    counts = observed(exploration.max_boltzmann, 4, q, epsilon, temperature)
    assert_follows(counts, epsilon * softmax(q, temperature) + (1 - epsilon) * np.eye(4)[1])


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_random_actions_last_as_the_paretos_tail_says(power):
    drawn = draws(40_000, 3, seed=6, span=True)
    none = exploration.Repeat(jnp.int32(0), jnp.int32(0))
    choose = jax.vmap(lambda draw: exploration.ez_greedy(draw, jnp.zeros(3), 1.0, none, power))
    action, repeat = choose(drawn)
    np.testing.assert_array_equal(action, drawn.action)
    np.testing.assert_array_equal(repeat.action, drawn.action)
    lasts = 1 + np.asarray(repeat.left)
    assert lasts.min() == 1 and lasts.max() <= exploration.MOST_REPEATS
    edges = np.arange(1, 8, dtype=np.float64)  # 1 to 6 steps, and 7 or more
    chances = np.append(-np.diff(edges**-power), edges[-1] ** -power)
    assert_follows(np.bincount(np.minimum(lasts, 7), minlength=8)[1:], chances)


def test_the_longest_and_the_shortest_draw_are_in_bounds():
    none = exploration.Repeat(jnp.int32(0), jnp.int32(0))
    for span, power, steps in ((1.0, 1.0, 1), (2.0**-24, 0.01, exploration.MOST_REPEATS)):
        draw = exploration.Draw(jnp.float32(0), jnp.int32(2), span=jnp.float32(span))
        _, repeat = exploration.ez_greedy(draw, jnp.zeros(3), 0.5, none, power)
        assert int(repeat.left) == steps - 1


def test_an_action_is_repeated_until_it_is_over_whatever_else_is_drawn():
    draws = exploration.Draw(
        jnp.array([0.9, 0.0, 0.0, 0.9, 0.9, 0.0]), jnp.array([1, 2, 1, 1, 0, 1], jnp.int32),
        span=jnp.array([0.1, 0.3, 0.01, 0.2, 0.2, 0.6]),
    )  # fmt: skip
    repeat, actions = exploration.Repeat(jnp.int32(0), jnp.int32(0)), []
    for i in range(6):
        draw = jax.tree.map(lambda x, i=i: x[i], draws)
        action, repeat = exploration.ez_greedy(draw, jnp.array([1.0, 0.0, 0.0]), 0.5, repeat, 1.0)
        actions.append(int(action))
    # Greedy; action 2 for the three whole steps of 1 / 0.3; greedy; action 1 once.
    assert actions == [0, 2, 2, 2, 0, 1] and int(repeat.left) == 0


def test_boltzmann_gumbel_with_equal_counts_is_boltzmann_of_a_smaller_temperature():
    # n visits of each action: the noise of all is C / sqrt(n), so is the temperature.
    q = jnp.array([0.3, 0.9, 0.1])
    counts = observed(exploration.boltzmann_gumbel, 3, q, jnp.array([16, 16, 16]), 2.0)
    assert_follows(counts, softmax(q, 2.0 / 4.0))


@pytest.mark.parametrize("visits", [(1, 9), (100, 4), (1, 1)])
def test_frequencies_are_boltzmann_gumbels(visits):
    # P(a chosen) = integral of its density times the other's distribution, in float64.
    q, spread = np.array([0.5, 0.2]), 1.5 / np.sqrt(visits)
    first, second = (scipy.stats.gumbel_r(q[i], spread[i]) for i in range(2))
    grid = np.linspace(-40, 60, 2_000_001)
    chance = np.trapezoid(first.pdf(grid) * second.cdf(grid), grid)
    counts = observed(
        exploration.boltzmann_gumbel, 2, jnp.asarray(q, jnp.float32), jnp.array(visits), 1.5
    )
    assert_follows(counts, np.array([chance, 1 - chance]))


@pytest.mark.parametrize("scale", [1e4, 1e30, 3e38])
@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1.0, 1e30])
def test_huge_q_values_are_finite_probabilities(scale, temperature):
    q = scale * jnp.array([-1.0, 1.0, 0.5, 1.0])
    # The policies turn these into numbers to compare; none may be NaN, or argmax would choose it.
    counts = observed(exploration.boltzmann, 4, q, temperature, count=4000)
    with np.errstate(over="ignore"):
        assert_follows(counts, softmax(q, temperature))
    visits = jnp.array([1, 100, 1, 100])
    counts = observed(exploration.boltzmann_gumbel, 4, q, visits, min(temperature, 1.0), count=4000)
    assert_follows(counts, np.array([0, 0.5, 0, 0.5]))


def test_no_temperature_is_greedy_and_an_endless_one_uniform():
    q = jnp.array([0.3, 0.9, 0.1])
    assert observed(exploration.boltzmann, 3, q, 0.0)[1] == 40_000
    assert_follows(observed(exploration.boltzmann, 3, q, 1e9), np.full(3, 1 / 3))


def test_gumbel_noise_is_gumbels_and_independent_of_the_rest():
    drawn = draws(20_000, 3, seed=5, gumbel=True)
    noise = np.asarray(drawn.gumbel)
    assert noise.shape == (20_000, 3) and np.all(np.isfinite(noise))
    for column in noise.T:
        assert scipy.stats.kstest(column, "gumbel_r").pvalue > LEVEL
        for other in (drawn.coin, drawn.action):
            assert scipy.stats.spearmanr(column, other).pvalue > LEVEL
    assert scipy.stats.spearmanr(noise[:, 0], noise[:, 1]).pvalue > LEVEL


def test_noise_changes_nothing_of_what_epsilon_greedy_draws():
    plain, noisy = draws(100, 3), draws(100, 3, gumbel=True)
    assert plain.gumbel is None
    np.testing.assert_array_equal(plain.coin, noisy.coin)
    np.testing.assert_array_equal(plain.action, noisy.action)


def test_draws_without_noise_are_refused_where_it_is_needed():
    with pytest.raises(AssertionError, match="gumbel=True"):
        exploration.boltzmann(exploration.draw(jax.random.key(0), 3), jnp.zeros(3), 1.0)


def test_the_ladder_by_hand():
    np.testing.assert_allclose(
        exploration.epsilon_ladder(0.4, 3, 7.0), [0.4, 0.4**4.5, 0.4**8], rtol=1e-5
    )
    np.testing.assert_allclose(exploration.epsilon_ladder(0.5, 2, 1.0), [0.5, 0.25], rtol=1e-6)
    np.testing.assert_allclose(exploration.epsilon_ladder(0.3, 1, 7.0), [0.3], rtol=1e-6)
    np.testing.assert_array_equal(exploration.epsilon_ladder(0.0, 4, 7.0), np.zeros(4))
    np.testing.assert_array_equal(exploration.epsilon_ladder(1.0, 4, 7.0), np.ones(4))


def test_parallel_environments_have_coins_and_actions_of_their_own():
    # As training stores them: random actions of four environments of one seed, side by side.
    config = dqx.Config(num_envs=4, train_period=4, replay_capacity=8000, learning_starts=8000)
    env = dqx.make_environment("CartPole-v1")
    trainer = dqx.make_trainer(config, env)
    key = jax.random.key(11)
    _, lane, _ = jax.jit(trainer.warm_up, static_argnames="steps")(
        trainer.start(), trainer.init(key), steps=8000
    )
    lanes = jax.tree.map(lambda x: x[None], lane)
    actions = unpacked(lanes, 0, 8000, env).action.reshape(2000, 4)
    for i, j in itertools.combinations(range(4), 2):
        table = np.histogram2d(actions[:, i], actions[:, j], bins=2)[0]
        assert scipy.stats.chi2_contingency(table).pvalue > LEVEL, (i, j)
    for column in actions.T:  # nor does one step's action say anything of the next one's
        table = np.histogram2d(column[:-1], column[1:], bins=2)[0]
        assert scipy.stats.chi2_contingency(table).pvalue > LEVEL


def test_one_coin_for_all_environments_would_be_noticed():
    shared = np.repeat(np.asarray(draws(2000, 2).action)[:, None], 2, axis=1)
    table = np.histogram2d(shared[:, 0], shared[:, 1], bins=2)[0]
    assert scipy.stats.chi2_contingency(table).pvalue < LEVEL


def test_schedule_values_are_float32():
    for value in (
        exploration.constant_schedule(0.1),
        exploration.linear_schedule(jnp.int32(3), 1.0, 0.1, 10.0),
        exploration.exponential_schedule(jnp.int32(3), 1.0, 0.1, 10.0),
        exploration.per_episode_schedule(jnp.int32(3), 1.0, 0.1, 0.9),
    ):
        assert value.dtype == jnp.float32 and value.shape == ()


@pytest.mark.parametrize("start", [0.0, 0.1, 1.0])
def test_constant_schedule(start):
    assert exploration.constant_schedule(start) == np.float32(start)


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.05), (0.9, 0.1), (0.05, 1.0), (0.3, 0.3)])
class TestFromStartToEnd:
    """Falling, rising and level schedules."""

    steps = jnp.array([0, 1, 3, 250, 999, 1000, 1001, 5000, 2**31 - 1])

    def test_linear_equals_optax(self, start, end):
        ours = exploration.linear_schedule(self.steps, start, end, 1000.0)
        theirs = jax.vmap(optax.linear_schedule(start, end, 1000))(self.steps)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)

    def test_linear_meets_both_ends_exactly_and_stays(self, start, end):
        values = np.asarray(exploration.linear_schedule(self.steps, start, end, 1000.0))
        assert values[0] == np.float32(start)
        assert np.all(values[5:] == np.float32(end))
        before = exploration.linear_schedule(jnp.int32(-5), start, end, 1000.0)
        assert before == np.float32(start)

    def test_exponential_equals_its_formula(self, start, end):
        values = exploration.exponential_schedule(self.steps, start, end, 300.0)
        expected = end + (start - end) * np.exp(-np.asarray(self.steps, np.float64) / 300.0)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        np.testing.assert_allclose(values[0], start, rtol=1e-6)
        assert values[-1] == np.float32(end)

    def test_exponential_equals_optax(self, start, end):
        decaying = optax.exponential_decay(start - end, 300, np.exp(-1.0))
        expected = end + np.array([decaying(int(step)) for step in self.steps[:6]])
        np.testing.assert_allclose(
            exploration.exponential_schedule(self.steps[:6], start, end, 300.0), expected, rtol=1e-5
        )


def test_per_episode_falls_by_a_factor_to_its_end():
    episodes = jnp.arange(2000)
    values = np.asarray(exploration.per_episode_schedule(episodes, 1.0, 0.05, 0.995))
    expected = np.maximum(0.995 ** np.arange(2000.0), 0.05)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert values[0] == 1.0
    # 0.995 ** n reaches 0.05 at n = log(0.05) / log(0.995) = 597.7.
    assert values[597] > np.float32(0.05) and np.all(values[598:] == np.float32(0.05))


def test_per_episode_by_hand():
    value = exploration.per_episode_schedule(jnp.array([0, 1, 2, 3, 4]), 0.8, 0.15, 0.5)
    np.testing.assert_allclose(value, [0.8, 0.4, 0.2, 0.15, 0.15], rtol=1e-6)


def test_per_episode_rises_by_a_factor_above_one_to_its_end():
    value = exploration.per_episode_schedule(jnp.array([0, 1, 2, 3, 50]), 0.1, 0.5, 2.0)
    np.testing.assert_allclose(value, [0.1, 0.2, 0.4, 0.5, 0.5], rtol=1e-6)


def test_per_episode_follows_episodes_of_its_own_lane():
    values = jax.vmap(lambda n: exploration.per_episode_schedule(n, 1.0, 0.01, 0.9))(
        jnp.array([0, 7])
    )
    np.testing.assert_allclose(values, [1.0, 0.9**7], rtol=1e-5)
