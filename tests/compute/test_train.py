"""What `dqx.train` takes, returns, reports and refuses, and what stops it."""

import dataclasses
import json
import math
import signal
import threading

import jax
import numpy as np
import pytest

import dqx
from dqx.compute import devices
from dqx.compute.digest import digests
from dqx.compute.limits import Limit
from dqx.compute.programs import Programs, programs_for
from dqx.compute.session import Chunk, Session
from dqx.settings import ConfigWarning, to_record
from tests.shared import HYPER, TINY, WIDTH
from tests.study.kit import Interrupt

LEARN_METRICS = {"loss", "q_mean", "q_max", "td_error_abs", "grad_norm", "weight_norm", "epsilon"}
EPISODE_METRICS = {f"episode_{n}{s}" for n in ("return", "length") for s in ("", "_min", "_max")}
EVAL_METRICS = {"eval_return", "eval_length"}
UNASKED = {"eval_q_max", "exact_return", "regret", "optimal_share", "q_error"}
ROWS = TINY.total_steps // TINY.log_period


class Recorder(dqx.Sink):
    """Keeps what it is told, in order: name and argument of every call."""

    def __init__(self):
        self.calls = []

    def of(self, kind):
        return [argument for name, argument in self.calls if name == kind]

    def open(self, plan):
        self.calls.append(("open", plan))

    def phase(self, text):
        self.calls.append(("phase", text))

    def row(self, row):
        self.calls.append(("row", row))

    def finished(self, runs):
        self.calls.append(("finished", runs))

    def progress(self, progress):
        self.calls.append(("progress", progress))

    def complete(self, study):
        self.calls.append(("complete", study))

    def close(self):
        self.calls.append(("close", None))


@pytest.fixture(scope="module")
def run():
    """The result of the tiny configuration on six seeds, and what was told of it meanwhile."""
    told, events = Recorder(), []
    result = dqx.train(TINY, HYPER, range(6), devices="cpu:1", progress=events.append, sinks=[told])
    return result, told, events


def train(config=TINY, seeds=6, **options):
    return dqx.train(config, HYPER, seeds, **{"devices": "cpu:1", **options})


@pytest.fixture
def compilations():
    """A list that grows with every program that XLA compiles."""
    found = []

    def listen(event, *_, **__):
        if "backend_compile" in event:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


# --- What it returns.


def test_shapes_and_types(run):
    result, *_ = run
    assert result.seeds.dtype == np.int64
    np.testing.assert_array_equal(result.seeds, range(6))
    step = result.metrics["step"]
    assert step.dtype == np.int64
    np.testing.assert_array_equal(step, TINY.log_period * np.arange(1, ROWS + 1))
    expected = LEARN_METRICS | EPISODE_METRICS | EVAL_METRICS | UNASKED | {"episode_count"}
    assert result.metrics.keys() - {"step"} == expected
    for name in expected:
        values = result.metrics[name]
        assert isinstance(values, np.ndarray) and values.shape == (6, ROWS)
        assert values.dtype == (np.int64 if name == "episode_count" else np.float32)
    assert list(result.episodes.columns) == ["seed", "step", "return", "length"]
    assert [d.kind for d in result.episodes.dtypes] == ["i", "i", "f", "i"]
    assert result.episodes.equals(
        result.episodes.sort_values(["seed", "step"], kind="stable").reset_index(drop=True)
    )
    assert result.diverged_at.dtype == np.int64
    np.testing.assert_array_equal(result.diverged_at, np.full(6, -1))
    shapes = {leaf.shape for leaf in jax.tree.leaves(result.params)}
    assert shapes == {(6, 4, 16), (6, 16), (6, 16, 2), (6, 2)}
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(result.params))
    assert result.config == TINY and result.hyper == HYPER
    assert result.root_seed == 0 and result.devices == ("cpu:0",)
    assert result.device_kind.startswith("cpu: ")
    assert result.run_seconds > 0 and result.compile_seconds > 0


