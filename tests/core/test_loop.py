"""The loop's counters, schedules, episodes, stored transitions and evaluation."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

import dqx
from dqx.agents import kit
from dqx.core.keys import Purpose, purpose_key, seed_key
from tests import probes
from tests.core.ledger import CONFIG, HYPERS, LANES, run_ledger, seed_keys, unpacked
from tests.oracles.environments import cartpole_step
from tests.shared import quickly


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
    clock, lanes, episodes, _ = run_ledger(
        num_envs=num_envs,
        train_period=train_period,
        updates_per_train=updates_per_train,
        target_period=target_period,
    )
    syncs, steps = [], []  # of each update in turn, by counting single steps
    for step in range(48 + 1, 48 + 240 + 1):
        if step % train_period == 0:
            since = range(step - train_period + 1, step + 1)
            due = any(s % target_period == 0 for s in since)
            syncs += [False] * (updates_per_train - 1) + [due]
            steps += [step] * updates_per_train
    assert clock.step == 48 + 240
    assert clock.updates == len(syncs)
    assert clock.size == CONFIG.replay_capacity
    assert clock.position == (48 + 240) % CONFIG.replay_capacity
    for lane in range(LANES):
        assert lanes.agent.params[lane] == len(syncs)
        notes = jax.tree.map(lambda x, i=lane: x[i, : len(syncs)], lanes.agent.opt_state)
        np.testing.assert_array_equal(notes["updates"], np.arange(len(syncs)))
        np.testing.assert_array_equal(notes["sync"], syncs)
        np.testing.assert_array_equal(notes["step"], steps)
        finished = np.count_nonzero(episodes.length[lane], axis=1).cumsum()
        np.testing.assert_array_equal(notes["episodes"], finished[np.array(steps) // num_envs - 1])
        ages = np.zeros(num_envs, int)
        by_step = [ages := np.where(ended > 0, 0, ages + 1) for ended in episodes.length[lane]]
        expected = np.array(by_step)[np.array(steps) // num_envs - 1]
        np.testing.assert_array_equal(notes["ages"], expected)


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("time_limit_is_terminal", [False, True])
def test_learned_transitions_are_those_that_happened(num_envs, time_limit_is_terminal):
    _, lanes, _, _ = run_ledger(
        num_envs=num_envs, train_period=4, time_limit_is_terminal=time_limit_is_terminal
    )
    names = ("obs", "next_obs", "reward", "discount")
    batches = {name: lanes.agent.opt_state[name] for name in names}
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


def test_a_transition_has_a_key_of_its_own_whenever_it_is_learned_from():
    capacity, steps = CONFIG.replay_capacity, 48 + 240
    _, lanes, _, _ = run_ledger(num_envs=4, train_period=4)
    for lane in range(LANES):
        stream = purpose_key(seed_key(0, lane), Purpose.TRANSITION)
        keys = jax.vmap(lambda number, key=stream: jax.random.fold_in(key, number))(
            jnp.arange(steps)
        )
        numbers = {tuple(key): n for n, key in enumerate(np.asarray(jax.random.key_data(keys)))}
        assert len(numbers) == steps
        notes = jax.tree.map(lambda x, i=lane: x[i, :60], lanes.agent.opt_state)
        rows = unpacked(lanes, lane, capacity)
        seen = {}
        for update, batch in enumerate(notes["key"]):
            for place, key in enumerate(batch):
                number = numbers[tuple(key)]
                learned = [notes[name][update, place] for name in rows._fields]
                if number >= steps - capacity:  # still there
                    jax.tree.map(
                        np.testing.assert_array_equal,
                        learned, [field[number % capacity] for field in rows],
                    )  # fmt: skip
                seen.setdefault(number, set()).add(str(learned))
        assert all(len(transitions) == 1 for transitions in seen.values())
        assert min(seen) < steps - capacity and len(seen) > 150


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


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_epsilon_follows_its_schedule_at_every_step(schedule):
    num_envs, steps = 4, 48 + 240
    hyper = dqx.Hyper(epsilon_start=0.9, epsilon_end=0.1, epsilon_steps=200.0, epsilon_decay=0.95)
    _, lanes, episodes, metrics = run_ledger(
        hyper=hyper,
        num_envs=num_envs,
        train_period=8,
        epsilon_schedule=schedule,
        replay_capacity=steps,
    )
    for lane in range(LANES):
        # The ledger agent's actions are a million times its epsilon.
        used = unpacked(lanes, lane, steps).action[48:] / 1e6
        step = np.arange(48, steps) // num_envs * num_envs
        finished = np.count_nonzero(episodes.length[lane], axis=1).cumsum()
        before = np.concatenate([[0], finished])
        expected = SCHEDULES[schedule](step, before[step // num_envs])
        np.testing.assert_allclose(used, expected, atol=2e-6)
        at_end = SCHEDULES[schedule](np.asarray(steps), before[-1])
        np.testing.assert_allclose(metrics["epsilon"][lane], at_end, rtol=1e-5)


def test_what_is_annealed_goes_linearly_to_its_scale_and_stays():
    num_envs, steps = 4, 48 + 240
    hyper = dqx.Hyper(
        epsilon_start=0.8, gamma=0.5, temperature=2.0, anneal_steps=200.0, anneal_scale=0.25
    )
    annealed = ("epsilon_start", "gamma", "temperature")
    _, lanes, _, metrics = run_ledger(
        hyper=hyper, num_envs=num_envs, train_period=8, epsilon_schedule="constant",
        annealed=annealed, replay_capacity=steps,
    )  # fmt: skip

    def share(step):
        return 1 - 0.75 * np.minimum(step / 200, 1)

    acted = np.arange(48, steps) // num_envs * num_envs
    used = unpacked(lanes, 0, steps).action[48:] / 1e6
    np.testing.assert_allclose(used, 0.8 * share(acted), atol=2e-6)
    learned = np.arange(48 + 8, steps + 1, 8)  # the steps at which updates are made
    assert learned[0] < 200 < learned[-1]
    given = dict(zip(HYPERS, lanes.agent.opt_state["hyper"][0, : len(learned)].T, strict=True))
    for name, values in given.items():
        start = np.float32(getattr(hyper, name))
        if name in annealed:
            np.testing.assert_allclose(values, start * share(learned), rtol=1e-6)
        else:
            np.testing.assert_array_equal(values, start)  # all others as they were
    # What an agent tells of each update is put together as it asks.
    gammas = 0.5 * share(learned)
    np.testing.assert_allclose(metrics["gamma"], gammas.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["gamma_max"], gammas[0], rtol=1e-6)
    np.testing.assert_allclose(metrics["gamma_last"], gammas[-1], rtol=1e-6)
    np.testing.assert_allclose(metrics["epsilon"], 0.8 * 0.25, rtol=1e-6)


def test_actions_are_counted_for_boltzmann_gumbel_only():
    config = dataclasses.replace(
        CONFIG, policy="boltzmann_gumbel", num_envs=4, train_period=8, replay_capacity=480
    )
    env = probes.adapted(probes.ChosenReward)
    keys = seed_keys(LANES)
    trainer = dqx.make_trainer(config, env)
    _, lanes, _, _ = probes.run_trainer(trainer, dqx.Hyper(), keys, 48, 240)
    for lane in range(LANES):
        taken = unpacked(lanes, lane, 480, env).action[: 48 + 240]
        counts = np.bincount(taken, minlength=2)
        np.testing.assert_array_equal(lanes.agent.memory[lane], 1 + counts)
        assert counts.min() > 10
    plain = dqx.make_trainer(dataclasses.replace(config, policy="boltzmann"), env)
    assert jax.eval_shape(plain.init, keys[0]).agent.memory is None


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
        epsilon_schedule="exponential",
    )
    with pytest.MonkeyPatch.context() as patch:
        quick = {"xla_backend_optimization_level": 0}
        patch.setattr("dqx.compute.programs._compiler_options", lambda *_: quick)
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
    for name in kit.METRICS.keys() - {"epsilon"}:
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
    returns, lengths, _ = quickly(trainer.evaluate)(clock, lane)
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
