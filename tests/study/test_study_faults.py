"""Damaged files of a study: named, never read, and their runs trained again."""

import random
import shutil
import warnings

import pytest

from dqx.study import StudyError, StudyWarning, checkpoint, load
from dqx.study.folder import Folder
from dqx.study.sealed import Mark, read_checked, read_sealed
from tests.shared import TINY
from tests.study import kit
from tests.study.kit import (
    KINDS,
    PLAN,
    assert_same_runs,
    computed_steps,
    contents,
    interrupted,
    run,
)

BATCH = TINY.total_steps


def truncate(path, _):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path, _):
    path.write_bytes(b"")


def lengthen(path, _):
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path, _):
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


def remove(path, _):
    path.unlink()


def foreign(path, other):
    """In its place the file of another study, whole and in itself consistent."""
    assert other.read_bytes() != path.read_bytes()
    shutil.copyfile(other, path)


def misplaced(path, _):
    """In its place the file of another chunk of the same study."""
    neighbour = path.with_name(path.name.replace("00001", "00000"))
    assert neighbour.read_bytes() != path.read_bytes()
    shutil.copyfile(neighbour, path)


DAMAGES = [truncate, empty, lengthen, flip, remove, foreign, misplaced]


def resume(folder):
    """Resumes in one place; gives the study, the steps computed, and the warnings in words."""
    with computed_steps() as steps, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        study = kit.resume(folder)
    assert {warning.category for warning in caught} <= {StudyWarning}
    return study, sum(steps), [str(warning.message) for warning in caught]


# --- Damaged results.


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_named_and_its_chunk_trained_again(made, finished, kind, damage):
    path, before = finished / KINDS[kind], contents(finished)
    damage(path, made / "other" / KINDS[kind])
    if kind == "record" and damage is foreign:
        assert_refused(finished, path, "00001.json: it belongs to another study, of plan")
        return
    if kind == "record":
        if damage is not remove:
            with pytest.raises(StudyError, match="dqx study resume") as caught:
                load(finished)
            assert str(path) in str(caught.value)
    else:
        study = load(finished)
        step = 352 if kind == "snapshots" else None
        read = {"metrics": lambda: study.metrics, "episodes": lambda: study.episodes}
        with pytest.raises(StudyError, match="dqx study resume") as caught:
            read.get(kind, lambda: study.params(None, 5, step))()
        assert str(path) in str(caught.value)
    study, steps, texts = resume(finished)
    assert steps == BATCH
    assert len(texts) == 1
    assert texts[0].startswith(f"{path}: ") and "chunk 1 are trained again" in texts[0]
    assert_same_runs(study, load(made / "mine"), count=12)
    assert study.finished and not list((finished / "checkpoints").iterdir())
    after = contents(finished)
    for name, state in before.items():
        assert (after[name] == state) == ("00001" not in name), name
    with computed_steps() as steps:
        kit.resume(finished)  # and nothing to warn about any more
    assert steps == []


def assert_refused(study, path, words=None):
    """Nothing is trained over runs of another study; both plans are shown."""
    own, other = (read_sealed(study / "plan.json")["sha256"], read_sealed(path)["plan_seal"])
    if words is not None:
        with pytest.raises(
            StudyError, match=f"{words} {other[:12]}, and plan.json is plan {own[:12]}"
        ):
            load(study)
    before = contents(study)
    with computed_steps() as steps, pytest.raises(StudyError) as caught:
        kit.resume(study)
    text = str(caught.value)
    assert text.startswith(f"{path} is of plan {other[:12]}")
    assert f"plan.json is plan {own[:12]} (tiny, of 20" in text and "put its own plan back" in text
    assert steps == [] and contents(study) == before
    return text


