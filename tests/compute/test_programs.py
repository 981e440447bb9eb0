"""A seed's numbers depend on nothing around it: neighbours, lane, place; and one compile serves
all."""

import contextlib
import dataclasses
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

import dqx
from dqx.compute.devices import select_devices
from dqx.compute.programs import Programs, programs_for
from tests import probes
from tests.shared import HYPER, TINY, WIDTH

ROUND = TINY.train_period
STARTS = TINY.learning_starts


def train(seeds, devices="cpu:1", config=TINY, hyper=HYPER):
    return dqx.train(config, hyper, seeds, devices=devices)


@pytest.fixture(scope="module")
def reference():
    return train(6)


def assert_same_seed(result, other, seed):
    """All numbers of one seed, bit for bit."""
    (one,), (two,) = np.nonzero(result.seeds == seed)[0], np.nonzero(other.seeds == seed)[0]
    assert result.metrics.keys() == other.metrics.keys()
    for name in result.metrics.keys() - {"step"}:
        mine, theirs = result.metrics[name][one], other.metrics[name][two]
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    leaves = zip(jax.tree.leaves(result.params), jax.tree.leaves(other.params), strict=True)
    for mine, theirs in leaves:
        np.testing.assert_array_equal(mine[one], theirs[two])
    tables = [r.episodes[r.episodes.seed == seed].reset_index(drop=True) for r in (result, other)]
    assert len(tables[0]) > 0
    pandas.testing.assert_frame_equal(*tables, check_exact=True)
    assert result.diverged_at[one] == other.diverged_at[two]
    assert result.digests[one] == other.digests[two]
    assert result.scores[one] == other.scores[two]


def test_two_places_are_there():
    assert len(select_devices("cpu")) > 1, "the tests below need two CPU cores"


@pytest.mark.parametrize("devices", ["cpu:1", "cpu:2"])
@pytest.mark.parametrize(
    "seeds",
    [[0], [2], [0, 1, 2], [3, 1, 0, 2], [5, 4, 3, 2, 1, 0], [900, 3, 2**32 - 1]],
    ids=str,
)
def test_a_seed_is_the_same_in_any_company(reference, seeds, devices):
    result = train(seeds, devices)
    assert list(result.seeds) == seeds
    for seed in set(seeds) & set(reference.seeds):
        assert_same_seed(result, reference, seed)


def test_seeds_differ_from_one_another(reference):
    for name in ("loss", "grad_norm", "q_mean"):
        last = reference.metrics[name][:, -1]
        assert len(np.unique(last)) == len(last)


# --- Whatever JAX was started with.

# An activation and a schedule that XLA once compiled differently for one device and for several.
VARIANT = dataclasses.replace(
    TINY, activation="swish", epsilon_schedule="per_episode", eval_period=0, log_period=352,
    learning_starts=352, total_steps=704,
)  # fmt: skip
VARIANT_HYPER = dqx.Hyper(learning_rate=HYPER.learning_rate)
SCRIPT = """
import {first}
import jax, dqx
from tests.compute.test_programs import VARIANT, VARIANT_HYPER
result = dqx.train(VARIANT, VARIANT_HYPER, 6, devices="cpu:{places}")
print(len(jax.devices("cpu")), len(result.devices), *result.digests)
"""
# What is imported first, how many CPU devices JAX has, and how many places are asked for.
PROCESSES = [("gymnax", 1, 1), ("dqx.run", 2, 2), ("dqx.run", 8, 2)]


@pytest.mark.long
def test_a_seed_is_the_same_whatever_jax_was_started_with():
    with contextlib.ExitStack() as stack:
        running = []
        for first, count, places in PROCESSES:
            flags = f"--xla_force_host_platform_device_count={count}"
            code = SCRIPT.format(first=first, places=places)
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, "XLA_FLAGS": flags},
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                text=True,
            )
            running.append(stack.enter_context(process))
        here = train(6, "cpu:2", VARIANT, VARIANT_HYPER)
        assert train(6, "cpu:1", VARIANT, VARIANT_HYPER).digests == here.digests
        assert len(here.episodes) > 50 and np.all(np.isfinite(here.metrics["loss"][:, -1]))
        for process, (_, count, places) in zip(running, PROCESSES, strict=True):
            found = process.communicate()[0].split()
            assert found == [str(count), str(places), *here.digests]


