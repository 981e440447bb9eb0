"""The laws of the hot loop: an unbatched clock, a replay written in place, sampling of what was
written."""

import dataclasses
import functools
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
from dqx.compute.programs import Programs
from dqx.core import loop, sampling
from dqx.core.forms import make_store
from dqx.core.keys import seed_key
from dqx.core.stores import Ring
from dqx.settings import SETTINGS
from tests import probes, variants
from tests.core.ledger import seed_keys, unpacked
from tests.jaxprs import is_leaf, outputs, traced
from tests.shared import quickly

WIDTH = 4
# Sizes that no other array of the program has, so that a shape says what it belongs to.
CAPACITY, HIDDEN = 1_050, (17, 19)
CONFIG = dqx.Config(
    env="CartPole-v1",
    hidden_sizes=HIDDEN,
    num_envs=2,
    learning_starts=80,
    train_period=8,
    updates_per_train=2,
    batch_size=16,
    replay_capacity=CAPACITY,
    target_period=40,
)
STEPS = 160


def make_programs(config=CONFIG, width=WIDTH):
    config = dataclasses.replace(config, chunk_width=width)
    return Programs(config, dqx.make_environment(config.env), jax.devices("cpu")[0], root_seed=0)


def hypers(programs, hyper=None):
    fill = lambda value: np.full(programs.width, value, np.float32)  # noqa: E731
    return programs.place(jax.tree.map(fill, hyper or dqx.Hyper()))


@pytest.fixture(scope="module")
def programs():
    return make_programs()


# --- The jaxpr of a segment under vmap.


def segment_equations(config, clock_axis=None):
    """The equations of a vmapped segment; with ``clock_axis=0`` of one whose clock is batched."""
    trainer = dqx.make_trainer(config, dqx.environment_of(config))
    lanes = jax.eval_shape(jax.vmap(trainer.init), seed_keys(WIDTH))
    clock = jax.eval_shape(trainer.start)
    hyper = jax.tree.map(lambda _: jax.ShapeDtypeStruct((WIDTH,), jnp.float32), dqx.Hyper())
    if clock_axis == 0:
        clock = jax.tree.map(lambda x: jax.ShapeDtypeStruct((WIDTH, *x.shape), x.dtype), clock)
    segment = functools.partial(trainer.segment, steps=STEPS)
    outs = (clock_axis, 0, 0, 0)
    chunk = jax.vmap(segment, in_axes=(clock_axis, 0, 0), out_axes=outs)
    return traced(chunk, clock, lanes, hyper)


def replay_accesses(found, rows=CAPACITY, wide=False):
    """What reads, and what writes, arrays as large as the replay: equations by kind.

    vmap turns a ``dynamic_update_slice`` into a scatter; while its position is the clock's, that is
    one scatter of one window for all lanes, and XLA makes a slice of it again. It is called so.
    ``wide`` leaves out what has a number or none a row, such as ranks.
    """

    def kind(equation):
        name = equation.primitive.name
        if name == "scatter" and np.prod(equation.invars[1].aval.shape[:-1]) == 1:
            return "dynamic_update_slice"
        return name

    def of_replay(variables):
        shapes = [getattr(v.aval, "shape", ()) for v in variables]
        if wide:
            shapes = [shape for shape in shapes if len(shape) > 2 and shape[-1] > 1]
        return any(rows in shape for shape in shapes)

    leaves = [e for e in found if is_leaf(e)]
    reads = {kind(e) for e in leaves if of_replay(e.invars)}
    writes = {kind(e) for e in leaves if of_replay(e.outvars)}
    return reads, writes


# What is no axis of the family, beside what `variants` combines.
OTHERS = {
    "other losses and schedules": {
        "loss": "huber", "epsilon_schedule": "per_episode", "annealed": ("temperature", "tau"),
        "target_period": 4, "sticky_actions": 0.2,
    },
    "one environment": {"num_envs": 1, "train_period": 1, "optimizer": "rmsprop"},
    "sketches": {"env": "WallDodge-v0", "replay": "sketch", "frame_stack": 2},
    "each once": {"replay": "once", "replay_ends": 91, "n_step": 3},
    "each frame once": {
        "env": "Breakout-MinAtar", "replay": "once", "replay_ends": 91, "sampling": "prioritized",
    },
}  # fmt: skip


@functools.cache
def segment_of(name):
    """The configuration of a variant, and the equations of a segment of it."""
    row = variants.covering().get(name, {})
    config, hyper = variants.settled(row, CONFIG, dqx.Hyper())
    config, _ = dqx.override(config, hyper, **OTHERS.get(name, {}))
    return config, segment_equations(config)


@pytest.mark.parametrize("name", [*variants.covering(), *OTHERS])
def test_replay_is_only_sliced_into_and_gathered_from(name):
    config, found = segment_of(name)
    rows = Ring(CAPACITY, config.num_envs, config.frame_stack).num_rows
    reads, writes = replay_accesses(found, rows, wide=config.sampling == "ranked")
    has_replay = "replay" in SETTINGS["agent"].has(config.agent)
    assert writes == ({"dynamic_update_slice"} if has_replay else set())
    assert reads == ({"dynamic_update_slice", "gather"} if has_replay else set())


