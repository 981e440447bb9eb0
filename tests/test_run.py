"""What `dqx.train` returns, reports and refuses, and what never changes what it learns."""

import dataclasses

import jax
import numpy as np
import pytest

import dqx
from dqx.run import _cached_programs
from dqx.seeds import check_seeds
from tests import probes
from tests.shared import HYPER, TINY, WIDTH

LEARN_METRICS = {"loss", "q_mean", "q_max", "td_error_abs", "grad_norm", "weight_norm", "epsilon"}
EPISODE_METRICS = {f"episode_{n}{s}" for n in ("return", "length") for s in ("", "_min", "_max")}
EVAL_METRICS = {"eval_return", "eval_length"}
UNASKED = {"eval_q_max", "exact_return", "regret", "optimal_share", "q_error"}


@pytest.fixture(scope="module")
def run():
    """The result of the tiny configuration on six seeds, and the events of its progress."""
    events = []
    result = dqx.train(TINY, HYPER, range(6), devices="cpu:1", progress=events.append)
    return result, events


def assert_same_training(one, two):
    """Parameters, episodes and divergence, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    assert one.episodes.equals(two.episodes)
    np.testing.assert_array_equal(one.diverged_at, two.diverged_at)


def test_shapes_and_types(run):
    result, _ = run
    rows = TINY.total_steps // TINY.log_period
    assert result.seeds.dtype == np.int64
    np.testing.assert_array_equal(result.seeds, range(6))
    step = result.metrics["step"]
    assert step.dtype == np.int64
    np.testing.assert_array_equal(step, TINY.log_period * np.arange(1, rows + 1))
    assert step[-1] == TINY.total_steps
    expected = LEARN_METRICS | EPISODE_METRICS | EVAL_METRICS | UNASKED | {"episode_count"}
    assert result.metrics.keys() - {"step"} == expected
    for name in expected:
        values = result.metrics[name]
        assert isinstance(values, np.ndarray) and values.shape == (6, rows)
        assert values.dtype == (np.int64 if name == "episode_count" else np.float32)
    assert list(result.episodes.columns) == ["seed", "step", "return", "length"]
    assert [d.kind for d in result.episodes.dtypes] == ["i", "i", "f", "i"]
    assert result.diverged_at.dtype == np.int64
    np.testing.assert_array_equal(result.diverged_at, np.full(6, -1))
    shapes = {leaf.shape for leaf in jax.tree.leaves(result.params)}
    assert shapes == {(6, 4, 16), (6, 16), (6, 16, 2), (6, 2)}
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(result.params))
    assert result.config == TINY and result.hyper == HYPER
    assert result.root_seed == 0 and result.device_kind.startswith("cpu")
    assert result.run_seconds > 0


def test_cartpole_pays_one_a_step(run):
    result, _ = run
    table, metrics = result.episodes, result.metrics
    np.testing.assert_array_equal(table["return"], table["length"])
    assert table.groupby("seed")["length"].sum().between(400, 528).all()
    assert metrics["episode_count"].sum() == len(table)
    np.testing.assert_array_equal(metrics["episode_return"], metrics["episode_length"])
    np.testing.assert_array_equal(metrics["eval_return"], metrics["eval_length"])


def test_progress_is_told_of_every_row(run):
    result, events = run
    rows, total = TINY.total_steps // TINY.log_period, TINY.total_steps * 6
    assert len(events) == 2 * rows  # two chunks, one after the other
    steps = [event.steps for event in events]
    # Four seeds, then two: those that fill the second chunk are nobody's.
    expected = [TINY.log_period * (r + 1) * 4 for r in range(rows)]
    expected += [TINY.total_steps * 4 + TINY.log_period * (r + 1) * 2 for r in range(rows)]
    assert steps == expected
    assert steps[-1] == total and {event.total_steps for event in events} == {total}
    assert [event.seeds_done for event in events] == [0] * 5 + [4] * 6 + [6]
    assert [event.step for event in events] == list(result.metrics["step"]) * 2
    for index, event in enumerate(events):
        lanes = slice(0, 4) if index < rows else slice(4, 6)
        for name, values in event.row.items():
            expected = result.metrics[name][lanes, index % rows]
            np.testing.assert_array_equal(values, expected, err_msg=name)


def test_a_diverged_run_goes_on_to_the_end():
    result = dqx.train(TINY, HYPER.replace(learning_rate=1e38), 3, devices="cpu:1")
    np.testing.assert_array_equal(
        result.diverged_at, [TINY.learning_starts + TINY.train_period] * 3
    )
    assert np.all(result.metrics["episode_count"][:, -1] > 0)


# --- What changes nothing.


@pytest.mark.parametrize(
    "fields", [{"eval_period": 0}, {"eval_period": 88, "eval_episodes": 5}], ids=str
)
def test_evaluation_leaves_training_as_it_is(run, fields):
    other = dqx.train(dataclasses.replace(TINY, **fields), HYPER, 6, devices="cpu:1")
    assert_same_training(run[0], other)
    evaluated = np.isfinite(other.metrics["eval_return"])
    assert np.all(evaluated) if fields["eval_period"] else not np.any(evaluated)
    for name in LEARN_METRICS:
        np.testing.assert_array_equal(run[0].metrics[name], other.metrics[name], err_msg=name)


def test_logging_leaves_training_as_it_is(run):
    other = dqx.train(dataclasses.replace(TINY, log_period=176), HYPER, 6, devices="cpu:1")
    assert_same_training(run[0], other)
    fine, coarse = run[0].metrics, other.metrics
    np.testing.assert_array_equal(
        fine["episode_count"].reshape(6, 3, 2).sum(axis=2), coarse["episode_count"]
    )
    pairs = fine["loss"].reshape(6, 3, 2).mean(axis=2)
    np.testing.assert_allclose(pairs, coarse["loss"], rtol=1e-5)
    np.testing.assert_array_equal(fine["weight_norm"][:, 1::2], coarse["weight_norm"])


def test_blocks_of_random_numbers_leave_training_as_it_is(run, monkeypatch):
    _cached_programs.cache_clear()  # nothing compiled before
    monkeypatch.setattr("dqx.loop.BLOCK_ROUNDS", 3)  # 11 rounds: three blocks and an odd one
    other = dqx.train(TINY, HYPER, 6, devices="cpu:1")
    assert_same_training(run[0], other)


def test_the_name_of_a_preset_will_do(monkeypatch):
    config, hyper = dqx.preset("cartpole")
    asked = []

    class Enough(Exception):
        pass

    def stop(config, *args):
        asked.append(config)
        raise Enough

    monkeypatch.setattr("dqx.run.programs_for", stop)
    for arguments in (("cartpole",), (config, hyper)):
        with pytest.raises(Enough):
            dqx.train(*arguments, seeds=2, devices="cpu:1")
    same = {f: getattr(config, f) for f in ("env", "hidden_sizes", "batch_size", "double")}
    assert asked[0] == asked[1] and asked[0].chunk_width == WIDTH
    assert {f: getattr(asked[0], f) for f in same} == same


def test_a_sweep_over_hyperparameters_or_budgets_compiles_once(run):
    before = _cached_programs.cache_info().misses
    config = dataclasses.replace(TINY, total_steps=352)
    results = [dqx.train(config, HYPER.replace(gamma=g), 2, devices="cpu:1") for g in (0.5, 0.9)]
    assert _cached_programs.cache_info().misses == before
    assert [result.compile_seconds for result in results] == [0.0, 0.0]
    assert not np.array_equal(results[0].metrics["loss"][:, -1], results[1].metrics["loss"][:, -1])


# --- Seeds and errors.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3, [0, 1, 2]),
        (range(2, 5), [2, 3, 4]),
        ([7, 3], [7, 3]),
        (np.array([5, 1]), [5, 1]),
        ((s for s in (4, 2)), [4, 2]),
        (np.int64(2), [0, 1]),
    ],
)
def test_forms_of_seeds(given, expected):
    numbers = check_seeds(given)
    assert numbers.dtype == np.int64
    assert list(numbers) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (0, "none"),
        ([], "none"),
        ([1, 2, 1], "more than once: 1"),
        ([-1], "-1"),
        ([2**32], "4294967296"),
        ([1.5], "1.5"),
        (["3"], "'3'"),
        ([True], "True"),
    ],
    ids=str,
)
def test_seeds_that_are_refused(given, words):
    with pytest.raises(dqx.ConfigError, match="seeds") as caught:
        check_seeds(given)
    assert words in str(caught.value)


ERRORS = [
    ({"env": "CartPole-v9"}, "CartPole-v1"),
    ({"env": "Pendulum-v1"}, "continuous"),
    ({"replay_capacity": 2**30}, "replay_capacity="),
    ({"batch_size": 401}, "replay_capacity"),
    ({"learning_starts": 528}, "total_steps"),
    ({"total_steps": 0}, "total_steps"),
    ({"log_period": 90}, "multiple of train_period, but 90"),
    ({"train_period": 9}, "num_envs"),
    ({"learning_rate": float("nan")}, "learning_rate"),
    ({"gamma": -0.5}, "gamma"),
]


@pytest.mark.parametrize(("fields", "words"), ERRORS, ids=str)
def test_errors_come_before_anything_compiles(fields, words, monkeypatch):
    def never(*args):
        raise AssertionError("compiled")

    monkeypatch.setattr("dqx.run.programs_for", never)
    monkeypatch.setattr("dqx.run.free_bytes", lambda devices: 2**30)
    changes = {k: v for k, v in fields.items() if k in dqx.Hyper.__dataclass_fields__}
    config = dataclasses.replace(TINY, **{k: v for k, v in fields.items() if k not in changes})
    with pytest.raises(dqx.ConfigError) as caught:
        dqx.train(config, HYPER.replace(**changes), 2, devices="cpu:1")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [{"devices": "cpu:999"}, {"root_seed": -1}, {"root_seed": 1.5}], ids=str
)
def test_arguments_that_are_refused(arguments):
    with pytest.raises(dqx.ConfigError, match=next(iter(arguments))):
        dqx.train(TINY, HYPER, 2, **arguments)


# --- Every family of environments.


@pytest.mark.parametrize(
    ("env", "inputs", "actions"),
    [("Acrobot-v1", 6, 3), ("Breakout-MinAtar", 400, 3), ("FrozenLake-misc", 16, 4)],
)
def test_environments_of_gymnax_train(env, inputs, actions, monkeypatch):
    quick = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr("dqx.parallel._compiler_options", lambda *_: quick)
    config = dataclasses.replace(
        TINY, env=env, total_steps=352, eval_period=352, eval_episodes=2, chunk_width=2
    )
    result = dqx.train(config, HYPER, 2, devices="cpu:1")
    shapes = [leaf.shape for leaf in jax.tree.leaves(result.params)]
    assert sorted(shapes) == sorted([(2, inputs, 16), (2, 16), (2, 16, actions), (2, actions)])
    for name in LEARN_METRICS:
        assert np.all(np.isfinite(result.metrics[name][:, 2:]))
    assert np.all(np.isfinite(result.metrics["eval_return"][:, -1]))
    assert np.all(result.diverged_at == -1)


def test_an_environment_registered_with_gymnax_trains(monkeypatch):
    monkeypatch.setattr(
        "dqx.parallel._compiler_options", lambda *_: {"xla_backend_optimization_level": 0}
    )
    env = probes.registered(probes.ConstantReward)
    config = dataclasses.replace(TINY, env=env, eval_period=528, chunk_width=2)
    result = dqx.train(config, HYPER.replace(learning_rate=0.05), 2, devices="cpu:1")
    assert np.all(result.episodes["return"] == 1) and len(result.episodes) == 2 * 528
    np.testing.assert_array_equal(result.metrics["eval_return"][:, -1], 1.0)
    np.testing.assert_allclose(result.metrics["q_mean"][:, -1], 1.0, atol=0.25)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"optimizer_epsilon": 0.0}, "optimizer_epsilon must be greater than 0"),
        ({"target_period": 10**10}, "target_period must be below 2**31"),
        ({"train_period": 2, "updates_per_train": 2**30}, "updates_per_train"),
    ],
    ids=str,
)
def test_values_that_would_fail_later_are_refused(fields, words):
    with pytest.raises(dqx.ConfigError) as caught:
        dqx.validate(*dqx.override(TINY, HYPER, **fields))
    assert words in str(caught.value)
