"""The metrics of evaluation that compare with exact solutions and with a fixed set of states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.taxi import TaxiEnv

import dqx
import dqx.study
from dqx.compute.programs import Programs, programs_for
from dqx.compute.session import Chunk, Session
from dqx.compute.solution import EXACT_METRICS, Solution, solution_of
from dqx.core import exploration
from dqx.settings import ConfigError, to_record, validate
from envs.tabular import Model
from tests.shared import HYPER, TINY
from tests.study.kit import interrupted

GAMMA = 0.9
TAXI = dqx.Config(
    env="Taxi-v4",
    agent="tabular",
    total_steps=6_000,
    learning_starts=1,
    train_period=1,
    batch_size=1,
    replay_capacity=10,
    sampling="newest",
    log_period=1_000,
    eval_period=3_000,
    eval_episodes=2,
    exact_metrics=True,
    epsilon_schedule="constant",
    chunk_width=4,
)
TAXI_HYPER = dqx.Hyper(learning_rate=1.0, gamma=GAMMA, epsilon_start=0.3)
EVALUATED = np.array([0, 0, 1, 0, 0, 1], bool)


@pytest.fixture(scope="module")
def taxi():
    """Gymnasium's table of transitions and its starts."""
    env = TaxiEnv()
    return env.P, np.flatnonzero(env.initial_state_distrib)


@pytest.fixture(scope="module")
def run():
    return dqx.train(TAXI, TAXI_HYPER, range(5), devices="cpu:1")


def rolled_out(q, table, start, limit=200):
    """The return of one greedy episode under Gymnasium's limit of 200 steps, or another."""
    state, total = start, 0.0
    for _ in range(limit):
        _, state, reward, ended = table[state][int(np.argmax(q[state]))][0]
        total += reward
        if ended:
            break
    return total


def iterated(table, gamma):
    """Q* of Gymnasium's table by 2,000 sweeps over its rows."""
    rows = np.array([[table[s][a][0][1:] for a in range(6)] for s in range(500)])
    after, reward, ended = rows[..., 0].astype(int), rows[..., 1], rows[..., 2]
    q = np.zeros((500, 6))
    for _ in range(2_000):
        q = reward + gamma * (1 - ended) * q.max(axis=1)[after]
    return q


def reachable(table, starts):
    """The states in which an agent may have to act."""
    seen, waiting = set(starts), list(starts)
    while waiting:
        state = waiting.pop()
        for action in range(6):
            _, after, _, ended = table[state][action][0]
            if not ended and after not in seen:
                seen.add(after)
                waiting.append(after)
    return sorted(seen)


def test_a_run_on_taxi_is_measured_as_gymnasium_s_table_says(run, taxi):
    table, starts = taxi
    q_star, states = iterated(table, GAMMA), reachable(table, starts)
    assert len(states) == 400
    last = {name: run.metrics[name][:, -1] for name in EXACT_METRICS}
    for seed, q in enumerate(run.params["params"]["table"].astype(np.float64)):
        value = np.mean([rolled_out(q, table, start) for start in starts])
        assert last["exact_return"][seed] == pytest.approx(value, abs=1e-4)
        assert last["regret"][seed] == pytest.approx(7.93 - value, abs=1e-4)
        chosen = q_star[states, q[states].argmax(axis=1)]
        share = np.mean(chosen > q_star[states].max(axis=1) - 1e-6)
        assert last["optimal_share"][seed] == pytest.approx(share, abs=1e-6)
        error = np.abs(q - q_star)[states].max()
        assert last["q_error"][seed] == pytest.approx(error, rel=1e-5)
    np.testing.assert_array_equal(run.scores, last["exact_return"])
    assert len(set(last["exact_return"])) > 1 and np.all(last["optimal_share"] < 1)


@pytest.mark.long
def test_a_time_limit_is_that_of_the_exact_solution_too(taxi):
    table, starts = taxi
    config = dataclasses.replace(TAXI, total_steps=1_000, eval_period=1_000, time_limit=11)
    found = dqx.train(config, TAXI_HYPER, 2, devices="cpu:1")
    best = np.zeros(500)
    for _ in range(11):  # backwards from the limit
        best = np.array([max(reward + (not ended) * best[after] for (_, after, reward, ended), in
                             table[state].values()) for state in range(500)])  # fmt: skip
    for seed, q in enumerate(found.params["params"]["table"].astype(np.float64)):
        value = np.mean([rolled_out(q, table, start, 11) for start in starts])
        assert found.metrics["exact_return"][seed, -1] == pytest.approx(value, abs=1e-4)
        regret = best[starts].mean() - value
        assert found.metrics["regret"][seed, -1] == pytest.approx(regret, abs=1e-4)
    assert found.metrics["eval_length"][:, -1].max() <= 11
    assert found.episodes.length.max() == 11


