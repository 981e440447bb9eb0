"""Agents that differ within a study, and the agent of a finished run."""

import jax.numpy as jnp
import numpy as np
import pandas
import pyarrow.dataset
import pytest

import dqx
from dqx.agents import Variant, dqn, register
from dqx.compute.digest import digest, flatten
from dqx.core.agent import Metric
from dqx.settings import ConfigError, own_setting, registry
from dqx.study import StudyError, load, verify
from tests.shared import HYPER
from tests.study.kit import METRICS, assert_digests_hold, interrupted, plan, resume, run

# --- A grid over agents with metrics of their own.

CASES = [
    {"name": "plain"},
    {"name": "spread", "agent": "spread"},
    {"name": "twice", "agent": "spread", "spread_scale": 2.0},
]


def build(config, spec):
    """As dqn, with a metric more, which a setting of its own scales, and one less."""
    usual = dqn.build(config, spec)

    def learn(state, batch, draws, now, sync):
        state, learned = usual.learn(state, batch, draws, now, sync)
        metrics = dict(learned.metrics)
        gone = metrics.pop("td_error_abs")
        metrics["spread"] = jnp.maximum(gone, 1.0) * now.hyper.spread_scale
        return state, learned._replace(metrics=metrics)

    metrics = {name: metric for name, metric in usual.metrics.items() if name != "td_error_abs"}
    return usual._replace(learn=learn, metrics={**metrics, "spread": Metric("max")})


@pytest.fixture(scope="module")
def spread():
    scale = own_setting("spread_scale", 1.0, "factor of the spread", traced=True, above=0)
    register(Variant("spread", build, settings=[scale], about="dqn with a spread"))
    yield
    registry.forget("spread")


@pytest.fixture(scope="module")
def mixed(spread, tmp_path_factory):
    return run(plan(5, case=CASES), tmp_path_factory.mktemp("mixed") / "s")


def test_one_table_holds_all_metrics(mixed):
    table = mixed.metrics
    assert len(table) == 3 * 5 * 6
    assert set(METRICS) | {"spread", "spread_scale", "agent"} <= set(table)
    assert table["spread"].dtype == table["td_error_abs"].dtype == np.float32
    for name, here, absent in (("plain", "td_error_abs", "spread"),
                               ("spread", "spread", "td_error_abs"),
                               ("twice", "spread", "td_error_abs")):  # fmt: skip
        part = table[table["config"] == name]
        assert part[absent].isna().all()
        # As long as nothing is learned there is no number either.
        assert (part[here].isna() == (part["step"] <= 176)).all()
        for seed in range(5):
            curves = mixed.curves(name, seed)
            assert here in curves and absent not in curves
            one = part[part["seed"] == seed]
            for metric in curves:
                np.testing.assert_array_equal(one[metric].to_numpy(), curves[metric], metric)
    first = table.drop_duplicates("config").set_index("config")
    assert first["agent"].to_dict() == {"plain": "dqn", "spread": "spread", "twice": "spread"}
    assert first["spread_scale"].fillna(-1).to_dict() == {"plain": -1, "spread": 1, "twice": 2}
    assert mixed.episodes["config"].nunique() == 3


def test_arrays_hold_nan_where_an_agent_has_no_such_metric(mixed):
    values = mixed.to_arrays("spread")
    assert values.shape == (3, 5, 6) and values.dtype == np.float32
    assert np.isnan(values[0]).all() and np.isnan(values[:, :, :2]).all()
    assert np.isfinite(values[1:, :, 2:]).all() and (values[1, :, 2:] >= 1).all()
    np.testing.assert_array_equal(values[2], 2 * values[1])  # a factor that is exact
    assert np.isnan(mixed.to_arrays("td_error_abs")[1:]).all()
    losses = mixed.to_arrays("loss")
    np.testing.assert_array_equal(losses[1], losses[2])
    with pytest.raises(StudyError, match="no metric 'sprad' in .*td_error_abs.*spread"):
        mixed.to_arrays("sprad")


def test_mixed_studies_are_digested_resumed_and_verified(mixed, tmp_path):
    assert_digests_hold(mixed)
    curves = mixed.curves("twice", 3)
    params = flatten(mixed.params("twice", 3))
    for metric in curves:
        others = {n: v for n, v in curves.items() if n not in (metric, "step")}
        assert digest(curves["step"], others, params) != mixed.digests["twice", 3] or (
            metric == "step"
        )
    interrupted(plan(5, case=CASES), tmp_path / "s", 15)
    assert resume(tmp_path / "s").digests == mixed.digests
    assert verify(tmp_path / "s", sample=4, pick=1, devices="cpu:1").passed
    result = dqx.train(*mixed.point("twice"), 5, devices="cpu:1")
    assert result.digests == tuple(mixed.digests["twice", seed] for seed in range(5))


