"""Other plans, other software, second processes and full disks: refused, and nothing is lost."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import dqx.files
from dqx.files import OutputError
from dqx.report.picture import Picture
from dqx.study import StudyError, StudyWarning, engine, load
from dqx.study.lock import Lock, holder
from tests.study.kit import (
    KINDS,
    OTHER,
    PLAN,
    assert_same_runs,
    call,
    computed_steps,
    contents,
    plan,
    resume,
    run,
)

# --- Other plans.


def test_a_folder_without_a_plan_is_refused(finished, tmp_path):
    for name in ("plan.json", "plan-copy.json", "manifest.json"):
        (finished / name).unlink()
    before = contents(finished)
    for folder in (finished, tmp_path / "none"):
        with pytest.raises(StudyError, match=r"holds no study: there is no plan\.json"):
            resume(folder)
    with pytest.raises(StudyError, match="exists and holds no study of dqx, so it is not repl"):
        run(PLAN, finished, overwrite=True)
    assert contents(finished) == before and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (OTHER, ["learning_rate of default was 0.01 and is 0.003 now"]),
        (plan(12, {"batch_size": 8}, snapshot_every=176), ["batch_size of default was 16", "8"]),
        (plan("0:4,9"), ["seeds was 0, 1, 2, 3, ... (12 in all)", "0, 1, 2, 3, ... (5 in all)"]),
        (plan(12, root_seed=7, snapshot_every=176), ["root_seed was 0 and is 7 now"]),
        (plan(12, snapshot_every=88), ["snapshot_every was 176 and is 88 now"]),
        (plan(12, grid={"gamma": [0.9, 0.8]}), ["were default and are gamma=0.9, gamma=0.8"]),
        ({**PLAN, "name": "else"}, ["name was 'tiny' and is 'else' now"]),
    ],
    ids=lambda value: value[0][:20] if isinstance(value, list) else "",
)
def test_another_plan_is_refused_with_both_sides(finished, given, words):
    before = contents(finished)
    with pytest.raises(StudyError, match="holds another plan: .*--overwrite") as caught:
        run(given, finished)
    for word in words:
        assert word in str(caught.value)
    assert contents(finished) == before


def test_the_same_plan_is_not_trained_twice(finished):
    before = contents(finished)
    with pytest.raises(StudyError, match="already holds this study: `dqx study resume "):
        run(PLAN, finished)
    assert contents(finished) == before


def test_overwrite_replaces_a_study(made, finished):
    study = run(OTHER, finished, overwrite=True)
    assert_same_runs(study, load(made / "other"), count=12)
    assert [p.name for p in finished.parent.iterdir()] == ["s"]


# --- Two processes.

HOLD = """
import sys, time
from pathlib import Path
from dqx.study.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_process(stopped):
    """A process that works on the stopped study."""
    environment = {**os.environ, "PYTHONPATH": str(Path(dqx.__file__).parents[1])}
    command = [sys.executable, "-c", HOLD, str(stopped)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused(made, stopped, other_process):
    before = contents(stopped)
    words = f"is being worked on by process {other_process.pid} on "
    assert holder(stopped).startswith(f"process {other_process.pid} on ")
    attempts = [
        lambda: resume(stopped),
        lambda: run(PLAN, stopped),
        lambda: run(PLAN, stopped, overwrite=True),
    ]
    for attempt in attempts:
        with computed_steps() as steps, pytest.raises(StudyError, match=words):
            attempt()
        assert steps == []
    assert contents(stopped) == before and len(load(stopped).runs) == 4
    done = command("study", "resume", stopped, "--quiet")
    assert done[0] == 2 and len(done[1]) == 1 and words in done[1][0]
    other_process.kill()
    other_process.wait()
    assert (stopped / "lock").read_text() == words.partition("by ")[2] + os.uname().nodename
    assert holder(stopped) is None
    assert_same_runs(resume(stopped), load(made / "mine"), count=12)


def test_the_lock_goes_with_the_study(finished):
    with Lock(finished):
        assert holder(finished) is not None
        with pytest.raises(StudyError, match=f"process {os.getpid()} on "):
            resume(finished)
    assert holder(finished) is None
    held = []
    (finished / "chunks/00002.json").unlink()
    with pytest.warns(StudyWarning):
        resume(finished, progress=lambda event: held.append(holder(finished)))
    assert len(held) > 3 and all(f"process {os.getpid()} " in text for text in held)
    assert holder(finished) is None


# --- Disks that are full or cannot be written.


def command(*arguments):
    """Status and lines of standard error of `dqx` with these arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        status, _, said = call(*arguments, "--devices", "cpu:1")
    return status, said


class FullFile(io.FileIO):
    """Takes half of what is written, then the disk is full."""

    def write(self, data):
        view = memoryview(data).cast("B")
        super().write(view[: len(view) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def full_disk(monkeypatch):
    """Lets the writing of files with a part of a name fail; the names of those that did."""
    met = []

    def fail(part, how="write"):
        replace, fsync = os.replace, os.fsync

        def hit(path):
            if part in str(path):
                met.append(Path(path).name)
                return True
            return False

        def opened(path, mode):
            if how == "write" and hit(path):
                return FullFile(path, "x")
            if how == "open" and hit(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return open(path, mode)

        def synced(number):
            name = os.readlink(f"/proc/self/fd/{number}")
            if how == "sync" and hit(name):
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            fsync(number)

        def replaced(source, target):
            if how == "replace" and hit(target):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(source))
            replace(source, target)

        monkeypatch.setattr(dqx.files, "open", opened, raising=False)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", replaced)
        return met

    return fail


REASON = {
    "write": errno.ENOSPC, "open": errno.EACCES, "sync": errno.EDQUOT, "replace": errno.EROFS
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "how"),
    [
        *((name, "write") for name in KINDS.values()),
        ("checkpoints/.00001-", "write"),
        ("checkpoints/.00001.json", "write"),
        ("progress.json", "write"),
        ("manifest.json", "write"),
        ("learning_curves.png", "write"),
        *(("params/part-00001", how) for how in ("open", "sync", "replace")),
        *(("checkpoints/.00001", how) for how in ("open", "sync")),
        ("checkpoints/00001-", "replace"),
    ],
)
def test_a_full_disk_loses_nothing(made, tmp_path, full_disk, monkeypatch, part, how):
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", float("inf"))
    folder, name = tmp_path / "s", Path(part)
    if how != "replace" and not name.name.startswith("."):
        part = str(name.with_name(f".{name.name}"))  # its temporary name
    with monkeypatch.context() as patch:
        met = full_disk(part if "/" in part else f"s/{part}", how)
        with pytest.raises(StudyError) as caught:
            run(PLAN, folder, checkpoint_seconds=0, sinks=[Picture()])
        del patch
    text = str(caught.value)
    assert met and os.strerror(REASON[how]) in text and "\n" not in text
    assert text.startswith(f"cannot write {folder}") and f"dqx study resume {folder}" in text
    assert [p for p in folder.rglob(".*")] == []  # nothing half-written is left
    before = contents(folder)
    done = command("study", "resume", folder, "--quiet", "--checkpoint-seconds", "0")
    (last,) = done[1]
    assert done[0] == 2 and last.startswith(f"dqx: error: cannot write {folder}")
    after = contents(folder)
    kept = {n for n in before if n.startswith("chunks")}
    for record in kept:  # what was finished is as it was
        for n in (n for n in before if n.rpartition("/")[2].find(record[7:12]) >= 0):
            assert after[n] == before[n]
    monkeypatch.undo()
    assert_same_runs(resume(folder), load(made / "mine"), count=12)


def test_no_room_for_the_plan_leaves_nothing(tmp_path, full_disk):
    full_disk(".plan.json")
    with pytest.raises(StudyError, match=r"cannot write .*No space left.*choose another folder"):
        run(PLAN, tmp_path / "a" / "s")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(stopped, tmp_path, monkeypatch):
    def refuse(*args, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    before = contents(stopped)
    with monkeypatch.context() as patch:
        patch.setattr("dqx.study.lock.open_plain", refuse)
        with pytest.raises(StudyError, match=f"cannot write in {stopped}: Read-only file system"):
            resume(stopped)
        done = command("study", "resume", stopped, "--quiet")
        assert done[0] == 2 and "Read-only file system" in done[1][0]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(OutputError, match="Read-only file system; choose another folder"):
            run(PLAN, tmp_path / "new")
    assert contents(stopped) == before and not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(stopped):
    os.chmod(stopped, 0o500)
    try:
        with pytest.raises(StudyError, match="Permission denied"):
            resume(stopped)
    finally:
        os.chmod(stopped, 0o700)
    assert json.loads((stopped / "plan.json").read_text())["name"] == "tiny"


def test_a_study_that_was_replaced_meanwhile_is_refused(finished, made, monkeypatch):
    """Another process has put its study here between reading the plan and taking the lock."""
    enter = Lock.__enter__

    def late(lock):
        shutil.copy(made / "other" / "plan.json", finished / "plan.json")
        return enter(lock)

    monkeypatch.setattr(Lock, "__enter__", late)
    with pytest.raises(StudyError, match="was replaced by another process: start again"):
        resume(finished)