@pytest.mark.parametrize("name", [*variants.covering(), *OTHERS])
def test_target_sync_stays_a_condition(name):
    config, found = segment_of(name)
    conditions = [e for e in found if e.primitive.name == "cond"]
    # That of the target, and of ranks one that sorts now and then.
    has_target = "target" in SETTINGS["agent"].has(config.agent)
    assert len(conditions) == has_target + (config.sampling == "ranked")
    assert all(c.invars[0].aval.shape == () for c in conditions)  # no lane has one to itself
    if has_target:
        kernel = (WIDTH, *HIDDEN)
        assert kernel in [v.aval.shape for c in conditions for v in c.outvars]
        assert kernel not in outputs(found, "select_n")
    assert outputs(found, "select_n")  # such as those of episodes that end


def test_a_batched_clock_would_be_noticed():
    found = segment_equations(CONFIG, clock_axis=0)
    _, writes = replay_accesses(found)
    assert writes - {"dynamic_update_slice"}
    assert "cond" not in {e.primitive.name for e in found}
    assert (WIDTH, *HIDDEN) in outputs(found, "select_n")


# --- The compiled program.


def test_compiled_segment_copies_no_replay(programs):
    clock, lanes = programs.init(range(WIDTH))
    programs.segment(clock, lanes, hypers(programs), STEPS)
    text = programs.program("segment", STEPS).as_text()
    replay = rf"u32\[{WIDTH},{CAPACITY},\d+\]"
    assert re.search(rf"{replay}\S* dynamic-update-slice\(", text)
    made = set(re.findall(rf"= {replay}\S* ([\w-]+)\(", text))
    # A fusion may hold the update; whatever would make a second array of this size is left out.
    assert made <= {"parameter", "get-tuple-element", "dynamic-update-slice", "fusion", "bitcast"}
    for call in re.findall(rf"= {replay}\S* fusion\(.*", text):
        computation = re.search(r"calls=%?([\w.-]+)", call)[1]
        body = re.search(rf"^%?{re.escape(computation)} .*?^}}", text, re.M | re.S)[0]
        assert re.search(rf"ROOT .*{replay}\S* dynamic-update-slice\(", body)
    header = text.splitlines()[0]
    assert "input_output_alias" in header


@pytest.mark.long
@pytest.mark.parametrize("sampling", ["prioritized", "ranked"])
def test_compiled_segment_copies_no_priorities(sampling):
    """Where the compiler cannot see that all reading comes before the writing, it copies."""
    programs = make_programs(dataclasses.replace(CONFIG, sampling=sampling))
    clock, lanes = programs.init(range(WIDTH))
    programs.segment(clock, lanes, hypers(programs), STEPS)
    text = programs.program("segment", STEPS).as_text()
    leaves = rf"f32\[{WIDTH},{-(-CAPACITY // 8) * 8}\]"  # whole nodes of eight
    assert re.search(rf"{leaves}\S* dynamic-update-slice\(", text)
    assert re.search(rf"{leaves}\S* scatter\(", text)
    assert not re.search(rf"= {leaves}\S* copy\(", text)


@pytest.mark.long
def test_compiled_segment_copies_no_final_observations():
    config = dataclasses.replace(CONFIG, replay="once", replay_ends=90)
    programs = make_programs(config)
    clock, lanes = programs.init(range(WIDTH))
    programs.segment(clock, lanes, hypers(programs), STEPS)
    text = programs.program("segment", STEPS).as_text()
    for held in (
        rf"u32\[{WIDTH},{CAPACITY},\d+\]",
        rf"u32\[{WIDTH},90,\d+\]",
        rf"s32\[{WIDTH},90\]",
    ):
        assert re.search(rf"= {held}", text)
        assert not re.search(rf"= {held}\S* copy\(", text), held


def test_lanes_are_donated_to_training_and_not_to_evaluation(programs):
    clock, lanes = programs.init(range(WIDTH))
    warm_clock, warm_lanes, _ = programs.warm_up(clock, lanes, CONFIG.learning_starts)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(lanes))
    played, _ = programs.evaluate(warm_clock, warm_lanes, hypers(programs), 3)
    assert played.running.all()
    programs.play(warm_clock, warm_lanes, played, 10**6)
    assert played.obs.is_deleted()
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((warm_clock, warm_lanes)))
    _, last, _, _ = programs.segment(warm_clock, warm_lanes, hypers(programs), STEPS)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(warm_lanes))
    shards = [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(last.agent)]
    buffers = [shard.unsafe_buffer_pointer() for shard in shards]
    assert len(set(buffers)) == len(buffers)  # params and target params never alias


