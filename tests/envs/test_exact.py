"""Exact solutions against values worked out by hand, known optima and plain NumPy."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.envs.toy_text.taxi import TaxiEnv
from gymnax.environments import environment, spaces

import envs
from envs import exact
from envs.tabular import Outcomes, build_model
from tests.oracles.environments import wall_dodge_reachable


@struct.dataclass
class WalkState(environment.EnvState):
    place: jax.Array


@struct.dataclass
class WalkParams(environment.EnvParams):
    slip: float = 0.0
    max_steps_in_episode: int = 4


class Walk(environment.Environment):
    """Places 0, 1, 2, ...: action 1 goes up, action 0 stays and pays 1; place 2 ends with 10.

    With probability `slip` a step goes nowhere and pays nothing. The start is place 0 or 1.
    """

    total = 1.0
    end = 2
    place_type = jnp.int32

    def start_states(self, params):
        places = jnp.array([0, 1, 0], self.place_type)
        return WalkState(time=jnp.arange(3), place=places), jnp.array([0.5, 0.25, 0.25])

    def outcomes(self, state, action, params):
        places = jnp.stack([state.place + action.astype(state.place.dtype), state.place])
        ends = jnp.stack([places[0] >= self.end, jnp.array(False)])
        rewards = jnp.stack([jnp.where(ends[0], 10.0, 1.0 - action), 0.0 * action])
        probability = jnp.array([self.total - params.slip, params.slip])
        return Outcomes(probability, WalkState(time=jnp.zeros(2), place=places), rewards, ends)

    def observe(self, key, state, action, params):
        return jnp.stack([state.place, -state.place])

    @property
    def num_actions(self):
        return 2

    def observation_space(self, params):
        return spaces.Box(-9, 9, (2,), jnp.int32)


def walk(**params):
    return build_model(Walk(), WalkParams(**params))


@pytest.fixture(scope="module")
def taxi():
    return build_model(*envs.make("Taxi-v4"))


@pytest.fixture(scope="module")
def wall_dodge():
    return build_model(*envs.make("WallDodge-v0"))


def numpy_q(table, discount, sweeps):
    """Value iteration over Gymnasium's table {state: {action: [(p, next, reward, end)]}}."""
    q = np.zeros((len(table), len(table[0])))
    for _ in range(sweeps):
        best = q.max(axis=1)
        for state, actions in table.items():
            for action, rows in actions.items():
                q[state, action] = sum(
                    p * (reward + discount * best[following] * (not ended))
                    for p, following, reward, ended in rows
                )
    return q


def test_a_model_by_hand():
    model = walk(slip=0.25)
    assert model.states.place.tolist() == [0, 1] and model.states.time.tolist() == [0, 0]
    assert model.states.place.dtype == np.int32
    assert model.start.tolist() == [0.75, 0.25]
    assert model.pair.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert model.next_state.tolist() == [0, 0, 1, 0, 1, 1, 0, 1]
    assert model.probability.tolist() == [0.75, 0.25] * 4
    assert model.reward.tolist() == [1, 0, 0, 0, 1, 0, 10, 0]
    assert model.terminated.tolist() == [False] * 6 + [True, False]
    assert (model.num_states, model.num_actions, model.time_limit) == (2, 2, 4)
    # An outcome of probability 0 is none.
    assert walk().pair.tolist() == [0, 1, 2, 3]


def test_discounted_values_by_hand():
    # Staying for ever pays 1 / (1 - 0.5) = 2; going up pays 10 from place 1 and 0.5 * 10 from 0.
    q_star = exact.optimal_q(walk(), 0.5)
    np.testing.assert_allclose(q_star, [[1 + 0.5 * 5, 5], [1 + 0.5 * 10, 10]], atol=1e-9)
    # With slip s: V = (1 - s) (reward + d V') + s d V, solved for V.
    one = 0.75 * 10 / (1 - 0.25 * 0.5)
    zero = 0.75 * 0.5 * one / (1 - 0.25 * 0.5)
    expected = [
        [0.75 * (1 + 0.5 * zero) + 0.125 * zero, zero],
        [0.75 * (1 + 0.5 * one) + 0.125 * one, one],
    ]
    np.testing.assert_allclose(exact.optimal_q(walk(slip=0.25), 0.5), expected, atol=1e-9)
    np.testing.assert_allclose(exact.optimal_q(walk(), 0.0), [[1, 0], [1, 10]])


