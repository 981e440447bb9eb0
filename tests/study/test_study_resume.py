"""Whatever stops a study, and whenever: resumed it gives the bits of one that was never stopped."""

import numpy as np
import pytest

import dqx
from dqx.settings import ConfigWarning, row_steps
from dqx.study import checkpoint, engine, load, read_plan
from tests.shared import TINY
from tests.study.kit import (
    PLAN,
    ROWS,
    Interrupt,
    assert_whole,
    computed_steps,
    contents,
    interrupted,
    plan,
    resume,
    run,
)

BATCH = TINY.total_steps  # environment steps of a batch of chunks from start to end
EVERY_ROW = {"checkpoint_seconds": 0}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """96 seeds in one go."""
    return run(plan(96), tmp_path_factory.mktemp("reference") / "s")


@pytest.fixture(autouse=True)
def checkpoints_at_every_row(monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", float("inf"))


# --- Stopped in an orderly way.


@pytest.mark.parametrize("row", [*range(1, 2 * ROWS), 3 * ROWS - 1])
def test_what_was_computed_is_not_computed_again(reference, row, tmp_path):
    with computed_steps() as before:
        message = interrupted(PLAN, tmp_path / "s", row)
    assert message == (
        f"interrupted; everything so far is in {tmp_path / 's'}. "
        f"Go on with: dqx study resume {tmp_path / 's'}"
    )
    finished = contents(tmp_path / "s")
    steps = [p.stem for p in (tmp_path / "s" / "checkpoints").glob("*.npz")]
    under_way = sum(int(stem.partition("-")[2]) for stem in steps)
    assert sum(before) == len(load(tmp_path / "s").runs) // 4 * BATCH + under_way
    with computed_steps() as after:
        study = resume(tmp_path / "s")
    assert sum(before) + sum(after) == 3 * BATCH
    assert_whole(study, reference)
    now = contents(tmp_path / "s")
    assert {name: now[name] for name in finished} == finished  # not written again either


def test_a_study_may_be_stopped_again_and_again(reference, tmp_path):
    with computed_steps() as steps:
        interrupted(PLAN, tmp_path / "s", 1)
        for _ in range(4):
            interrupted(PLAN, tmp_path / "s", 2, resume)
        study = resume(tmp_path / "s")
    assert sum(steps) == 3 * BATCH
    assert_whole(study, reference)


def test_a_finished_study_is_left_as_it_is(reference, tmp_path):
    run(PLAN, tmp_path / "s")
    before = contents(tmp_path / "s")
    manifest = (tmp_path / "s" / "manifest.json").read_bytes()
    with computed_steps() as steps:
        study = resume(tmp_path / "s", devices="cpu:2")
    assert steps == [] and contents(tmp_path / "s") == before
    # How fast it was is not forgotten; a damaged summary is written anew.
    assert (tmp_path / "s" / "manifest.json").read_bytes() == manifest
    (tmp_path / "s" / "manifest.json").write_bytes(manifest[:-9])
    resume(tmp_path / "s")
    assert load(tmp_path / "s").manifest["runs"] == study.manifest["runs"]
    assert_whole(study, reference)


def test_without_checkpoints_a_chunk_starts_again(reference, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoint, "write", lambda *args: written.append(args))
    with computed_steps() as steps:
        interrupted(PLAN, tmp_path / "s", ROWS + 3, replay_checkpoint=False, **EVERY_ROW)
        assert list((tmp_path / "s" / "checkpoints").iterdir()) == []
        assert len(load(tmp_path / "s").runs) == 4
        first = sum(steps)
        study = resume(tmp_path / "s", replay_checkpoint=False, **EVERY_ROW)
    assert first > BATCH and sum(steps) == first + 2 * BATCH
    assert written == []
    assert_whole(study, reference)


def test_a_checkpoint_that_is_there_is_used_without_new_ones(reference, tmp_path):
    with computed_steps() as steps:
        interrupted(PLAN, tmp_path / "s", 4)
        study = resume(tmp_path / "s", replay_checkpoint=False)
    assert sum(steps) == 3 * BATCH
    assert_whole(study, reference)


def test_only_the_last_checkpoint_of_a_chunk_is_kept(reference, tmp_path, monkeypatch):
    seen, write = [], checkpoint.write

    def watched(folder, *args):
        write(folder, *args)
        seen.append(sorted(p.name for p in folder.checkpoints.iterdir()))

    monkeypatch.setattr(checkpoint, "write", watched)
    study = run(plan(4), tmp_path / "s", **EVERY_ROW)
    # The last interval has nothing to checkpoint: it is written as a result.
    steps = range(TINY.log_period, TINY.total_steps + 1, TINY.log_period)
    assert seen == [[f"00000-{step}.npz", "00000.json"] for step in steps][: len(seen)]
    assert len(seen) >= ROWS - 1
    assert_whole(study, reference)


def test_a_signal_at_the_last_row_lets_the_study_end(reference, tmp_path):
    asks = Interrupt(lambda rows: len(rows) == 3 * ROWS)
    assert_whole(run(PLAN, tmp_path / "s", sinks=[asks]), reference)
    assert asks.asked


def test_a_signal_between_two_programs_begins_no_other(tmp_path):
    """Where it comes while the last chunk of the first ends."""
    given = plan(4, grid={"double": [False, True]})
    with computed_steps() as steps:
        interrupted(given, tmp_path / "s", ROWS)
        assert sum(steps) == BATCH and not list((tmp_path / "s" / "checkpoints").iterdir())
        assert {config for config, _ in load(tmp_path / "s").digests} == {"double=false"}
        assert_whole(resume(tmp_path / "s"), run(given, tmp_path / "two"))
    assert sum(steps) == 4 * BATCH


# --- Budgets and periods that do not divide one another.

ODD = plan(
    6, {"total_steps": 531, "learning_starts": 90, "log_period": 100, "eval_period": 150}
)  # fmt: skip
ODD_ROWS = [104, 152, 208, 304, 312, 416, 456, 520, 536]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The rounded plan, and the study of it in one go."""
    with pytest.warns(ConfigWarning, match="is rounded up to") as caught:
        planned = read_plan(ODD)
    assert len(caught) == 4
    return planned, run(planned, tmp_path_factory.mktemp("odd") / "s")


def test_rows_come_at_both_periods_and_at_the_end(odd):
    planned, study = odd
    config = planned.points[0].config
    assert row_steps(config) == ODD_ROWS == study.steps.tolist()
    evaluated = np.isfinite(study.to_arrays("eval_return"))
    assert evaluated.shape == (1, 6, 9)
    expected = [step % 152 == 0 or step == 536 for step in ODD_ROWS]
    assert evaluated.tolist() == [6 * [expected]]
    result = dqx.train(config, planned.points[0].hyper, 6, devices="cpu:1")
    assert result.digests == tuple(study.digests.values())
    assert result.metrics["step"].tolist() == ODD_ROWS


@pytest.mark.parametrize("row", [1, 4, 8, 11])
def test_odd_budgets_are_resumed_with_the_same_bits(odd, row, tmp_path):
    planned, whole = odd
    with computed_steps() as steps:
        interrupted(planned, tmp_path / "s", row)
        # Where it goes on is the step of a row.
        (path,) = (tmp_path / "s" / "checkpoints").glob("*.npz")
        assert int(path.stem.partition("-")[2]) == ODD_ROWS[row % 9]
        assert_whole(resume(tmp_path / "s"), whole)
    assert sum(steps) == 2 * 536