@pytest.mark.long
def test_time_of_a_step_is_flat_in_capacity():
    steps = 240
    runs = {}
    for capacity in (10**3, 10**6):
        programs = make_programs(dataclasses.replace(CONFIG, replay_capacity=capacity), width=2)
        clock, lanes = programs.init(range(2))
        # As if filled long ago: samples come from everywhere.
        clock = clock.replace(size=jnp.full_like(clock.size, capacity))
        clock, lanes, *_ = programs.segment(clock, lanes, hypers(programs), steps)
        runs[capacity] = [programs, clock, lanes, hypers(programs), []]
    for _ in range(60):  # taking turns, so that a busy machine slows both
        for run in runs.values():
            programs, clock, lanes, values, times = run
            jax.block_until_ready(lanes)
            started = time.perf_counter()
            clock, lanes, *_ = programs.segment(clock, lanes, values, steps)
            jax.block_until_ready(lanes)
            times.append(time.perf_counter() - started)
            run[1:3] = clock, lanes
    best = {capacity: min(run[-1]) for capacity, run in runs.items()}
    # One copy of the larger replay would cost eight segments. Reading from a replay that no cache
    # holds has cost half a segment where other programs use the memory too.
    assert best[10**6] < 3 * best[10**3], best


# --- What is sampled.


def test_unwritten_rows_are_never_read(programs):
    outcomes = []
    for poisoned in (False, True):
        clock, lanes = programs.init(range(WIDTH))
        if poisoned:  # all ones: NaN as a float, -1 as an action
            ones = lambda rows: jnp.full_like(rows, jnp.iinfo(rows.dtype).max)  # noqa: E731
            lanes = lanes.replace(replay_rows=jax.tree.map(ones, lanes.replay_rows))
        clock, lanes, _ = programs.warm_up(clock, lanes, CONFIG.learning_starts)
        clock, lanes, _, metrics = programs.segment(clock, lanes, hypers(programs), STEPS)
        outcomes.append(jax.tree.map(np.asarray, (lanes.agent.params, metrics)))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(outcomes[1]))
    jax.tree.map(np.testing.assert_array_equal, *outcomes)


def test_first_round_of_learning_samples_all_that_was_written_and_nothing_else():
    # A batch far larger than what is written must hold every row, and none of the others.
    seen = []

    def learn(state, batch, draws, now, sync):
        jax.debug.callback(lambda obs: seen.append(np.asarray(obs)), batch.steps.obs)
        return agent.learn(state, batch, draws, now, sync)

    config = dataclasses.replace(CONFIG, batch_size=512, learning_starts=16, updates_per_train=1)
    env = probes.adapted(probes.Ledger)
    agent = dqx.make_agent(config, env)
    trainer = loop.make_trainer(
        config,
        env,
        agent._replace(learn=learn),
        make_store(env, CAPACITY, config.num_envs),
        sampling.uniform(config),
    )
    _, lanes, _, _ = probes.run_trainer(trainer, dqx.Hyper(), seed_keys(1), 16, 8)
    jax.effects_barrier()
    written = unpacked(lanes, 0, CAPACITY).obs[:24]
    (batch,) = seen
    assert set(map(tuple, batch.reshape(-1, 2))) == set(map(tuple, written))


# --- Keys.


def test_any_two_seeds_differ_after_one_update():
    env, (warm_up, steps) = dqx.make_environment(CONFIG.env), (80, CONFIG.train_period)
    trainer = dqx.make_trainer(CONFIG, env)
    _, lanes, _, _ = probes.run_trainer(trainer, dqx.Hyper(), seed_keys(8), warm_up, steps)
    actions = [unpacked(lanes, i, CAPACITY, env).action[: warm_up + steps] for i in range(8)]
    kernels = [k for k in jax.tree.leaves(lanes.agent.params) if k.ndim == 3]  # [seeds, in, out]
    for one in range(8):
        for other in range(one):
            assert np.mean(actions[one] != actions[other]) > 0.25  # a half, if independent
            for kernel in kernels:
                assert np.mean(np.asarray(kernel[one] == kernel[other])) < 0.1
    # The parallel environments of one seed explore independently too.
    by_env = actions[0].reshape(-1, CONFIG.num_envs)
    assert np.mean(by_env[:, 0] != by_env[:, 1]) > 0.25


def test_a_lane_has_the_key_of_its_seed_whatever_its_place(programs):
    numbers = np.array([7, 0, 2**32 - 1, 3], np.uint32)
    _, lanes = programs.init(numbers)
    expected = [jax.random.key_data(seed_key(0, number)) for number in numbers]
    np.testing.assert_array_equal(jax.random.key_data(lanes.key), expected)


@pytest.mark.parametrize("policy", ["epsilon_greedy", "boltzmann", "ez_greedy"])
def test_no_key_is_used_twice(policy):
    config = dataclasses.replace(CONFIG, policy=policy)
    trainer = dqx.make_trainer(config, dqx.make_environment(CONFIG.env))

    def whole(key):
        clock, lane = trainer.start(), trainer.init(key)
        clock, lane, _ = trainer.warm_up(clock, lane, 16)
        clock, lane, _, metrics = trainer.segment(clock, lane, dqx.Hyper(), 16)
        return metrics, trainer.evaluate(clock, lane)

    def careless(key):
        return jax.random.bits(key), jax.random.normal(key)

    def check(function):
        return quickly(function)(seed_key(0, 0))

    with jax.debug_key_reuse(True):
        with pytest.raises(jax.errors.KeyReuseError):
            check(careless)
        check(whole)