def test_programs_of_many_devices_are_kept():
    """More devices than configurations are kept, whose programs would all be compiled again."""
    devices = [f"device {i}" for i in range(8)]
    first = [programs_for(TINY, device, 99) for device in devices]
    assert len(set(map(id, first))) == 8
    assert all(programs_for(TINY, d, 99) is one for d, one in zip(devices, first, strict=True))


# --- Chunks run at the same time.


def test_two_places_run_at_the_same_time(monkeypatch):
    """Every step of each chunk waits for one of the other: one after the other, none would end."""
    barrier = threading.Barrier(2)

    def meet(time):
        barrier.wait(60)
        return np.zeros(np.shape(time), np.float32)

    class Meeting(probes.Blind):
        def look(self, state):
            shape = jax.ShapeDtypeStruct((), jnp.float32)
            return jax.pure_callback(meet, shape, state.time, vmap_method="broadcast_all")[None]

    gymnax.register("Meeting-probe", Meeting)
    # The contract's test plays it in one place.
    monkeypatch.setattr("dqx.core.environment._check_foreign", lambda *_: None)
    config = dqx.Config(
        env="Meeting-probe", hidden_sizes=(4,), num_envs=1, total_steps=8, learning_starts=4,
        train_period=2, batch_size=2, replay_capacity=8, log_period=4, eval_period=0, chunk_width=1,
    )  # fmt: skip
    assert dqx.train(config, seeds=2, devices="cpu:2").devices == ("cpu:0", "cpu:1")


def test_no_more_places_are_used_than_there_are_chunks():
    assert len(train(WIDTH, "cpu:2").devices) == 1
    assert len(train(WIDTH + 1, "cpu:2").devices) == 2


# --- The programs themselves.


@pytest.fixture(scope="module")
def programs():
    return programs_for(TINY, jax.devices("cpu")[0], 0)


def lane_hypers(programs, **fields):
    """Hyperparameters of each lane; a field is a number for all or a list of one for each."""
    lanes = lambda x: np.broadcast_to(np.float32(x), WIDTH)  # noqa: E731
    hypers = jax.tree.map(lanes, HYPER)
    return programs.place(hypers.replace(**{name: lanes(x) for name, x in fields.items()}))


def run_lanes(programs, hypers, seeds=range(WIDTH), length=88, segments=2):
    clock, lanes = programs.init(np.array(seeds))
    clock, lanes, _ = programs.warm_up(clock, lanes, STARTS)
    rows = []
    for _ in range(segments):
        clock, lanes, episodes, metrics = programs.segment(clock, lanes, hypers, length)
        rows.append(jax.tree.map(np.array, (episodes, metrics)))
    state = (lanes.agent, lanes.replay_rows, lanes.env_state, lanes.obs, lanes.diverged_at)
    return jax.tree.map(np.array, (state, rows))


def lane_of(tree, lane):
    return jax.tree.map(lambda x: x[lane], tree)


@pytest.mark.parametrize(
    "bad",
    [{"learning_rate": math.nan}, {"learning_rate": 1e38}, {"reward_clip": math.nan}],
    ids=str,
)
def test_a_diverged_neighbour_changes_no_bit(programs, bad):
    fine = run_lanes(programs, lane_hypers(programs))
    for sick in (0, 2):
        fields = {}
        for name, value in bad.items():
            fields[name] = [value if i == sick else getattr(HYPER, name) for i in range(WIDTH)]
        mixed = run_lanes(programs, lane_hypers(programs, **fields))
        for lane in range(WIDTH):
            diverged_at = mixed[0][-1][lane]
            if lane == sick:
                assert diverged_at == STARTS + ROUND  # by the very first update
                assert not np.all(np.isfinite(mixed[1][-1][1]["loss"][lane]))
            else:
                assert diverged_at == -1
                jax.tree.map(
                    np.testing.assert_array_equal, lane_of(mixed, lane), lane_of(fine, lane)
                )


