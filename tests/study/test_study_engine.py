"""Snapshots, checkpoints as files, the writer's backlog, memory, and what time may be spent on."""

import contextlib
import dataclasses
import gc
import io
import math
import threading
import time
import weakref
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment

import dqx
from dqx import cli
from dqx.devices import select_devices
from dqx.parallel import Programs
from dqx.rounds import METRICS, Chunk, ChunkResult, Round
from dqx.run import per_seed, programs_for
from dqx.study import StudyError, checkpoint, engine, read_plan, store
from dqx.study.folder import Folder, read_arrays
from dqx.types import PyTree
from tests import probes
from tests.shared import HYPER, TINY, WIDTH
from tests.study.engine_kit import (
    ROWS,
    assert_same_bits,
    assert_same_runs,
    computed_steps,
    interrupted,
    plan,
    toml,
)

# --- Snapshots.


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    """Six seeds with parameters kept at every second row."""
    folder = tmp_path_factory.mktemp("snapshots")
    return engine.run(plan(6, snapshot_every=176), folder / "s", devices="cpu:1")


@pytest.mark.parametrize("step", [352, 528])
def test_a_snapshot_is_a_run_that_ends_there(snapshots, step):
    params = dqx.train(
        dataclasses.replace(TINY, total_steps=step), HYPER, 6, devices="cpu:1"
    ).params
    for seed in range(6):
        found = snapshots.params("default", seed, step=step)
        jax.tree.map(assert_same_bits, found, jax.tree.map(lambda x, i=seed: x[i], params))


def test_before_learning_starts_a_snapshot_is_the_beginning(snapshots):
    programs = programs_for(TINY, select_devices("cpu:1"), 0)
    _, lanes = programs.init(range(WIDTH))
    for seed in range(WIDTH):
        found = snapshots.params("default", seed, step=TINY.learning_starts)
        jax.tree.map(
            assert_same_bits, found, jax.tree.map(lambda x, i=seed: x[i], lanes.agent.params)
        )


def test_snapshots_change_and_end_in_the_final_parameters(snapshots):
    for seed in range(6):
        kernels = [
            snapshots.params(None, seed, step)["params"]["Dense_0"]["kernel"]
            for step in (176, 352, 528, None)
        ]
        np.testing.assert_array_equal(kernels[2], kernels[3])
        assert np.all(kernels[0] != kernels[1]) and np.all(kernels[1] != kernels[2])


def test_a_step_without_a_snapshot_says_which_there_are(snapshots):
    with pytest.raises(StudyError, match="no snapshot at step 88; there are: 176, 352, 528"):
        snapshots.params("default", 0, step=88)


def test_snapshots_change_no_bit_and_are_few(snapshots, tmp_path):
    study = engine.run(plan(6), tmp_path / "s", devices="cpu:1")
    assert_same_runs(study, snapshots)
    assert list((tmp_path / "s" / "snapshots").iterdir()) == []
    names = sorted(path.name for path in (snapshots.path / "snapshots").iterdir())
    assert names == [f"part-{c:05d}-{step}.npz" for c in (0, 1) for step in (176, 352, 528)]


@pytest.mark.parametrize("row", range(1, ROWS + 3))
def test_snapshots_survive_an_interruption(snapshots, row, tmp_path):
    interrupted(plan(6, snapshot_every=176), tmp_path / "s", row)
    study = engine.resume(tmp_path / "s", devices="cpu:1")
    for seed in range(6):
        for step in (176, 352, 528):
            pair = (s.params(None, seed, step) for s in (study, snapshots))
            jax.tree.map(assert_same_bits, *pair)


@pytest.mark.parametrize(
    ("every", "words"),
    [
        (100, "multiple of log_period, which is 88 for default, got 100: 88 would do"),
        (200, "176 would do"),
        (-88, "whole number, 0 for none, got -88"),
        (88.0, "got 88.0"),
        (True, "got True"),
    ],
)
def test_snapshots_between_rows_are_refused(every, words):
    with pytest.raises(StudyError, match="snapshot_every must be") as caught:
        read_plan(plan(6, snapshot_every=every))
    assert words in str(caught.value)


# --- Checkpoints as files.


@struct.dataclass
class OddState(environment.EnvState):
    key: jax.Array
    flags: jax.Array
    pixels: jax.Array
    half: jax.Array
    time: jax.Array