def test_scores_and_digests_are_those_of_the_arrays(run):
    result, *_ = run
    assert result.scores.dtype == np.float64
    np.testing.assert_array_equal(result.scores, result.metrics["eval_return"][:, -1])
    metrics = {n: v for n, v in result.metrics.items() if n != "step"}
    assert result.digests == digests(result.metrics["step"], metrics, result.params)
    assert len(set(result.digests)) == 6
    without = train(dataclasses.replace(TINY, eval_period=0))
    returns = without.metrics["episode_return"]
    last = [row[np.isfinite(row)][-1] for row in returns]
    np.testing.assert_array_equal(without.scores, last)


def test_metrics_are_missing_where_there_is_nothing_to_tell(run):
    metrics = run[0].metrics
    learns = metrics["step"] > TINY.learning_starts
    for name in LEARN_METRICS - {"epsilon"}:
        np.testing.assert_array_equal(np.isfinite(metrics[name]), np.tile(learns, (6, 1)), name)
    assert np.all(metrics["epsilon"][:, ~learns] == 1) and np.all(metrics["epsilon"][:, learns] < 1)
    evaluates = metrics["step"] % TINY.eval_period == 0
    for name in EVAL_METRICS:
        np.testing.assert_array_equal(np.isfinite(metrics[name]), np.tile(evaluates, (6, 1)), name)
    assert all(np.isnan(metrics[name]).all() for name in UNASKED)


def test_cartpole_pays_one_a_step(run):
    table, metrics = run[0].episodes, run[0].metrics
    np.testing.assert_array_equal(table["return"], table["length"])
    assert table.groupby("seed")["length"].sum().between(400, 528).all()
    assert metrics["episode_count"].sum() == len(table)
    np.testing.assert_array_equal(metrics["episode_return"], metrics["episode_length"])
    np.testing.assert_array_equal(metrics["eval_return"], metrics["eval_length"])


def test_agents_of_the_seeds_can_be_asked(run):
    result, *_ = run
    env = dqx.make_environment(TINY.env)
    obs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for index, agent in ((0, result.agent()), (4, result.agent(4))):
        params = jax.tree.map(lambda x, i=index: x[i], result.params)
        q = np.asarray(dqx.make_agent(TINY, env).q_values(params, obs))
        np.testing.assert_allclose(agent.q_values(obs), q, rtol=1e-5)
        np.testing.assert_array_equal(agent.act(obs), q.argmax(axis=1))
    with pytest.raises(dqx.ConfigError, match="seed 6 was not trained"):
        result.agent(6)


def test_a_diverged_run_goes_on_to_the_end():
    result = dqx.train(TINY, HYPER.replace(learning_rate=1e38), 3, devices="cpu:1")
    np.testing.assert_array_equal(
        result.diverged_at, [TINY.learning_starts + TINY.train_period] * 3
    )
    assert np.all(result.metrics["episode_count"][:, -1] > 0)


# --- What it tells meanwhile.


def test_sinks_see_every_row(run):
    result, told, _ = run
    rows = told.of("row")
    steps = result.metrics["step"]
    assert [(row.step, len(row.seeds)) for row in rows] == [
        (step, count) for count in (4, 2) for step in steps
    ]
    for row in rows:
        (lanes,) = np.nonzero(np.isin(result.seeds, row.seeds))
        k = int(np.flatnonzero(steps == row.step)[0])
        assert row.metrics.keys() == result.metrics.keys() - {"step"}
        for name, values in row.metrics.items():
            np.testing.assert_array_equal(values, result.metrics[name][lanes, k], err_msg=name)
        assert [point.config for point in row.points] == [result.config] * len(row.seeds)


def test_sinks_are_told_from_the_beginning_to_the_end(run):
    result, told, _ = run
    names = [name for name, _ in told.calls]
    assert names[0] == "open" and names[-1] == "close"
    assert names.count("open") == names.count("close") == 1 and "complete" not in names
    (plan,) = told.of("open")
    assert plan.seeds == tuple(range(6)) and plan.points[0].hyper == HYPER
    assert "compiling..." in told.of("phase")
    runs = sorted((r for runs in told.of("finished") for r in runs), key=lambda r: r["seed"])
    assert [r["seed"] for r in runs] == list(range(6))
    assert [r["score"] for r in runs] == result.scores.tolist()
    assert tuple(r["digest"] for r in runs) == result.digests