@pytest.mark.parametrize(
    ("horizon", "expected"),
    [(1, [[1, 0], [1, 10]]), (2, [[2, 10], [11, 10]]), (None, [[12, 12], [13, 10]])],
)
def test_finite_horizon_values_by_hand(horizon, expected):
    # The best is to collect 1 a step and to go up just in time; 4 steps are the time limit.
    np.testing.assert_allclose(exact.finite_horizon_q(walk(), horizon), expected, atol=1e-12)
    best = np.max(expected, axis=1)
    assert exact.optimal_return(walk(), horizon) == pytest.approx(best @ [0.75, 0.25])


def test_regret_by_hand():
    model = walk()
    stays, goes = np.array([[1, 0], [1, 0]]), np.array([[0, 1], [0, 1]])
    assert exact.greedy_return(model, stays) == pytest.approx(4)
    assert exact.greedy_return(model, stays, 3, discount=0.5) == pytest.approx(1.75)
    assert exact.greedy_return(model, goes) == pytest.approx(10)
    assert exact.optimal_return(model) == pytest.approx(0.75 * 12 + 0.25 * 13)
    assert exact.regret(model, stays) == pytest.approx(12.25 - 4)
    assert exact.regret(model, np.zeros((2, 2))) == pytest.approx(12.25 - 4)  # ties: the first


def test_metrics_by_hand():
    q_star = np.array([[1.0, 2.0], [3.0, 3.0], [5.0, 4.0]])
    q = np.array([[0.0, 0.5], [2.0, 3.5], [1.0, 4.25]])
    assert exact.max_abs_error(q, q_star) == 4.0
    assert exact.optimal_share(q, q_star) == pytest.approx(2 / 3)
    assert exact.optimal_share(q, q_star, np.array([False, True, True])) == 0.5
    assert exact.optimal_share(q, q_star, tolerance=1.0) == 1.0
    assert exact.optimal_share(np.zeros((3, 2)), q_star) == pytest.approx(2 / 3)


def test_taxi_returns_7_93(taxi):
    assert exact.optimal_return(taxi) == pytest.approx(7.93, abs=1e-6)
    undiscounted = exact.optimal_q(taxi, 1.0)
    assert taxi.start @ undiscounted.max(axis=1) == pytest.approx(7.93, abs=1e-6)
    assert exact.regret(taxi, undiscounted) == pytest.approx(0, abs=1e-9)
    # Never delivered, for 200 steps: what an agent that only drives south gets.
    south = np.tile(np.eye(6)[0], (taxi.num_states, 1))
    assert exact.greedy_return(taxi, south) == pytest.approx(-200)