def test_they_come_with_every_evaluation_and_nowhere_else(run):
    for name in EXACT_METRICS:
        assert run.metrics[name].dtype == np.float32
        np.testing.assert_array_equal(
            np.isfinite(run.metrics[name]), np.tile(EVALUATED, (5, 1)), name
        )
    without = dqx.train(
        dataclasses.replace(TAXI, exact_metrics=False), TAXI_HYPER, 5, devices="cpu:1"
    )
    for name in EXACT_METRICS:
        assert np.isnan(without.metrics[name]).all()
    # Measuring changes nothing that is learned.
    jax.tree.map(np.testing.assert_array_equal, run.params, without.params)
    np.testing.assert_array_equal(run.metrics["eval_return"], without.metrics["eval_return"])


def test_a_seed_is_measured_alike_wherever_it_runs(run):
    alone = dqx.train(TAXI, TAXI_HYPER, [4], devices="cpu:1")
    assert alone.digests[0] == run.digests[4]


def test_other_places_and_padding_leave_no_trace(run):
    """Three chunks in two places: the last one runs alone, and half empty."""
    apart = dqx.train(TAXI, TAXI_HYPER, range(10), devices="cpu:2")
    assert apart.digests[:5] == run.digests
    assert np.isfinite(apart.metrics["regret"][:, EVALUATED]).all()


def test_every_lane_is_compared_with_the_values_of_its_own_discount():
    gammas = np.array([0.5, 0.9, 0.99])
    programs = programs_for(TAXI, jax.devices("cpu")[0], 0)
    hypers = jax.tree.map(lambda x: np.full(3, x, np.float32), TAXI_HYPER)
    chunk = Chunk(np.arange(3), hypers.replace(gamma=gammas.astype(np.float32)))
    together = Session(programs, TAXI, chunk)
    while not together.finished:
        together.advance()
    mixed = together.result()
    for lane, gamma in enumerate(gammas):
        hyper = TAXI_HYPER.replace(gamma=float(np.float32(gamma)))
        alone = dqx.train(TAXI, hyper, [lane], devices="cpu:1")
        for name in EXACT_METRICS:
            np.testing.assert_array_equal(mixed.metrics[name][lane], alone.metrics[name][0])


def test_a_table_of_q_values_holds_those_of_every_state():
    # 400 states are no multiple of a batch.
    config = dataclasses.replace(
        TAXI, agent="dqn", hidden_sizes=(8,), sampling="uniform", chunk_width=2
    )
    env = dqx.make_environment(config.env)
    programs = Programs(config, env, jax.devices("cpu")[0], 0)
    _, lanes = programs.init(np.array([3, 4]))
    table = np.asarray(programs.q_table(lanes))
    states = solution_of(config).model.states
    obs = jax.vmap(env.observe)(states)
    assert table.shape == (2, 400, 6) and len(set(np.asarray(obs).tolist())) == 400
    agent = dqx.make_agent(config, env)
    for lane in range(2):
        params = jax.tree.map(lambda leaf, i=lane: leaf[i], lanes.agent.params)
        np.testing.assert_allclose(table[lane], agent.q_values(params, obs), rtol=1e-5, atol=1e-6)
    # Nothing was consumed.
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(lanes))


def test_q_values_that_are_not_finite_choose_as_greedy_episodes_do():
    """A diverged run has a return like any other; only its distance from Q* cannot be told."""
    solution = solution_of(dqx.Config(env="Taxi-v4"))
    rng = np.random.default_rng(0)
    q = np.tile(rng.normal(size=(400, 6)), (3, 1, 1))
    q[1][rng.random((400, 6)) < 0.1] = np.nan
    q[1][rng.random((400, 6)) < 0.1] = -np.inf
    q[2] = np.nan
    measured = solution.measure(q, np.full(3, 0.9))
    chosen = np.asarray(jax.vmap(jax.vmap(exploration.greedy))(jnp.asarray(q, jnp.float32)))
    again = solution.measure(np.eye(6)[chosen], np.full(3, 0.9))
    for name in ("exact_return", "regret", "optimal_share"):
        np.testing.assert_array_equal(measured[name], again[name])
    np.testing.assert_array_equal(np.isnan(measured["q_error"]), [False, True, True])
    # All NaN: the first action everywhere, south for 200 steps, whatever the start.
    assert measured["exact_return"][2] == -200
    assert measured["regret"][2] == pytest.approx(207.93, abs=1e-3)


def study_plan():
    return {
        "name": "exact",
        "seeds": 2,
        "base": to_record(TAXI, TAXI_HYPER)["config"],
        "grid": {"gamma": [0.5, 0.9]},
    }


def test_a_study_keeps_them(tmp_path):
    study = dqx.study.run(study_plan(), tmp_path / "study", devices="cpu:1")
    regrets = study.to_arrays("regret")
    assert regrets.shape == (2, 2, 6)
    np.testing.assert_array_equal(np.isfinite(regrets), np.tile(EVALUATED, (2, 2, 1)))


