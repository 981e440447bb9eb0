"""Memory: what is said to be needed is what is really taken, and what does not fit is refused."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import dqx
from dqx.compute import devices, footprint
from dqx.compute.footprint import Footprint, chunks_that_fit, measure, refusal, state_of
from dqx.compute.limits import Limit
from dqx.compute.programs import Programs, programs_for
from dqx.compute.session import Chunk, Session
from tests.shared import HYPER, TINY, WIDTH

CPU = jax.devices("cpu")[0]
GIB = 2**30


def make_programs(config):
    return Programs(config, dqx.environment_of(config), CPU, 0)


def nbytes(tree):
    total = 0
    for leaf in jax.tree.leaves(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        total += leaf.nbytes
    return total


# --- The state, exactly.

SMALL = dataclasses.replace(TINY, chunk_width=3)
CONFIGS = {
    "small": {},
    "one environment": {"num_envs": 1},
    "large replay": {"replay_capacity": 10_000},
    "sgd": {"optimizer": "sgd", "policy": "boltzmann_gumbel"},
    "deep": {"hidden_sizes": (64, 64, 3), "optimizer": "rmsprop"},
    "table": {"agent": "tabular", "env": "Taxi-v4", "hidden_sizes": dqx.Config().hidden_sizes,
              "target_period": dqx.Config().target_period},
    "pixels": {"env": "WallDodge-v0", "network": "coarse_cnn", "replay_capacity": 100},
    "stacked": {"frame_stack": 3, "sticky_actions": 0.1, "normalize_observations": True},
}  # fmt: skip


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS)
def test_the_state_is_exactly_what_the_arrays_take(fields):
    config = dataclasses.replace(SMALL, **fields)
    programs = make_programs(config)
    need = state_of(programs, config)
    assert not programs.compiled  # from shapes alone
    clock, lanes = programs.init(np.arange(3))
    assert need.replay == nbytes(lanes.replay_rows)
    assert need.state == nbytes((clock, lanes)) and need.total == need.state


def test_pixels_take_a_byte_each_in_a_plain_replay():
    config = dataclasses.replace(SMALL, env="WallDodge-v0", network="coarse_cnn", replay="plain")
    pixels = np.prod(dqx.make_environment(config.env).obs_shape)
    # Two observations, and action, reward and discount of 4 bytes each.
    row = 2 * pixels + 3 * 4
    assert state_of(make_programs(config), config).replay == 3 * config.replay_capacity * row


def test_a_sketch_takes_three_bytes_and_each_observation_once_takes_one_and_a_share():
    config = dataclasses.replace(SMALL, env="WallDodge-v0", network="coarse_cnn")
    once = dataclasses.replace(config, replay="once")
    sketches, single = (state_of(make_programs(c), c).replay for c in (config, once))
    assert sketches == 3 * config.replay_capacity * (2 * 3 + 3 * 4)
    # A number more in each row; an eighth as many final ones with a number each, a count, a flag.
    rows, finals = config.replay_capacity * (3 + 4 * 4), config.replay_capacity // 8 * (3 + 4)
    assert single == 3 * (rows + finals + 4 + 1)


def test_a_stack_of_four_frames_takes_hardly_more_replay_than_one():
    config = dataclasses.replace(SMALL, env="WallDodge-v0", network="coarse_cnn", replay="plain")
    stacked = dataclasses.replace(config, frame_stack=4)
    one, four = (state_of(make_programs(c), c).replay for c in (config, stacked))
    assert one < four < 1.3 * one
    # Three rows more for each environment, and an age of 4 bytes in each.
    pixels = np.prod(dqx.make_environment(config.env).obs_shape)
    rows = config.replay_capacity + 3 * config.num_envs
    assert four == 3 * rows * (2 * pixels + 4 * 4)


# --- The rest, as XLA says.

# Each has another largest program.
WORKLOADS = {
    "segment": ({"batch_size": 256}, "segment"),
    "evaluate": ({"eval_episodes": 500}, "evaluate"),
    "q_table": (
        {"env": "Taxi-v4", "exact_metrics": True, "hidden_sizes": (300,), "train_period": 8,
         "batch_size": 1, "replay_capacity": 100},
        "q_table",
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("fields", "largest"), WORKLOADS.values(), ids=WORKLOADS)
def test_what_is_measured_is_what_is_live_and_what_xla_allocates(fields, largest):
    config = dataclasses.replace(TINY, **fields)
    programs = make_programs(config)
    need = measure(programs, config)
    compiled = programs.compiled
    needs = {}
    for name in set(compiled) - {"init"}:
        steps = TINY.log_period if name in ("segment", "warm_up") else 0
        xla = programs.program(name, steps).memory_analysis()
        new = xla.output_size_in_bytes - xla.alias_size_in_bytes
        needs[name] = new + xla.temp_size_in_bytes
        assert need.total >= need.state + needs[name], name
    assert programs.compiled == compiled, "the run's own programs were asked"
    assert max(needs, key=needs.__getitem__) == largest
    # What arrays are live between programs, and what the largest takes beside them.
    before, live = nbytes(jax.live_arrays()), []
    hypers = jax.tree.map(lambda x: np.full(WIDTH, x, np.float32), HYPER)
    session = Session(programs, config, Chunk(np.arange(WIDTH), hypers))
    while not session.finished:
        session.advance()
        live.append(nbytes(jax.live_arrays()) - before)
    assert programs.compiled == compiled, "a program was not measured"
    assert need.total == pytest.approx(max(live) + max(needs.values()), rel=0.1)
    # Nor does the state, which is exact, hide an error of the rest.
    assert need.working > 0.5 * max(needs.values())


@pytest.mark.long
def test_a_run_without_evaluation_is_measured_without():
    programs = make_programs(TINY)
    config = dataclasses.replace(TINY, eval_period=0, total_steps=176, learning_starts=176)
    need = measure(programs, config)
    assert programs.compiled == ("init", "warm_up")
    assert measure(programs, TINY).working > need.working > 0


class Silent(Programs):
    """Programs of a backend that tells nothing of its memory."""

    def program(self, name, steps=0):
        class Nothing:
            def memory_analysis(self):
                return None

        return Nothing()


def test_a_backend_that_tells_nothing_is_measured_by_its_results():
    programs = Silent(TINY, dqx.make_environment(TINY.env), CPU, 0)
    need = measure(programs, TINY)
    assert need.state == state_of(programs, TINY).state
    assert need.working > need.state  # whose successor is one of the results


# --- What the process really takes.

SCRIPT = """
import pandas, psutil, dqx
from tests.compute.test_footprint import LARGE, HYPER