def test_other_programs_read_the_tables_of_mixed_studies(mixed):
    parts = sorted((mixed.path / "metrics").iterdir())
    one = pandas.concat([pandas.read_parquet(path) for path in parts])
    schemas = pyarrow.unify_schemas([pyarrow.dataset.dataset(path).schema for path in parts])
    two = pyarrow.dataset.dataset(mixed.path / "metrics", schema=schemas).to_table().to_pandas()
    for table in (one, two):
        assert len(table) == 90 and table["spread"].notna().sum() == 2 * 5 * 4


# --- Agents, points and scores of a finished study.

CHANGES = {"hidden_sizes": [24, 8], "activation": "tanh", "double": True, "gamma": 0.9,
           "learning_rate": 3e-3, "max_grad_norm": 5.0, "optimizer": "rmsprop"}  # fmt: skip


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    out = tmp_path_factory.mktemp("changed") / "s"
    return run(plan([6, 2, 9], CHANGES, snapshot_every=200), out)


def by_hand(params, obs):
    """The Q-values of the network in NumPy, float64."""
    layers = [params["params"][f"Dense_{i}"] for i in range(3)]
    x = np.asarray(obs, np.float64)
    for i, layer in enumerate(layers):
        x = x @ layer["kernel"].astype(np.float64) + layer["bias"]
        x = np.tanh(x) if i < 2 else x
    return x


@pytest.mark.parametrize("step", [None, 264, 440])
@pytest.mark.parametrize("seed", [6, 2, 9])
def test_the_agent_acts_greedily_by_its_stored_parameters(changed, seed, step):
    agent = dqx.load(changed.path).agent(seed=seed, step=step)
    obs = np.random.default_rng(0).normal(0, 1.5, (200, 4)).astype(np.float32)
    q = by_hand(changed.params(None, seed, step), obs)
    np.testing.assert_allclose(agent.q_values(obs), q, rtol=1e-4, atol=1e-5)
    sure = np.abs(q[:, 0] - q[:, 1]) > 1e-4
    assert sure.sum() > 150 and len(set(q.argmax(axis=1)[sure])) == 2
    np.testing.assert_array_equal(agent.act(obs)[sure], q.argmax(axis=1)[sure])
    action = agent.act(obs[sure][0])
    assert type(action) is int and action == q[sure][0].argmax()


def test_without_a_seed_it_is_the_first_that_is_finished(changed, tmp_path):
    obs = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(
        changed.agent().q_values(obs), changed.agent("default", 6).q_values(obs)
    )
    cases = plan(6, case=[{"name": "a"}, {"name": "b", "double": True}])
    interrupted(cases, tmp_path / "s", 8)
    study = load(tmp_path / "s")
    assert {run["seed"] for run in study.runs} == {0, 1, 2, 3}
    assert study.agent("a").config == study.point("a")[0]
    with pytest.raises(StudyError, match="seed 0 of b is not finished"):
        study.agent("b")
    with pytest.raises(StudyError, match="no configuration None .*there are: a; b"):
        study.agent()
    with pytest.raises(StudyError, match="there is no snapshot at step 264"):
        study.agent("a", step=264)


def test_a_point_is_what_was_trained(changed):
    config, hyper = changed.point()
    for name, value in CHANGES.items():
        found = getattr(config, name, None) if hasattr(config, name) else getattr(hyper, name)
        assert found == (tuple(value) if isinstance(value, list) else value)
    assert hyper.epsilon_steps == HYPER.epsilon_steps and config.chunk_width == 4
    result = dqx.train(config, hyper, [6, 2, 9], devices="cpu:1")
    assert result.digests == tuple(changed.digests.values())


def test_scores_are_the_last_greedy_returns(changed, mixed):
    np.testing.assert_array_equal(
        changed.scores(), changed.to_arrays("eval_return")[0, :, -1].astype(np.float64)
    )
    for i, name in enumerate(mixed.configs):
        np.testing.assert_array_equal(
            mixed.scores(name), mixed.to_arrays("eval_return")[i, :, -1].astype(np.float64)
        )
    with pytest.raises(StudyError, match="no configuration None"):
        mixed.scores()


def test_a_study_of_an_agent_that_is_not_known_here_can_be_read(mixed, monkeypatch):
    """Its tables; its settings ask for the module that registers it."""
    monkeypatch.setattr(
        registry, "_AGENTS", {k: v for k, v in registry._AGENTS.items() if k != "spread"}
    )
    study = load(mixed.path)
    assert study.curves("twice", 0)["spread"].shape == (6,) and len(study.runs) == 15
    with pytest.raises(ConfigError, match="spread"):
        study.point("twice")
