"""Links, pipes, devices and folders under a study's names: refused by name, nothing is followed."""

import os
import shutil
import threading
from pathlib import Path, PurePosixPath

import pytest

from dqx import run as runs
from dqx.report import cases, figures, findings
from dqx.study import StudyError, entries, finish, load
from dqx.study.folder import Folder, read_plan_record
from dqx.study.lock import Lock, holder
from dqx.study.tuning.folder import TuneFolder, check_entries
from dqx.study.tuning.folder import is_ours as is_ours_of_a_search
from tests.study.kit import call, make_study, resume

RECORDS = ["plan.json", "plan-copy.json", "manifest.json", "certificate.json", "progress.json",
           "lock", "learning_curves.png"]  # fmt: skip
PARTS = ["chunks/00001.json", "metrics/part-00001.parquet", "episodes/part-00001.parquet",
         "params/part-00001.npz", "snapshots/part-00001-200.npz", "checkpoints/00001.json",
         "checkpoints/00001-200.npz", "report/index.html", "report/scores.svg"]  # fmt: skip
PLACES = ["chunks", "metrics", "episodes", "params", "snapshots", "checkpoints", "report",
          "tensorboard", "wandb"]  # fmt: skip
KINDS = {
    "symbolic link": lambda path, outside: path.symlink_to(outside / "precious"),
    "dangling link": lambda path, outside: path.symlink_to(outside / "nothing"),
    "named pipe": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
}


@pytest.fixture
def study(tmp_path):
    """A study of five seeds in two chunks, finished, and a folder outside of it."""
    (tmp_path / "outside").mkdir()
    for name in ("precious", "00001.json", "00001-200.npz", ".x.0a1b2c3d.tmp"):
        (tmp_path / "outside" / name).write_text("not the study's")
    make_study(tmp_path / "s", {"seeds": 5, "snapshot_every": 200})
    (tmp_path / "s" / "report").mkdir()
    return tmp_path / "s"


