"""A seed's numbers depend on nothing around it: neighbours, lane, devices; and one compile serves
all."""

import dataclasses
import math

import jax
import numpy as np
import pandas
import pytest

import dqx
from dqx.devices import select_devices
from dqx.parallel import Programs
from tests.shared import HYPER, TINY, WIDTH

ROUND = TINY.train_period
STARTS = TINY.learning_starts


def train(seeds, devices="cpu:1", config=TINY):
    return dqx.train(config, HYPER, seeds, devices=devices)


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


def test_two_devices_are_there():
    assert len(select_devices("cpu")) > 1, "the tests below need two CPU devices"


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


# --- The programs themselves.


@pytest.fixture(scope="module")
def programs():
    env = dqx.make_environment(TINY.env)
    return Programs(TINY, env, select_devices("cpu:1"), WIDTH, 0)


def lane_hypers(programs, **fields):
    """Hyperparameters of each lane; a field is a number for all or a list of one for each."""
    values = {**{name: getattr(HYPER, name) for name in HYPER.__dataclass_fields__}, **fields}
    arrays = {k: np.broadcast_to(np.float32(v), programs.num_lanes) for k, v in values.items()}
    return programs.per_lane(dqx.Hyper(**arrays))


def run_lanes(programs, hypers, seeds=range(WIDTH), length=88, segments=2):
    clock, lanes = programs.init(seeds)
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
    losses = mixed[1][-1][1]["loss"][:WIDTH]
    assert len(np.unique(losses)) == WIDTH


def test_a_second_call_compiles_nothing(programs):
    run_lanes(programs, lane_hypers(programs))
    run_lanes(programs, lane_hypers(programs, learning_rate=[1e-1, 1e-2, 1e-3, 1e-4]))
    compiled, seconds = [], programs.compile_seconds

    def listen(event, duration, **kwargs):
        if "backend_compile" in event:
            compiled.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        other = lane_hypers(programs, gamma=[0.1, 0.2, 0.3, 0.4], tau=0.5)
        run_lanes(programs, other, seeds=[7, 8, 9, 10])
        assert not compiled
        assert programs.compile_seconds == seconds
        jax.block_until_ready(jax.jit(lambda x: x * 41.5)(2.5))
        assert compiled  # the listener does hear
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_another_root_seed_starts_other_seeds(programs):
    other = Programs(TINY, programs.env, programs.devices, WIDTH, root_seed=1)
    for one, two in zip(
        *(jax.tree.leaves(p.init(range(WIDTH))[1].obs) for p in (programs, other)), strict=True
    ):
        assert np.all(one != two)


def test_padding_is_left_out():
    result = train(6)  # two rounds of four lanes, the second half empty
    assert result.config.chunk_width == WIDTH
    assert set(result.episodes.seed) == set(range(6))
    assert all(len(leaf) == 6 for leaf in jax.tree.leaves(result.params))
    assert len(result.devices) == 1


def test_no_more_devices_are_used_than_there_are_chunks():
    assert len(train(WIDTH, "cpu:2").devices) == 1
    assert len(train(WIDTH + 1, "cpu:2").devices) == 2


def test_a_wide_run_needs_no_more_programs():
    config = dataclasses.replace(TINY, eval_period=88, total_steps=264)
    env = dqx.make_environment(config.env)
    programs = Programs(config, env, select_devices("cpu:1"), 1, 0)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dqx.run.programs_for", lambda *args: made.append(args) or programs)
        patch.setattr(
            "dqx.parallel._compiler_options", lambda *_: {"xla_backend_optimization_level": 0}
        )
        dqx.train(dataclasses.replace(config, chunk_width=1), HYPER, 3, devices="cpu:1")
    assert len(made) == 1
    # Once each, for three chunks of one seed.
    assert sorted(programs._compiled) == [
        ("evaluate", 0), ("init", 0), ("segment", 88), ("warm_up", 88)
    ]  # fmt: skip


def test_a_seed_is_the_same_on_any_number_of_devices():
    """Activations and schedules for which XLA compiles one device and several differently."""
    config = dataclasses.replace(TINY, activation="swish", exploration="per_episode")
    one, two = (dqx.train(config, HYPER, 6, devices=spec) for spec in ("cpu:1", "cpu:2"))
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    for name in one.metrics:
        np.testing.assert_array_equal(one.metrics[name], two.metrics[name], err_msg=name)


def test_a_single_cpu_device_is_given_an_idle_one(programs):
    assert programs.num_lanes == WIDTH and programs.mesh.size == 2
    clock, lanes = programs.init(range(WIDTH))
    clock, lanes, episodes = programs.warm_up(clock, lanes, TINY.learning_starts)
    assert np.any(episodes.length[:WIDTH]) and not np.any(episodes.length[WIDTH:])
    # What nobody asked for is not computed either: the idle lanes are still as they began.
    assert np.all(np.asarray(lanes.episode_length[WIDTH:]) == 0)
    assert np.any(np.asarray(lanes.episode_length[:WIDTH]) > 0)
