"""The loop's counters, schedules, episodes, stored transitions and evaluation."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

import dqx
from dqx.agent import AgentState, LearnMetrics
from dqx.config import POLICIES
from dqx.keys import Purpose, purpose_key, seed_key
from dqx.loop import example_transition
from dqx.replay import make_replay
from tests import probes
from tests.oracles.environments import cartpole_step

LOG = 600  # updates that the ledger agent can note down
LANES = 2
CONFIG = dqx.Config(hidden_sizes=(), batch_size=8, replay_capacity=240, learning_starts=48)


def ledger_agent(config, env):
    """An agent that learns nothing but notes what it is given.

    Its parameters are the count of calls, and tables [LOG] of the count of updates, of whether to
    sync, and of the batch; its action is always 1 where epsilon is above a half.
    """

    def init(key):
        notes = {
            "updates": jnp.full(LOG, -1, jnp.int32),
            "sync": jnp.zeros(LOG, bool),
            "obs": jnp.full((LOG, config.batch_size, 2), -1.0),
            "next_obs": jnp.full((LOG, config.batch_size, 2), -1.0),
            "reward": jnp.zeros((LOG, config.batch_size)),
            "discount": jnp.zeros((LOG, config.batch_size)),
        }
        return AgentState(jnp.int32(0), jnp.int32(0), notes)

    def act(params, obs, draws, epsilon, temperature, counts):
        return jnp.broadcast_to(jnp.round(epsilon * 1e6).astype(jnp.int32), obs.shape[:1])

    def learn(state, hyper, batch, updates, sync):
        now = {"updates": updates, "sync": sync, **batch._asdict()}
        notes = {k: table.at[state.params].set(now[k]) for k, table in state.opt_state.items()}
        metrics = LearnMetrics(*[jnp.float32(0)] * 6)._replace(q_mean=hyper.gamma)
        return AgentState(state.params + 1, state.target_params, notes), metrics

    return dqx.Agent(init, lambda params, obs: jnp.zeros((*obs.shape[:1], 2)), act, learn)


def run_ledger(warm_up=48, steps=240, hyper=None, **fields):
    """Notes, episodes and the final state of a run of the ledger agent on the ledger probe."""
    config = dataclasses.replace(CONFIG, **fields)
    env = probes.adapted(probes.Ledger)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dqx.loop.make_agent", ledger_agent)
        trainer = dqx.make_trainer(config, env)
    keys = jax.vmap(lambda s: seed_key(0, s))(jnp.arange(LANES))
    return probes.run_trainer(trainer, hyper or dqx.Hyper(), keys, warm_up, steps)


@pytest.mark.parametrize(
    ("num_envs", "train_period", "updates_per_train", "target_period"),
    [
        (1, 1, 1, 7),  # plain
        (1, 4, 2, 12),
        (4, 8, 2, 20),  # crossings between rounds
        (2, 6, 3, 4),  # several multiples in one round
        (8, 8, 1, 500),  # never
        (3, 12, 1, 30),
    ],
)
def test_updates_and_syncs_are_where_they_should_be(
    num_envs, train_period, updates_per_train, target_period
):
    clock, lanes, _, _ = run_ledger(
        num_envs=num_envs,
        train_period=train_period,
        updates_per_train=updates_per_train,
        target_period=target_period,
    )
    syncs = []  # of each update in turn, by counting single steps
    for step in range(48 + 1, 48 + 240 + 1):
        if step % train_period == 0:
            since = range(step - train_period + 1, step + 1)
            due = any(s % target_period == 0 for s in since)
            syncs += [False] * (updates_per_train - 1) + [due]
    assert clock.step == 48 + 240
    assert clock.updates == len(syncs)
    assert clock.size == CONFIG.replay_capacity
    assert clock.position == (48 + 240) % CONFIG.replay_capacity
    for lane in range(LANES):
        assert lanes.agent.params[lane] == len(syncs)
        notes = jax.tree.map(lambda x, i=lane: x[i, : len(syncs)], lanes.agent.opt_state)
        np.testing.assert_array_equal(notes["updates"], np.arange(len(syncs)))
        np.testing.assert_array_equal(notes["sync"], syncs)


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("time_limit_is_terminal", [False, True])
def test_learned_transitions_are_those_that_happened(num_envs, time_limit_is_terminal):
    _, lanes, _, _ = run_ledger(
        num_envs=num_envs, train_period=4, time_limit_is_terminal=time_limit_is_terminal
    )
    batches = {k: v for k, v in lanes.agent.opt_state.items() if k not in ("updates", "sync")}
    notes = jax.tree.map(lambda x: x[:, :60].reshape(LANES * 60 * 8, -1), batches)
    (mark, time), (next_mark, next_time) = notes["obs"].T, notes["next_obs"].T
    length = probes.ledger_length(mark)
    # Never the start of the next episode, nor a row of before the first.
    np.testing.assert_array_equal(next_mark, mark)
    np.testing.assert_array_equal(next_time, time + 1)
    assert np.all((mark >= 0) & (time >= 0) & (next_time <= length))
    np.testing.assert_array_equal(notes["reward"][:, 0], 100 + length + time)
    terminated = (next_time == length) & ((length % 2 == 1) | time_limit_is_terminal)
    np.testing.assert_array_equal(notes["discount"][:, 0], 1.0 - terminated)
    assert {(n, t) for n, t in zip(next_time == length, length % 2, strict=True)} == {
        (False, 0), (False, 1), (True, 0), (True, 1)
    }  # fmt: skip


def unpacked(lanes, lane, capacity):
    """The replay of one lane as transitions [C, ...]."""
    replay = make_replay(example_transition(probes.adapted(probes.Ledger)), capacity)
    rows = jax.tree.map(lambda x: jnp.asarray(x[lane]), lanes.replay_rows)
    state = replay.init().replace(rows=rows)
    return jax.tree.map(np.asarray, replay.gather(state, jnp.arange(capacity)))


@pytest.mark.parametrize("num_envs", [1, 4])
def test_episodes_are_those_in_the_replay(num_envs):
    steps = 48 + 240
    _, lanes, episodes, _ = run_ledger(num_envs=num_envs, train_period=4, replay_capacity=steps)
    for lane in range(LANES):
        rows = unpacked(lanes, lane, steps)
        for env in range(num_envs):
            obs, rewards = rows.obs[env::num_envs], rows.reward[env::num_envs]
            starts = np.flatnonzero(obs[:, 1] == 0)
            assert starts[0] == 0
            ends = starts[1:] - 1  # the last one is under way
            last = obs[starts[-1] :]
            if len(last) == probes.ledger_length(last[0, 0]):
                ends = np.append(ends, len(obs) - 1)
            lengths = np.diff(np.concatenate([[-1], ends]))
            returns = np.add.reduceat(rewards, starts)[: len(ends)]
            found = np.flatnonzero(episodes.length[lane, :, env])
            np.testing.assert_array_equal(found, ends)
            np.testing.assert_array_equal(episodes.length[lane, found, env], lengths)
            np.testing.assert_array_equal(episodes.total[lane, found, env], returns)
            np.testing.assert_array_equal(returns, probes.ledger_return(lengths))
        assert lanes.episodes[lane] == np.count_nonzero(episodes.length[lane])


SCHEDULES = {
    "constant": lambda step, episodes: np.full(np.shape(step), 0.9),
    "linear": lambda step, episodes: 0.9 + (0.1 - 0.9) * np.minimum(step / 200, 1),
    "exponential": lambda step, episodes: 0.1 + 0.8 * np.exp(-step / 200),
    "per_episode": lambda step, episodes: np.maximum(0.9 * 0.95**episodes, 0.1),
}


@pytest.mark.parametrize("exploration", SCHEDULES)
def test_epsilon_follows_its_schedule_at_every_step(exploration):
    num_envs, steps = 4, 48 + 240
    hyper = dqx.Hyper(epsilon_start=0.9, epsilon_end=0.1, epsilon_steps=200.0, epsilon_decay=0.95)
    _, lanes, episodes, metrics = run_ledger(
        hyper=hyper,
        num_envs=num_envs,
        train_period=8,
        exploration=exploration,
        replay_capacity=steps,
    )
    for lane in range(LANES):
        # The ledger agent's actions are a million times its epsilon.
        used = unpacked(lanes, lane, steps).action[48:] / 1e6
        step = np.arange(48, steps) // num_envs * num_envs
        finished = np.count_nonzero(episodes.length[lane], axis=1).cumsum()
        before = np.concatenate([[0], finished])
        expected = SCHEDULES[exploration](step, before[step // num_envs])
        np.testing.assert_allclose(used, expected, atol=2e-6)
        at_end = SCHEDULES[exploration](np.asarray(steps), before[-1])
        np.testing.assert_allclose(metrics["epsilon"][lane], at_end, rtol=1e-5)


def test_each_environment_has_its_rung_of_the_ladder():
    num_envs, steps = 4, 48 + 240
    hyper = dqx.Hyper(epsilon_start=0.4, ladder_power=3.0)
    _, lanes, _, metrics = run_ledger(
        hyper=hyper, num_envs=num_envs, train_period=8, exploration="constant",
        epsilon_ladder=True, replay_capacity=steps,
    )  # fmt: skip
    used = unpacked(lanes, 0, steps).action[48:].reshape(-1, num_envs) / 1e6
    rungs = [0.4, 0.4**2, 0.4**3, 0.4**4]
    np.testing.assert_allclose(used, np.broadcast_to(rungs, used.shape), atol=2e-6)
    np.testing.assert_allclose(metrics["epsilon"], 0.4, rtol=1e-6)  # the foot of the ladder


def test_what_is_annealed_moves_at_every_step_and_update():
    num_envs, steps = 4, 48 + 240
    hyper = dqx.Hyper(epsilon_start=0.8, gamma=0.5, anneal_steps=200.0, anneal_scale=0.5)
    _, lanes, _, metrics = run_ledger(
        hyper=hyper, num_envs=num_envs, train_period=8, exploration="constant",
        annealed=("epsilon_start", "gamma"), replay_capacity=steps,
    )  # fmt: skip

    def share(step):
        return 1 - 0.5 * np.minimum(step / 200, 1)

    acted = np.arange(48, steps) // num_envs * num_envs
    used = unpacked(lanes, 0, steps).action[48:] / 1e6
    np.testing.assert_allclose(used, 0.8 * share(acted), atol=2e-6)
    learned = np.arange(48 + 8, steps + 1, 8)  # the steps at which updates are made
    np.testing.assert_allclose(metrics["q_mean"], 0.5 * share(learned).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["epsilon"], 0.4, rtol=1e-6)


def test_actions_are_counted_for_boltzmann_gumbel_only():
    config = dataclasses.replace(
        CONFIG, policy="boltzmann_gumbel", num_envs=4, train_period=8, replay_capacity=480
    )
    env = probes.adapted(probes.ChosenReward)
    keys = jax.vmap(lambda s: seed_key(0, s))(jnp.arange(LANES))
    trainer = dqx.make_trainer(config, env)
    _, lanes, _, _ = probes.run_trainer(trainer, dqx.Hyper(), keys, 48, 240)
    replay = make_replay(example_transition(env), 480, 4)
    for lane in range(LANES):
        rows = jax.tree.map(lambda x, i=lane: jnp.asarray(x[i]), lanes.replay_rows)
        taken = replay.gather(replay.init().replace(rows=rows), jnp.arange(48 + 240)).action
        counts = np.bincount(taken, minlength=2)
        np.testing.assert_array_equal(lanes.action_counts[lane], 1 + counts)
        assert counts.min() > 10
    plain = dqx.make_trainer(dataclasses.replace(config, policy="boltzmann"), env)
    assert jax.eval_shape(plain.init, keys[0]).action_counts is None


@pytest.mark.parametrize("policy", POLICIES)
def test_epsilon_is_told_of_policies_that_have_one(policy):
    config = dataclasses.replace(CONFIG, policy=policy, train_period=8, exploration="constant")
    trainer = dqx.make_trainer(config, probes.adapted(probes.ChosenReward))
    keys = jax.vmap(lambda s: seed_key(0, s))(jnp.arange(1))
    *_, metrics = probes.run_trainer(trainer, dqx.Hyper(epsilon_start=0.25), keys, 48, 16)
    told = 0.25 if policy in ("epsilon_greedy", "max_boltzmann") else np.nan
    np.testing.assert_array_equal(metrics["epsilon"], [told])


# --- Rows of metrics and the table of episodes.


@pytest.fixture(scope="module")
def ledger_result():
    """Learning starts within the second row of metrics."""
    config = dqx.Config(
        env=probes.registered(probes.Ledger),
        hidden_sizes=(4,),
        total_steps=200,
        learning_starts=30,
        train_period=5,
        batch_size=8,
        replay_capacity=100,
        target_period=20,
        log_period=20,
        eval_period=100,
        eval_episodes=7,
        chunk_width=2,
        exploration="exponential",
    )
    with pytest.MonkeyPatch.context() as patch:
        quick = {"xla_backend_optimization_level": 0}
        patch.setattr("dqx.parallel._compiler_options", lambda *_: quick)
        return dqx.train(config, dqx.Hyper(epsilon_steps=50.0), seeds=3, devices="cpu:1")


def test_table_of_episodes_is_exact(ledger_result):
    table = ledger_result.episodes
    for seed in range(3):
        mine = table[table.seed == seed]
        # One environment: the episodes follow one another without a gap, from the first step on.
        np.testing.assert_array_equal(mine.step, mine.length.cumsum())
        np.testing.assert_array_equal(mine["return"], probes.ledger_return(mine.length))
        assert 0 <= 200 - mine.step.iloc[-1] < 9  # only the one under way is missing
    assert table.seed.is_monotonic_increasing
    assert table.step.min() < 30  # episodes of the warm-up are episodes


def test_rows_summarise_the_table(ledger_result):
    metrics, table = ledger_result.metrics, ledger_result.episodes
    np.testing.assert_array_equal(metrics["step"], np.arange(20, 201, 20))
    row = (table.step - 1) // 20
    for name, column in (("episode_return", "return"), ("episode_length", "length")):
        groups = table.astype({column: float}).groupby(["seed", row])[column]
        every = pandas.MultiIndex.from_product([range(3), range(10)])
        for suffix, summary in (
            ("", groups.mean()), ("_min", groups.min()), ("_max", groups.max())
        ):  # fmt: skip
            expected = summary.reindex(every).to_numpy().reshape(3, 10)
            np.testing.assert_allclose(metrics[name + suffix], expected, rtol=1e-6)
    assert metrics["episode_count"].sum() == len(table)


def test_learning_metrics_start_with_learning(ledger_result):
    metrics = ledger_result.metrics
    for name in LearnMetrics._fields:
        assert np.all(np.isnan(metrics[name][:, 0]))  # steps 1 to 20
        assert np.all(np.isfinite(metrics[name][:, 1:]))  # learning starts after step 30
    step = metrics["step"][1:]
    expected = 0.05 + 0.95 * np.exp(-step / 50)
    np.testing.assert_allclose(metrics["epsilon"][:, 1:], np.tile(expected, (3, 1)), rtol=1e-5)
    np.testing.assert_array_equal(metrics["epsilon"][:, 0], 1.0)  # random actions


def test_evaluations_are_where_asked(ledger_result):
    returns, lengths = (ledger_result.metrics[name] for name in ("eval_return", "eval_length"))
    np.testing.assert_array_equal(np.isfinite(returns), np.tile(np.arange(1, 11) % 5 == 0, (3, 1)))
    np.testing.assert_array_equal(np.isfinite(lengths), np.isfinite(returns))
    # Means over seven whole episodes.
    sevenfold = lengths[:, [4, 9]] * 7
    np.testing.assert_allclose(sevenfold, np.round(sevenfold), atol=1e-4)


# --- Greedy evaluation.


def evaluate(config, env, seed=0, step=0):
    trainer = dqx.make_trainer(config, env)
    lane = trainer.init(seed_key(0, seed))
    clock = trainer.start().replace(step=jnp.int32(step))
    quick = {"xla_backend_optimization_level": 0}
    returns, lengths, _ = jax.jit(trainer.evaluate, compiler_options=quick)(clock, lane)
    key = jax.random.fold_in(purpose_key(lane.key, Purpose.EVALUATION), step)
    resets = jax.random.split(jax.random.split(key)[0], config.eval_episodes)
    return np.asarray(returns), np.asarray(lengths), lane, resets


def test_every_episode_of_an_evaluation_is_whole():
    env = probes.adapted(probes.Ledger)
    config = dataclasses.replace(CONFIG, hidden_sizes=(4,), eval_episodes=40)
    returns, lengths, _, resets = evaluate(config, env, step=96)
    marks = [int(env.reset(key)[1].mark) for key in resets]
    np.testing.assert_array_equal(lengths, probes.ledger_length(np.array(marks)))
    np.testing.assert_array_equal(returns, probes.ledger_return(lengths))
    assert set(lengths) == set(range(2, 10))
    others, *_ = evaluate(config, env, step=192)
    assert np.any(others != returns)  # later evaluations see other episodes


def test_evaluation_of_cartpole_equals_a_plain_loop():
    env = dqx.make_environment("CartPole-v1")
    config = dataclasses.replace(CONFIG, hidden_sizes=(16,), eval_episodes=6)
    for seed in range(2):
        returns, lengths, lane, resets = evaluate(config, env, seed)
        weights = jax.tree.map(np.float64, lane.agent.params)["params"]
        expected = []
        for key in resets:
            obs, done, length = np.float64(env.reset(key)[0]), False, 0
            while not done and length < 500:
                hidden = obs @ weights["Dense_0"]["kernel"] + weights["Dense_0"]["bias"]
                q = np.maximum(hidden, 0) @ weights["Dense_1"]["kernel"]
                action = np.argmax(q + weights["Dense_1"]["bias"])
                following = cartpole_step(obs[None], np.array([action]))
                obs, done = following[0][0], bool(following[2][0])
                length += 1
            expected.append(length)
        np.testing.assert_array_equal(lengths, expected)
        np.testing.assert_array_equal(returns, expected)
        assert math.isfinite(returns.sum())