class Odd(probes.Probe):
    """Keeps a key, truth values, bytes and half-precision numbers, and all of them count."""

    width = 2

    def reset_env(self, key, params):
        mine, other = jax.random.split(key)
        state = OddState(
            key=mine,
            flags=jax.random.bernoulli(other, shape=(3,)),
            pixels=jax.random.randint(other, (2, 2), 0, 256).astype(jnp.uint8),
            half=jax.random.normal(other).astype(jnp.bfloat16),
            time=jnp.int32(0),
        )
        return self.look(state), state

    def step_env(self, key, state, action, params):
        mine, draw = jax.random.split(state.key)
        reward = jnp.where(state.flags.any(), state.half.astype(jnp.float32), action * 1.0)
        state = state.replace(
            key=mine,
            flags=jnp.roll(state.flags, 1).at[0].set(jax.random.bernoulli(draw)),
            pixels=state.pixels + jnp.uint8(7),
            half=(state.half * 1.5).astype(jnp.bfloat16),
            time=state.time + 1,
        )
        return self.look(state), state, reward, state.time >= 30, {}

    def look(self, state):
        drawn = jax.random.uniform(state.key)  # so that the key shows
        return jnp.stack([drawn, state.pixels[0, 0] / 255.0 + state.flags[0]])


@pytest.fixture(scope="module")
def odd():
    """Programs of the odd environment; two chunks of them fit side by side."""
    config = dataclasses.replace(TINY, env=probes.registered(Odd), chunk_width=2, eval_period=0)
    with pytest.MonkeyPatch.context() as patch:
        quick = {"xla_backend_optimization_level": 0}
        patch.setattr("dqx.parallel._compiler_options", lambda *_: quick)
        env = dqx.make_environment(config.env)
        programs = Programs(config, env, select_devices("cpu:2"), 2, 0)
        chunks = [Chunk(np.array(seeds), per_seed(HYPER, len(seeds))) for seeds in ([5, 3], [8])]
        under_way = Round(programs, config, chunks)
        for _ in range(4):
            under_way.advance()
        saved = list(under_way.save())
        while not under_way.finished:
            under_way.advance()
        yield SimpleNamespace(
            programs=programs, config=config, chunks=chunks, saved=saved, one=under_way.results()
        )


def bits(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return ("key", str(jax.random.key_impl(leaf)), np.asarray(jax.random.key_data(leaf)))
    return (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())


def assert_same_leaves(one: PyTree, two: PyTree):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for (path, mine), theirs in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(two), strict=True
    ):
        for a, b in zip(bits(mine), bits(theirs), strict=True):
            assert np.array_equal(a, b), jax.tree_util.keystr(path)


def test_a_checkpoint_comes_back_leaf_by_leaf(odd, tmp_path):
    folder = Folder(tmp_path)
    folder.make()
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(odd.saved[0].lanes.env_state)}
    assert kinds == {"key<fry>", "bool", "uint8", "bfloat16", "int32"}
    for number, saved in enumerate(odd.saved):
        checkpoint.write(folder, "seal", number, saved, {})
        found = checkpoint.find(folder, "seal", number)
        assert found.step == int(saved.clock.step) == 4 * TINY.log_period
        back = checkpoint.read(folder, number, found, odd.programs)
        assert_same_leaves(back, saved)
        assert sorted(back.metrics) == sorted(METRICS)
        assert all(values.shape == (2, 4) for values in back.metrics.values())
    assert len(odd.saved[0].episodes[0]) > 0
    # Two chunks at the same step hold different numbers, and say nothing of one another.
    one, two = (read_arrays(*checkpoint.files(folder, i, checkpoint.find(folder, "seal", i))[0])
                for i in (0, 1))  # fmt: skip
    assert one.keys() == two.keys()
    assert not np.array_equal(one["lanes.env_state.key"], two["lanes.env_state.key"])


