"""A run's bits depend on its configuration and its seed: not on company, order, devices or grid."""

import contextlib
import dataclasses

import jax
import numpy as np
import pandas
import pytest

import dqx
from dqx.compute.digest import digest, flatten
from tests.shared import HYPER, TINY
from tests.study.kit import (
    assert_digests_hold,
    assert_same_arrays,
    assert_same_bits,
    assert_same_runs,
    plan,
    run,
)

RATES = [3e-3, 1e-2, 3e-2]
ROOT = 13  # that no other test has, so that nothing is compiled before


def planned(seeds, **entries):
    return plan(seeds, **{"root_seed": ROOT, **entries})


@contextlib.contextmanager
def compilations():
    """The names of all functions that XLA compiles meanwhile."""
    heard = []

    def listen(event, duration, **named):
        if event.endswith("/backend_compile_duration"):
            heard.append(named.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield heard
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Three learning rates, with and without double Q-learning, on four seeds; what it compiled."""
    both = planned(4, grid={"learning_rate": RATES, "double": [False, True]})
    with compilations() as heard:
        study = run(both, tmp_path_factory.mktemp("grid") / "grid")
    return study, heard


@pytest.fixture(scope="module")
def reference(grid, tmp_path_factory):
    """Twenty seeds of the configuration, in order, in one place."""
    out = tmp_path_factory.mktemp("twenty") / "s"
    return run(planned(20), out)


# --- One compiled program a group.

PROGRAMS = ["evaluate", "init", "segment", "warm_up"]
TRACED = ["begin", "init", "segment", "warm_up"]  # what the functions behind them are called


def test_a_grid_compiles_once_for_each_static_configuration(grid):
    study, heard = grid
    assert len(study.configs) == 6 and len(study.runs) == 24
    assert sorted(study.manifest["compiled"]) == sorted(2 * PROGRAMS)
    assert {name: heard.count(f"jit(_{name})") for name in TRACED} == dict.fromkeys(TRACED, 2)


def test_three_learning_rates_on_64_seeds_compile_nothing_more(grid, tmp_path):
    """The program of this configuration is there already."""
    rates = planned(64, grid={"learning_rate": [1e-4, 2.5e-4, 1e-3]})
    with compilations() as heard:
        study = run(rates, tmp_path / "s")
        assert heard == [] and study.manifest["compiled"] == []
        jax.jit(lambda x: x * 43.25)(2.5).block_until_ready()
        assert heard  # the listener does hear
    assert len(study.runs) == 192
    chunks = {}
    for one in study.runs:
        chunks.setdefault(one["chunk"], set()).add(one["config"])
    assert len(chunks) == 48 and max(map(len, chunks.values())) == 3  # configurations are mixed


# --- Seeds in any company.


@pytest.mark.parametrize("devices", ["cpu:1", "cpu:2"])
@pytest.mark.parametrize("seeds", [1, 3, 8, 20])
def test_a_seed_is_the_same_in_any_number(reference, seeds, devices, tmp_path):
    study = run(planned(seeds), tmp_path / "s", devices=devices)
    assert study.seeds == tuple(range(seeds))
    assert_same_runs(study, reference)


@pytest.mark.parametrize("devices", ["cpu:1", "cpu:2"])
def test_a_seed_is_the_same_in_any_order(reference, devices, tmp_path):
    seeds = np.random.default_rng(7).permutation(20).tolist()
    study = run(planned(seeds), tmp_path / "s", devices=devices)
    assert list(study.seeds) == seeds != sorted(seeds)
    assert_same_runs(study, reference)


def test_a_seed_is_the_same_among_strangers(reference, tmp_path):
    study = run(planned([5, 2**32 - 1, 17, 1000, 999]), tmp_path / "s", devices="cpu:2")
    assert_same_runs(study, reference, count=2)


def test_runs_differ_from_one_another(grid, reference):
    assert len(set(reference.digests.values())) == 20
    found = {double: {} for double in ("false", "true")}
    for (config, seed), value in grid[0].digests.items():
        found[config.rpartition("=")[2]][config.partition(",")[0], seed] = value
    for digests_of in found.values():
        assert len(set(digests_of.values())) == len(digests_of) == 12
    # Both kinds of targets may agree on every batch of so short a run, but not for every seed.
    assert sum(found["false"][key] != found["true"][key] for key in found["false"]) > 6


def test_a_point_of_a_grid_is_the_single_study(grid, reference):
    study, _ = grid
    for seed in range(4):
        name = "learning_rate=0.01, double=false"
        assert study.digests[name, seed] == reference.digests["default", seed]
        assert_same_arrays(study.curves(name, seed), reference.curves("default", seed))


@pytest.mark.parametrize("double", [False, True])
def test_train_gives_the_same_as_every_point_of_a_grid(grid, double):
    study, _ = grid
    config = dataclasses.replace(TINY, double=double)
    for rate in RATES:
        result = dqx.train(
            config, HYPER.replace(learning_rate=rate), 4, devices="cpu:1", root_seed=ROOT
        )
        name = f"learning_rate={rate:g}, double={str(double).lower()}"
        assert result.digests == tuple(study.digests[name, seed] for seed in range(4))


def test_train_gives_the_same_as_a_study(reference):
    result = dqx.train(TINY, HYPER, 20, devices="cpu:2", root_seed=ROOT)
    assert result.digests == tuple(reference.digests["default", seed] for seed in range(20))
    flat = flatten(result.params)
    for seed in (0, 7, 19):
        for name, values in reference.curves("default", seed).items():
            mine = result.metrics[name] if name == "step" else result.metrics[name][seed]
            np.testing.assert_array_equal(np.asarray(mine, values.dtype), values, err_msg=name)
        for name, values in flatten(reference.params("default", seed)).items():
            assert_same_bits(flat[name][seed], values, name)


@pytest.mark.long
def test_another_root_seed_gives_other_bits(reference, tmp_path):
    study = run(planned(4, root_seed=1), tmp_path / "s")
    assert not set(study.digests.values()) & set(reference.digests.values())
    result = dqx.train(TINY, HYPER, 4, devices="cpu:1", root_seed=1)
    assert result.digests == tuple(study.digests.values())


def test_the_digests_are_those_of_the_files(grid, reference):
    assert_digests_hold(grid[0])
    assert_digests_hold(reference)
    # Read without the library too.
    frame = pandas.read_parquet(reference.path / "metrics" / "part-00001.parquet")
    with np.load(reference.path / "params" / "part-00001.npz") as arrays:
        params = {n: arrays[n] for n in arrays.files}
    assert params.pop("seed").tolist() == [4, 5, 6, 7]
    assert params.pop("config").tolist() == ["default"] * 4
    for index, seed in enumerate([4, 5, 6, 7]):
        rows = frame[frame["seed"] == seed].drop(columns=["config", "seed"])
        columns = {name: rows[name].to_numpy() for name in rows}
        steps, one = columns.pop("step"), {name: v[index] for name, v in params.items()}
        assert digest(steps, columns, one) == reference.digests["default", seed]