def put(kind, path):
    """An entry of this kind in the place of a path."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    KINDS[kind](path, next(p for p in path.parents if p.name == "s").parent / "outside")


def assert_nothing_outside_is_touched(study):
    outside = study.parent / "outside"
    assert len(list(outside.iterdir())) == 4
    assert {path.read_text() for path in outside.iterdir()} == {"not the study's"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*RECORDS, *PARTS])
def test_what_is_no_file_is_refused_by_name(study, name, kind):
    put(kind, study / name)
    word = kind.replace("dangling", "symbolic")
    for action in (load, resume):
        with pytest.raises(StudyError) as caught:
            within(5, action, study)
        assert str(caught.value).startswith(f"{study / name} is a {word}, where a study has a file")
    assert_nothing_outside_is_touched(study)


@pytest.mark.parametrize("name", PLACES)
def test_a_folder_that_is_a_link_is_refused_by_name(study, name):
    shutil.rmtree(study / name, ignore_errors=True)
    (study / name).symlink_to(study.parent / "outside")
    for action in (load, resume):
        with pytest.raises(StudyError) as caught:
            action(study)
        assert str(caught.value).startswith(f"{study / name} is a symbolic link, where a study has")
    assert_nothing_outside_is_touched(study)


@pytest.mark.parametrize(
    "name", ["tensorboard/a", "tensorboard/a/seed-0", "tensorboard/cartpole/per/seed-0"]
)
def test_a_run_of_a_tracker_that_is_a_link_is_refused_by_name(study, name):
    (study / name).parent.mkdir(parents=True)
    (study / name).symlink_to(study.parent / "outside")
    with pytest.raises(StudyError, match="is a symbolic link, where a study has a folder"):
        resume(study)
    assert_nothing_outside_is_touched(study)


def test_events_that_are_a_link_are_refused_by_name(study):
    run = study / "tensorboard" / "cartpole" / "per"
    run.mkdir(parents=True)
    (run / "events.out.tfevents.1").symlink_to(study.parent / "outside" / "precious")
    with pytest.raises(StudyError, match="tfevents.1 is a symbolic link, where a study has a file"):
        resume(study)
    assert_nothing_outside_is_touched(study)


@pytest.mark.parametrize("name", ["report", "report/index.html", "report/scores.svg"])
def test_a_page_of_a_search_that_is_a_link_is_refused_by_name(study, name):
    search = study.parent / "search"
    (search / name).parent.mkdir(parents=True, exist_ok=True)
    check_entries(TuneFolder(search))
    (search / name).symlink_to(study.parent / "outside" / "precious")
    with pytest.raises(StudyError) as caught:
        check_entries(TuneFolder(search))
    assert str(caught.value).startswith(f"{search / name} is a symbolic link, where a study has")
    assert_nothing_outside_is_touched(study)


def within(seconds, action, *arguments):
    """Calls an action that must answer in time; a reader that waits for a pipe would not."""
    found = []

    def act():
        try:
            found.append((action(*arguments), None))
        except Exception as error:
            found.append((None, error))

    # In the main thread where it answers, as signals are set there.
    timer = threading.Timer(seconds, lambda: os._exit(99))
    timer.start()
    try:
        act()
    finally:
        timer.cancel()
    ((value, error),) = found
    if error is not None:
        raise error
    return value


@pytest.mark.parametrize(
    "arguments", [("study", "status"), ("study", "resume"), ("verify",)], ids=" ".join
)
def test_no_command_waits_for_a_pipe_or_follows_a_lock(study, arguments):
    os.mkfifo(study / "report" / "index.html")
    shutil.move(study / "chunks" / "00000.json", study.parent / "record")
    os.mkfifo(study / "chunks" / "00000.json")
    status, out, lines = within(5, call, *arguments, study)
    assert status == 2 and out == []
    assert lines[-1].startswith(f"dqx: error: {study}/chunks/00000.json is a named pipe, where")
    (study / "chunks" / "00000.json").unlink()
    shutil.move(study.parent / "record", study / "chunks" / "00000.json")
    (study / "report" / "index.html").unlink()
    (study / "lock").symlink_to(study.parent / "outside" / "precious")
    status, _, lines = call(*arguments, study)
    assert status == 2 and lines[-1].startswith(f"dqx: error: {study}/lock is a symbolic link")
    assert_nothing_outside_is_touched(study)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_is_no_file_is_never_opened(study, kind):
    """By itself too: whoever puts it there may do so after the folder was looked at."""
    put(kind, study / "lock")
    with pytest.raises(StudyError, match="lock"):
        within(5, Lock(study).__enter__)
    if kind != "folder":
        with pytest.raises(StudyError, match="lock is a"):
            within(5, holder, study)
    assert_nothing_outside_is_touched(study)


def test_a_lock_that_is_a_hard_link_is_not_written(study):
    (study / "lock").unlink(missing_ok=True)
    os.link(study.parent / "outside" / "precious", study / "lock")
    with pytest.raises(StudyError, match="lock is a hard link, .*delete it"):
        Lock(study).__enter__()
    assert_nothing_outside_is_touched(study)


def test_the_manifest_of_another_study_is_not_taken(study, tmp_path):
    made = make_study(tmp_path / "other", {"seeds": 5, "base": {"gamma": 0.9}})
    for path in (study, made.folder.path):
        finish.write_manifest(Folder(path), {})
    assert load(study).manifest["runs"] == load(study).runs
    shutil.copyfile(tmp_path / "other" / "manifest.json", study / "manifest.json")
    with pytest.raises(StudyError, match=r"manifest\.json: it belongs to another study"):
        load(study).manifest  # noqa: B018


def test_only_plain_files_are_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert entries.read_plain(path) == b"abc"
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, words in (("link", "is a symbolic link"), ("pipe", "is a named pipe")):
        with pytest.raises(StudyError, match=f"{tmp_path / name} {words}, where a study has a fil"):
            within(5, entries.read_plain, tmp_path / name)
    with pytest.raises(IsADirectoryError):
        entries.read_plain(tmp_path / "folder")
    with pytest.raises(StudyError, match="/dev/zero is a device"):
        entries.read_plain(Path("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        entries.read_plain(tmp_path / "none")


def test_the_study_itself_may_lie_behind_a_link_and_hold_notes(study):
    (study.parent / "there").symlink_to(study)
    (study / "notes").symlink_to(study.parent / "outside")
    (study / "metrics" / "mine").symlink_to(study.parent / "outside" / "precious")
    os.mkfifo(study / "params" / "pipe")
    assert len(load(study.parent / "there").runs) == 5
    assert Folder(study).leftovers() == []
    assert_nothing_outside_is_touched(study)


def test_the_layout_names_all_that_a_study_is_made_of(study, tmp_path):
    made = [p.relative_to(study) for p in study.rglob("*")]
    assert len(made) == 8 + 1 + 2 * (4 + 2) - 1 and all(map(entries.is_ours, made))
    for name in [*RECORDS, *PARTS, *PLACES, "tensorboard/a/events.out", "wandb/run-1/x",
                 ".plan.json.ffffffff.tmp", "params/.part-00000.npz.0a1b2c3d.tmp"]:  # fmt: skip
        assert entries.is_ours(PurePosixPath(name)), name
    for name in ["notes.txt", "plan.json.bak", "metrics/mine.parquet", "report/paper.pdf", "a/b",
                 "chunks/00001 (1).json", "metrics/more/part-00001.parquet", ".git", ".mine.tmp",
                 "report/scores", "params/part-00001.npz~"]:  # fmt: skip
        assert not entries.is_ours(PurePosixPath(name)), name
    make_study(tmp_path / "g", {"seeds": 3, "grid": {"double": [False, True], "gamma": [0.9, 1]}})
    studies = [load(study), load(tmp_path / "g")]
    for some in (studies[1:], studies):
        drawn = figures.drawings(some, findings.groups(cases.read(some)))
        assert len(drawn) > 7
        for drawing in drawn:
            assert entries.is_ours(PurePosixPath(f"report/{drawing.name}.pdf")), drawing.name


def test_overwrite_removes_what_a_study_is_made_of_and_nothing_else(study):
    """Notes of a user beside the data and among it, a file in the report, a link to elsewhere."""
    notes = ["notes.txt", "metrics/notes.txt", "report/paper.pdf", "more/plan.json"]
    for name in notes:
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_text(f"mine: {name}")
    (study / "elsewhere").symlink_to(study.parent / "outside")
    for name in ("report/index.html", "progress.json", "lock", ".plan.json.ffffffff.tmp"):
        (study / name).write_text("dqx's")
    record = read_plan_record(Folder(study))
    with pytest.warns(UserWarning) as caught:
        runs._new_folder(study, lambda target: target.exists(), record)
    (text,) = (str(warning.message) for warning in caught)
    assert text == (
        f"{study} held what is not dqx's, which was kept: elsewhere, metrics/notes.txt, more, "
        "notes.txt, report/paper.pdf"
    )
    found = {str(p.relative_to(study)) for p in study.rglob("*") if p.is_file()}
    assert found == {*notes, "plan.json", "plan-copy.json"}
    assert all((study / name).read_text() == f"mine: {name}" for name in notes)
    assert [p.name for p in study.parent.iterdir() if p.name.startswith(".")] == []
    assert_nothing_outside_is_touched(study)


def test_the_layout_of_a_search_holds_its_studies_and_nothing_else():
    for name in ["search.json", "tune.json", "tune.png", "lock", "report", "report/index.html",
                 "fresh", "fresh/plan.json", "fresh/metrics/part-00000.parquet", "generation-00",
                 "generation-00/candidates.json", "generation-00/seeds-4",
                 "generation-00/seeds-4/chunks/00000.json", ".search.json.0a1b2c3d.tmp",
                 "generation-00/.seeds-2.0123abcd.tmp",
                 "generation-00/.seeds-2.0123abcd.tmp/plan.json"]:  # fmt: skip
        assert is_ours_of_a_search(PurePosixPath(name)), name
    for name in ["plan.json", "notes.txt", "fresh/notes.txt", "generation-00/notes",
                 "generation-00/seeds-4/notes", "report/paper.pdf", "generation-x"]:  # fmt: skip
        assert not is_ours_of_a_search(PurePosixPath(name)), name