def test_a_restored_round_goes_on_as_if_nothing_had_been(odd, tmp_path):
    folder = Folder(tmp_path)
    folder.make()
    back = []
    for number, saved in enumerate(odd.saved):
        checkpoint.write(folder, "seal", number, saved, {})
        found = checkpoint.find(folder, "seal", number)
        back.append(checkpoint.read(folder, number, found, odd.programs))
    again = Round(odd.programs, odd.config, odd.chunks, None, back)
    assert again.step == 4 * TINY.log_period
    while not again.finished:
        again.advance()
    for one, two in zip(odd.one, again.results(), strict=True):
        assert_same_leaves(one._asdict(), two._asdict())
    assert odd.one[1].metrics["loss"].shape == (1, ROWS)  # padding is left out
    # In the other order, on the other devices.
    swapped = Round(odd.programs, odd.config, odd.chunks[::-1], None, back[::-1])
    while not swapped.finished:
        swapped.advance()
    for one, two in zip(odd.one, swapped.results()[::-1], strict=True):
        assert_same_leaves(one._asdict(), two._asdict())


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_any_generator_come_back(implementation, tmp_path):
    lanes = {
        "keys": jax.random.split(jax.random.key(3, impl=implementation), 2),
        "brain": np.array([1.5, -2.5], jnp.bfloat16),
        "eighth": np.array([1.5, -2.5], jnp.float8_e4m3fn),
        "scalar": np.float32(3),
        "none": np.zeros((0, 2), np.uint8),
    }
    shapes = jax.eval_shape(lambda: lanes)
    named = checkpoint._named("lanes", lanes)
    np.savez(tmp_path / "a.npz", allow_pickle=False, **named)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        back = checkpoint._restored("lanes", shapes, dict(arrays))
    assert_same_leaves(back, {n: v if n == "keys" else np.asarray(v) for n, v in lanes.items()})


def test_diverged_runs_are_resumed_with_the_same_bits(tmp_path):
    sick = plan(5, grid={"learning_rate": [1e-2, 1e38]})
    whole = engine.run(sick, tmp_path / "one", devices="cpu:1")
    interrupted(sick, tmp_path / "two", 4)
    study = engine.resume(tmp_path / "two", devices="cpu:1")
    assert_same_runs(study, whole, count=10)
    lost = {(r["config"], r["seed"]): r["diverged_at"] for r in study.runs if r["diverged_at"] >= 0}
    step = TINY.learning_starts + TINY.train_period
    assert lost == {("learning_rate=1e+38", seed): step for seed in range(5)}
    assert np.isnan(study.to_arrays("loss")[1, :, -1]).all()


# --- What waits in memory.


class Slow:
    """Writing that waits, and the numbers of results that were there while it did."""

    def __init__(self, patch, seconds):
        self.alive, self.refs, self.threads, write = [], [], set(), store.write_chunk

        def slowly(folder, plan, chunk, points, steps, result, snapshots):
            self.threads.add(threading.current_thread())
            time.sleep(seconds)
            return write(folder, plan, chunk, points, steps, result, snapshots)

        results = Round.results

        def watched(under_way):
            found = results(under_way)
            self.refs += [weakref.ref(result.metrics["loss"]) for result in found]
            self.alive.append(sum(ref() is not None for ref in self.refs))
            return found

        patch.setattr(store, "write_chunk", slowly)
        patch.setattr(Round, "results", watched)


def results_alive():
    gc.collect()
    return sum(isinstance(thing, ChunkResult) for thing in gc.get_objects())


