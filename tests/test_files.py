"""Files and folders are whole or absent, whatever fails; nothing of another's is replaced."""

import errno
import json
import math
import os
import shutil
from pathlib import Path, PurePath
from types import SimpleNamespace

import pytest

import dqx.files
from dqx.files import OutputError, Staging, check_file, check_folder, whole_file, write_json


def contents(folder):
    """Every name below a folder, with the bytes of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def replaces(overwrite):
    """A check that takes folders with a file ``mark`` for old ones of ours."""

    def check(target):
        if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
            return False
        if not (target / "mark").exists():
            raise OutputError(f"{target} is another's")
        if not overwrite:
            raise OutputError(f"{target} exists: --overwrite")
        return True

    return check


def stage(target, overwrite=False, number=1):
    """Writes a folder of three files in two folders, whole or not at all."""
    with Staging(target, replaces(overwrite)) as staging:
        (staging.folder / "part").mkdir()
        for name in ("mark", "part/a", "part/b"):
            (staging.folder / name).write_text(f"{name} {number}")
        staging.commit()
    return staging


def mark(folder):
    return (folder / "mark").read_text()


def test_a_whole_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    for text in (b"first", b"second"):
        with whole_file(tmp_path / "a") as file:
            file.write(text)
            assert contents(tmp_path).get("a") != text
        assert contents(tmp_path) == {"a": text}


@pytest.mark.parametrize("where", ["content", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failed_file_leaves_the_old_one(tmp_path, monkeypatch, where, error):
    (tmp_path / "a").write_text("old")

    def fail(*_):
        raise error

    if where != "content":
        monkeypatch.setattr(os, where, fail)
    with pytest.raises(type(error)), whole_file(tmp_path / "a") as file:
        file.write(b"new")
        if where == "content":
            fail()
    assert contents(tmp_path) == {"a": b"old"}


def test_no_file_takes_the_place_of_a_device_or_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    for name, words in (("pipe", "a device or a pipe"), ("link", "a device or a pipe")):
        with pytest.raises(OutputError, match=words), whole_file(tmp_path / name):
            pass
        with pytest.raises(OutputError, match=words):
            check_file(tmp_path / name)
    with pytest.raises(OutputError, match="folder is a folder, and no file to replace"):
        check_file(tmp_path / "folder")
    with pytest.raises(OutputError, match=f"there is no folder {tmp_path / 'none'} for film"):
        check_file(tmp_path / "none" / "film")
    check_file(tmp_path / "new")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]


def test_a_folder_is_tried_without_being_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    check_folder(tmp_path / "new" / "below", "choose another")
    for name in ("file", "file/below"):
        with pytest.raises(OutputError, match="file is a file: choose another"):
            check_folder(tmp_path / name, "choose another")

    def refuse(dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(dqx.files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match="cannot write in .*new: Read-only.*; choose another"):
        check_folder(tmp_path / "new", "choose another")
    assert os.listdir(tmp_path) == ["file"]


def test_json_is_strict_and_readable(tmp_path):
    content = {"name": "Rubik’s", "none": None, "numbers": [1, 2.5, "inf"]}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content and "Rubik’s" in text and text.endswith("}\n")
    for number in (math.nan, math.inf):
        with pytest.raises(ValueError):
            write_json(tmp_path / "a.json", {"number": number})
    assert contents(tmp_path) == {"a.json": text.encode()}


def test_a_folder_has_the_rights_of_the_users_mask(tmp_path):
    assert stage(tmp_path / "a").in_place
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o777 & ~umask
    assert os.listdir(tmp_path) == ["a"]


def test_an_empty_folder_is_used_and_missing_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in ("empty", "some/where/new"):
        stage(tmp_path / out)
        assert mark(tmp_path / out) == "mark 1"
    assert sorted(os.listdir(tmp_path)) == ["empty", "some"]


def test_a_link_is_followed_not_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/run")
    assert stage(tmp_path / "link").target == tmp_path / "disk" / "run"
    assert (tmp_path / "link").is_symlink() and mark(tmp_path / "disk" / "run") == "mark 1"


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file", "another's"),
        ("file/below", "Not a directory"),
        ("file/far/below", "Not a directory"),
        ("other", "another's"),
        (".", "current folder"),
        ("..", "current folder"),
        ("", "current folder"),
        ("x" * 300, "too long"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_in_the_way_is_named_and_left_alone(tmp_path, monkeypatch, out, words, overwrite):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=words) as caught:
        Staging(Path(out), replaces(overwrite))
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_parent_that_cannot_be_written_is_found_early(tmp_path, monkeypatch, number):
    def mkdir(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OutputError, match=f"{tmp_path}.*{os.strerror(number)}"):
        Staging(tmp_path / "a", replaces(False))
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_nearly_full_is_found_early(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=dqx.files.MIN_FREE_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="nearly full: 100 MiB"):
        Staging(tmp_path / "new" / "a", replaces(False))
    assert os.listdir(tmp_path) == []
    usage.free += 1
    with Staging(tmp_path / "a", replaces(False)):
        pass
    assert os.listdir(tmp_path) == []


def test_a_mount_point_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "disk")
    with pytest.raises(OutputError, match="mount point"):
        Staging(tmp_path / "disk", replaces(False))


def test_overwriting_replaces_the_whole_old_folder(tmp_path):
    stage(tmp_path / "a")
    (tmp_path / "a" / "part" / "c").write_text("of an older run")
    stage(tmp_path / "a", overwrite=True, number=2)
    assert contents(tmp_path) == {
        "a": None, "a/mark": b"mark 2", "a/part": None, "a/part/a": b"part/a 2",
        "a/part/b": b"part/b 2",
    }  # fmt: skip


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 2])
def test_a_failed_sync_leaves_the_old_folder(tmp_path, monkeypatch, call, error, overwrite):
    """Calls 1 and 2 sync the two folders, before anything is renamed."""
    if overwrite:
        stage(tmp_path / "a")
    before, calls, sync = contents(tmp_path), [], os.fsync

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == call:
            raise error
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(type(error)):
        stage(tmp_path / "a", overwrite, number=2)
    assert len(calls) == call
    assert contents(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_are_synced_before_they_are_renamed_and_the_parent_after(
    tmp_path, monkeypatch, overwrite
):
    if overwrite:
        stage(tmp_path / "a")
    events, sync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.fstat(fd).st_ino), sync(fd)))
    monkeypatch.setattr(os, "rename", lambda *paths: (events.append("rename"), rename(*paths)))
    stage(tmp_path / "a", overwrite, number=2)
    folders = [tmp_path / "a", tmp_path / "a" / "part"]
    assert set(events[:2]) == {path.stat().st_ino for path in folders}
    assert events[2:] == ["rename"] * (1 + overwrite) + [tmp_path.stat().st_ino]


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_failed_rename_restores_the_old_folder(tmp_path, monkeypatch, call, error):
    stage(tmp_path / "a")
    before, calls, rename = contents(tmp_path), [], os.rename

    def failing(source, target):
        calls.append(source)
        if len(calls) == call:
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(type(error)):
        stage(tmp_path / "a", overwrite=True, number=2)
    assert contents(tmp_path) == before


def test_an_interrupt_after_the_rename_keeps_the_new_folder(tmp_path, monkeypatch):
    stage(tmp_path / "a")
    rename = os.rename

    def interrupted(source, target):
        rename(source, target)
        if target == tmp_path / "a":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "a", overwrite=True, number=2)
    assert mark(tmp_path / "a") == "mark 2"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_in_between_is_not_replaced(tmp_path, overwrite):
    staging = Staging(tmp_path / "a", replaces(overwrite))
    with pytest.raises(OutputError, match="another's"), staging:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "notes").write_text("another's")
        staging.commit()
    assert contents(tmp_path) == {"a": None, "a/notes": b"another's"}


def test_what_fails_leaves_no_folder_and_no_parent(tmp_path):
    staging = Staging(tmp_path / "b" / "c" / "a", replaces(False))
    with pytest.raises(ZeroDivisionError), staging:
        assert staging.folder.parent == tmp_path / "b" / "c"
        assert staging.folder.name.startswith(".")
        (staging.folder / "half").write_text("written")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_an_old_folder_that_cannot_be_deleted_is_named(tmp_path, monkeypatch):
    stage(tmp_path / "a")
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    with pytest.warns(UserWarning, match=r"could not be deleted: .*\.a\.\w{8}\.old"):
        stage(tmp_path / "a", overwrite=True, number=2)
    assert mark(tmp_path / "a") == "mark 2"


def test_two_folders_with_one_parent_do_not_disturb_each_other(tmp_path):
    with Staging(tmp_path / "p" / "a", replaces(False)) as first:
        with Staging(tmp_path / "p" / "b", replaces(False)):
            pass
        (first.folder / "mark").write_text("1")
        first.commit()
    assert os.listdir(tmp_path / "p") == ["a"]


def test_only_what_is_ours_goes_and_what_was_kept_is_told(tmp_path):
    """Notes keep their names; a link is moved as a link, and what it points to stays."""
    target, outside = tmp_path / "a", tmp_path / "outside"
    outside.mkdir()
    (outside / "far").write_text("far")
    stage(target)
    (target / "part" / "notes").write_text("near")
    (target / "mine" / "deep").mkdir(parents=True)
    (target / "mine" / "part").write_text("whole")
    (target / "link").symlink_to(outside)
    (target / "part" / "b").unlink()
    (target / "part" / "b").symlink_to(outside / "far")  # by name it is ours, and only it goes
    ours = {PurePath(name) for name in ("mark", "part", "part/a", "part/b")}
    with Staging(target, replaces(True), ours.__contains__) as staging:
        (staging.folder / "mark").write_text("mark 2")
        with pytest.warns(UserWarning, match=r"was kept: link, mine, part/notes$"):
            staging.commit()
    assert contents(tmp_path) == {
        "outside": None, "outside/far": b"far", "a": None, "a/mark": b"mark 2", "a/part": None,
        "a/part/notes": b"near", "a/mine": None, "a/mine/deep": None, "a/mine/part": b"whole",
        "a/link": None,
    }  # fmt: skip
    assert (target / "link").is_symlink()


def test_what_has_no_place_in_the_new_folder_stays_where_it_is_named(tmp_path):
    stage(tmp_path / "a")
    (tmp_path / "a" / "notes").write_text("mine")
    ours = {PurePath(name) for name in ("mark", "part", "part/a", "part/b")}
    with Staging(tmp_path / "a", replaces(True), ours.__contains__) as staging:
        (staging.folder / "notes").write_text("of the new folder")
        with pytest.warns(UserWarning, match=r"could not be deleted: .*\.a\.\w{8}\.old"):
            staging.commit()
    (aside,) = (p for p in tmp_path.iterdir() if p.name != "a")
    assert contents(aside) == {"notes": b"mine"}
    assert contents(tmp_path / "a") == {"notes": b"of the new folder"}


def test_json_holds_the_names_of_files_that_are_no_utf_8(tmp_path):
    content = {os.fsdecode(b"part-\xff.npz"): "\u00e9"}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content and "\u00e9" in text
