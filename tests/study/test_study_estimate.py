"""What a study will take: programs, chunks, memory, disk and time, before it is started."""

import contextlib
import dataclasses
import math
import os
import re
import threading

import jax
import numpy as np
import pytest

import dqx.study
from dqx.compute.devices import select_devices
from dqx.compute.footprint import measure
from dqx.compute.limits import Limit
from dqx.compute.programs import DEFAULT_CHUNK_WIDTH, Programs, programs_for
from dqx.settings import ConfigError, preset
from dqx.study import StudyError, dry_run, read_plan, schedule
from dqx.study import estimate as estimates
from dqx.study.schedule import fitting_places, groups, settle
from dqx.study.store import FolderStore
from tests.shared import HYPER, TINY
from tests.study.kit import call, fields, run, snapshot_steps, toml

BASE = {**fields(TINY), "epsilon_steps": 400}
# As many seeds as fill the devices twice: five chunks of four for each of two programs.
PLAN = {
    "name": "tiny",
    "seeds": 10,
    "snapshot_every": 176,
    "base": BASE,
    "grid": {"learning_rate": [1e-3, 1e-2], "double": [False, True]},
}


@pytest.fixture(scope="module")
def estimate():
    return dry_run(PLAN, devices="cpu:2", timed=False)


def test_groups_chunks_and_widths(estimate):
    assert len(estimate.groups) == 2
    for group, double in zip(estimate.groups, ("false", "true"), strict=True):
        assert group.points == tuple(
            f"learning_rate={rate}, double={double}" for rate in ("0.001", "0.01")
        )
        assert (group.runs, group.width, group.chunks, group.devices) == (20, 4, 5, 2)
        assert math.isnan(group.compile_seconds) and math.isnan(group.seconds)
    assert math.isnan(estimate.seconds)
    assert all(point.config.chunk_width == 4 for point in estimate.plan.points)


def real_bytes(tree):
    """Bytes of arrays that are there; of keys those of their data."""
    leaves = [jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
              for x in jax.tree.leaves(tree)]  # fmt: skip
    return sum(leaf.nbytes for leaf in leaves)


@pytest.mark.long
def test_memory_is_that_of_the_chunks_side_by_side(estimate):
    """Without compiling that of the state: exactly the arrays that a chunk starts with."""
    config = estimate.plan.points[0].config
    programs = programs_for(config, select_devices("cpu:1")[0], 0)
    clock, lanes = programs.init(np.arange(4))
    observation, rest = 4 * 4, 3 * 4  # float32; action, reward and discount
    replay = 4 * TINY.replay_capacity * (2 * observation + rest)
    for group in estimate.groups:
        assert group.transition_bytes == 2 * observation + rest
        assert replay < group.chunk_bytes < 2 * replay
    assert estimate.groups[0].chunk_bytes == real_bytes((clock, lanes))
    assert estimate.memory_bytes == 2 * max(group.chunk_bytes for group in estimate.groups)
    assert estimate.free_bytes > 2**20
    # Compiled, what the programs need beside it comes in.
    (group,) = dry_run({"seeds": 8, "base": BASE}, devices="cpu:2").groups
    assert group.chunk_bytes == measure(programs, config).total
    assert estimate.groups[0].chunk_bytes < group.chunk_bytes < 10 * replay


def test_a_study_of_one_chunk_uses_one_place():
    one = dry_run({"seeds": 3, "base": BASE}, devices="cpu:2", timed=False)
    (group,) = one.groups
    assert (group.runs, group.width, group.chunks, group.devices) == (3, 4, 1, 1)


def test_steps_and_runs_of_another_budget_share_a_program_but_not_a_group():
    cases = [{"name": "a"}, {"name": "b", "total_steps": 1056}]
    found = dry_run({"seeds": 5, "base": BASE, "case": cases}, timed=False)
    assert [(g.points, g.chunks) for g in found.groups] == [(("a",), 2), (("b",), 2)]


def sizes(path):
    """Bytes of the files directly in each folder of a study."""
    total = {}
    for folder, _, names in os.walk(path):
        here = sum(os.path.getsize(os.path.join(folder, name)) for name in names)
        total[os.path.relpath(folder, path)] = here
    return total


def test_disk_is_what_the_finished_study_takes(tmp_path):
    plans = [
        {"seeds": 8, "base": BASE},
        {"seeds": 21, "snapshot_every": 88, "base": BASE},
        {"seeds": 6, "base": {**BASE, "total_steps": 8800}},
        {"seeds": 12, "snapshot_every": 5, "base": BASE},  # more often than there are rows
    ]
    for i, plan in enumerate(plans):
        found = dry_run(plan, timed=False)
        path = tmp_path / str(i)
        dqx.study.run(plan, path)
        taken = sizes(path)
        (group,) = found.groups
        snapshots = len(snapshot_steps(TINY, plan.get("snapshot_every", 0)))
        assert len(os.listdir(path / "snapshots")) == group.chunks * snapshots
        results = sum(size for name, size in taken.items() if name != ".")
        assert results / 1.5 < group.disk_bytes < results * 1.5, (plan, taken, group)
        total = sum(taken.values())
        assert total / 2 < found.disk_bytes - group.checkpoint_bytes * group.devices < total * 2