def test_finished_chunks_leave_memory(tmp_path, monkeypatch):
    seen, arrays, before = Slow(monkeypatch, 0.0), [], results_alive()

    def progress(event):
        if event.chunks_done != event.chunks:
            arrays.append(len(jax.live_arrays()))

    study = engine.run(plan(240), tmp_path / "s", devices="cpu:1", progress=progress)
    assert len(study.runs) == 240 and len(seen.refs) == 60
    assert results_alive() == before
    assert not any(ref() is not None for ref in seen.refs)
    assert max(seen.alive) <= engine.Writer._LIMIT + 3
    # Nor do arrays on the devices add up.
    assert max(arrays[len(arrays) // 2 :]) <= max(arrays[: len(arrays) // 4])


def test_training_waits_for_a_slow_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.Writer, "_LIMIT", 3)
    seen = Slow(monkeypatch, 0.02)
    study = engine.run(plan(60), tmp_path / "s", devices="cpu:1")
    assert len(study.runs) == 60 and len(seen.refs) == 15
    # Three wait, one is being written, one is new, one was its neighbour's a moment ago.
    assert 3 <= max(seen.alive) <= 6
    assert [thread.name.startswith("dqx-writer") for thread in seen.threads] == [True]


def test_the_writer_tells_of_a_failure_at_the_next_call():
    done = []

    def fail():
        raise OSError("full")

    with engine.Writer() as writer:
        with pytest.raises(OSError, match="full"):
            writer.submit(fail)  # unless the thread is slower
            while not writer._waiting[0].done():
                time.sleep(0.001)
            writer.submit(done.append, 1)
        writer.wait()
        writer.submit(done.append, 2)
        writer.wait()
        assert done[-1] == 2
        with pytest.raises(OSError, match="full"):
            writer.submit(fail)
            writer.wait()


# --- Time for checkpoints.


@pytest.fixture
def clockwork(monkeypatch):
    """A clock on which a row takes a second and a checkpoint three; what happened, and when."""
    now, saved = [100.0], []
    fake = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(engine, "time", fake)
    advance, write = Round.advance, checkpoint.write

    def slowly(under_way):
        advance(under_way)
        now[0] += 1

    def dearly(*args):
        write(*args)
        saved.append(now[0] - 100)
        now[0] += 3

    monkeypatch.setattr(Round, "advance", slowly)
    monkeypatch.setattr(checkpoint, "write", dearly)
    return SimpleNamespace(now=now, saved=saved)


def test_checkpoints_take_a_small_share_of_the_time(clockwork, tmp_path):
    """Also where each batch of chunks is over soon: what the last one cost is not forgotten."""
    engine.run(
        plan(4, {"total_steps": 88 * 500, "eval_period": 0}),
        tmp_path / "long",
        devices="cpu:1",
        checkpoint_seconds=10,
    )
    long = list(clockwork.saved)
    assert long[0] == 10 and len(long) > 4
    assert set(np.diff(long)) == {3 + 3 / engine.CHECKPOINT_SHARE}
    clockwork.saved.clear()
    clockwork.now[0] = 100.0
    engine.run(
        plan(40, {"total_steps": 88 * 20, "eval_period": 0}),
        tmp_path / "short",
        devices="cpu:1",
        checkpoint_seconds=10,
    )
    rows = 10 * 21
    assert len(clockwork.saved) >= 1 and 3 * len(clockwork.saved) <= 3 + 0.05 * rows


@pytest.mark.parametrize("seconds", [0, 7, 1e9, math.inf])
def test_checkpoints_keep_their_distance(clockwork, seconds, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", math.inf)
    engine.run(
        plan(4, {"total_steps": 88 * 30, "eval_period": 0}),
        tmp_path / "s",
        devices="cpu:1",
        checkpoint_seconds=seconds,
    )
    expected = {0: 30, 7: 4}.get(seconds, 0)
    assert len(clockwork.saved) == expected
    if seconds == 7:
        assert set(np.diff(clockwork.saved)) == {10}  # three of them to write


def test_the_manifest_says_what_checkpoints_took(clockwork, tmp_path):
    study = engine.run(
        plan(4, {"total_steps": 88 * 30, "eval_period": 0}),
        tmp_path / "s",
        devices="cpu:1",
        checkpoint_seconds=7,
    )
    assert study.manifest["checkpoint_seconds"] == 3 + 3 * (len(clockwork.saved) - 1)


# --- As a user meets it.


def test_a_study_by_the_command_and_by_the_library_are_the_same(snapshots, tmp_path):
    (tmp_path / "plan.toml").write_text(toml(plan(6, snapshot_every=176)))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = cli.main(
            ["study", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "s"), "--quiet",
             "--devices", "cpu:1"]
        )  # fmt: skip
    assert status == 0 and said.getvalue().splitlines()[0].startswith("tiny: 6 runs")
    assert_same_runs(dqx.study.load(tmp_path / "s"), snapshots)


def test_the_callback_is_told_of_every_row(tmp_path):
    events = []
    with computed_steps() as steps:
        engine.run(plan(6), tmp_path / "s", devices="cpu:1", progress=events.append)
    assert sum(steps) == 2 * TINY.total_steps
    rows = [event.steps for event in events[1:-1]]
    first = [WIDTH * TINY.log_period * (r + 1) for r in range(ROWS)]
    assert rows == first + [first[-1] + 2 * TINY.log_period * (r + 1) for r in range(ROWS)]
    last = events[-1]
    assert (last.chunks_done, last.chunks, last.runs_done, last.runs) == (2, 2, 6, 6)
    assert last.steps == last.total_steps == 6 * TINY.total_steps
    assert last.best.runs == 6 and last.diverged == ()
