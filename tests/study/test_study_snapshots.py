"""Snapshots of the parameters: at the first row at or after each multiple of a period."""

import dataclasses

import jax
import numpy as np
import pytest

import dqx
from dqx.compute.devices import select_devices
from dqx.compute.programs import programs_for
from dqx.study import StudyError, read_plan
from tests.shared import HYPER, TINY, WIDTH
from tests.study.kit import (
    ROWS,
    assert_same_bits,
    assert_same_runs,
    interrupted,
    plan,
    resume,
    run,
    snapshot_steps,
)


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    """Six seeds with parameters kept at every second row."""
    folder = tmp_path_factory.mktemp("snapshots")
    return run(plan(6, snapshot_every=176), folder / "s")


@pytest.mark.parametrize("step", [352, 528])
def test_a_snapshot_is_a_run_that_ends_there(snapshots, step):
    params = dqx.train(
        dataclasses.replace(TINY, total_steps=step), HYPER, 6, devices="cpu:1"
    ).params
    for seed in range(6):
        found = snapshots.params("default", seed, step=step)
        jax.tree.map(assert_same_bits, found, jax.tree.map(lambda x, i=seed: x[i], params))


def test_before_learning_starts_a_snapshot_is_the_beginning(snapshots):
    programs = programs_for(TINY, select_devices("cpu:1")[0], 0)
    _, lanes = programs.init(np.arange(WIDTH))
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
    study = run(plan(6), tmp_path / "s")
    assert_same_runs(study, snapshots)
    assert list((tmp_path / "s" / "snapshots").iterdir()) == []
    names = sorted(path.name for path in (snapshots.path / "snapshots").iterdir())
    assert names == [f"part-{c:05d}-{step}.npz" for c in (0, 1) for step in (176, 352, 528)]


@pytest.mark.parametrize("row", range(1, ROWS + 3))
def test_snapshots_survive_an_interruption(snapshots, row, tmp_path):
    interrupted(plan(6, snapshot_every=176), tmp_path / "s", row)
    study = resume(tmp_path / "s")
    for seed in range(6):
        for step in (176, 352, 528):
            pair = (s.params(None, seed, step) for s in (study, snapshots))
            jax.tree.map(assert_same_bits, *pair)


@pytest.mark.parametrize(
    ("every", "taken"),
    [
        (88, [88, 176, 264, 352, 440, 528]),
        (100, [176, 264, 352, 440, 528]),  # of 100, 200, 300, 400 and 500
        (200, [264, 440]),  # there is no row at or after 600
        (300, [352]),
        (30, [88, 176, 264, 352, 440, 528]),  # several multiples share a row
        (528, [528]),
        (529, []),
    ],
)
def test_between_rows_the_next_row_counts(every, taken, tmp_path):
    study = run(plan(2, snapshot_every=every), tmp_path / "s")
    found = sorted(int(p.stem.rpartition("-")[2]) for p in (tmp_path / "s/snapshots").iterdir())
    assert found == taken == snapshot_steps(TINY, every)
    for step in taken:
        shorter = dataclasses.replace(TINY, total_steps=step)
        if step > TINY.learning_starts:
            params = dqx.train(shorter, HYPER, 2, devices="cpu:1").params
            one = jax.tree.map(lambda x: x[1], params)
            jax.tree.map(assert_same_bits, study.params(None, 1, step), one)


@pytest.mark.parametrize("row", [3, 5, 8])
def test_snapshots_between_rows_survive_an_interruption(row, tmp_path):
    between = plan(6, snapshot_every=200)
    whole = run(between, tmp_path / "one")
    interrupted(between, tmp_path / "two", row)
    study = resume(tmp_path / "two")
    for seed in range(6):
        for step in (264, 440):
            pair = (s.params(None, seed, step) for s in (study, whole))
            jax.tree.map(assert_same_bits, *pair)


@pytest.mark.parametrize("every", [-88, 88.0, True, "88"])
def test_what_is_no_number_of_steps_is_refused(every):
    with pytest.raises(StudyError, match="snapshot_every must be a whole number, 0 for none") as e:
        read_plan(plan(6, snapshot_every=every))
    assert repr(every) in str(e.value)