def test_divergence_is_dated_by_the_first_number_that_is_not_finite(programs):
    # SGD-like growth: Adam's steps of this size double the exponent in a few rounds.
    rates = [1e-2, 1e7, 1e8, 1e9]
    _, rows = run_lanes(
        programs, lane_hypers(programs, learning_rate=rates), length=ROUND, segments=22
    )
    state, _ = run_lanes(programs, lane_hypers(programs, learning_rate=rates))
    diverged_at = state[-1]
    for lane in range(WIDTH):
        numbers = [(m["loss"][lane], m["weight_norm"][lane]) for _, m in rows]
        bad = [i for i, pair in enumerate(numbers) if not np.all(np.isfinite(pair))]
        expected = STARTS + ROUND * (bad[0] + 1) if bad else -1
        assert diverged_at[lane] == expected
    assert diverged_at[0] == -1
    assert np.any(diverged_at > STARTS + ROUND)  # at least one some time after the first update


def test_hyperparameters_of_a_lane_are_its_own(programs):
    gammas, rates = [0.5, 0.9, 0.99, 0.0], [1e-2, 1e-3, 3e-3, 1e-2]
    mixed = run_lanes(programs, lane_hypers(programs, gamma=gammas, learning_rate=rates))
    for lane in range(WIDTH):
        alone = run_lanes(
            programs, lane_hypers(programs, gamma=gammas[lane], learning_rate=rates[lane])
        )
        jax.tree.map(np.testing.assert_array_equal, lane_of(mixed, lane), lane_of(alone, lane))
    assert len(np.unique(mixed[1][-1][1]["loss"])) == WIDTH


def test_a_second_call_compiles_nothing(programs):
    run_lanes(programs, lane_hypers(programs))
    run_lanes(programs, lane_hypers(programs, learning_rate=[1e-1, 1e-2, 1e-3, 1e-4]))
    compiled, seconds, names = [], programs.compile_seconds, programs.compiled

    def listen(event, duration, **kwargs):
        if "backend_compile" in event:
            compiled.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        other = lane_hypers(programs, gamma=[0.1, 0.2, 0.3, 0.4], tau=0.5)
        run_lanes(programs, other, seeds=[7, 8, 9, 10])
        assert not compiled
        assert (programs.compile_seconds, programs.compiled) == (seconds, names)
        jax.block_until_ready(jax.jit(lambda x: x * 41.5)(2.5))
        assert compiled  # the listener does hear
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_threads_that_need_a_program_at_once_compile_it_once(programs):
    own = Programs(programs.config, programs.env, programs.device, 0)
    start, found = threading.Barrier(3), []

    def ask():
        start.wait(60)
        found.append(own.program("init"))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert own.compiled == ("init",) and all(program is found[0] for program in found)
    assert len(found) == 3 and own.compile_seconds > 0


def test_shapes_are_those_of_the_lanes(programs):
    clock, lanes = programs.init(np.arange(WIDTH))
    assert jax.tree.structure((clock, lanes)) == jax.tree.structure(programs.shapes)
    same = lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype)  # noqa: E731
    assert all(jax.tree.leaves(jax.tree.map(same, (clock, lanes), programs.shapes)))
    assert all(len(leaf) == WIDTH for leaf in jax.tree.leaves(lanes))
    assert {len(x.devices()) for x in jax.tree.leaves((clock, lanes))} == {1}


def test_another_root_seed_starts_other_seeds(programs):
    other = Programs(TINY, programs.env, programs.device, root_seed=1)
    for one, two in zip(
        *(jax.tree.leaves(p.init(np.arange(WIDTH))[1].obs) for p in (programs, other)), strict=True
    ):
        assert np.all(one != two)


def test_what_is_not_compiled_in_shares_its_programs(programs):
    for fields in (
        {"total_steps": 880}, {"learning_starts": 88}, {"log_period": 8}, {"eval_period": 0},
    ):  # fmt: skip
        assert programs_for(dataclasses.replace(TINY, **fields), programs.device, 0) is programs
    for fields in ({"chunk_width": 2}, {"batch_size": 15}, {"eval_episodes": 4}):
        config = dataclasses.replace(TINY, **fields)
        assert programs_for(config, programs.device, 0) is not programs
    assert programs_for(TINY, programs.device, 1) is not programs
