"""Two chunks side by side: interrupted, resumed in other places, and as memory allows."""

import dataclasses
import shutil

import pytest

from dqx.compute.devices import select_devices
from dqx.compute.footprint import Footprint, measure
from dqx.compute.limits import Limit
from dqx.compute.programs import programs_for
from dqx.settings import ConfigError
from dqx.study import dry_run, load, read_plan, schedule
from tests.shared import TINY
from tests.study.kit import assert_whole, computed_steps, interrupted, plan, resume, run

ROWS = 24
STEPS = ROWS * TINY.log_period
LONG = plan(12, {"total_steps": STEPS}, snapshot_every=500)  # three chunks
PAUSE = 0.02  # a row, so that both get under way


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return run(LONG, tmp_path_factory.mktemp("long") / "s")


def both(count):
    """Whether two chunks have so many rows each."""

    def hold(rows):
        chunks = [int(row.seeds[0]) for row in rows]
        return sum(chunks.count(first) >= count for first in set(chunks)) == 2

    return hold


def saved(folder):
    """The steps of the checkpoints, by chunk."""
    files = (folder / "checkpoints").glob("*.npz")
    return {int(path.stem[:5]): int(path.stem[6:]) for path in files}


@pytest.mark.parametrize(("first", "second"), [("cpu:2", "cpu:1"), ("cpu:1", "cpu:2")])
@pytest.mark.parametrize("row", [2, ROWS + 2])
def test_the_number_of_places_may_change(reference, first, second, row, tmp_path):
    with computed_steps() as steps:
        interrupted(LONG, tmp_path / "s", row, devices=first)
        assert saved(tmp_path / "s")
        study = resume(tmp_path / "s", devices=second)
    assert sum(steps) == 3 * STEPS  # nothing twice
    assert_whole(study, reference)
    assert study.manifest["devices"] == ["cpu:0", "cpu:1"][: int(second[-1])]


def test_two_chunks_are_stopped_at_once_and_go_on_side_by_side(reference, tmp_path):
    with computed_steps() as steps:
        interrupted(LONG, tmp_path / "s", both(2), pause=PAUSE, devices="cpu:2")
        assert list(sorted(saved(tmp_path / "s"))) == [0, 1]
        before = saved(tmp_path / "s")
        interrupted(LONG, tmp_path / "s", both(2), resume, PAUSE, devices="cpu:2")
        after = saved(tmp_path / "s")
        assert all(after[chunk] > before[chunk] for chunk in (0, 1))
        study = resume(tmp_path / "s", devices="cpu:2")
    assert sum(steps) == 3 * STEPS
    assert_whole(study, reference)
    for step in (528, 1056, 1584):
        study.params(None, 5, step)  # of the second chunk, read and checked


def test_chunks_at_different_steps_go_on_from_their_own(reference, tmp_path):
    """As after a disk that was full between the checkpoints of two chunks side by side."""
    ahead, behind = (tmp_path / name for name in ("ahead", "behind"))
    interrupted(LONG, behind, both(1), pause=PAUSE, devices="cpu:2")
    shutil.copytree(behind, ahead)
    interrupted(LONG, ahead, both(4), resume, PAUSE, devices="cpu:2")
    for path in (ahead / "checkpoints").glob("00001*"):
        path.unlink()
    for path in (behind / "checkpoints").glob("00001*"):
        shutil.copy(path, ahead / "checkpoints")
    steps = saved(ahead)
    assert steps[0] > steps[1] > 0
    with computed_steps() as taken:
        study = resume(ahead, devices="cpu:2")
    assert sum(taken) == sum(STEPS - step for step in steps.values()) + STEPS
    assert_whole(study, reference)


def test_checkpoints_at_every_row_in_two_places(reference, tmp_path):
    study = run(LONG, tmp_path / "s", devices="cpu:2", checkpoint_seconds=0)
    assert_whole(study, reference)
    assert study.manifest["checkpoint_seconds"] > 0


# --- Memory.


@pytest.fixture
def memory(monkeypatch):
    """Says how much memory is free, in chunks and copies of one for a checkpoint."""
    config = read_plan(LONG).points[0].config
    need = measure(programs_for(config, select_devices("cpu:1")[0], 0), config)

    def free(chunks):
        count = int((chunks * need.total + need.state) / 0.9 * 1.01)  # 0.9 of it may be taken
        monkeypatch.setattr(schedule, "free_bytes", lambda places: Limit(count, "memory of a test"))

    return free


@pytest.mark.parametrize("chunks", [1, 2])
def test_as_many_places_are_used_as_memory_allows(reference, memory, chunks, tmp_path):
    memory(chunks)
    interrupted(LONG, tmp_path / "s", 4, devices="cpu:2")
    study = resume(tmp_path / "s", devices="cpu:2")
    assert_whole(study, reference)
    assert study.manifest["devices"] == ["cpu:0", "cpu:1"][:chunks]
    assert dry_run(LONG, devices="cpu:2").groups[0].devices == chunks


def test_where_not_one_chunk_fits_a_study_says_so_and_goes_on_elsewhere(
    reference, memory, tmp_path
):
    interrupted(LONG, tmp_path / "s", 4)
    before = saved(tmp_path / "s")
    memory(0.9)
    with pytest.raises(ConfigError, match="of the memory of a test .* is left"):
        resume(tmp_path / "s", devices="cpu:2")
    assert saved(tmp_path / "s") == before and load(tmp_path / "s").runs == []
    memory(1)
    assert_whole(resume(tmp_path / "s", devices="cpu:2"), reference)


def test_what_compiling_took_is_not_free_when_a_width_is_chosen(monkeypatch):
    """Else a width that just fitted before is refused after."""
    config = dataclasses.replace(read_plan(LONG).points[0].config, chunk_width=None)
    free = [100.0]
    monkeypatch.setattr(schedule, "chunk_width", lambda config, platform: 8)
    monkeypatch.setattr(schedule, "free_bytes", lambda places: Limit(int(free[0]), "a test"))

    def needed(programs, tried):
        free[0] -= 15  # every program takes some
        return Footprint(0, 5 * tried.chunk_width)  # and as much again for a checkpoint

    places = select_devices("cpu:1")
    assert schedule._width(config, places, 0, needed) == 4
    assert free == [70]