def test_progress_is_told_of_every_row(run):
    _, told, events = run
    assert events == told.of("progress")
    total = TINY.total_steps * 6
    # Four seeds, then two: those that fill the second chunk are nobody's.
    expected = [TINY.log_period * row * 4 for row in range(ROWS + 1)]
    expected += [TINY.total_steps * 4 + TINY.log_period * (r + 1) * 2 for r in range(ROWS)]
    assert sorted({event.steps for event in events}) == expected and expected[-1] == total
    assert {(e.total_steps, e.chunks, e.runs) for e in events} == {(total, 2, 6)}
    first, last = events[0], events[-1]
    assert (first.steps, first.chunks_done, first.runs_done) == (0, 0, 0)
    assert math.isnan(first.steps_per_second) and math.isnan(first.seconds_left)
    assert (last.steps, last.chunks_done, last.runs_done) == (total, 2, 6)
    assert last.steps_per_second > 0 and last.seconds_left == 0 and last.diverged == ()


# --- What changes nothing.


@pytest.mark.long
def test_blocks_of_random_numbers_leave_training_as_it_is(run, monkeypatch):
    monkeypatch.setattr("dqx.core.loop.BLOCK_ROUNDS", 3)  # 11 rounds: three blocks and an odd one
    env, cpu = dqx.make_environment(TINY.env), jax.devices("cpu")[0]
    hypers = jax.tree.map(lambda x: np.full(WIDTH, x, np.float32), HYPER)
    session = Session(Programs(TINY, env, cpu, 0), TINY, Chunk(np.arange(WIDTH), hypers))
    while not session.finished:
        session.advance()
    other, (result, *_) = session.result(), run
    jax.tree.map(np.testing.assert_array_equal, other.params, _first(result.params))
    _, step, total, _ = other.episodes
    table = result.episodes[result.episodes.seed < WIDTH]
    np.testing.assert_array_equal(table["step"], step)
    np.testing.assert_array_equal(table["return"], total)


def _first(tree):
    return jax.tree.map(lambda x: x[:WIDTH], tree)


def test_a_sweep_over_hyperparameters_or_budgets_compiles_once(run, compilations):
    programs = programs_for(TINY, jax.devices("cpu")[0], 0)
    names = programs.compiled
    config = dataclasses.replace(TINY, total_steps=352)
    results = [dqx.train(config, HYPER.replace(gamma=g), 2, devices="cpu:1") for g in (0.5, 0.9)]
    assert programs.compiled == names and not compilations
    assert not np.array_equal(results[0].metrics["loss"][:, -1], results[1].metrics["loss"][:, -1])


def test_it_runs_in_any_thread(run):
    found = []
    thread = threading.Thread(target=lambda: found.append(train()))
    thread.start()
    thread.join()
    assert found[0].digests == run[0].digests


# --- What it takes.


def test_the_config_and_hyper_of_a_manifest(run):
    record = json.loads(json.dumps(to_record(TINY, HYPER), allow_nan=False))
    assert record["hyper"]["max_grad_norm"] == "inf"
    for given in (
        (record["config"], record["hyper"]),
        (TINY, record["hyper"]),
        (record["config"], HYPER),
    ):
        result = dqx.train(*given, 6, devices="cpu:1")
        assert (result.config, result.hyper) == (TINY, HYPER)
        assert result.digests == run[0].digests
    with pytest.raises(dqx.ConfigError, match="unknown field 'gama'"):
        dqx.train(TINY, {"gama": 0.9}, devices="cpu:1")


class Enough(Exception):
    """Raised by a sink that has seen the plan."""


class Stop(dqx.Sink):
    def open(self, plan):
        raise Enough(plan)