def test_taxi_q_equals_numpy_on_gymnasiums_table(taxi):
    env, params = envs.make("Taxi-v4")
    numbers = np.asarray(env.observe(None, taxi.states, None, params))
    assert sorted(numbers.tolist()) == [s for s in range(500) if s // 4 % 5 != s % 4]
    expected = numpy_q(TaxiEnv().P, 0.9, 250)[numbers]
    np.testing.assert_allclose(exact.optimal_q(taxi, 0.9), expected, atol=1e-8)


def test_the_fickle_passenger_doubles_part_of_the_states():
    env, params = envs.make("Taxi-v4")
    model = build_model(env, params.replace(fickle_passenger=True, fickle_probability=1.0))
    start = model.start[model.states.fickle].sum()
    assert start == pytest.approx(1.0)
    assert 400 < model.num_states <= 800 and len(np.unique(model.states.taxi)) == 25


def test_wall_dodge_v0_can_be_survived(wall_dodge):
    assert exact.optimal_return(wall_dodge) == pytest.approx(50.0, abs=1e-9)
    states = zip(
        *(getattr(wall_dodge.states, f) for f in ("robot_y", "wall_x", "hole_top")), strict=True
    )
    assert {tuple(map(int, state)) for state in states} == wall_dodge_reachable("v0")
    # Each outcome is listed once: what a step cannot draw is left out.
    rows = np.stack([wall_dodge.pair, wall_dodge.next_state], axis=1)[~wall_dodge.terminated]
    assert len(np.unique(rows, axis=0)) == len(rows)
    q_star = exact.optimal_q(wall_dodge, 0.95)
    assert q_star.max() == pytest.approx(0.1 / 0.05, abs=1e-8)
    assert exact.regret(wall_dodge, q_star) == pytest.approx(0, abs=1e-9)
    # Always up: at the top, most walls have their hole elsewhere.
    assert exact.regret(wall_dodge, np.tile([1.0, 0.0], (wall_dodge.num_states, 1))) > 40


@pytest.mark.long
def test_wall_dodge_v1_returns_41_94_at_best():
    model = build_model(*envs.make("WallDodge-v1"))
    assert exact.optimal_return(model) == pytest.approx(41.94, abs=0.01)


def test_returns_of_a_policy_equal_those_of_played_episodes(wall_dodge):
    """Monte Carlo in the environment itself, of a middling policy."""
    env, params = envs.make("WallDodge-v0")
    params = params.replace(max_steps_in_episode=150)
    places = wall_dodge.states
    q = np.stack([places.robot_y > places.hole_top, places.robot_y <= places.hole_top], axis=1)
    expected = exact.greedy_return(wall_dodge, q, 150)

    def episode(key):
        def step(carry, key):
            state, alive, total = carry
            action = jnp.where(state.robot_y > state.hole_top, 0, 1)
            # The hole of a wall to come is hidden in the frame, but not in the state.
            _, state, reward, terminated, _ = env.step_env(key, state, action, params)
            return (state, alive & ~terminated, total + alive * reward), None

        key, key_reset = jax.random.split(key)
        start = (env.reset_env(key_reset, params)[1], jnp.array(True), jnp.float32(0))
        return jax.lax.scan(step, start, jax.random.split(key, 150))[0][2]

    returns = np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 4000)))
    error = returns.std() / np.sqrt(len(returns))
    assert 0 < error < 0.1
    assert abs(returns.mean() - expected) < 4 * error


@pytest.mark.parametrize(("map_name", "slippery"), [("4x4", True), ("4x4", False), ("8x8", True)])
def test_frozen_lake_equals_numpy_on_gymnasiums_table(map_name, slippery):
    env = gymnax.make("FrozenLake-misc", map_name=map_name, is_slippery=slippery)[0]
    model = build_model(env, env.default_params)
    table = FrozenLakeEnv(map_name=map_name, is_slippery=slippery).P
    # Gymnasium's holes and goal lead to themselves, paying nothing.
    expected = numpy_q(table, 0.95, 400)[model.states.position]
    np.testing.assert_allclose(exact.optimal_q(model, 0.95), expected, atol=1e-6)
    assert model.start.tolist() == [1.0] + [0.0] * (model.num_states - 1)
    assert model.num_states == {"4x4": 11, "8x8": 53}[map_name]


def test_frozen_lakes_undiscounted_optimum_is_the_known_one():
    model = build_model(*gymnax.make("FrozenLake-misc"))
    # 14/17: Gymnasium's optimum without a time limit.
    assert exact.optimal_q(model, 1.0)[0].max() == pytest.approx(14 / 17, abs=1e-6)
    assert exact.optimal_return(model) < 0.75