def test_a_checkpoint_is_as_large_as_predicted(tmp_path, monkeypatch):
    """The estimate counts the state and names, the file holds rows and episodes as well.

    Each is measured as it is written: the one after it may come before anyone looks, or, where the
    first took long, not at all.
    """
    plan = {"seeds": 8, "base": BASE}
    (group,) = dry_run(plan, timed=False).groups
    written = []
    save = FolderStore.save

    def measured(store, task, state):
        save(store, task, state)
        files = (tmp_path / "a" / "checkpoints").glob(f"{task.number:05d}[.-]*")
        written.append(sum(path.stat().st_size for path in files))

    monkeypatch.setattr(FolderStore, "save", measured)
    dqx.study.run(plan, tmp_path / "a", checkpoint_seconds=0)
    assert group.devices == 2 and group.checkpoint_bytes <= min(written)
    assert max(written) < 1.1 * group.checkpoint_bytes


def test_nothing_is_written_compiled_or_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Programs, "program", None)  # what compiles or runs would fail
    dry_run(PLAN, timed=False)
    dry_run({"seeds": 3, "base": {**BASE, "num_envs": 4}}, timed=False)
    assert os.listdir(tmp_path) == []


class Clock(threading.local):
    """Stands in for the time module: what is called takes as long as it is told, in its thread."""

    now = 0.0

    def slow(self, function, taken):
        def call(*args):
            self.now += taken
            return function(*args)

        return call

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize("eval_period", [176, 0])
def test_the_time_is_that_of_all_segments_and_evaluations(tmp_path, monkeypatch, eval_period):
    monkeypatch.chdir(tmp_path)
    calls, clock = [], Clock()
    plan = {"seeds": 37, "base": {**BASE, "eval_period": eval_period}}
    dry_run(plan, devices="cpu:2")  # compiles
    for name, taken in (("segment", 2), ("evaluate", 3), ("warm_up", 100)):
        monkeypatch.setattr(Programs, name, clock.slow(getattr(Programs, name), taken))
    monkeypatch.setattr(estimates, "time", clock)
    found = dry_run(plan, devices="cpu:2", progress=lambda *numbers: calls.append(numbers))
    (group,) = found.groups
    assert calls == [(1, 1)] and os.listdir(tmp_path) == []
    # Ten chunks in two places; each has two intervals of random actions, four of learning, and
    # three evaluations.
    assert (group.chunks, group.devices) == (10, 2)
    chunk = 2 * 100 + 4 * 2 + (3 * 3 if eval_period else 0)
    assert group.seconds == found.seconds == group.compile_seconds + 5 * chunk


@pytest.mark.long
def test_odd_rows_are_timed_by_their_commonest_piece(monkeypatch):
    """What a piece takes counts by its steps, whatever rows it is made of."""
    clock = Clock()
    base = {**BASE, "log_period": 56, "eval_period": 528, "learning_starts": 168}
    dry_run({"seeds": 2, "base": base}, devices="cpu:1")
    monkeypatch.setattr(Programs, "segment", clock.slow(Programs.segment, 7))
    monkeypatch.setattr(estimates, "time", clock)
    found = dry_run({"seeds": 2, "base": base}, devices="cpu:1")
    # Rows at 224, 280, ... 504 end pieces of 56 steps, the last one has 24 more.
    assert found.seconds - found.groups[0].compile_seconds == pytest.approx(7 * 360 / 56)


@pytest.mark.long
def test_a_study_whose_environment_has_inputs_is_timed():
    plan = read_plan({"name": "s", "seeds": 2, "base": {**BASE, "env.gravity": 12.0}})
    assert dry_run(plan, devices="cpu:1").seconds > 0


@pytest.mark.long
@pytest.mark.usefixtures("compiled_anew")
def test_compiling_is_counted_once_and_whenever_it_was(tmp_path):
    """Two budgets share their programs; a second estimate knows what the first one compiled."""
    base = {**BASE, "num_envs": 4, "replay_capacity": 1200}
    cases = [{"name": "a"}, {"name": "b", "total_steps": 1056}]
    first = dry_run({"seeds": 3, "base": base}, devices="cpu:1").groups[0].compile_seconds
    assert first > 0.1
    again = dry_run({"seeds": 3, "base": base, "case": cases}, devices="cpu:1").groups
    assert [group.compile_seconds for group in again] == [first, 0]