@pytest.mark.parametrize("state", ["finished", "stopped", "checkpoint alone"])
def test_the_plan_of_another_study_is_not_trained_over_runs(made, tmp_path, state):
    name = "mine" if state == "finished" else "mine-stopped"
    study = shutil.copytree(made / name, tmp_path / "s")
    path = study / "chunks" / "00000.json"
    if state == "checkpoint alone":
        path.unlink()
        path = study / "checkpoints" / "00001.json"
    shutil.copyfile(made / "other" / "plan.json", study / "plan.json")
    text = assert_refused(study, path)
    assert "which is still in plan-copy.json" in text
    assert "learning_rate of default was 0.01 and is 0.003 now" in text
    (study / "plan-copy.json").unlink()
    text = assert_refused(study, path)
    assert ("which is still in manifest.json" in text) == (state == "finished")
    shutil.copyfile(made / "mine" / "plan.json", study / "plan.json")
    if state == "finished":
        assert_same_runs(kit.resume(study), load(made / "mine"), count=12)


def test_every_damaged_chunk_is_trained_again(made, finished):
    flip(finished / "metrics/part-00000.parquet", None)
    remove(finished / "params/part-00002.npz", None)
    study, steps, texts = resume(finished)
    assert steps == 2 * BATCH and len(texts) == 2
    assert "metrics/part-00000.parquet" in texts[0] and "params/part-00002.npz" in texts[1]
    assert_same_runs(study, load(made / "mine"), count=12)


def test_what_is_mended_may_be_interrupted_too(made, finished):
    flip(finished / "metrics/part-00001.parquet", None)
    with computed_steps() as first, pytest.warns(StudyWarning, match=r"part-00001\.parquet"):
        interrupted(PLAN, finished, 2, kit.resume)
    # The damaged file still is there, and its record with it.
    study, steps, texts = resume(finished)
    assert len(texts) == 1 and "part-00001.parquet" in texts[0]
    assert 0 < sum(first) < BATCH and sum(first) + steps == BATCH
    assert_same_runs(study, load(made / "mine"), count=12)


@pytest.mark.parametrize(
    "name",
    [
        "chunks/00001 (1).json",
        "chunks/notes.json",
        "metrics/part-00009.parquet",
    ],
)
def test_a_file_of_no_chunk_is_named_and_left_alone(made, finished, name):
    original = made / "other" / KINDS["record" if "chunks" in name else "metrics"]
    shutil.copyfile(original, finished / name)
    assert_same_runs(load(finished), load(made / "mine"), count=12)
    study, steps, texts = resume(finished)
    assert steps == 0
    assert texts == [f"{finished / name}: no file of this study; it is left alone and not read"]
    assert (finished / name).read_bytes() == original.read_bytes()
    assert_same_runs(study, load(made / "mine"), count=12)


def test_no_bit_of_a_record_can_change_unseen(finished, tmp_path):
    path = finished / "chunks" / "00001.json"
    content, record = path.read_bytes(), read_sealed(path)
    unseen = 0
    for bit in random.Random(1).sample(range(8 * len(content)), 1500):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert read_sealed(path) == record
            unseen += 1  # 1e5 written as 1E5
        except StudyError as error:
            assert str(path) in str(error)
    assert unseen < 5


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 5000, "[" * 100_000])
def test_a_record_with_odd_numbers_is_damaged(tmp_path, number):
    path = tmp_path / "r.json"
    path.write_text(f'{{"a": {number}, "sha256": "{"0" * 64}"}}')
    with pytest.raises(StudyError, match=r"r\.json"):
        read_sealed(path)


def test_no_bit_of_a_file_can_change_unseen(stopped):
    found = checkpoint.find(Folder(stopped), load(stopped).plan["sha256"], 1)
    path, mark = checkpoint.path_of(Folder(stopped), 1, found.step), found.mark
    content = path.read_bytes()
    assert read_checked(path, mark) == content and mark == Mark(len(content), mark.sha256)
    for bit in random.Random(2).sample(range(8 * len(content)), 64):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(StudyError, match="checksum"):
            read_checked(path, mark)


# --- A damaged plan.