def test_an_interrupted_study_keeps_those_it_had(tmp_path):
    whole = dqx.study.run(study_plan(), tmp_path / "whole", devices="cpu:1")
    interrupted(study_plan(), tmp_path / "cut", 4, checkpoint_seconds=0.0, devices="cpu:1")
    resumed = dqx.study.resume(tmp_path / "cut", devices="cpu:1")
    assert resumed.digests == whole.digests


def test_a_discount_without_solution_stops_a_study_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("dqx.compute.solution._UNDISCOUNTED_LIMITS", 0)  # Taxi has one
    plan = study_plan()
    plan["grid"]["gamma"] = [0.9, 1.0]
    with pytest.raises(ConfigError, match="of Taxi-v4 was found for gamma = 1 in 0 sweeps"):
        dqx.study.run(plan, tmp_path / "study", devices="cpu:1")
    assert not list(tmp_path.iterdir())


def loop_model():
    """One state and one action that pays 1 for ever."""
    one = np.ones(1)
    state = np.zeros(1, np.int32)
    return Model(
        states=state,
        start=one,
        pair=state,
        next_state=state,
        probability=one,
        reward=one,
        terminated=np.zeros(1, bool),
        num_actions=1,
        time_limit=10,
    )


def test_values_of_a_constant_reward():
    solution = Solution("loop", loop_model())
    assert solution.optimal_return == pytest.approx(10)
    measured = solution.measure(np.full((1, 1, 1), 3.0), np.array([0.75]))
    assert measured["q_error"][0] == pytest.approx(1.0, rel=1e-6)  # Q* is 1 / (1 - 0.75)


def test_a_discount_without_solution_is_refused():
    with pytest.raises(ConfigError, match=r"of loop was found for gamma = 1 in 200 sweeps: lower"):
        Solution("loop", loop_model()).prepare([1.0])


def test_environments_without_listed_states_are_refused(tmp_path):
    config = dataclasses.replace(TINY, exact_metrics=True)
    with pytest.raises(ConfigError, match=r"exact_metrics need .* those of CartPole-v1 cannot"):
        dqx.train(config, HYPER, 1)
    # A study is refused before it leaves anything behind.
    base = to_record(config, HYPER)["config"]
    with pytest.raises(ConfigError, match="exact_metrics need"):
        dqx.study.run({"name": "no", "seeds": 1, "base": base}, tmp_path / "study")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"eval_period": 0}, "eval_period is 0"),
        ({"annealed": ("gamma",)}, "take gamma out of annealed"),
        ({"time_limit_is_terminal": True}, "no time limits: leave time_limit_is_terminal at its"),
        ({"reward_clip": 1.0}, "no clipped rewards: leave reward_clip at its default"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        validate(*dqx.override(TAXI, TAXI_HYPER, **fields))


# Evaluations of fixed parameters: nothing is learned from a step size this small.
STILL = HYPER.replace(learning_rate=1e-30)
CAR = dataclasses.replace(TINY, env="MountainCar-v0", eval_episodes=10, eval_states=4_000)


@pytest.mark.long
def test_the_fixed_states_are_the_same_in_every_evaluation():
    values = dqx.train(CAR, STILL, 3, devices="cpu:1").metrics["eval_q_max"]
    evaluated = values[:, 1::2]
    assert np.isnan(values[:, ::2]).all() and np.isfinite(evaluated).all()
    np.testing.assert_array_equal(evaluated, np.repeat(evaluated[:, :1], 3, axis=1))
    assert len(set(evaluated[:, 0].tolist())) == 3


def test_the_fixed_states_are_those_of_random_play(taxi):
    """The share of them with the passenger in the taxi, which is 0 at a start."""
    config = dataclasses.replace(TAXI, eval_episodes=200, eval_states=40_000)
    trainer = dqx.make_trainer(config, dqx.make_environment(config.env))
    aboard = np.arange(500) // 4 % 5 == 4
    values = np.where(aboard[:, None], [0.0, 1.0, -1.0, 0.5, 0.0, -2.0], -3.0) + 3.0
    lane = trainer.init(jax.random.key(3))
    params = {"params": {"table": np.asarray(values, np.float32)}}
    lane = lane.replace(agent=lane.agent.replace(params=params))
    found = float(jax.jit(trainer.evaluate)(trainer.start(), lane).q_max) / 4.0
    table, starts = taxi
    rng = np.random.default_rng(0)
    shares = []
    for state in rng.choice(starts, 400):
        seen = 0
        for action in rng.integers(0, 6, 200):
            seen += aboard[state]
            _, state, _, ended = table[state][action][0]  # noqa: PLW2901
            state = rng.choice(starts) if ended else state  # noqa: PLW2901
        shares.append(seen / 200)
    assert 0.05 < np.mean(shares) < 0.9
    error = np.std(shares) * np.sqrt(1 / 400 + 1 / 200)
    assert found == pytest.approx(np.mean(shares), abs=4 * error)