def test_the_name_of_a_preset():
    plans = []
    config, hyper = dqx.preset("cartpole")
    for arguments in (("cartpole",), (config, hyper), (config,), ("cartpole", dqx.Hyper(tau=0.5))):
        with pytest.raises(Enough) as caught:
            dqx.train(*arguments, seeds=2, sinks=[Stop()])
        (plan,) = caught.value.args
        plans.append(plan)
    points = [plan.points[0] for plan in plans]
    assert [point.config for point in points] == [config] * 4
    assert [point.hyper for point in points] == [hyper, hyper, dqx.Hyper(), dqx.Hyper(tau=0.5)]


# --- What it refuses.


ERRORS = [
    ({"env": "CartPole-v9"}, "CartPole-v1"),
    ({"env": "Pendulum-v1"}, "continuous"),
    ({"replay_capacity": 2**30}, "replay_capacity="),
    ({"batch_size": 401}, "replay_capacity"),
    ({"total_steps": 0}, "total_steps"),
    ({"log_period": 2**31 - 1}, "rounded up"),
    ({"network": "embedding"}, "embedding"),
    ({"agent": "tabular"}, "hidden_sizes"),
    ({"learning_rate": float("nan")}, "learning_rate"),
    ({"gamma": -0.5}, "gamma"),
    ({"optimizer_epsilon": 0.0}, "optimizer_epsilon must be finite and greater than 0"),
    ({"target_period": 10**10}, "target_period must be below 2**31"),
    ({"updates_per_train": 2**30}, "updates_per_train"),
]


@pytest.mark.parametrize(("fields", "words"), ERRORS, ids=str)
def test_errors_come_before_anything_compiles(fields, words, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda: Limit(2**30, "memory"))
    changes = {k: v for k, v in fields.items() if k in dqx.Hyper.__dataclass_fields__}
    config = dataclasses.replace(TINY, **{k: v for k, v in fields.items() if k not in changes})
    told = Recorder()
    with pytest.raises(dqx.ConfigError) as caught:
        dqx.train(config, HYPER.replace(**changes), 2, devices="cpu:1", sinks=[told])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "compiling..." not in told.of("phase")


@pytest.mark.parametrize(
    "arguments",
    [{"devices": "cpu:999"}, {"root_seed": -1}, {"root_seed": 1.5}, {"seeds": [1, 1]}],
    ids=str,
)
def test_arguments_that_are_refused(arguments):
    with pytest.raises(dqx.ConfigError, match=next(iter(arguments))):
        dqx.train(TINY, HYPER, **arguments)


def test_that_nothing_is_learned_is_said(run):
    late = dataclasses.replace(TINY, total_steps=88)
    with pytest.warns(ConfigWarning, match="every action is random and nothing is learned"):
        result = train(late)
    assert np.isnan(result.metrics["loss"]).all() and np.isfinite(result.scores).all()


# --- What stops it.


def none_left():
    return not [t for t in threading.enumerate() if t.name.startswith("dqx-")]


@pytest.mark.parametrize("places", ["cpu:1", "cpu:2"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_what_a_callback_raises_ends_it(run, error, places):
    told, raised = Recorder(), []

    def progress(event):
        if event.steps >= TINY.log_period * 4 * 3 and not raised:  # once is enough
            raised.append(event)
            raise error("of the callback")

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error, match="of the callback"):
        train(seeds=16, devices=places, progress=progress, sinks=[told])
    # Each place has come to its next row at most.
    assert len(told.of("row")) <= (3 if places == "cpu:1" else 4)
    assert told.calls[-1] == ("close", None) and none_left()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert train().digests == run[0].digests  # and the next run is as it ever was


@pytest.mark.parametrize("places", ["cpu:1", "cpu:2"])
def test_ctrl_c_ends_it(places):
    told, asks = Recorder(), Interrupt(lambda rows: len(rows) == 3)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="interrupted; nothing is kept"):
        train(seeds=16, devices=places, sinks=[told, asks])
    assert asks.asked and len(told.of("row")) <= (3 if places == "cpu:1" else 4)
    assert told.calls[-1] == ("close", None) and none_left()
    assert signal.getsignal(signal.SIGINT) is before