class Watch(dqx.Sink):
    def row(self, row):
        self.kept = psutil.Process().memory_info().rss

    def progress(self, progress):
        if progress.steps == 0:  # all is compiled
            self.before = psutil.Process().memory_info().rss

watch = Watch()
result = dqx.train(LARGE, HYPER, 1, sinks=[watch])
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
after = psutil.Process().memory_info().rss
print(len(result.devices), *(x - watch.before for x in (watch.kept, 1024 * int(peak), after)))
"""
# 150 MB a seed, of 44 bytes a transition.
LARGE = dataclasses.replace(
    TINY, replay_capacity=3_400_000, eval_period=0, log_period=528, chunk_width=None
)


@pytest.mark.long
def test_one_seed_takes_the_replays_of_one_chunk():
    config = dataclasses.replace(LARGE, chunk_width=WIDTH)
    need = state_of(make_programs(config), config)
    assert need.replay > 550e6
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    places, kept, peak, after = map(int, done.stdout.split())
    assert places == 1
    # Compiling may have taken more for a moment than was left when it was over.
    assert kept > 0.95 * need.state and peak < 1.5 * need.state
    assert after < 0.2 * need.state  # nothing holds the replay when training is over


# --- What fits.


def test_so_many_chunks_fit():
    need = Footprint(50, 60, 40)
    for free, saved, wanted, count in [
        (1000, 0, 20, 9), (1000, 0, 5, 5), (1000, 100, 20, 8), (1000, 101, 20, 7),
        (112, 0, 5, 1), (111, 0, 5, 0), (0, 0, 5, 0), (10, 100, 5, 0),
    ]:  # fmt: skip
        assert chunks_that_fit(need, Limit(free, ""), wanted, saved) == count


def enough_for(need, chunks):
    """The least limit under which so many chunks of this need fit, and one more for a copy."""
    taken = chunks * need.total + need.state
    return next(free for free in range(taken, 2 * taken) if int(free * 0.9) >= taken)


@pytest.fixture(scope="module")
def unlimited():
    return dqx.train(TINY, HYPER, 10, devices="cpu:2")


@pytest.fixture
def limit(monkeypatch):
    def set_limit(free):
        monkeypatch.setattr(devices, "free_memory", lambda: Limit(free, "free memory of this test"))

    return set_limit


def test_little_memory_makes_fewer_places_and_changes_no_bit(unlimited, limit):
    need = measure(programs_for(TINY, CPU, 0), TINY)
    for chunks in (1, 2):
        for free, places in ((enough_for(need, chunks), chunks), (enough_for(need, 2) - 1, 1)):
            limit(free)
            result = dqx.train(TINY, HYPER, 10, devices="cpu:2")
            assert len(result.devices) == places and result.digests == unlimited.digests


def test_too_little_memory_for_one_chunk_is_refused(unlimited, limit):
    limit(enough_for(measure(programs_for(TINY, CPU, 0), TINY), 1) - 1)
    with pytest.raises(dqx.ConfigError, match="4 seeds side by side need .*; chunk_width=3 trains"):
        dqx.train(TINY, HYPER, 10, devices="cpu:2")


@pytest.mark.long
def test_little_memory_makes_default_chunks_narrower(limit):
    """Two lanes fit: of four, not even the state does, and nothing so wide is compiled."""
    config = dataclasses.replace(TINY, eval_period=0, batch_size=15, chunk_width=2)
    two = measure(programs_for(config, CPU, 0), config)
    limit(enough_for(two, 1))
    wide = dataclasses.replace(config, chunk_width=4)
    assert state_of(programs_for(wide, CPU, 0), wide).state * 2 > enough_for(two, 1) * 0.9
    with pytest.warns(UserWarning, match="chunks of 2 seeds instead of 4, as memory allows"):
        result = dqx.train(dataclasses.replace(config, chunk_width=None), HYPER, 3, devices="cpu:2")
    assert result.config.chunk_width == 2 and len(result.devices) == 1
    assert not programs_for(wide, CPU, 0).compiled
    limit(2**40)
    assert dqx.train(config, HYPER, 3, devices="cpu:2").digests == result.digests


# --- What is said where nothing fits.

HUGE = dataclasses.replace(TINY, replay_capacity=10_000_000)


def refused(config):
    compiled = []
    listen = lambda event, *_, **__: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with pytest.raises(dqx.ConfigError) as caught:
            dqx.train(config, HYPER, 8, devices="cpu:2")
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in compiled if "backend_compile" in event]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_refusal_says_need_limit_and_the_harmless_remedy(limit):
    need = state_of(make_programs(HUGE), HUGE)
    limit(3 * GIB)
    message = refused(HUGE)
    assert message.startswith(
        f"4 seeds side by side need {need.total / GIB:.2f} GiB ({need.replay / GIB:.2f} GiB of it "
        f"replay) and {need.state / GIB:.2f} GiB for a checkpoint, but of the free memory of this "
        "test 3.00 GiB is left; "
    )
    # 0.41 GiB a lane, and as much for its copy, of 0.9 times 3 GiB.
    assert message.endswith("; chunk_width=3 trains fewer seeds side by side")
    narrower = dataclasses.replace(HUGE, chunk_width=3)
    need = state_of(make_programs(narrower), narrower)
    assert chunks_that_fit(need, Limit(3 * GIB, ""), 1, need.state) == 1


def test_only_where_no_chunk_is_narrow_enough_a_smaller_replay_is_proposed(limit):
    limit(GIB // 2)
    # By default it comes down to one seed.
    for width, fields in ((None, {}), (1, {}), (4, {}), (2, {"frame_stack": 9})):
        config = dataclasses.replace(HUGE, chunk_width=width, **fields)
        message = refused(config)
        (capacity,) = re.findall(r"; replay_capacity=(\d+) would fit, which changes", message)
        assert (
            message.startswith(f"{width or 1} seeds side by side") and "chunk_width" not in message
        )
        fields = {"chunk_width": width or 1, "replay_capacity": int(capacity)}
        smaller = dataclasses.replace(config, **fields)
        need = state_of(make_programs(smaller), smaller)
        assert chunks_that_fit(need, Limit(GIB // 2, ""), 1, need.state) == 1
        larger = dataclasses.replace(smaller, replay_capacity=int(capacity) + TINY.num_envs)
        need = state_of(make_programs(larger), larger)
        assert chunks_that_fit(need, Limit(GIB // 2, ""), 1, need.state) == 0


def test_every_narrower_chunk_that_is_proposed_fits_and_none_wider_would():
    rng = np.random.default_rng(0)
    proposals = 0
    for _ in range(500):
        width, lane, work = (int(n) for n in rng.integers(1, [65, 10_000, 10_000]))
        copied = bool(rng.integers(2))  # not on accelerators
        free = Limit(int(rng.integers(1, 2 * width * (2 * lane + work))), "")

        def of(width, lane=lane, work=work, copied=copied):
            return Footprint(width * lane // 2, width * lane, width * work), width * lane * copied

        need, saved = of(width)
        if chunks_that_fit(need, free, 1, saved):
            continue
        config = dataclasses.replace(TINY, chunk_width=width, replay_capacity=20_000)
        found = re.findall(r"chunk_width=(\d+)", str(refusal(config, need, free, saved)))
        fitting = [w for w in range(1, width) if chunks_that_fit(of(w)[0], free, 1, of(w)[1])]
        assert [int(w) for w in found] == fitting[-1:]
        proposals += len(found)
    assert proposals > 100


def test_where_nothing_would_fit_nothing_is_proposed(limit):
    limit(1000)
    message = refused(TINY)
    assert message.endswith("; nothing smaller fits either") and "=" not in message


def test_a_table_too_large_for_memory_says_so():
    config = dqx.Config(env="Taxi-v4", agent="tabular", chunk_width=4)
    message = str(refusal(config, Footprint(GIB, 20 * GIB, 0), Limit(2 * GIB, "memory")))
    assert "most of it is tables: agent=dqn network=embedding takes less" in message
    message = str(refusal(config, Footprint(19 * GIB, 20 * GIB, 0), Limit(2 * GIB, "memory")))
    assert "tables" not in message


def test_a_few_bytes_are_zero_gib():
    assert footprint.gib(3 * GIB // 2) == "1.50 GiB" and footprint.gib(1000) == "0.00 GiB"