def test_the_time_is_about_what_the_study_takes(tmp_path):
    plan, events = {"seeds": 40, "base": {**BASE, "total_steps": 5280}}, []
    groups = [dry_run(plan).groups[0] for _ in range(3)]
    predicted = min(group.seconds - group.compile_seconds for group in groups)
    dqx.study.run(plan, tmp_path / "a", progress=events.append)
    taken = events[-1].total_steps / events[-1].steps_per_second
    # The study is over within a second, and other processes may be in the way of either.
    assert predicted / 10 < taken < 10 * predicted


def with_free(monkeypatch, count):
    monkeypatch.setattr(schedule, "free_bytes", lambda places: Limit(int(count), "memory of tests"))


def state_bytes(plan, width):
    """Memory of a chunk's state of one plan at a width, and once more for its checkpoint."""
    config = read_plan(plan).points[0].config
    programs = programs_for(
        dataclasses.replace(config, chunk_width=width), select_devices("cpu:1")[0], 0
    )
    return 2 * real_bytes(programs.init(np.arange(width)))


@pytest.mark.parametrize("factor", [1.02, 0.98])
def test_the_width_shrinks_to_what_fits(monkeypatch, factor):
    plan = {"seeds": 64, "base": {k: v for k, v in BASE.items() if k != "chunk_width"}}
    full = DEFAULT_CHUNK_WIDTH["cpu"]
    assert dry_run(plan, devices="cpu:2", timed=False).groups[0].width == full == 4
    # Nine tenths of what is free may be taken.
    for width in (4, 2, 1):
        free = state_bytes(plan, width) / 0.9 * factor
        with_free(monkeypatch, free)
        if factor < 1 and width == 1:
            with pytest.raises(ConfigError) as caught:
                dry_run(plan, devices="cpu:2", timed=False)
            text = str(caught.value)
            assert re.match(r"1 seeds side by side need \d+\.\d\d GiB", text), text
            assert "of the memory of tests 0.00 GiB is left" in text and "replay_capacity=" in text
            continue
        expected = width if factor > 1 else width // 2
        told = contextlib.nullcontext()
        if expected < 4:
            told = pytest.warns(UserWarning, match=f"chunks of {expected} seeds instead of 4")
        with told:
            (group,) = dry_run(plan, devices="cpu:2", timed=False).groups
        assert (group.width, group.chunks) == (expected, 64 // expected)


@pytest.mark.long
def test_a_study_is_trained_at_the_width_that_fits(monkeypatch, tmp_path):
    """Then all memory counts, of the compiled programs too."""
    plan = {"seeds": 4, "base": {k: v for k, v in BASE.items() if k != "chunk_width"}}
    config = dataclasses.replace(read_plan(plan).points[0].config, chunk_width=4)
    need = measure(programs_for(config, select_devices("cpu:1")[0], 0), config)
    with_free(monkeypatch, (need.total + need.state) / 0.9 * 0.98)
    with pytest.warns(UserWarning, match="chunks of 2 seeds instead of 4, as memory allows no mo"):
        study = run(plan, tmp_path / "s", devices="cpu:2")
    assert study.point()[0].chunk_width == 2
    assert sorted(one["chunk"] for one in study.runs) == [0, 0, 1, 1]
    # Their bits are those of that width.
    narrow = dataclasses.replace(config, chunk_width=2)
    hyper = HYPER.replace(learning_rate=study.point()[1].learning_rate)
    result = dqx.train(narrow, hyper, 4, devices="cpu:1")
    assert result.digests == tuple(study.digests.values())


def test_fewer_places_are_used_before_the_width_shrinks(monkeypatch):
    """The number of places changes no bits, the width does."""
    config = read_plan({"base": {**BASE, "chunk_width": 4}}).points[0].config
    four = select_devices("cpu:1") * 4  # only counted
    programs = programs_for(config, four[0], 0)
    need = measure(programs, config)
    for held in (4, 3, 2, 1):
        with_free(monkeypatch, (need.total * held + need.state) / 0.9 * 1.01)
        assert len(fitting_places(programs, config, four, 9)) == held
        assert len(fitting_places(programs, config, four, 1)) == 1
    with_free(monkeypatch, (need.total + need.state) / 0.9 * 0.99)
    with pytest.raises(ConfigError, match="4 seeds side by side need .*chunk_width=3 trains fewer"):
        fitting_places(programs, config, four, 9)


def test_a_width_that_was_asked_for_is_kept_or_refused(monkeypatch):
    plan = {"seeds": 64, "base": {**BASE, "chunk_width": 8}}
    with_free(monkeypatch, state_bytes(plan, 8) / 0.9 * 0.98)
    with pytest.raises(ConfigError, match="8 seeds side by side need .*chunk_width=7"):
        dry_run(plan, devices="cpu:2", timed=False)


def test_one_configuration_too_large_refuses_the_study_by_numbers():
    plan = {"grid": {"replay_capacity": [400, 2_000_000_000]}, "base": {**BASE, "chunk_width": 64}}
    words = (
        r"64 seeds side by side need [\d.]+ GiB \([\d.]+ GiB of it replay\) and [\d.]+ GiB for a"
    )
    with pytest.raises(ConfigError, match=words):
        dry_run(plan, timed=False)


def test_settled_widths_are_told_as_varied_fields():
    cases = [{"name": "default"}, {"name": "wide", "chunk_width": 16}]
    base = {k: v for k, v in BASE.items() if k != "chunk_width"}
    plan = dqx.study.read_plan({"base": base, "case": cases})
    assert [p.varied["chunk_width"] for p in plan.points] == [None, 16]
    settled = settle(plan, select_devices("cpu:2"))
    assert [(p.varied["chunk_width"], p.config.chunk_width) for p in settled.points] == [
        (4, 4), (16, 16)
    ]  # fmt: skip


def test_every_run_is_in_one_chunk_of_one_group():
    plan = dqx.study.read_plan({**PLAN, "seeds": "3,1,8,5,2"})
    found = groups(plan)
    tasks = [task for group in found for task in group.tasks]
    assert [task.number for task in tasks] == list(range(len(tasks))) == list(range(6))
    runs = [
        (point.name, seed)
        for task in tasks
        for point, seed in zip(task.points, task.seeds.tolist(), strict=True)
    ]
    assert sorted(runs) == sorted((p.name, s) for p in plan.points for s in (3, 1, 8, 5, 2))
    for group in found:
        assert [len(task.points) for task in group.tasks] == [4, 4, 2]
        assert all(p.config == group.config for task in group.tasks for p in task.points)
        # Seed by seed, so that what is stopped early has compared on the same seeds.
        assert group.tasks[0].seeds.tolist() == [3, 3, 1, 1]
        rates = [point.hyper.learning_rate for point in group.tasks[0].points]
        assert group.tasks[0].chunk.hypers.learning_rate.tolist() == pytest.approx(rates)
        assert rates == [1e-3, 1e-2] * 2


def test_the_command_prints_the_plan_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = {"name": "mine", "seeds": 20, "base": BASE, "grid": {"learning_rate": [1e-3, 1e-2]}}
    (tmp_path / "plan.toml").write_text(toml(plan))
    status, out, err = call("study", "plan.toml", "--dry-run")
    assert (status, os.listdir(tmp_path)) == (0, ["plan.toml"])
    assert out[0] == "mine: 2 configurations x 20 seeds = 40 runs, 21,120 environment steps"
    assert out[1:3] == ["  learning_rate=0.001", "  learning_rate=0.01"]
    assert re.split("  +", out[3]) == [
        "PROGRAM", "CONFIGS", "RUNS", "CHUNKS", "WIDTH", "DEVICES", "MEMORY A CHUNK",
        "A TRANSITION", "TIME"
    ]  # fmt: skip
    assert re.fullmatch(r"1 +2 +40 +10 +4 +\d+ +\d+ KiB +44 B +0:\d\d:\d\d", out[4])
    assert re.fullmatch(r"memory: \d+ KiB at a time, [\d.]+ GiB free", out[5])
    assert re.fullmatch(r"disk: \d+ KiB, checkpoints included", out[6])
    assert re.fullmatch(r"time: about 0:\d\d:\d\d, 1 x compiling included", out[7])
    assert err == ["dry run: compiling...", "dry run: 1/1 programs compiled and timed"]
    status, out, err = call("study", "plan.toml", "--dry-run", "--quiet")
    assert (status, err, len(out)) == (0, [], 8)


def test_what_cannot_be_planned_is_said(tmp_path):
    with pytest.raises(StudyError, match="cannot read the plan"):
        dry_run(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="only"):
        dry_run(PLAN, devices="cpu:999")


def test_presets_can_be_planned():
    """The example of the documentation: three learning rates share a program."""
    plan = {
        "seeds": "0:64",
        "base": {"preset": "cartpole/cleanrl"},
        "grid": {"learning_rate": [1e-4, 2.5e-4, 1e-3], "double": [False, True]},
    }
    found = dry_run(plan, timed=False)
    assert [(len(g.points), g.runs) for g in found.groups] == [(3, 192), (3, 192)]
    config, _ = preset("cartpole/cleanrl")
    assert found.plan.total_steps == 6 * 64 * config.total_steps