@pytest.mark.parametrize("damage", [truncate, empty, flip, remove], ids=lambda f: f.__name__)
@pytest.mark.parametrize("rest", ["plan-copy.json", "manifest.json"])
def test_a_damaged_plan_is_restored_from_what_is_whole(made, finished, damage, rest):
    path, whole = finished / "plan.json", (finished / "plan.json").read_bytes()
    assert (finished / "plan-copy.json").read_bytes() == whole
    for other in {"plan-copy.json", "manifest.json"} - {rest}:
        (finished / other).unlink()
    damage(path, None)
    assert_same_runs(load(finished), load(made / "mine"), count=12)
    with pytest.raises(StudyError, match="already holds this study"):
        run(PLAN, finished)
    study, steps, texts = resume(finished)
    assert steps == 0 and len(texts) == 1
    assert texts[0].startswith(f"{path}: ") and "restored from the plan's other copy" in texts[0]
    assert path.read_bytes() == (finished / "plan-copy.json").read_bytes() == whole
    assert_same_runs(study, load(made / "mine"), count=12)
    assert resume(finished)[1:] == (0, [])


@pytest.mark.parametrize("damage", [truncate, empty, flip], ids=lambda f: f.__name__)
def test_a_plan_of_which_nothing_is_whole_is_refused(finished, damage):
    for name in ("plan.json", "plan-copy.json", "manifest.json"):
        damage(finished / name, None)
    before = contents(finished)
    calls = [
        lambda: kit.resume(finished),
        lambda: run(PLAN, finished, go_on=True),
        lambda: load(finished),
    ]
    for call in calls:
        with pytest.raises(StudyError, match=r"plan\.json: (it is no JSON|its content)"):
            call()
    if damage is not flip:  # which leaves it a study, if a damaged one, that may be replaced
        with pytest.raises(StudyError, match="is not replaced: choose another folder"):
            run(PLAN, finished, overwrite=True)
    assert contents(finished) == before


# --- Damaged checkpoints.

CHECKPOINT = {
    "arrays": "checkpoints/00001-352.npz",
    "record": "checkpoints/00001.json",
    "snapshot": "snapshots/part-00001-352.npz",
}


@pytest.mark.parametrize("damage", DAMAGES[:-1], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", CHECKPOINT)
def test_a_damaged_checkpoint_starts_its_chunk_again(made, stopped, kind, damage):
    path = stopped / CHECKPOINT[kind]
    damage(path, made / "other-stopped" / CHECKPOINT[kind])
    if kind == "record" and damage is foreign:
        assert_refused(stopped, path)
        return
    study, steps, texts = resume(stopped)
    assert steps == 2 * BATCH
    if kind == "record" and damage is remove:
        assert texts == []  # as after a kill before the first record was written
    else:
        assert len(texts) == 1 and "hunk 1 starts again from its beginning" in texts[0]
        assert texts[0].startswith(f"{path}: ")
    assert_same_runs(study, load(made / "mine"), count=12)
    assert not list((stopped / "checkpoints").iterdir())
    for step in (176, 352, 528):
        study.params(None, 5, step)  # read and checked


def test_a_whole_foreign_checkpoint_is_not_taken(made, stopped):
    for kind in CHECKPOINT.values():
        shutil.copyfile(made / "other-stopped" / kind, stopped / kind)
    assert_refused(stopped, stopped / CHECKPOINT["record"])


def test_the_checkpoint_of_another_chunk_is_not_taken(made, stopped):
    for name in ("00001.json", "00001-352.npz"):
        other = stopped / "checkpoints" / name.replace("00001", "00002")
        shutil.copyfile(stopped / "checkpoints" / name, other)
    study, steps, texts = resume(stopped)
    assert steps == BATCH - 352 + BATCH
    assert len(texts) == 1 and "00002.json: it belongs to another study" in texts[0]
    assert_same_runs(study, load(made / "mine"), count=12)