@pytest.mark.parametrize("moves", [False, True])
def test_four_rooms(moves):
    env, params = gymnax.make("FourRooms-misc")
    model = build_model(env, params.replace(fail_prob=0.0, resample_init_pos=moves))
    assert model.num_states == 103  # 104 cells, one of them the goal
    q_star = exact.optimal_q(model, 0.5)
    # Without failures the value is 0.5 ** (d - 1) for a way of d steps, here found breadth first.
    cells = {tuple(cell): None for cell in np.asarray(env.coords).tolist()}
    frontier, distance = [tuple(np.asarray(env.goal_fixed).tolist())], 0
    while frontier:
        cells.update(dict.fromkeys(frontier, distance))
        beside = {
            (y + v, x + h) for y, x in frontier for v, h in ((0, 1), (1, 0), (0, -1), (-1, 0))
        }
        frontier = [cell for cell in beside if cell in cells and cells[cell] is None]
        distance += 1
    expected = [0.5 ** (cells[tuple(place)] - 1) for place in model.states.pos.tolist()]
    np.testing.assert_allclose(q_star.max(axis=1), expected, atol=1e-9)
    assert (model.start > 0).sum() == (103 if moves else 1)

    slippery = build_model(env, params.replace(fail_prob=0.3))
    taken = slippery.pair == 1  # state 0, action east: itself with 0.7, any other with 0.1
    np.testing.assert_allclose(np.sort(slippery.probability[taken]), [0.1, 0.1, 0.1, 0.7])


def test_q_tables_hold_the_values_of_each_states_observation():
    model = walk(slip=0.25)
    table = exact.q_table(Walk(), WalkParams(), model, lambda obs: obs * 2.5, batch_size=3)
    np.testing.assert_array_equal(table, [[0, 0], [2.5, -2.5]])
    one = exact.q_table(Walk(), WalkParams(), model, lambda obs: obs * 2.5, batch_size=1)
    np.testing.assert_array_equal(table, one)
    with pytest.raises(ValueError, match=r"q_values gave the shape \(4, 1\) .* must be \(4, 2\)"):
        exact.q_table(Walk(), WalkParams(), model, lambda obs: obs[:, :1], batch_size=4)


@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCar-v0", "Acrobot-v1", "DeepSea-bsuite"])
def test_environments_without_enumerable_states_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name} has no enumerable states") as caught:
        build_model(*envs.make(name))
    assert "\n" not in str(caught.value) and "start_states and outcomes" in str(caught.value)


class FloatWalk(Walk):
    place_type = jnp.float32


class EndlessWalk(Walk):
    end = 10**9


class LossyWalk(Walk):
    total = 0.9


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (FloatWalk, r"FloatWalk has no enumerable states: its state.place is float"),
        (EndlessWalk, r"EndlessWalk has more than 50 reachable states; raise max_states"),
        (LossyWalk, r"probabilities that LossyWalk.outcomes gives sum to 0.9; they must sum to 1"),
    ],
)
def test_bad_models_are_refused(kind, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_model(kind(), WalkParams(), max_states=50)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: exact.optimal_q(m, 1.5), r"discount is 1.5; it must lie between 0 and 1"),
        (lambda m: exact.optimal_q(m, 1.0, max_sweeps=30), r"after 30 sweeps; .*finite_horizon_q"),
        (lambda m: exact.finite_horizon_q(m, 0), r"horizon is 0; it must be at least 1 step"),
        (lambda m: exact.regret(m, np.zeros((3, 2))), r"shape \(3, 2\); this model needs \(2, 2\)"),
        (lambda m: exact.regret(m, np.full((2, 2), np.nan)), r"4 entries that are not finite"),
        (lambda m: exact.max_abs_error(np.zeros(2), np.zeros((2, 2))), r"must be \[states, act"),
        (
            lambda m: exact.optimal_share(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(2)),
            r"keeps 0 states; it must be bool \[2\]",
        ),
    ],
)
def test_bad_calls_are_explained(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(walk())
    assert "\n" not in str(caught.value)
