"""A run's bits depend on its configuration and its seed: not on company, order, devices or grid."""

import dataclasses
import hashlib

import jax
import numpy as np
import pandas
import pytest

import dqx
from dqx.digest import digest, digests, flatten
from dqx.run import _cached_programs
from dqx.study import engine
from tests.shared import HYPER, TINY
from tests.study.engine_kit import assert_digests_hold, assert_same_bits, assert_same_runs, plan

RATES = [3e-3, 1e-2, 3e-2]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Three learning rates, with and without double Q-learning, on four seeds; what it compiled."""
    _cached_programs.cache_clear()
    heard, made = [], []

    def listen(event, duration, **named):
        if event.endswith("/backend_compile_duration") and duration > 0:
            heard.append(named.get("fun_name", ""))

    def programs_for(*args):
        made.append(dqx.run.programs_for(*args))
        return made[-1]

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "programs_for", programs_for)
            study = engine.run(
                plan(4, grid={"learning_rate": RATES, "double": [False, True]}),
                tmp_path_factory.mktemp("grid") / "grid",
                devices="cpu:1",
            )
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return study, made, heard


@pytest.fixture(scope="module")
def reference(grid, tmp_path_factory):
    """Twenty seeds of the configuration, in order, on one device."""
    return engine.run(plan(20), tmp_path_factory.mktemp("twenty") / "s", devices="cpu:1")


# --- One compiled program a group.

PROGRAMS = ["evaluate", "init", "segment", "warm_up"]


def large(heard):
    """The compiled programs among those heard of that are mapped over devices."""
    return [name for name in heard if name in ("jit(run)", "jit(chunk)")]


def test_a_grid_compiles_once_for_each_static_configuration(grid):
    study, made, heard = grid
    assert len(study.configs) == 6 and len(study.runs) == 24
    assert len(made) == 2 and made[0] is not made[1]
    for programs in made:
        assert sorted(programs.compiled) == PROGRAMS
    assert len(large(heard)) == 2 * len(PROGRAMS)


def test_three_learning_rates_on_64_seeds_compile_once(grid, tmp_path):
    """The program of this configuration is there already, so not even once."""
    heard = []

    def listen(event, duration, **named):
        if event.endswith("/backend_compile_duration"):
            heard.append(named.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        study = engine.run(
            plan(64, grid={"learning_rate": [1e-4, 2.5e-4, 1e-3]}), tmp_path / "s", devices="cpu:1"
        )
        assert len(study.runs) == 192
        assert large(heard) == []
        jax.jit(lambda x: x * 43.25)(2.5).block_until_ready()
        assert heard  # the listener does hear
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    chunks = {}
    for run in study.runs:
        chunks.setdefault(run["chunk"], set()).add(run["config"])
    assert len(chunks) == 48 and max(map(len, chunks.values())) == 3  # configurations are mixed


# --- Seeds in any company.


@pytest.mark.parametrize("devices", ["cpu:1", "cpu:2"])
@pytest.mark.parametrize("seeds", [1, 3, 8, 20])
def test_a_seed_is_the_same_in_any_number(reference, seeds, devices, tmp_path):
    study = engine.run(plan(seeds), tmp_path / "s", devices=devices)
    assert study.seeds == tuple(range(seeds))
    assert_same_runs(study, reference)


@pytest.mark.parametrize("devices", ["cpu:1", "cpu:2"])
def test_a_seed_is_the_same_in_any_order(reference, devices, tmp_path):
    seeds = np.random.default_rng(7).permutation(20).tolist()
    study = engine.run(plan(seeds), tmp_path / "s", devices=devices)
    assert list(study.seeds) == seeds != sorted(seeds)
    assert_same_runs(study, reference)


def test_a_seed_is_the_same_among_strangers(reference, tmp_path):
    study = engine.run(plan([5, 2**32 - 1, 17, 1000, 999]), tmp_path / "s", devices="cpu:2")
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
    study, _, _ = grid
    for seed in range(4):
        name = "learning_rate=0.01, double=false"
        assert study.digests[name, seed] == reference.digests["default", seed]
        for metric, values in reference.curves("default", seed).items():
            assert_same_bits(study.curves(name, seed)[metric], values, metric)


@pytest.mark.parametrize("double", [False, True])
def test_train_gives_the_same_as_every_point_of_a_grid(grid, double):
    study, _, _ = grid
    config = dataclasses.replace(TINY, double=double)
    for rate in RATES:
        result = dqx.train(config, HYPER.replace(learning_rate=rate), 4, devices="cpu:1")
        name = f"learning_rate={rate:g}, double={str(double).lower()}"
        assert result.digests == tuple(study.digests[name, seed] for seed in range(4))


def test_train_gives_the_same_as_a_study(reference):
    result = dqx.train(TINY, HYPER, 20, devices="cpu:2")
    assert result.digests == tuple(reference.digests["default", seed] for seed in range(20))
    flat = flatten(result.params)
    for seed in (0, 7, 19):
        for name, values in reference.curves("default", seed).items():
            mine = result.metrics[name] if name == "step" else result.metrics[name][seed]
            np.testing.assert_array_equal(np.asarray(mine, values.dtype), values, err_msg=name)
        for name, values in flatten(reference.params("default", seed)).items():
            assert_same_bits(flat[name][seed], values, name)


def test_another_root_seed_gives_other_bits(reference, tmp_path, monkeypatch):
    quick = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr("dqx.parallel._compiler_options", lambda *_: quick)
    study = engine.run(plan(4, root_seed=1), tmp_path / "s", devices="cpu:1")
    assert not set(study.digests.values()) & set(reference.digests.values())
    result = dqx.train(TINY, HYPER, 4, devices="cpu:1", root_seed=1)
    assert result.digests == tuple(study.digests.values())


# --- The digest.


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


STEPS = np.array([8, 16, 24])
METRICS = {
    "loss": np.array([np.nan, -0.5, 3.25], np.float32),
    "episode_count": np.array([0, 7, 2**20]),
}
PARAMS = {
    "params/Dense_0/kernel": np.array([[0.0, -1.5], [1e30, 1e-30]], np.float32),
    "params/count": np.array([1, -2], np.int32),
}


def test_a_digest_is_the_checksum_of_what_it_says():
    content = [
        b"step:<i8:(3,);" + STEPS.astype("<i8").tobytes(),
        b"metrics/episode_count:<f4:(3,);" + METRICS["episode_count"].astype("<f4").tobytes(),
        b"metrics/loss:<f4:(3,);" + bytes.fromhex("0000c07f 000000bf 00005040"),
        b"params/Dense_0/kernel:<f4:(2, 2);" + PARAMS["params/Dense_0/kernel"].tobytes(),
        b"params/count:<i4:(2,);" + bytes.fromhex("01000000 feffffff"),
    ]
    assert digest(STEPS, METRICS, PARAMS) == hashlib.sha256(b"".join(content)).hexdigest()


def test_every_bit_counts():
    found = {digest(STEPS, METRICS, PARAMS)}
    changed = 0
    single = {n: np.asarray(v, np.float32) for n, v in METRICS.items()}
    for which, name in (
        *((0, name) for name in sorted(single)),
        *((1, name) for name in sorted(PARAMS)),
        (2, ""),
    ):
        array = (single, PARAMS, {"": STEPS})[which][name]
        for bit in range(array.nbytes * 8):
            flipped = np.frombuffer(array.tobytes(), np.uint8).copy()
            flipped[bit // 8] ^= 1 << bit % 8
            other = flipped.view(array.dtype).reshape(array.shape)
            if array.dtype.kind == "f" and np.array_equal(np.isnan(other), np.isnan(array)):
                nans = np.isnan(other)
                if np.array_equal(other[~nans], array[~nans]) and nans.any():
                    continue  # another payload of a NaN
            arguments = [dict(single), dict(PARAMS)]
            if which < 2:
                arguments[which][name] = other
            found.add(digest(other if which == 2 else STEPS, *arguments))
            changed += 1
    assert changed > 400
    assert len(found) == changed + 1


def test_a_digest_tells_names_shapes_and_types_apart():
    kernel = PARAMS["params/Dense_0/kernel"]
    others = [
        (STEPS, METRICS, {**PARAMS, "params/Dense_0/kernel": kernel.reshape(4)}),
        (STEPS, METRICS, {**PARAMS, "params/Dense_0/kernel": kernel.astype(np.float64)}),
        (STEPS, METRICS, {**PARAMS, "params/Dense_0/kernel": kernel.view(np.int32)}),
        (STEPS, METRICS, {n + "s": v for n, v in PARAMS.items()}),
        (STEPS, {"loss": METRICS["episode_count"], "episode_count": METRICS["loss"]}, PARAMS),
        (STEPS, {"loss": METRICS["loss"]}, PARAMS),
        (STEPS, {**METRICS, "loss": np.array([np.nan, -0.5, np.nan])}, PARAMS),
        (STEPS[:2], {n: v[:2] for n, v in METRICS.items()}, PARAMS),
        (STEPS, METRICS, {}),
    ]
    assert len({digest(*other) for other in [*others, (STEPS, METRICS, PARAMS)]}) == 10
    zeros = {name: np.array([sign * 0.0], np.float32) for name, sign in (("a", 1), ("b", -1))}
    assert digest(STEPS, {}, {"a": zeros["a"]}) != digest(STEPS, {}, {"a": zeros["b"]})


def test_order_layout_and_nan_payloads_do_not_count():
    expected = digest(STEPS, METRICS, PARAMS)
    backwards = [dict(reversed(part.items())) for part in (METRICS, PARAMS)]
    assert digest(STEPS, *backwards) == expected
    swapped = {n: v.astype(v.dtype.newbyteorder(">")) for n, v in PARAMS.items()}
    columns = {n: np.asfortranarray(v) for n, v in PARAMS.items()}
    assert digest(STEPS, METRICS, swapped) == digest(STEPS, METRICS, columns) == expected
    assert digest(STEPS.tolist(), {**METRICS, "step": STEPS}, PARAMS) == expected
    for payload in (0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF):
        other = METRICS["loss"].copy()
        other.view(np.uint32)[0] = payload
        assert np.isnan(other[0])
        assert digest(STEPS, {**METRICS, "loss": other}, PARAMS) == expected


def test_digests_are_those_of_each_seed():
    metrics = {n: np.stack([v, v + 1]) for n, v in METRICS.items()}
    params = {"params": {"b": np.arange(6.0).reshape(2, 3), "a": {"k": np.arange(2)}}}
    found = digests(STEPS, {"step": STEPS, **metrics}, params)
    one = {n: v[1] for n, v in metrics.items()}
    flat = {"params/b": np.array([3.0, 4.0, 5.0]), "params/a/k": np.array(1)}
    assert found == (found[0], digest(STEPS, one, flat))
    assert found[0] != found[1]
